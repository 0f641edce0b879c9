// Value and slope of a Chebyshev series by one joint Clenshaw recurrence.
//
// The even and the odd half each run in y = T_2(x): half the steps, and half the rounding error near +-1.
// Twin: src/objective/chebyshev.rs

fn series(x: f32) -> Curve {
    let y = 1.0 - 2.0 * (1.0 - x) * (1.0 + x);
    // .x runs over the even, .y over the odd coefficients; value and slope side by side
    var b1 = vec2(0.0); var b2 = vec2(0.0); var d1 = vec2(0.0); var d2 = vec2(0.0);
    for (var k = settings.pairs; k > 1u; k--) {
        let pair = series_pair(k - 1u);
        let b = fma(vec2(2.0 * y), b1, pair - b2);
        let d = fma(vec2(2.0 * y), d1, 2.0 * b1 - d2);
        b2 = b1; b1 = b; d2 = d1; d1 = d;
    }
    let last = series_pair(0u);
    let even = last.x + y * b1.x - b2.x;
    let even_slope = b1.x + y * d1.x - d2.x;
    // the odd half goes one step further: V_k instead of T_k
    let odd = fma(2.0 * y, b1.y, last.y - b2.y) - b1.y;
    let odd_slope = fma(2.0 * y, d1.y, 2.0 * b1.y - d2.y) - d1.y;
    return Curve(fma(x, odd, even), fma(4.0 * x, even_slope, odd) + 4.0 * x * x * odd_slope);
}

fn series_pair(k: u32) -> vec2<f32> {
    let two = settings.series[k >> 1u];
    return select(two.xy, two.zw, (k & 1u) == 1u);
}
