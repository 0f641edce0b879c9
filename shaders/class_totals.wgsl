// class_totals: the weights of all classes, and how many prototypes are zero or not finite.
//
//   in      totals  [groups]  vec4, from class_norms; part.count of them
//   inout   batch   [1]       Batch
//
// One workgroup; each lane adds its own in order, then the lanes are added in order.

@group(0) @binding(2) var<storage, read> totals: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> batch: array<Batch>;

var<workgroup> lanes: array<vec4<f32>, 256>;

@compute @workgroup_size(256)
fn class_totals(@builtin(local_invocation_index) lane: u32) {
    var total = vec4(0.0);
    for (var i = lane; i < part.count; i += 256u) { total += totals[i]; }
    lanes[lane] = total;
    workgroupBarrier();
    for (var step_size = 128u; step_size > 0u; step_size >>= 1u) {
        if (lane < step_size) { lanes[lane] += lanes[lane + step_size]; }
        workgroupBarrier();
    }
    if (lane == 0u) {
        batch[0].weights = lanes[0].x;
        // exact: counts below 2^24 per lane, and rounded above
        batch[0].zero_prototypes = u32(lanes[0].y);
        batch[0].non_finite_prototypes = u32(lanes[0].z);
    }
}
