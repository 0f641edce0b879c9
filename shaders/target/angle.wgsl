// angle: linear in the angle.      value = m3 - m0 (angle + m2)
// Twin: src/objective/target/angle.rs
fn margin_target(x: f32) -> ValueSlope {
    var curve = ValueSlope(0.0, 0.0);
    if (has(SERIES)) {
        curve = series(x, OF_LOSS, settings.pairs);
    } else {
        curve = arc(x);
    }
    return ValueSlope(settings.m3 - settings.m0 * (curve.value + settings.m2),
                 select(-settings.m0 * curve.slope, 1.0, has(DETACHED)));
}
