// row_stats: the sums over the other classes, a span of a chunk per workgroup.
//
//   in      cosine   [rows, stride]  f32
//   in      rows     [rows]          Row
//   in      classes  [vectors]       vec2 (inverse length, weight)
//   inout   slots    [rows, slots]   RowStatistics
//   in      bias     [classes]       f32; of a linear head alone
//
// A slot goes on from chunk to chunk, in order. The labelled class stays out: it joins in row_loss.

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

fn cosine_width() -> u32 { return part.stride; }

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
    let first = slot * part.slot_span;
    let end = min(first + part.slot_span, part.count / centers());

    seek_targets(row, own, first, lane);
    // the weights are read for label smoothing alone
    let weighs = link_weighs();
    let plain = has(DOT_PRODUCT);
    var stats = RowStatistics(link_start(), 0.0, 0.0, 0.0, LOWEST, 0u, 0u, 0u);
    // once through the classes, four at a time
    for (var j = first + 4u * lane; j < end; j += 4u * LANES) {
        let at = vec4(j, j + 1u, j + 2u, j + 3u);
        // targets count as beyond the end; numbers of classes take fewer registers here than flags do
        let here = beside_targets(select(at, vec4(0xffffffffu), at == vec4(label)), at, first) < vec4(end);
        let biases = part.first / centers() + at;
        let c = class_cosines(row, j)
            + vec4(product_bias(biases.x), product_bias(biases.y), product_bias(biases.z), product_bias(biases.w));
        let late = own + at > vec4(last);
        let v = vec4(other(c.x, Place(bound, hardness, late.x)).value, other(c.y, Place(bound, hardness, late.y)).value,
                     other(c.z, Place(bound, hardness, late.z)).value, other(c.w, Place(bound, hardness, late.w)).value);
        let z = scale * v;
        stats.nearest = max(stats.nearest, largest(select(vec4(LOWEST), c, here)));
        // a plain product may overflow
        if (plain && !finite(select(vec4(0.0), z, here))) { stats.overflowed = 1u; }
        if (weighs) {
            let place = part.first + min(at, vec4(end - 1u)) * centers();
            let weight = vec4(classes[place.x].y, classes[place.y].y, classes[place.z].y, classes[place.w].y);
            let terms = select(vec4(0.0), weight * v, here);
            stats.weighted += (terms.x + terms.y) + (terms.z + terms.w);
        }
        stats = link_add(stats, here, v, z);
    }
    reduce_once(lane, stats);
    if (lane == 0u) {
        stats = reduce_twice();
        let place = row * part.slots + slot;
        if (part.begin == 0u) { stats = combine(slots[place], stats); }
        slots[place] = stats;
    }
}
