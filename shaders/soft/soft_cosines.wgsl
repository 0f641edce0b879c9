// soft_cosines: the cosine of every target beside the label, by a dot product of its own.
//
//   in      embedding  [rows, dim]
//   in      prototype  [shard, dim]
//   in      inverses   [rows]               f32
//   in      classes    [vectors]            vec2 (inverse length, weight)
//   inout   soft       [rows, TARGETS + 1]  Row: writes the cosine where the class lies in this shard
//   in      bias       [classes]            f32; of a linear head alone
//
// Eight targets per workgroup, eight lanes per target. Twin: target_rows, which does the same for the label.

@group(0) @binding(4) var<storage, read> inverses: array<f32>;
@group(0) @binding(5) var<storage, read> classes: array<vec2<f32>>;
@group(0) @binding(6) var<storage, read_write> soft: array<Row>;

fn embedding_width() -> u32 { return settings.dim; }
fn prototype_width() -> u32 { return settings.dim; }

@compute @workgroup_size(64)
fn soft_cosines(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                @builtin(local_invocation_index) lane: u32) {
    let line = unfold(id, groups) * 8u + (lane >> 3u);
    let beyond = line >= settings.rows * TARGETS;
    let at = min(line, settings.rows * TARGETS - 1u);
    let row = at / TARGETS;
    let target_at = row * (TARGETS + 1u) + at % TARGETS + 1u;
    let local = soft[target_at].label - settings.offset;
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
        x = select(max(x, product), product, k == 0u);
    }
    if (beyond || !mine || (lane & 7u) != 0u) { return; }
    soft[target_at].cosine = x + product_bias(local);
}
