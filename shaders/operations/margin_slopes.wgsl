// margin_slopes: dL/dlogit becomes dL/dcosine.
//
//   in      cosine    [rows, classes]  f32
//   in      labels    [rows]           i32
//   in      upstream  [rows, classes]  f32, dL/dlogit
//   out     gradient  [rows, classes]  f32, dL/dcosine
//
// 64 classes of a row per workgroup.

@group(0) @binding(2) var<storage, read> cosine: array<f32>;
@group(0) @binding(3) var<storage, read> labels: array<i32>;
@group(0) @binding(4) var<storage, read> upstream: array<f32>;
@group(0) @binding(5) var<storage, read_write> gradient: array<f32>;

@compute @workgroup_size(64)
fn margin_slopes(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                 @builtin(local_invocation_index) lane: u32) {
    let group = unfold(id, groups);
    let wide = (settings.classes + 63u) / 64u;
    let row = group / wide;
    let j = group % wide * 64u + lane;
    if (row >= settings.rows || j >= settings.classes) { return; }
    let place = row * settings.classes + j;
    var curve = other(cosine[place], Place(-LOWEST, 0.0, true));
    margin_of_loss();
    if (labels[row] == i32(j)) { curve = margin_target(cosine[place]); }
    gradient[place] = settings.scale * curve.slope * upstream[place];
}
