// 16x8 outputs of an invocation: four quads along m, LANES_M apart, and two along n.
struct Sums {
    s00: mat4x4<f32>, s01: mat4x4<f32>,
    s10: mat4x4<f32>, s11: mat4x4<f32>,
    s20: mat4x4<f32>, s21: mat4x4<f32>,
    s30: mat4x4<f32>, s31: mat4x4<f32>,
}

fn step(s: Sums, k: u32, x: u32, y: u32) -> Sums {
    let a0 = tile_a[k][y]; let a1 = tile_a[k][y + LANES_M];
    let a2 = tile_a[k][y + 2u * LANES_M]; let a3 = tile_a[k][y + 3u * LANES_M];
    let b0 = tile_b[k][x]; let b1 = tile_b[k][x + LANES_N];
    return Sums(outer(s.s00, a0, b0), outer(s.s01, a0, b1), outer(s.s10, a1, b0), outer(s.s11, a1, b1),
                outer(s.s20, a2, b0), outer(s.s21, a2, b1), outer(s.s30, a3, b0), outer(s.s31, a3, b1));
}

fn store(m: u32, n: u32, s: Sums) {
    store_rows(m, n, s.s00, s.s01);
    store_rows(m + 4u * LANES_M, n, s.s10, s.s11);
    store_rows(m + 8u * LANES_M, n, s.s20, s.s21);
    store_rows(m + 12u * LANES_M, n, s.s30, s.s31);
}
