// power: SphereFace2's curve with its margin on the cosine (m3), or on the angle (front, threshold). m1 is the exponent.
// Twin: src/objective/target/power.rs
fn margin_target(x: f32) -> ValueSlope {
    var curve = ValueSlope(0.0, 0.0);
    if (has(ANGULAR)) {
        let s = sqrt(max((1.0 - x) * (1.0 + x), 0.0));
        // cos(angle + m) and its slope, continuous beyond the threshold
        var inner = ValueSlope(x * settings.front.x + s * settings.front.y,
                          settings.front.x - settings.front.y * x / max(s, SMALLEST_SINE));
        if (x <= settings.threshold) { inner = ValueSlope(x - settings.threshold - 1.0, 1.0); }
        let outer = power_curve(inner.value, settings.m1);
        curve = ValueSlope(outer.value, outer.slope * inner.slope);
    } else {
        curve = power_curve(x, settings.m1);
        curve.value -= settings.m3;
    }
    return ValueSlope(curve.value, select(curve.slope, 1.0, has(DETACHED)));
}
