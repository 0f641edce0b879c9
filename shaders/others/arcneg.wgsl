// arcneg: classes near the target's logit with margin, the row's bound, count more.      value = t (c + 1) - 1      slope = t
// other_a is the factor of t, other_b the mean, other_c the decay.
// Twin: src/objective/others/arcneg.rs
fn other(c: f32, place: Place) -> ValueSlope {
    let d = c - place.bound - settings.other_b;
    let t = settings.other_a * exponential(d * d * settings.other_c);
    return ValueSlope(t * (c + 1.0) - 1.0, t);
}
