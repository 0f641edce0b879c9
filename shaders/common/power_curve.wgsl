// 2 ((c + 1)/2)^t - 1 and its slope, for a whole t from 1 to 16; below -1 the sign of the base stays.
fn power_curve(c: f32, t: f32) -> ValueSlope {
    let base = 0.5 * c + 0.5;
    var below = 1.0;
    for (var i = 1.0; i < t; i += 1.0) { below *= abs(base); }
    return ValueSlope(2.0 * below * base - 1.0, t * below);
}
