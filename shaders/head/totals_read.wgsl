// The totals of all classes, where the first batch entry has them, for a kernel that reads no more of it.
@group(0) @binding(BINDING) var<storage, read> batch: array<Batch>;

fn class_totals_of(lane: u32) -> ClassTotals {
    let first = batch[0];
    return ClassTotals(first.weights, first.zero_prototypes, first.non_finite_prototypes, first.balance);
}
