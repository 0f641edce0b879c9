// Eight k at a time, up to `end`, which no compiler can unroll: half the code of all sixteen written out.
fn steps(sums: Sums, end: u32, x: u32, y: u32) -> Sums {
    var s = sums;
    for (var k = 0u; k < end; k += 8u) { s = steps_4(steps_4(s, k, x, y), k + 4u, x, y); }
    return s;
}
