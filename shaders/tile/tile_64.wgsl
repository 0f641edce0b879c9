// tile_64: 64x64 outputs of 64 invocations, 8 side by side; each holds 8x8 in sixteen named vectors (an array indexed by
// a loop variable would spill). Operands go through workgroup memory, 16 values of k at a time.

const TILE_M = 64u;
const TILE_N = 64u;

// [k][16 quads along m or n]
var<workgroup> tile_a: array<vec4<f32>, 256>;
var<workgroup> tile_b: array<vec4<f32>, 256>;

fn tile_run(m0: u32, n0: u32, k0: u32, k1: u32, lane: u32) {
    let x = lane & 7u;
    let y = lane >> 3u;
    // the block that this invocation loads: 16 quads along m, 4 along k
    let quad = lane & 15u;
    let deep = (lane >> 4u) * 4u;
    var l0 = vec4(0.0); var l1 = vec4(0.0); var l2 = vec4(0.0); var l3 = vec4(0.0); var l4 = vec4(0.0); var l5 = vec4(0.0); var l6 = vec4(0.0); var l7 = vec4(0.0);
    var r0 = vec4(0.0); var r1 = vec4(0.0); var r2 = vec4(0.0); var r3 = vec4(0.0); var r4 = vec4(0.0); var r5 = vec4(0.0); var r6 = vec4(0.0); var r7 = vec4(0.0);
    for (var k = k0; k < k1; k += 16u) {
        let a = block_a(m0 + quad * 4u, k + deep);
        let b = block_b(n0 + quad * 4u, k + deep);
        workgroupBarrier();
        tile_a[(deep + 0u) * 16u + quad] = a[0]; tile_b[(deep + 0u) * 16u + quad] = b[0];
        tile_a[(deep + 1u) * 16u + quad] = a[1]; tile_b[(deep + 1u) * 16u + quad] = b[1];
        tile_a[(deep + 2u) * 16u + quad] = a[2]; tile_b[(deep + 2u) * 16u + quad] = b[2];
        tile_a[(deep + 3u) * 16u + quad] = a[3]; tile_b[(deep + 3u) * 16u + quad] = b[3];
        workgroupBarrier();
        for (var q = 0u; q < 256u; q += 16u) {
            let a0 = tile_a[q + y]; let a1 = tile_a[q + y + 8u];
            let b0 = tile_b[q + x]; let b1 = tile_b[q + x + 8u];
            l0 = fma(vec4(a0.x), b0, l0); r0 = fma(vec4(a0.x), b1, r0);
            l1 = fma(vec4(a0.y), b0, l1); r1 = fma(vec4(a0.y), b1, r1);
            l2 = fma(vec4(a0.z), b0, l2); r2 = fma(vec4(a0.z), b1, r2);
            l3 = fma(vec4(a0.w), b0, l3); r3 = fma(vec4(a0.w), b1, r3);
            l4 = fma(vec4(a1.x), b0, l4); r4 = fma(vec4(a1.x), b1, r4);
            l5 = fma(vec4(a1.y), b0, l5); r5 = fma(vec4(a1.y), b1, r5);
            l6 = fma(vec4(a1.z), b0, l6); r6 = fma(vec4(a1.z), b1, r6);
            l7 = fma(vec4(a1.w), b0, l7); r7 = fma(vec4(a1.w), b1, r7);
        }
    }
    let m = m0 + y * 4u;
    let n = n0 + x * 4u;
    epilogue(m, n, l0); epilogue(m, n + 32u, r0);
    epilogue(m + 1u, n, l1); epilogue(m + 1u, n + 32u, r1);
    epilogue(m + 2u, n, l2); epilogue(m + 2u, n + 32u, r2);
    epilogue(m + 3u, n, l3); epilogue(m + 3u, n + 32u, r3);
    epilogue(m + 32u, n, l4); epilogue(m + 32u, n + 32u, r4);
    epilogue(m + 33u, n, l5); epilogue(m + 33u, n + 32u, r5);
    epilogue(m + 34u, n, l6); epilogue(m + 34u, n + 32u, r6);
    epilogue(m + 35u, n, l7); epilogue(m + 35u, n + 32u, r7);
}
