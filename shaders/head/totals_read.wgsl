// The totals of all classes, where the first batch entry has them, for a kernel that reads no more of it.
@group(0) @binding(BINDING) var<storage, read> batch: array<Batch>;

fn class_totals_of(lane: u32) -> ClassTotals {
    return ClassTotals(batch[0].weights, batch[0].zero_prototypes, batch[0].non_finite_prototypes);
}
