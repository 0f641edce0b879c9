// direct_64: 64x64 outputs of 32 invocations, 8 side by side; each holds 16x8 and reads its operands from the buffers.
// For software drivers, which take about as long for one value loaded as for a hundred products, and for which a barrier
// is dear; far too many registers for a GPU.

const TILE_M = 64u;
const TILE_N = 64u;
const TILE_LANES = 32u;

fn tile_run(m0: u32, n0: u32, k0: u32, k1: u32, lane: u32) {
    let m = m0 + (lane >> 3u) * 16u;
    let n = n0 + (lane & 7u) * 8u;
    let m_0 = held_a(m); let m_1 = held_a(m + 4u); let m_2 = held_a(m + 8u); let m_3 = held_a(m + 12u);
    let n_0 = held_b(n); let n_1 = held_b(n + 4u);
    var s00 = mat4x4<f32>(); var s01 = mat4x4<f32>();
    var s10 = mat4x4<f32>(); var s11 = mat4x4<f32>();
    var s20 = mat4x4<f32>(); var s21 = mat4x4<f32>();
    var s30 = mat4x4<f32>(); var s31 = mat4x4<f32>();
    for (var k = k0; k < k1; k += 4u) {
        let k_a = next_a(k);
        let k_b = next_b(k);
        let b0 = block_b(n_0, k_b, n, k);
        let b1 = block_b(n_1, k_b, n + 4u, k);
        let a0 = block_a(m_0, k_a, m, k);
        s00 = added(s00, a0, b0); s01 = added(s01, a0, b1);
        let a1 = block_a(m_1, k_a, m + 4u, k);
        s10 = added(s10, a1, b0); s11 = added(s11, a1, b1);
        let a2 = block_a(m_2, k_a, m + 8u, k);
        s20 = added(s20, a2, b0); s21 = added(s21, a2, b1);
        let a3 = block_a(m_3, k_a, m + 12u, k);
        s30 = added(s30, a3, b0); s31 = added(s31, a3, b1);
    }
    store_block(m, n, s00); store_block(m, n + 4u, s01);
    store_block(m + 4u, n, s10); store_block(m + 4u, n + 4u, s11);
    store_block(m + 8u, n, s20); store_block(m + 8u, n + 4u, s21);
    store_block(m + 12u, n, s30); store_block(m + 12u, n + 4u, s31);
}
