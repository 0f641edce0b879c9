// workgroup: the sums of a tile whose invocations hold 8x8 outputs each, in sixteen named vectors (an array indexed by a loop
// variable would spill). Operands go through workgroup memory, TILE_DEPTH values of k at a time.

// quads along m, or n, of one k
const WIDE = 2u * TILE_SIDE;

// [k][quads along m or n]
var<workgroup> tile_a: array<vec4<f32>, WIDE * TILE_DEPTH>;
var<workgroup> tile_b: array<vec4<f32>, WIDE * TILE_DEPTH>;

fn tile_run(m0: u32, n0: u32, k0: u32, k1: u32, lane: u32) {
    let x = lane % TILE_SIDE;
    let y = lane / TILE_SIDE;
    // an operand is 64 blocks: where there are more invocations, the first 64 load a and the next ones b
    let loads_a = TILE_LANES == 64u || lane < 64u;
    let loads_b = TILE_LANES == 64u || lane / 64u == 1u;
    // quads along m, four blocks of k
    let quad = lane % 64u % WIDE;
    let deep = lane % 64u / WIDE * 4u;
    let place = deep * WIDE + quad;
    let held_m = held_a(m0 + quad * 4u);
    let held_n = held_b(n0 + quad * 4u);
    var l0 = vec4(0.0); var l1 = vec4(0.0); var l2 = vec4(0.0); var l3 = vec4(0.0); var l4 = vec4(0.0); var l5 = vec4(0.0); var l6 = vec4(0.0); var l7 = vec4(0.0);
    var r0 = vec4(0.0); var r1 = vec4(0.0); var r2 = vec4(0.0); var r3 = vec4(0.0); var r4 = vec4(0.0); var r5 = vec4(0.0); var r6 = vec4(0.0); var r7 = vec4(0.0);
    for (var k = k0; k < k1; k += TILE_DEPTH) {
        var a: mat4x4<f32>;
        var b: mat4x4<f32>;
        if (loads_a) { a = block_a(held_m, next_a(k + deep), m0 + quad * 4u, k + deep); }
        if (loads_b) { b = block_b(held_n, next_b(k + deep), n0 + quad * 4u, k + deep); }
        workgroupBarrier();
        if (loads_a) {
            tile_a[place] = a[0]; tile_a[place + WIDE] = a[1]; tile_a[place + 2u * WIDE] = a[2]; tile_a[place + 3u * WIDE] = a[3];
        }
        if (loads_b) {
            tile_b[place] = b[0]; tile_b[place + WIDE] = b[1]; tile_b[place + 2u * WIDE] = b[2]; tile_b[place + 3u * WIDE] = b[3];
        }
        workgroupBarrier();
        // four steps of k at a time: software drivers abort a shader after 65,535 loop iterations in all
        for (var q = 0u; q < WIDE * TILE_DEPTH; q += 4u * WIDE) {
            let a0 = tile_a[q + y]; let c0 = tile_a[q + y + TILE_SIDE];
            let b0 = tile_b[q + x]; let d0 = tile_b[q + x + TILE_SIDE];
            l0 = fma(vec4(a0.x), b0, l0); r0 = fma(vec4(a0.x), d0, r0);
            l1 = fma(vec4(a0.y), b0, l1); r1 = fma(vec4(a0.y), d0, r1);
            l2 = fma(vec4(a0.z), b0, l2); r2 = fma(vec4(a0.z), d0, r2);
            l3 = fma(vec4(a0.w), b0, l3); r3 = fma(vec4(a0.w), d0, r3);
            l4 = fma(vec4(c0.x), b0, l4); r4 = fma(vec4(c0.x), d0, r4);
            l5 = fma(vec4(c0.y), b0, l5); r5 = fma(vec4(c0.y), d0, r5);
            l6 = fma(vec4(c0.z), b0, l6); r6 = fma(vec4(c0.z), d0, r6);
            l7 = fma(vec4(c0.w), b0, l7); r7 = fma(vec4(c0.w), d0, r7);
            let a1 = tile_a[q + y + WIDE]; let c1 = tile_a[q + y + WIDE + TILE_SIDE];
            let b1 = tile_b[q + x + WIDE]; let d1 = tile_b[q + x + WIDE + TILE_SIDE];
            l0 = fma(vec4(a1.x), b1, l0); r0 = fma(vec4(a1.x), d1, r0);
            l1 = fma(vec4(a1.y), b1, l1); r1 = fma(vec4(a1.y), d1, r1);
            l2 = fma(vec4(a1.z), b1, l2); r2 = fma(vec4(a1.z), d1, r2);
            l3 = fma(vec4(a1.w), b1, l3); r3 = fma(vec4(a1.w), d1, r3);
            l4 = fma(vec4(c1.x), b1, l4); r4 = fma(vec4(c1.x), d1, r4);
            l5 = fma(vec4(c1.y), b1, l5); r5 = fma(vec4(c1.y), d1, r5);
            l6 = fma(vec4(c1.z), b1, l6); r6 = fma(vec4(c1.z), d1, r6);
            l7 = fma(vec4(c1.w), b1, l7); r7 = fma(vec4(c1.w), d1, r7);
            let a2 = tile_a[q + y + 2u * WIDE]; let c2 = tile_a[q + y + 2u * WIDE + TILE_SIDE];
            let b2 = tile_b[q + x + 2u * WIDE]; let d2 = tile_b[q + x + 2u * WIDE + TILE_SIDE];
            l0 = fma(vec4(a2.x), b2, l0); r0 = fma(vec4(a2.x), d2, r0);
            l1 = fma(vec4(a2.y), b2, l1); r1 = fma(vec4(a2.y), d2, r1);
            l2 = fma(vec4(a2.z), b2, l2); r2 = fma(vec4(a2.z), d2, r2);
            l3 = fma(vec4(a2.w), b2, l3); r3 = fma(vec4(a2.w), d2, r3);
            l4 = fma(vec4(c2.x), b2, l4); r4 = fma(vec4(c2.x), d2, r4);
            l5 = fma(vec4(c2.y), b2, l5); r5 = fma(vec4(c2.y), d2, r5);
            l6 = fma(vec4(c2.z), b2, l6); r6 = fma(vec4(c2.z), d2, r6);
            l7 = fma(vec4(c2.w), b2, l7); r7 = fma(vec4(c2.w), d2, r7);
            let a3 = tile_a[q + y + 3u * WIDE]; let c3 = tile_a[q + y + 3u * WIDE + TILE_SIDE];
            let b3 = tile_b[q + x + 3u * WIDE]; let d3 = tile_b[q + x + 3u * WIDE + TILE_SIDE];
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
    let o = n + 4u * TILE_SIDE;
    epilogue(m, n, l0); epilogue(m, o, r0);
    epilogue(m + 1u, n, l1); epilogue(m + 1u, o, r1);
    epilogue(m + 2u, n, l2); epilogue(m + 2u, o, r2);
    epilogue(m + 3u, n, l3); epilogue(m + 3u, o, r3);
    epilogue(m + 4u * TILE_SIDE, n, l4); epilogue(m + 4u * TILE_SIDE, o, r4);
    epilogue(m + 4u * TILE_SIDE + 1u, n, l5); epilogue(m + 4u * TILE_SIDE + 1u, o, r5);
    epilogue(m + 4u * TILE_SIDE + 2u, n, l6); epilogue(m + 4u * TILE_SIDE + 2u, o, r6);
    epilogue(m + 4u * TILE_SIDE + 3u, n, l7); epilogue(m + 4u * TILE_SIDE + 3u, o, r7);
}
