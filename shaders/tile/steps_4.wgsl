// Four k written out.
fn steps_4(s: Sums, k: u32, x: u32, y: u32) -> Sums {
    return step(step(step(step(s, k, x, y), k + 1u, x, y), k + 2u, x, y), k + 3u, x, y);
}
