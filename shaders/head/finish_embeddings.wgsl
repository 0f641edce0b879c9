// finish_embeddings: adds the slabs in order, takes out the radial part, divides by the length; adds what the length gets.
// Of very many classes some chunks at a time: where part.local is 1 the result is added to that of the ones before.
//
//   in      embedding       [rows, dim]
//   in      inverses        [rows]                  f32
//   in      rows            [rows]                  Row: its state and length_gradient
//   inout   slabs           [splits, rows, dim]     the sum is put into the first
//   inout   store_gradient  [rows, dim]
//   in      batch           [1]                     Batch; in a head alone
//
// One workgroup per row.

@group(0) @binding(3) var<storage, read> inverses: array<f32>;
@group(0) @binding(4) var<storage, read> rows: array<Row>;
@group(0) @binding(5) var<storage, read_write> slabs: array<vec4<f32>>;

alias Reduced = f32;
const SIDE = 8u;
fn combine(a: Reduced, b: Reduced) -> Reduced { return a + b; }

fn embedding_width() -> u32 { return settings.dim; }
fn store_gradient_width() -> u32 { return settings.dim; }

@compute @workgroup_size(LANES)
fn finish_embeddings(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                     @builtin(local_invocation_index) lane: u32) {
    let row = unfold(id, groups);
    if (row >= settings.rows) { return; }
    let quads = (settings.dim + 3u) / 4u;
    let inverse = inverses[row];
    let keep = rows[row].state == COUNTS && inverse > 0.0;
    // The radial part of very many classes is so much longer than the rest that the rounding of a unit vector would show: the
    // embedding times a power of two has the exact direction. Its length is at least 1/2 and at most 1.
    let power = select(1.0, bitcast<f32>(bitcast<u32>(inverse) & 0x7f800000u), keep);
    let factor = select(0.0, (inverse / power) * (inverse / power), keep && !has(DOT_PRODUCT));
    var radial = 0.0;
    for (var q = lane; q < quads; q += LANES) {
        var sum = vec4(0.0);
        for (var split = 0u; split < part.splits; split++) {
            sum += slabs[(split * settings.rows + row) * quads + q];
        }
        sum = summed(sum, row);
        slabs[row * quads + q] = sum;
        radial += dot(sum, select(vec4(0.0), embedding(row, q * 4u) * power, keep));
    }
    reduce_once(lane, radial);
    radial = reduce_twice() * factor;
    if (settings.classes > LONG && !has(DOT_PRODUCT)) {
        // what the rounding of the factor has left of it
        var rest = 0.0;
        for (var q = lane; q < quads; q += LANES) {
            let along = select(vec4(0.0), embedding(row, q * 4u) * power, keep);
            let sum = fma(vec4(-radial), along, slabs[row * quads + q]);
            slabs[row * quads + q] = sum;
            rest += dot(sum, along);
        }
        workgroupBarrier();
        reduce_once(lane, rest);
        radial = reduce_twice() * factor;
    }
    let pulled = settings.adaptive == MAGFACE || settings.adaptive == LENGTH_SCALE;
    let length_gradient = select(0.0, rows[row].length_gradient, pulled && part.local == 0u);
    for (var q = lane; q < quads; q += LANES) {
        let along = select(vec4(0.0), embedding(row, q * 4u), keep);
        let v = fma(vec4(-radial), along * power, slabs[row * quads + q]) * inverse + length_gradient * (along * inverse);
        store_gradient(row, q * 4u, select(vec4(0.0), v, keep), has(ADD_EMBEDDINGS) || part.local == 1u);
    }
}
