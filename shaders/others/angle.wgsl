// angle: linear in the angle.      value = other_c - other_a (angle + other_b)
// Twin: src/objective/target/angle.rs
fn other(c: f32, place: Place) -> ValueSlope {
    var curve = ValueSlope(0.0, 0.0);
    if (has(OTHER_SERIES)) {
        curve = series(c, OF_OTHERS, settings.other_pairs);
    } else {
        curve = arc(c);
    }
    return ValueSlope(settings.other_c - settings.other_a * (curve.value + settings.other_b),
                 select(-settings.other_a * curve.slope, 1.0, has(OTHER_DETACHED)));
}
