// finish_embeddings: adds the slabs in order, takes out the radial part, divides by the length; adds what the length gets.
// Of very many classes some chunks at a time: where part.local is 1 the result is added to that of the ones before.
//
//   in      embedding       [rows, dim]
//   in      inverses        [rows]                  f32
//   in      rows            [rows]                  Row: its state and stretch
//   inout   slabs           [splits, rows, dim]     the sum is put into the first
//   inout   store_gradient  [rows, dim]
//
// One workgroup per row.

@group(0) @binding(3) var<storage, read> inverses: array<f32>;
@group(0) @binding(4) var<storage, read> rows: array<Row>;
@group(0) @binding(5) var<storage, read_write> slabs: array<vec4<f32>>;

var<workgroup> lanes: array<f32, 64>;

fn embedding_width() -> u32 { return settings.dim; }
fn store_gradient_width() -> u32 { return settings.dim; }

@compute @workgroup_size(64)
fn finish_embeddings(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                     @builtin(local_invocation_index) lane: u32) {
    let row = unfold(id, groups);
    if (row >= settings.rows) { return; }
    let quads = (settings.dim + 3u) / 4u;
    let inverse = inverses[row];
    let keep = rows[row].state == COUNTS && inverse > 0.0;
    var radial = 0.0;
    for (var q = lane; q < quads; q += 64u) {
        var sum = vec4(0.0);
        for (var split = 0u; split < part.splits; split++) {
            sum += slabs[(split * settings.rows + row) * quads + q];
        }
        slabs[row * quads + q] = sum;
        radial += dot(sum, select(vec4(0.0), embedding(row, q * 4u) * inverse, keep));
    }
    lanes[lane] = radial;
    workgroupBarrier();
    // eights, then the eight of them: two barriers, where a tree takes seven
    if (lane < 8u) {
        for (var i = lane + 8u; i < 64u; i += 8u) { radial += lanes[i]; }
        lanes[lane] = radial;
    }
    workgroupBarrier();
    radial = lanes[0];
    for (var i = 1u; i < 8u; i++) { radial += lanes[i]; }
    radial = select(radial, 0.0, has(PLAIN));
    let stretch = select(0.0, rows[row].stretch, settings.adaptive == MAGFACE && part.local == 0u);
    for (var q = lane; q < quads; q += 64u) {
        let unit = select(vec4(0.0), embedding(row, q * 4u) * inverse, keep);
        let v = (slabs[row * quads + q] - radial * unit) * inverse + stretch * unit;
        store_gradient(row, q * 4u, select(vec4(0.0), v, keep), has(ADD_EMBEDDINGS) || part.local == 1u);
    }
}
