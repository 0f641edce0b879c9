// unified: m0 psi(m1 angle + m2) - m3 with every fallback.
// Twin: src/objective/unified.rs

const CONTINUOUS = 0u;
const SINE = 1u;
const MIRROR = 2u;
const NONE = 3u;
const CLIP = 4u;
const EASY = 5u;

fn margin_target(x: f32) -> Curve {
    var curve = Curve(x, 1.0);
    if (!has(LINEAR)) { curve = psi(x); }
    return Curve(settings.m0 * curve.value - settings.m3, select(settings.m0 * curve.slope, 1.0, has(DETACHED)));
}

fn psi(x: f32) -> Curve {
    let s = sqrt(max((1.0 - x) * (1.0 + x), 0.0));
    // the angle from the nearer end, where it keeps all its digits
    let near = quadrant_angle(s, abs(x));
    var curve = Curve(0.0, 0.0);
    if (has(SERIES)) { curve = series(x); } else { curve = cosine_curve(x, s, near); }

    let beyond = x < settings.threshold || (x == settings.threshold && !has(SERIES));
    switch (settings.fallback) {
        case CONTINUOUS: {
            if (beyond) { curve = Curve(x - settings.threshold - 1.0, 1.0); }
        }
        case SINE: {
            if (beyond) { curve = Curve(x - settings.sine, 1.0); }
        }
        case EASY: {
            if (x <= 0.0) { curve = Curve(x, 1.0); }
        }
        case CLIP: {
            if (x > settings.clip_high) { curve = Curve(settings.clipped, 0.0); }
            if (x < settings.clip_low) { curve = Curve(-settings.clipped, 0.0); }
        }
        case MIRROR: {
            let angle = settings.m1 * select(near, PI - near, x < 0.0) + settings.m2;
            let k = clamp(floor(angle / PI), 0.0, settings.folds);
            let sign = select(1.0, -1.0, (u32(k) & 1u) == 1u);
            curve = Curve(sign * curve.value - 2.0 * k, sign * curve.slope);
        }
        default: {}
    }
    return curve;
}

// cos(m1 angle + m2) and its slope in x. sin(m1 angle)/s tends to m1 at both ends: written so that it is found there.
fn cosine_curve(x: f32, s: f32, near: f32) -> Curve {
    var turned = vec2(abs(x), s);
    if (settings.m1 != 1.0) { turned = cos_sin(settings.m1 * near); }
    let phase = select(settings.back, settings.front, x >= 0.0);
    let ratio = select(settings.m1, turned.y / max(s, 1.0e-30), s > 0.0);
    let slope = settings.m1 * (phase.x * ratio - phase.y * turned.x / max(s, 1.0e-4));
    return Curve(phase.x * turned.x + phase.y * turned.y, select(-slope, slope, x >= 0.0));
}
