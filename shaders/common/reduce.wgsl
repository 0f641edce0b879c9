// Combines a value of every lane of a workgroup, in a tree. The kernel declares `Reduced`, the type of a value,
// `combine(a, b)`, and LANES, a power of two.

var<workgroup> reduced: array<Reduced, LANES>;

// Every lane calls it, and gets the result. Before a second call comes a workgroupBarrier().
fn reduce(lane: u32, own: Reduced) -> Reduced {
    reduced[lane] = own;
    workgroupBarrier();
    for (var size = LANES / 2u; size > 0u; size >>= 1u) {
        if (lane < size) { reduced[lane] = combine(reduced[lane], reduced[lane + size]); }
        workgroupBarrier();
    }
    return reduced[0];
}
