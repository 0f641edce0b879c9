// All sixteen k written out.
fn steps(s: Sums, end: u32, x: u32, y: u32) -> Sums {
    return steps_4(steps_4(steps_4(steps_4(s, 0u, x, y), 4u, x, y), 8u, x, y), 12u, x, y);
}
