// mv_softmax: classes above the target's logit with margin, the row's bound, count more.
// other_a is their slope, other_b their lead.
// Twin: src/objective/others/mv_softmax.rs
fn other(c: f32, place: Place) -> ValueSlope {
    if (c > place.bound) { return ValueSlope(settings.other_a * c + settings.other_b, settings.other_a); }
    return ValueSlope(c, 1.0);
}
