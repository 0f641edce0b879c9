// margin_logits: given cosines become logits.
//
//   in      cosine  [rows, classes]  f32
//   in      labels  [rows]           i32; a label that names no class leaves its row without a target
//   out     logits  [rows, classes]  f32
//
// 64 classes of a row per workgroup.

@group(0) @binding(4) var<storage, read_write> logits: array<f32>;

@compute @workgroup_size(64)
fn margin_logits(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                 @builtin(local_invocation_index) lane: u32) {
    let entry = margin_curve(unfold(id, groups), lane);
    if (entry.inside) { logits[entry.place] = fma(settings.scale, entry.curve.value, settings.bias); }
}
