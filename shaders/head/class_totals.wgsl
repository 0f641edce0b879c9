// class_totals: the weights of all classes, and how many prototypes are zero or not finite.
//
//   out     batch   [1]       Batch
//   in      totals  [groups]  vec4 (sum of weights, short, not finite, -), from class_norms; part.count of them
//
// One workgroup.

@group(0) @binding(2) var<storage, read_write> batch: array<Batch>;

@compute @workgroup_size(64)
fn class_totals(@builtin(local_invocation_index) lane: u32) {
    let all = class_totals_of(lane);
    if (lane == 0u) {
        // everything, so that nothing depends on what the workspace held; the rows' numbers come later, if there are rows
        batch[0] = Batch(0u, 0.0, all.weights, 0u, 0u, 0u, 0u, 0u, all.zero, all.non_finite, 0.0, all.balance);
    }
}
