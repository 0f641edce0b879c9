// curricular: classes above the row's bound count more.      value = c (t + c)      slope = t + 2 c
// Twin: src/objective/others/curricular.rs
fn other(c: f32, place: Place) -> ValueSlope {
    if (c > place.bound) { return ValueSlope(c * (place.hardness + c), place.hardness + c + c); }
    return ValueSlope(c, 1.0);
}
