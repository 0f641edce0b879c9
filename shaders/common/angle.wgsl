// Own arctangent, sine and cosine: the built-in ones are off by up to 2e-4 on some drivers.

// The angle of (x, y) for x, y >= 0, in [0, pi/2].
fn quadrant_angle(y: f32, x: f32) -> f32 {
    let steep = y > x;
    let large = max(max(x, y), 1.0e-30);
    let q = min(x, y) / large;
    let half = q > 0.41421356;
    let t = select(q, (q - 1.0) / (q + 1.0), half);
    let z = t * t;
    var p = fma(z, 8.05374449538e-2, -1.38776856032e-1);
    p = fma(z, p, 1.99777106478e-1);
    p = fma(z, p, -3.33329491539e-1);
    let angle = fma(p * z, t, t) + select(0.0, 0.78539816, half);
    return select(angle, HALF_PI - angle, steep);
}

// (cos a, sin a) for 0 <= a <= 30.
fn cos_sin(a: f32) -> vec2<f32> {
    let j = round(a * 0.63661977);
    // pi/2 in three pieces, so that j times the first two is exact
    let r = fma(j, -7.54978995489e-8, fma(j, -4.83751296997e-4, fma(j, -1.5703125, a)));
    let z = r * r;
    let s = fma(z * r, fma(z, fma(z, -1.9515295891e-4, 8.3321608736e-3), -1.6666654611e-1), r);
    let c = fma(z * z, fma(z, fma(z, 2.443315711809948e-5, -1.388731625493765e-3), 4.166664568298827e-2), fma(z, -0.5, 1.0));
    let n = u32(j) & 3u;
    let turned = select(vec2(c, s), vec2(s, c), (n & 1u) == 1u);
    return turned * vec2(select(1.0, -1.0, n == 1u || n == 2u), select(1.0, -1.0, n >= 2u));
}

// The same for a of either sign.
fn cos_sin_of(a: f32) -> vec2<f32> {
    return cos_sin(abs(a)) * vec2(1.0, select(1.0, -1.0, a < 0.0));
}

// arccos x and its slope, bounded as everywhere.
fn arc(x: f32) -> ValueSlope {
    let s = sqrt(max((1.0 - x) * (1.0 + x), 0.0));
    // from the nearer end, where it keeps full precision
    let near = quadrant_angle(s, abs(x));
    return ValueSlope(select(near, PI - near, x < 0.0), -1.0 / max(s, SMALLEST_SINE));
}
