// curricular: classes above the row's bound count more.      value = c (t + c)      slope = t + 2 c
// Twin: src/objective/others/curricular.rs
fn other(c: f32, place: Place) -> Curve {
    if (c > place.bound) { return Curve(c * (place.hardness + c), place.hardness + c + c); }
    return Curve(c, 1.0);
}
