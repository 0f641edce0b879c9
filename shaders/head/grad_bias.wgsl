// grad_bias: dL/dbias of a chunk's classes: the sums of the gradient over all blocks of rows.
//
//   in      columns   [rows / 64, stride]  f32
//   inout   gradient  [classes]            f32
//
// A class per lane; blocks are added in order, 256 at a time.

@group(0) @binding(2) var<storage, read> columns: array<f32>;
@group(0) @binding(3) var<storage, read_write> gradient: array<f32>;

@compute @workgroup_size(64)
fn grad_bias(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
             @builtin(local_invocation_index) lane: u32) {
    let j = unfold(id, groups) * 64u + lane;
    if (j >= part.count) { return; }
    var sum = 0.0;
    let blocks = (settings.rows + 63u) / 64u;
    for (var first = 0u; first < blocks; first += 256u) {
        var some = 0.0;
        for (var block = first; block < min(first + 256u, blocks); block++) { some += columns[block * part.stride + j]; }
        sum += some;
    }
    if (has(ADD_PROTOTYPES)) { sum += gradient[part.first + j]; }
    gradient[part.first + j] = sum;
}
