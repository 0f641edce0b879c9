// row_stats: the sums over the other classes, a span of a chunk per workgroup.
//
//   in      cosine   [rows, stride]  f32
//   in      rows     [rows]          Row
//   in      classes  [vectors]       vec2 (inverse length, weight)
//   inout   slots    [rows, slots]   RowStatistics
//   in      bias     [classes]       f32; of a linear head alone
//
// A slot goes on from chunk to chunk, in order. The labelled class stays out: it joins in row_loss.

@group(0) @binding(2) var<storage, read> cosine: array<f32>;
@group(0) @binding(3) var<storage, read> rows: array<Row>;
@group(0) @binding(4) var<storage, read> classes: array<vec2<f32>>;
@group(0) @binding(5) var<storage, read_write> slots: array<RowStatistics>;

alias Reduced = RowStatistics;
const SIDE = 8u;
fn combine(a: RowStatistics, b: RowStatistics) -> RowStatistics {
    let max_logit = max(a.max_logit, b.max_logit);
    let fa = exponential(a.max_logit - max_logit);
    let fb = exponential(b.max_logit - max_logit);
    return RowStatistics(max_logit, a.sum * fa + b.sum * fb, a.value_sum * fa + b.value_sum * fb, a.weighted + b.weighted,
                 max(a.nearest, b.nearest), a.overflowed | b.overflowed, 0u, 0u);
}

fn class_cosine(start: u32, j: u32) -> f32 {
    let place = start + j * centers();
    var c = cosine[place];
    for (var k = 1u; k < centers(); k++) { c = max(c, cosine[place + k]); }
    return c + product_bias(part.first / centers() + j);
}

@compute @workgroup_size(LANES)
fn row_stats(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
             @builtin(local_invocation_index) lane: u32) {
    let group = unfold(id, groups);
    let row = group / part.slots;
    if (row >= settings.rows) { return; }
    let slot = group % part.slots;
    // counted among the classes of this chunk
    let own = settings.offset + part.first / centers();
    let label = rows[row].label - own;
    let last = rows[row].last;
    let scale = rows[row].scale;
    let bound = rows[row].bound;
    let hardness = rows[row].hardness;
    let start = row * part.stride;
    let first = slot * part.slot_span;
    let end = min(first + part.slot_span, part.count / centers());

    // the weights are read for label smoothing alone
    let weighs = has(WEIGHS);
    let plain = has(DOT_PRODUCT);
    var stats = RowStatistics(link_start(), 0.0, 0.0, 0.0, LOWEST, 0u, 0u, 0u);
    for (var j = first + lane; j < end; j += LANES) {
        if (j != label) {
            let c = class_cosine(start, j);
            stats.nearest = max(stats.nearest, c);
            let z = scale * other(c, Place(bound, hardness, own + j > last)).value;
            // a plain product may overflow
            if (plain && !finite(vec4(z))) { stats.overflowed = 1u; }
            stats.max_logit = link_max_logit(stats.max_logit, z);
        }
    }
    for (var j = first + lane; j < end; j += LANES) {
        if (j != label) {
            let v = other(class_cosine(start, j), Place(bound, hardness, own + j > last)).value;
            var weight = 0.0;
            if (weighs) { weight = classes[part.first + j * centers()].y; }
            stats = link_add(stats, v, scale * v, weight);
        }
    }
    reduce_once(lane, stats);
    if (lane == 0u) {
        stats = reduce_twice();
        let place = row * part.slots + slot;
        if (part.begin == 0u) { stats = combine(slots[place], stats); }
        slots[place] = stats;
    }
}
