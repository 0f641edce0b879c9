// The margin of a row at its target cosine: value, slope, scale, and the bound of the hard classes. Every margin formula of the
// forward and the backward pass is used here, N times.
//
// Margins that no loss may have make their row invalid, and a state that none may have all of them.
// Twin: Adaptive::apply in src/objective/follow.rs

fn with_margin(before: Row, row: u32) -> Row {
    var r = before;
    let state = state_now();
    let known = counts(r.state);
    var m = given_margins(r, row);
    switch (settings.adaptive) {
        case ADAFACE: {
            let z = settings.rise * (clamp(r.length, SHORT_LENGTH, LONG_LENGTH) - state.y) / (state.z + DEVIATION_FLOOR);
            m.z = -settings.base * clamp(z, -1.0, 1.0);
            m.w = settings.base * (1.0 + clamp(z, -1.0, 1.0));
        }
        case MAGFACE: {
            let length = clamp(r.length, settings.lower, settings.upper);
            m.z = min(fma(settings.rise, length - settings.lower, settings.base), settings.top);
            r.length_gradient = length / (settings.upper * settings.upper) + 1.0 / length;
        }
        case ELASTIC_ANGLE: { m.z = clamp(m.z + r.margin_noise, -MAX_DRAWN, MAX_DRAWN); }
        case ELASTIC_COSINE: { m.w += r.margin_noise; }
        default: {}
    }
    if (has(VARIED)) {
        let fits = margin_of_row(m);
        if (known && !fits) { r.state = INVALID; }
    } else {
        margin_of_loss();
    }
    if (known && !state_fits(state)) { r.state = INVALID; }
    let x = r.cosine;
    let curve = margin_target(x);
    r.value = curve.value;
    r.slope = curve.slope;
    r.slope_m2 = margin_slope_m2();
    r.scale = select(r.scale, state.w, has(OWN_SCALE));
    if (has(CURRICULAR)) {
        let turned = cos_sin_of(m.z);
        r.bound = x * turned.x - sqrt(max((1.0 - x) * (1.0 + x), 0.0)) * turned.y;
        r.hardness = state.x;
    }
    return r;
}
