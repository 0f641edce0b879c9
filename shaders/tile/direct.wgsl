// direct: 32x32 outputs of 64 invocations, 8 side by side; each holds 4x4 and reads its operands from the buffers.
// Compiles fast; the second witness of tile_64.

const TILE_M = 32u;
const TILE_N = 32u;
const TILE_LANES = 64u;

fn tile_run(m0: u32, n0: u32, k0: u32, k1: u32, lane: u32) {
    let m = m0 + (lane >> 3u) * 4u;
    let n = n0 + (lane & 7u) * 4u;
    let held_m = held_a(m);
    let held_n = held_b(n);
    var s = mat4x4<f32>();
    for (var k = k0; k < k1; k += 4u) {
        s = added(s, block_a(held_m, next_a(k), m, k), block_b(held_n, next_b(k), n, k));
    }
    store_block(m, n, s);
}
