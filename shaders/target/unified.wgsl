// unified: m0 psi(m1 angle + m2) - m3 with every fallback.
// Twin: src/objective/target/unified.rs

// Margins with what follows from them.
struct Own {
    m: vec4<f32>,
    front: vec2<f32>,
    back: vec2<f32>,
    threshold: f32,
    beyond_turn: f32,       // the derivative in m2 beyond it
    sine: f32,
    clip_low: f32,
    clip_high: f32,
    linear: bool,
    which: u32,             // the series' coefficients
}

var<private> own: Own;
var<private> own_slope_m2: f32;

// The margins of the loss, prepared on the host.
fn margin_of_loss() {
    own = Own(vec4(settings.m0, settings.m1, settings.m2, settings.m3), settings.front, settings.back,
              settings.threshold, 0.0, settings.sine, settings.clip_low, settings.clip_high, has(STRAIGHT), OF_LOSS);
}

// The margins of a row, |m2| < pi; false where a loss must not have them.
fn margin_of_row(m: vec4<f32>) -> bool {
    own.m = m;
    own.linear = m.y == 1.0 && m.z == 0.0;
    let turned = cos_sin_of(m.z);
    own.front = turned * vec2(1.0, -1.0);
    // m1 in whole and rest, so that no large angle is reduced
    let whole = round(m.y);
    let rest = m.y - whole;
    own.back = cos_sin_of(fma(rest, PI, m.z)) * select(1.0, -1.0, (u32(max(whole, 0.0)) & 1u) == 1u);
    let threshold = crossing(1.0);
    own.threshold = threshold.x;
    own.sine = m.z * turned.y;
    own.beyond_turn = select(-turned.y - m.z * turned.x, -threshold.y / m.y, settings.fallback == CONTINUOUS);
    own.clip_high = clip_bound((settings.clip - m.z) / m.y);
    own.clip_low = clip_bound((PI - settings.clip - m.z) / m.y);
    series_phase = turned;
    series_m1 = m.y;
    series_whole = whole;
    series_half = cos_sin_of(rest * HALF_PI);
    let same = m.y == settings.m1;
    own.which = select(select(OF_CLOSED, OF_ROW, same), OF_LOSS, has(GIVEN));

    // an m2 of the loss that is below pi in f64 may round to PI
    let angle = abs(m.z) < PI || m.z == settings.m2;
    let fits = m.x > 0.0 && m.x <= MAX_MARGIN && m.y > 0.0 && m.y <= MAX_FACTOR && angle && abs(m.w) <= MAX_MARGIN;
    let follows = !has(SERIES) || has(CLOSED) || (same && (m.z == settings.m2 || !has(GIVEN)));
    let sine = settings.fallback != SINE || m.y == 1.0;
    let easy = settings.fallback != EASY || past(1.0, 2.0) <= 0.0;
    let straight = own.linear || !has(DOT_PRODUCT);
    return fits && straight && follows && sine && easy && finite(m);
}

// Cosine and sine of the angle where m1 angle + m2 reaches k pi; cosine -NO_THRESHOLD where it never passes k pi.
fn crossing(k: f32) -> vec2<f32> {
    if (past(k, 1.0) <= 0.0) { return vec2(-NO_THRESHOLD, 0.0); }
    // pi in two pieces
    var at = cos_sin(max((fma(k, PI, -own.m.z) - k * PI_EXCESS) / own.m.y, 0.0));
    if (past(k, 2.0) == 0.0) { at.x = 0.0; }
    if (past(k, 3.0) == 0.0) { at.x = 0.5; }
    if (past(k, 1.5) == 0.0) { at.x = -0.5; }
    if (past(k, 4.0) == 0.0) { at.x = ROOT_HALF; }
    return at;
}

// 0 where that angle is pi/share, positive where it is smaller. A difference of the margins themselves, and so exact at
// multiples of pi, where the cosine of a rounded angle is not.
fn past(k: f32, share: f32) -> f32 {
    return fma(own.m.y - share * k, PI, share * own.m.z);
}

// At the threshold itself a series holds, the exact curve no longer.
fn beyond(x: f32, threshold: f32) -> bool {
    return x < threshold || (x == threshold && !has(SERIES));
}

