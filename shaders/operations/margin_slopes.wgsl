// margin_slopes: dL/dlogit becomes dL/dcosine.
//
//   in      cosine    [rows, classes]  f32
//   in      labels    [rows]           i32
//   in      upstream  [rows, classes]  f32, dL/dlogit
//   out     gradient  [rows, classes]  f32, dL/dcosine
//
// 64 classes of a row per workgroup.

@group(0) @binding(4) var<storage, read> upstream: array<f32>;
@group(0) @binding(5) var<storage, read_write> gradient: array<f32>;

@compute @workgroup_size(64)
fn margin_slopes(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                 @builtin(local_invocation_index) lane: u32) {
    let entry = margin_curve(unfold(id, groups), lane);
    if (entry.inside) { gradient[entry.place] = settings.scale * entry.curve.slope * upstream[entry.place]; }
}
