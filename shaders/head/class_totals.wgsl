// class_totals: the weights of all classes, and how many prototypes are zero or not finite.
//
//   in      totals  [groups]  vec4, from class_norms; part.count of them
//   out     batch   [1]       Batch
//
// One workgroup; each lane adds its own in order, then the lanes are added in a fixed order.

@group(0) @binding(2) var<storage, read> totals: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> batch: array<Batch>;

alias Reduced = vec4<f32>;
const SIDE = 16u;
fn combine(a: Reduced, b: Reduced) -> Reduced { return a + b; }

@compute @workgroup_size(LANES)
fn class_totals(@builtin(local_invocation_index) lane: u32) {
    var total = vec4(0.0);
    for (var i = lane; i < part.count; i += LANES) { total += totals[i]; }
    reduce_once(lane, total);
    if (lane == 0u) {
        total = reduce_twice();
        // everything, so that nothing depends on what the workspace held; the rows' numbers come later, if there are rows.
        // Counts are whole f32: exact up to 2^24, rounded above.
        batch[0] = Batch(0u, 0.0, total.x, 0u, 0u, 0u, 0u, 0u, u32(total.y), u32(total.z), 0.0, 0u);
    }
}
