// 4x8 outputs of an invocation: one quad along m, and two along n, LANES_N apart.
struct Sums { s00: mat4x4<f32>, s01: mat4x4<f32> }

fn step(s: Sums, k: u32, x: u32, y: u32) -> Sums {
    let a0 = tile_a[k][y];
    return Sums(outer(s.s00, a0, tile_b[k][x]), outer(s.s01, a0, tile_b[k][x + LANES_N]));
}

fn store(m: u32, n: u32, s: Sums) {
    store_rows(m, n, s.s00, s.s01);
}
