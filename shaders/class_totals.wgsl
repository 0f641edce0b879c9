// class_totals: the weights of all classes, and how many prototypes are zero or not finite.
//
//   in      totals  [groups]  vec4, from class_norms; part.count of them
//   inout   batch   [1]       Batch
//
// One workgroup; each lane adds its own in order, then the lanes are added in a fixed tree.

@group(0) @binding(2) var<storage, read> totals: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> batch: array<Batch>;

var<workgroup> lanes: array<vec4<f32>, 256>;

@compute @workgroup_size(256)
fn class_totals(@builtin(local_invocation_index) lane: u32) {
    var total = vec4(0.0);
    for (var i = lane; i < part.count; i += 256u) { total += totals[i]; }
    lanes[lane] = total;
    workgroupBarrier();
    for (var size = 128u; size > 0u; size >>= 1u) {
        if (lane < size) { lanes[lane] += lanes[lane + size]; }
        workgroupBarrier();
    }
    if (lane == 0u) {
        batch[0].weights = lanes[0].x;
        // counts are whole f32: exact up to 2^24, rounded above
        batch[0].zero_prototypes = u32(lanes[0].y);
        batch[0].non_finite_prototypes = u32(lanes[0].z);
    }
}