fn clip_bound(angle: f32) -> f32 {
    if (angle <= 0.0) { return NO_THRESHOLD; }
    if (angle >= PI) { return -NO_THRESHOLD; }
    return cos_sin(angle).x;
}

fn margin_target(x: f32) -> ValueSlope {
    var curve = ValueSlope(x, 1.0);
    own_slope_m2 = 0.0;
    if (!own.linear) { curve = psi(x); }
    own_slope_m2 = select(own.m.x * own_slope_m2, 0.0, has(DETACHED));
    return ValueSlope(own.m.x * curve.value - own.m.w, select(own.m.x * curve.slope, 1.0, has(DETACHED)));
}

// dphi/dm2 at the cosine of the last call
fn margin_slope_m2() -> f32 { return own_slope_m2; }

fn psi(x: f32) -> ValueSlope {
    let s = sqrt(max((1.0 - x) * (1.0 + x), 0.0));
    // the angle from the nearer end, where it keeps full precision
    let near = quadrant_angle(s, abs(x));
    var curve = ValueSlope(0.0, 0.0);
    if (has(SERIES)) { curve = series_curve(x); } else { curve = cosine_curve(x, s, near); }

    let passed = beyond(x, own.threshold);
    switch (settings.fallback) {
        case CONTINUOUS: {
            if (passed) { curve = ValueSlope(x - own.threshold - 1.0, 1.0); own_slope_m2 = own.beyond_turn; }
        }
        case SINE: {
            if (passed) { curve = ValueSlope(x - own.sine, 1.0); own_slope_m2 = own.beyond_turn; }
        }
        case EASY: {
            if (x <= 0.0) { curve = ValueSlope(x, 1.0); own_slope_m2 = 0.0; }
        }
        case CLIP: {
            if (x > own.clip_high) { curve = ValueSlope(settings.clipped, 0.0); own_slope_m2 = 0.0; }
            if (x < own.clip_low) { curve = ValueSlope(-settings.clipped, 0.0); own_slope_m2 = 0.0; }
        }
        case MIRROR: {
            let k = half_turns(x, near);
            let sign = mirror_sign(k);
            curve = ValueSlope(sign * curve.value - 2.0 * k, sign * curve.slope);
            own_slope_m2 *= sign;
        }
        default: {}
    }
    return curve;
}

// Whole half turns in m1 angle + m2; `near` is the angle from the nearer end.
fn half_turns(x: f32, near: f32) -> f32 {
    let angle = own.m.y * select(near, PI - near, x < 0.0) + own.m.z;
    // the angle is rounded: only the cosine tells whether it has reached the nearest multiple of pi
    let nearest = round(angle / PI);
    return max(select(nearest - 1.0, nearest, beyond(x, crossing(nearest).x)), 0.0);
}

fn mirror_sign(k: f32) -> f32 { return select(1.0, -1.0, (u32(k) & 1u) == 1u); }

fn series_curve(x: f32) -> ValueSlope {
    let curve = series(x, own.which, settings.pairs);
    if (settings.adaptive == MAGFACE) {
        let phase = series_phase;
        series_phase = vec2(-phase.y, phase.x);
        own_slope_m2 = series(x, own.which, settings.pairs).value;
        series_phase = phase;
    }
    return curve;
}

// cos(m1 angle + m2) and its slope in x. sin(m1 angle)/s tends to m1 at both ends: written so that it is found there.
fn cosine_curve(x: f32, s: f32, near: f32) -> ValueSlope {
    var turned = vec2(abs(x), s);
    if (own.m.y != 1.0) { turned = cos_sin(own.m.y * near); }
    let phase = select(own.back, own.front, x >= 0.0);
    let ratio = select(own.m.y, turned.y / max(s, 1.0e-30), s > 0.0);
    let slope = own.m.y * (phase.x * ratio - phase.y * turned.x / max(s, SMALLEST_SINE));
    // -sin(m1 angle + m2); the angle runs the other way behind the equator
    own_slope_m2 = (phase.x * turned.y - phase.y * turned.x) * select(1.0, -1.0, x >= 0.0);
    return ValueSlope(phase.x * turned.x + phase.y * turned.y, select(-slope, slope, x >= 0.0));
}
