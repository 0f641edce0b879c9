// target_rows: the labelled class of every row: its cosine by a dot product of its own, margin value and slope.
//
//   in      embedding  [rows, dim]
//   in      prototype  [shard, dim]
//   in      inverses   [rows]      f32
//   in      classes    [classes]   vec2 (inverse length, weight)
//   inout   rows       [rows]      Row: writes cosine, logit, slope of the rows whose label lies in this shard
//
// Every margin formula of the forward and the backward pass is used here, N times.
// Eight rows per workgroup, eight lanes per row.

@group(0) @binding(4) var<storage, read> inverses: array<f32>;
@group(0) @binding(5) var<storage, read> classes: array<vec2<f32>>;
@group(0) @binding(6) var<storage, read_write> rows: array<Row>;

fn embedding_width() -> u32 { return settings.dim; }
fn prototype_width() -> u32 { return settings.dim; }

@compute @workgroup_size(64)
fn target_rows(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
               @builtin(local_invocation_index) lane: u32) {
    let row = min(unfold(id, groups) * 8u + (lane >> 3u), settings.rows - 1u);
    let label = rows[row].label;
    let mine = label >= part.first && label - part.first < part.count;
    let j = select(0u, label - part.first, mine);
    let rx = inverses[row];
    let rw = abs(classes[part.first + j].x);
    var sum = vec4(0.0);
    for (var d = (lane & 7u) * 4u; d < settings.dim; d += 32u) {
        sum = fma(embedding(row, d) * rx, prototype(j, d) * rw, sum);
    }
    let x = eight_sum(lane, (sum.x + sum.y) + (sum.z + sum.w));
    let last = unfold(id, groups) * 8u + (lane >> 3u) >= settings.rows;
    if (last || !mine || (lane & 7u) != 0u) { return; }
    let curve = margin_target(x);
    rows[row].cosine = x;
    rows[row].logit = settings.scale * curve.value;
    rows[row].slope = curve.slope;
}
