// The derivatives of a unified curve in m0..m3 at a target cosine.
// Twin: UnifiedCurve::margin_slopes in src/objective/target/unified.rs

fn margin_gradient(x: f32, m: vec4<f32>) -> vec4<f32> {
    // a linear head has no angle
    if (has(DOT_PRODUCT)) { return vec4(x, 0.0, 0.0, -1.0); }
    margin_of_row(m);
    let beyond_turn = own.beyond_turn;
    if (!has(VARIED)) {
        // the numbers that the forward pass has
        margin_of_loss();
        own.beyond_turn = beyond_turn;
    }
    let value = select(psi(x).value, x, own.linear);
    let passed = beyond(x, own.threshold);
    // in m1 and m2
    var slopes = cosine_slopes(x, m);
    switch (settings.fallback) {
        case CONTINUOUS: {
            if (passed) { slopes = own.beyond_turn * vec2((PI - m.z) / m.y, 1.0); }
        }
        case SINE: {
            // defined for one m1
            slopes = vec2(0.0, select(slopes.y, own.beyond_turn, passed));
        }
        case EASY: {
            if (x <= 0.0) { slopes = vec2(0.0); }
        }
        case CLIP: {
            if (x > own.clip_high || x < own.clip_low) { slopes = vec2(0.0); }
        }
        case MIRROR: { slopes *= mirror_sign(half_turns(x, near_angle(x))); }
        default: {}
    }
    return vec4(value, m.x * slopes, -1.0);
}

// The derivatives of cos(m1 angle + m2), or of its series, in m1 and m2.
fn cosine_slopes(x: f32, m: vec4<f32>) -> vec2<f32> {
    if (has(SERIES)) {
        let phase = series_phase;
        series_phase = vec2(-phase.y, phase.x);
        let by_m2 = series(x, own.which, settings.pairs).value;
        series_phase = phase;
        var by_m1 = 0.0;
        if (has(CLOSED)) { by_m1 = series_by_m1(x); }
        return vec2(by_m1, by_m2);
    }
    let near = near_angle(x);
    cosine_curve(x, sine_of(x), near);
    return vec2(select(near, PI - near, x < 0.0), 1.0) * own_slope_m2;
}

fn sine_of(x: f32) -> f32 { return sqrt(max((1.0 - x) * (1.0 + x), 0.0)); }

fn near_angle(x: f32) -> f32 { return quadrant_angle(sine_of(x), abs(x)); }

// The series of the derivative in m1, by the recurrence of series().
fn series_by_m1(x: f32) -> f32 {
    let y = 1.0 - 2.0 * (1.0 - x) * (1.0 + x);
    var b1 = vec2(0.0);
    var b2 = vec2(0.0);
    for (var k = settings.pairs; k > 1u; k--) {
        let b = fma(vec2(2.0 * y), b1, pair_by_m1(k - 1u) - b2);
        b2 = b1;
        b1 = b;
    }
    let last = pair_by_m1(0u);
    let even = last.x + y * b1.x - b2.x;
    let odd = fma(2.0 * y, b1.y, last.y - b2.y) - b1.y;
    return fma(x, odd, even);
}

fn pair_by_m1(k: u32) -> vec2<f32> {
    let i = k >> 1u;
    let factors = select(settings.damping[i].xy, settings.damping[i].zw, (k & 1u) == 1u);
    return factors * vec2(closed_by_m1(f32(2u * k)), closed_by_m1(f32(2u * k + 1u)));
}

// The derivative of series_closed(k) in m1. With u = pi delta: sinc = sin(u)/u and rest = (1 - cos u)/u.
fn closed_by_m1(k: f32) -> f32 {
    let delta = (series_whole - k) + (series_m1 - series_whole);
    let sign = select(1.0, -1.0, (u32(abs(series_whole - k)) & 1u) == 1u);
    let sine = 2.0 * series_half.x * series_half.y * sign;
    let cosine = (series_half.x * series_half.x - series_half.y * series_half.y) * sign;
    let u = PI * delta;
    let z = u * u;
    // the quotients cancel near 0
    let small = abs(delta) < 0.1;
    let divisor = select(delta, 1.0, small);
    let sinc = select(sine / (PI * divisor), 1.0 - z * (1.0 / 6.0 - z / 120.0), small);
    let rest = select((1.0 - cosine) / (PI * divisor), u * (0.5 - z * (1.0 / 24.0 - z / 720.0)), small);
    let sinc_slope = select((cosine - sinc) / divisor, PI * u * (z * (1.0 / 30.0 - z / 840.0) - 1.0 / 3.0), small);
    let rest_slope = select((sine - rest) / divisor, PI * (0.5 - z * (0.125 - z * (1.0 / 144.0 - z / 5760.0))), small);
    let sum = series_m1 + k;
    let by_ratio = k / (sum * sum) * (series_phase.x * sinc - series_phase.y * rest);
    let by_delta = series_m1 / sum * (series_phase.x * sinc_slope - series_phase.y * rest_slope);
    return select(2.0, 1.0, k == 0.0) * (by_ratio + by_delta);
}
