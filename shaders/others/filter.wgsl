// filter: a cosine above the threshold (other_a) becomes 0 and exerts no force.
// Twin: src/objective/others/filter.rs
fn other(c: f32, place: Place) -> ValueSlope {
    if (c > settings.other_a) { return ValueSlope(0.0, 0.0); }
    return ValueSlope(c, 1.0);
}
