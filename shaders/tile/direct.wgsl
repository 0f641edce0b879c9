// direct: 32x32 outputs of 64 invocations, 8 side by side; each holds 4x4 and reads its operands from the buffers.
// Compiles fast; the second witness of tile_64.

const TILE_M = 32u;
const TILE_N = 32u;
const TILE_LANES = 64u;

fn tile_run(m0: u32, n0: u32, k0: u32, k1: u32, lane: u32) {
    let m = m0 + (lane >> 3u) * 4u;
    let n = n0 + (lane & 7u) * 4u;
    var r0 = vec4(0.0); var r1 = vec4(0.0); var r2 = vec4(0.0); var r3 = vec4(0.0);
    for (var k = k0; k < k1; k += 4u) {
        let a = block_a(m, k);
        let b = block_b(n, k);
        r0 = fma(vec4(a[0].x), b[0], r0); r1 = fma(vec4(a[0].y), b[0], r1);
        r2 = fma(vec4(a[0].z), b[0], r2); r3 = fma(vec4(a[0].w), b[0], r3);
        r0 = fma(vec4(a[1].x), b[1], r0); r1 = fma(vec4(a[1].y), b[1], r1);
        r2 = fma(vec4(a[1].z), b[1], r2); r3 = fma(vec4(a[1].w), b[1], r3);
        r0 = fma(vec4(a[2].x), b[2], r0); r1 = fma(vec4(a[2].y), b[2], r1);
        r2 = fma(vec4(a[2].z), b[2], r2); r3 = fma(vec4(a[2].w), b[2], r3);
        r0 = fma(vec4(a[3].x), b[3], r0); r1 = fma(vec4(a[3].y), b[3], r1);
        r2 = fma(vec4(a[3].z), b[3], r2); r3 = fma(vec4(a[3].w), b[3], r3);
    }
    epilogue(m, n, r0);
    epilogue(m + 1u, n, r1);
    epilogue(m + 2u, n, r2);
    epilogue(m + 3u, n, r3);
}
