// tile_64: 64x64 outputs of 64 invocations, 8 side by side; each holds 8x8 in sixteen named vectors (an array indexed by
// a loop variable would spill). Operands go through workgroup memory, 16 values of k at a time.

const TILE_M = 64u;
const TILE_N = 64u;
const TILE_LANES = 64u;

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
        // four steps of k at a time: software drivers stop a shader after 65,535 turns of its loops, all taken together
        for (var q = 0u; q < 256u; q += 64u) {
            let a0 = tile_a[q + y]; let c0 = tile_a[q + y + 8u];
            let b0 = tile_b[q + x]; let d0 = tile_b[q + x + 8u];
            l0 = fma(vec4(a0.x), b0, l0); r0 = fma(vec4(a0.x), d0, r0);
            l1 = fma(vec4(a0.y), b0, l1); r1 = fma(vec4(a0.y), d0, r1);
            l2 = fma(vec4(a0.z), b0, l2); r2 = fma(vec4(a0.z), d0, r2);
            l3 = fma(vec4(a0.w), b0, l3); r3 = fma(vec4(a0.w), d0, r3);
            l4 = fma(vec4(c0.x), b0, l4); r4 = fma(vec4(c0.x), d0, r4);
            l5 = fma(vec4(c0.y), b0, l5); r5 = fma(vec4(c0.y), d0, r5);
            l6 = fma(vec4(c0.z), b0, l6); r6 = fma(vec4(c0.z), d0, r6);
            l7 = fma(vec4(c0.w), b0, l7); r7 = fma(vec4(c0.w), d0, r7);
            let a1 = tile_a[q + y + 16u]; let c1 = tile_a[q + y + 24u];
            let b1 = tile_b[q + x + 16u]; let d1 = tile_b[q + x + 24u];
            l0 = fma(vec4(a1.x), b1, l0); r0 = fma(vec4(a1.x), d1, r0);
            l1 = fma(vec4(a1.y), b1, l1); r1 = fma(vec4(a1.y), d1, r1);
            l2 = fma(vec4(a1.z), b1, l2); r2 = fma(vec4(a1.z), d1, r2);
            l3 = fma(vec4(a1.w), b1, l3); r3 = fma(vec4(a1.w), d1, r3);
            l4 = fma(vec4(c1.x), b1, l4); r4 = fma(vec4(c1.x), d1, r4);
            l5 = fma(vec4(c1.y), b1, l5); r5 = fma(vec4(c1.y), d1, r5);
            l6 = fma(vec4(c1.z), b1, l6); r6 = fma(vec4(c1.z), d1, r6);
            l7 = fma(vec4(c1.w), b1, l7); r7 = fma(vec4(c1.w), d1, r7);
            let a2 = tile_a[q + y + 32u]; let c2 = tile_a[q + y + 40u];
            let b2 = tile_b[q + x + 32u]; let d2 = tile_b[q + x + 40u];
            l0 = fma(vec4(a2.x), b2, l0); r0 = fma(vec4(a2.x), d2, r0);
            l1 = fma(vec4(a2.y), b2, l1); r1 = fma(vec4(a2.y), d2, r1);
            l2 = fma(vec4(a2.z), b2, l2); r2 = fma(vec4(a2.z), d2, r2);
            l3 = fma(vec4(a2.w), b2, l3); r3 = fma(vec4(a2.w), d2, r3);
            l4 = fma(vec4(c2.x), b2, l4); r4 = fma(vec4(c2.x), d2, r4);
            l5 = fma(vec4(c2.y), b2, l5); r5 = fma(vec4(c2.y), d2, r5);
            l6 = fma(vec4(c2.z), b2, l6); r6 = fma(vec4(c2.z), d2, r6);
            l7 = fma(vec4(c2.w), b2, l7); r7 = fma(vec4(c2.w), d2, r7);
            let a3 = tile_a[q + y + 48u]; let c3 = tile_a[q + y + 56u];
            let b3 = tile_b[q + x + 48u]; let d3 = tile_b[q + x + 56u];
            l0 = fma(vec4(a3.x), b3, l0); r0 = fma(vec4(a3.x), d3, r0);
            l1 = fma(vec4(a3.y), b3, l1); r1 = fma(vec4(a3.y), d3, r1);
            l2 = fma(vec4(a3.z), b3, l2); r2 = fma(vec4(a3.z), d3, r2);
            l3 = fma(vec4(a3.w), b3, l3); r3 = fma(vec4(a3.w), d3, r3);
            l4 = fma(vec4(c3.x), b3, l4); r4 = fma(vec4(c3.x), d3, r4);
            l5 = fma(vec4(c3.y), b3, l5); r5 = fma(vec4(c3.y), d3, r5);
            l6 = fma(vec4(c3.z), b3, l6); r6 = fma(vec4(c3.z), d3, r6);
            l7 = fma(vec4(c3.w), b3, l7); r7 = fma(vec4(c3.w), d3, r7);
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
