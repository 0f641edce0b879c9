// Two k at a time, up to `end`, which no compiler can unroll.
fn steps(sums: Sums, end: u32, x: u32, y: u32) -> Sums {
    var s = sums;
    for (var k = 0u; k < end; k += 2u) { s = step(step(s, k, x, y), k + 1u, x, y); }
    return s;
}
