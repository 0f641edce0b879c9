// row_stats: log-sum-exp statistics of the other classes, a span of a chunk per workgroup.
//
//   in      cosine   [rows, stride]  f32
//   in      rows     [rows]          Row
//   in      classes  [classes]       vec2 (inverse length, weight)
//   inout   slots    [rows, slots]   vec4 (max logit, sum of exp, largest cosine, sum of weight * logit)
//
// A slot goes on from chunk to chunk, in order. The labelled class stays out: it joins in row_loss.

@group(0) @binding(2) var<storage, read> cosine: array<f32>;
@group(0) @binding(3) var<storage, read> rows: array<Row>;
@group(0) @binding(4) var<storage, read> classes: array<vec2<f32>>;
@group(0) @binding(5) var<storage, read_write> slots: array<vec4<f32>>;

var<workgroup> lanes: array<vec4<f32>, 64>;

fn merge(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    let most = max(a.x, b.x);
    let sum = a.y * exponential(a.x - most) + b.y * exponential(b.x - most);
    return vec4(most, sum, max(a.z, b.z), a.w + b.w);
}

@compute @workgroup_size(64)
fn row_stats(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
             @builtin(local_invocation_index) lane: u32) {
    let group = unfold(id, groups);
    let row = group / part.slots;
    if (row >= settings.rows) { return; }
    let slot = group % part.slots;
    let label = rows[row].label;
    let start = row * part.stride;
    let first = slot * part.slot_span;
    let end = min(first + part.slot_span, part.count);

    // smoothing only: the weights are read for nobody else
    let weighs = settings.smoothing > 0.0;
    var stats = vec4(LOWEST, 0.0, -1.0, 0.0);
    for (var j = first + lane; j < end; j += 64u) {
        let c = cosine[start + j];
        if (part.first + j != label) {
            let z = settings.scale * other(c).value;
            stats.x = max(stats.x, z);
            stats.z = max(stats.z, c);
            if (weighs) { stats.w += classes[part.first + j].y * z; }
        }
    }
    for (var j = first + lane; j < end; j += 64u) {
        if (part.first + j != label) {
            stats.y += exponential(settings.scale * other(cosine[start + j]).value - stats.x);
        }
    }
    lanes[lane] = stats;
    workgroupBarrier();
    for (var size = 32u; size > 0u; size >>= 1u) {
        if (lane < size) { lanes[lane] = merge(lanes[lane], lanes[lane + size]); }
        workgroupBarrier();
    }
    if (lane == 0u) {
        let place = row * part.slots + slot;
        if (part.begin == 1u) { slots[place] = lanes[0]; } else { slots[place] = merge(slots[place], lanes[0]); }
    }
}
