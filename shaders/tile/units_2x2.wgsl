// units_2x2: 2x2 matrices of sums.

fn put(s: Sum, column: u32) { coopStoreT(s, &strip[column], TILE_N); }

fn tile_run(m0: u32, n0: u32, k0: u32, k1: u32, lane: u32) {
    let own = share_of(m0, n0, k0, k1, lane);
    var s00 = Sum(); var s01 = Sum();
    var s10 = Sum(); var s11 = Sum();
    for (var k = k0; k < k1; k += TILE_DEPTH) {
        stage(own, k);
        for (var i = 0u; i < TILE_DEPTH; i += UNIT) {
            let a0 = left_high(i); let r0 = left_low(i);
            let a1 = left_high(UNIT * PITCH + i); let r1 = left_low(UNIT * PITCH + i);
            let b0 = right_high(i); let q0 = right_low(i);
            s00 = grown(s00, a0, r0, b0, q0); s10 = grown(s10, a1, r1, b0, q0);
            let b1 = right_high(UNIT * PITCH + i); let q1 = right_low(UNIT * PITCH + i);
            s01 = grown(s01, a0, r0, b1, q1); s11 = grown(s11, a1, r1, b1, q1);
        }
    }
    workgroupBarrier();
    put(s00, 0u); put(s01, UNIT);
    store_strip(m0, n0, 0u, lane);
    put(s10, 0u); put(s11, UNIT);
    store_strip(m0, n0, UNIT, lane);
}
