// rectified: wrong classes behind the equator exert no force.      value = max(c, 0)      slope = c > 0
// Twin: src/objective/others/rectified.rs
fn other(c: f32, place: Place) -> ValueSlope {
    return ValueSlope(max(c, 0.0), select(0.0, 1.0, c > 0.0));
}
