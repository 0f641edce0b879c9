// top_k: the hardest classes come closer by an angle: cos(angle - margin), 1 within it.
// other_a, other_b are the margin's cosine and sine.
// Twin: src/objective/others/top_k.rs
fn other(c: f32, place: Place) -> ValueSlope {
    if (!(c > place.bound || (c == place.bound && !place.late))) { return ValueSlope(c, 1.0); }
    if (c > settings.other_a) { return ValueSlope(1.0, 0.0); }
    let s = sqrt(max((1.0 - c) * (1.0 + c), 0.0));
    return ValueSlope(c * settings.other_a + s * settings.other_b, settings.other_a - settings.other_b * c / max(s, SMALLEST_SINE));
}
