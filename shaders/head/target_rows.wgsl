// target_rows: the cosine of the labelled class of every row, by a dot product of its own; with its margin, where nothing
// happens between the two.
//
//   in      embedding  [rows, dim]
//   in      prototype  [shard, dim]
//   in      inverses   [rows]      f32
//   in      classes    [vectors]   vec2 (inverse length, weight)
//   inout   rows       [rows]      Row: writes the cosine of the rows whose label lies in this shard
//   in      bias       [classes]   f32; of a linear head alone
//   in      class_margins [classes, 4], row_margins [rows, 4]   f32; with the margin alone
//
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
    // the label's place among the classes of this head, and then of this shard; wraps where it lies before them
    let local = rows[row].label - settings.offset;
    let place = local - part.first / centers();
    let mine = place < part.count / centers();
    let rx = inverses[row];
    var x = LOWEST;
    for (var k = 0u; k < centers(); k++) {
        let j = select(0u, place * centers(), mine) + k;
        let rw = abs(classes[part.first + j].x);
        var sum = vec4(0.0);
        for (var d = (lane & 7u) * 4u; d < settings.dim; d += 32u) {
            sum = fma(embedding(row, d) * rx, prototype(j, d) * rw, sum);
        }
        let all = eight_sum(lane, (sum.x + sum.y) + (sum.z + sum.w));
        // a prototype that is not finite is counted by itself, and not with the rows of its class
        let product = select(all, 0.0, rw == 0.0);
        // the first as it is: a plain product may be infinite or NaN, which max would hide
        x = select(max(x, product), product, k == 0u);
    }
    let beyond = unfold(id, groups) * 8u + (lane >> 3u) >= settings.rows;
    if (beyond || (lane & 7u) != 0u) { return; }
    close_row(row, mine, x + product_bias(local));
}
