// power: SphereFace2's curve with its margin on the cosine, or on the angle.
// other_a is the exponent, other_b the margin or its cosine, other_c its sine.
// Twin: src/objective/target/power.rs
fn other(c: f32, place: Place) -> ValueSlope {
    var curve = ValueSlope(0.0, 0.0);
    if (has(OTHER_ANGULAR)) {
        let s = sqrt(max((1.0 - c) * (1.0 + c), 0.0));
        let slope = settings.other_b - settings.other_c * c / max(s, SMALLEST_SINE);
        let outer = power_curve(c * settings.other_b + s * settings.other_c, settings.other_a);
        curve = ValueSlope(outer.value, outer.slope * slope);
    } else {
        curve = power_curve(c, settings.other_a);
        curve.value += settings.other_b;
    }
    return ValueSlope(curve.value, select(curve.slope, 1.0, has(OTHER_DETACHED)));
}
