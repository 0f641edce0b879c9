// units_4x4: 4x4 matrices of sums.

fn put(s: Sum, column: u32) { coopStoreT(s, &strip[column], TILE_N); }

fn tile_run(m0: u32, n0: u32, k0: u32, k1: u32, lane: u32) {
    let own = share_of(m0, n0, k0, k1, lane);
    var s00 = Sum(); var s01 = Sum(); var s02 = Sum(); var s03 = Sum();
    var s10 = Sum(); var s11 = Sum(); var s12 = Sum(); var s13 = Sum();
    var s20 = Sum(); var s21 = Sum(); var s22 = Sum(); var s23 = Sum();
    var s30 = Sum(); var s31 = Sum(); var s32 = Sum(); var s33 = Sum();
    for (var k = k0; k < k1; k += TILE_DEPTH) {
        stage(own, k);
        for (var i = 0u; i < TILE_DEPTH; i += UNIT) {
            let a0 = left_high(i); let r0 = left_low(i);
            let a1 = left_high(UNIT * PITCH + i); let r1 = left_low(UNIT * PITCH + i);
            let a2 = left_high(2u * UNIT * PITCH + i); let r2 = left_low(2u * UNIT * PITCH + i);
            let a3 = left_high(3u * UNIT * PITCH + i); let r3 = left_low(3u * UNIT * PITCH + i);
            let b0 = right_high(i); let q0 = right_low(i);
            s00 = grown(s00, a0, r0, b0, q0); s10 = grown(s10, a1, r1, b0, q0);
            s20 = grown(s20, a2, r2, b0, q0); s30 = grown(s30, a3, r3, b0, q0);
            let b1 = right_high(UNIT * PITCH + i); let q1 = right_low(UNIT * PITCH + i);
            s01 = grown(s01, a0, r0, b1, q1); s11 = grown(s11, a1, r1, b1, q1);
            s21 = grown(s21, a2, r2, b1, q1); s31 = grown(s31, a3, r3, b1, q1);
            let b2 = right_high(2u * UNIT * PITCH + i); let q2 = right_low(2u * UNIT * PITCH + i);
            s02 = grown(s02, a0, r0, b2, q2); s12 = grown(s12, a1, r1, b2, q2);
            s22 = grown(s22, a2, r2, b2, q2); s32 = grown(s32, a3, r3, b2, q2);
            let b3 = right_high(3u * UNIT * PITCH + i); let q3 = right_low(3u * UNIT * PITCH + i);
            s03 = grown(s03, a0, r0, b3, q3); s13 = grown(s13, a1, r1, b3, q3);
            s23 = grown(s23, a2, r2, b3, q3); s33 = grown(s33, a3, r3, b3, q3);
        }
    }
    workgroupBarrier();
    put(s00, 0u); put(s01, UNIT); put(s02, 2u * UNIT); put(s03, 3u * UNIT);
    store_strip(m0, n0, 0u, lane);
    put(s10, 0u); put(s11, UNIT); put(s12, 2u * UNIT); put(s13, 3u * UNIT);
    store_strip(m0, n0, UNIT, lane);
    put(s20, 0u); put(s21, UNIT); put(s22, 2u * UNIT); put(s23, 3u * UNIT);
    store_strip(m0, n0, 2u * UNIT, lane);
    put(s30, 0u); put(s31, UNIT); put(s32, 2u * UNIT); put(s33, 3u * UNIT);
    store_strip(m0, n0, 3u * UNIT, lane);
}
