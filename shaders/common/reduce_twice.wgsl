// Combines a value of every lane of a workgroup with two barriers, where a tree takes one per level: SIDE lanes combine
// SIDE values each, then one lane combines their results. The kernel declares `Reduced`, the type of a value,
// `combine(a, b)`, and SIDE, the square root of the number of lanes.

const LANES = SIDE * SIDE;

var<workgroup> reduced: array<Reduced, LANES>;

// Every lane calls it. Before a second call comes a workgroupBarrier().
fn reduce_once(lane: u32, own: Reduced) {
    var some = own;
    reduced[lane] = own;
    workgroupBarrier();
    if (lane < SIDE) {
        for (var i = lane + SIDE; i < LANES; i += SIDE) { some = combine(some, reduced[i]); }
        reduced[lane] = some;
    }
    workgroupBarrier();
}

// The result, after reduce_once, for any lane that calls it.
fn reduce_twice() -> Reduced {
    var all = reduced[0];
    for (var i = 1u; i < SIDE; i++) { all = combine(all, reduced[i]); }
    return all;
}
