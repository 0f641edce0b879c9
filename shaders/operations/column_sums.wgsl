// column_sums: sums of gradient * cosine over blocks of rows, the radial part of dW, for given gradients.
//
//   in      cosine    [batch, rows, stride]        f32
//   in      gradient  [batch, rows, stride]        f32
//   out     columns   [batch, rows / 64, stride]   f32
//
// 64 classes by 64 rows per workgroup, a class per lane.

@group(0) @binding(2) var<storage, read> cosine: array<f32>;
@group(0) @binding(3) var<storage, read> gradient: array<f32>;
@group(0) @binding(4) var<storage, read_write> columns: array<f32>;

@compute @workgroup_size(64)
fn column_sums(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
               @builtin(local_invocation_index) lane: u32) {
    let group = unfold(id, groups);
    let wide = (part.stride + 63u) / 64u;
    let block = group / wide;
    let column = group % wide * 64u + lane;
    if (block * 64u >= settings.batch_rows || column >= part.stride) { return; }
    let start = id.z * settings.batch_rows;
    var sum = 0.0;
    for (var row = block * 64u; row < min(block * 64u + 64u, settings.batch_rows); row++) {
        let place = (start + row) * part.stride + column;
        sum = fma(gradient[place], cosine[place], sum);
    }
    columns[(id.z * ((settings.batch_rows + 63u) / 64u) + block) * part.stride + column] = sum;
}
