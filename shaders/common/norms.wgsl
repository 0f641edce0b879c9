// The inverse length of a vector, by eight lanes. Scaled by the largest element first: a plain sum of squares overflows
// above 1e19 and vanishes below 1e-22.

struct Length {
    inverse: f32,           // 1 / max(length, 1e-12); 0 where a value is NaN or infinite
    short: bool,
    length: f32,
}

var<workgroup> norm_partial: array<f32, 64>;

// The largest value over the eight lanes of this vector; every invocation of the workgroup calls it.
fn eight_max(lane: u32, v: f32) -> f32 {
    return eight(lane, v, true);
}

fn eight_sum(lane: u32, v: f32) -> f32 {
    return eight(lane, v, false);
}

fn eight(lane: u32, v: f32, largest: bool) -> f32 {
    workgroupBarrier();
    norm_partial[lane] = v;
    workgroupBarrier();
    let base = lane & 56u;
    var all = norm_partial[base];
    for (var i = 1u; i < 8u; i++) {
        let one = norm_partial[base + i];
        all = select(all + one, max(all, one), largest);
    }
    return all;
}

fn squares(v: vec4<f32>) -> f32 {
    return dot(v, v);
}
