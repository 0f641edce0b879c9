// Value and slope of a Chebyshev series by one joint Clenshaw recurrence.
//
// The even and the odd half each run in y = T_2(x): half the steps, and half the rounding error near +-1.
// Twin: src/objective/chebyshev.rs

// where the coefficients come from
const OF_LOSS = 0u;         // from the host
const OF_ROW = 1u;          // those of cos and sin m1 angle, joined by the row's m2
const OF_CLOSED = 2u;       // computed here for the row's m1
const OF_OTHERS = 3u;       // from the host, for the other classes

var<private> series_phase: vec2<f32>;   // (cos m2, sin m2) of the row
var<private> series_m1: f32;            // m1 of the row,
var<private> series_whole: f32;         // the nearest whole number,
var<private> series_half: vec2<f32>;    // and (cos, sin) of half a turn times half of what is left

fn series(x: f32, which: u32, pairs: u32) -> ValueSlope {
    let y = 1.0 - 2.0 * (1.0 - x) * (1.0 + x);
    // .x runs over the even, .y over the odd coefficients; value and slope side by side
    var b1 = vec2(0.0); var b2 = vec2(0.0); var d1 = vec2(0.0); var d2 = vec2(0.0);
    for (var k = pairs; k > 1u; k--) {
        let pair = series_pair(k - 1u, which);
        let b = fma(vec2(2.0 * y), b1, pair - b2);
        let d = fma(vec2(2.0 * y), d1, 2.0 * b1 - d2);
        b2 = b1; b1 = b; d2 = d1; d1 = d;
    }
    let last = series_pair(0u, which);
    let even = last.x + y * b1.x - b2.x;
    let even_slope = b1.x + y * d1.x - d2.x;
    // the odd half goes one step further: V_k instead of T_k
    let odd = fma(2.0 * y, b1.y, last.y - b2.y) - b1.y;
    let odd_slope = fma(2.0 * y, d1.y, 2.0 * b1.y - d2.y) - d1.y;
    return ValueSlope(fma(x, odd, even), fma(4.0 * x, even_slope, odd) + 4.0 * x * x * odd_slope);
}

fn series_pair(k: u32, which: u32) -> vec2<f32> {
    let odd = (k & 1u) == 1u;
    let i = k >> 1u;
    switch (which) {
        case OF_ROW: {
            let two = series_phase.x * settings.series[i] - series_phase.y * settings.turned[i];
            return select(two.xy, two.zw, odd);
        }
        case OF_CLOSED: {
            let factors = select(settings.damping[i].xy, settings.damping[i].zw, odd);
            return factors * vec2(series_closed(f32(2u * k)), series_closed(f32(2u * k + 1u)));
        }
        case OF_OTHERS: {
            return select(settings.other_series[i].xy, settings.other_series[i].zw, odd);
        }
        default: {
            return select(settings.series[i].xy, settings.series[i].zw, odd);
        }
    }
}

// The coefficient of T_k in cos(m1 angle + m2). Every sine of pi (m1 - k) is that of the rest of m1 but for its sign.
fn series_closed(k: f32) -> f32 {
    let delta = (series_whole - k) + (series_m1 - series_whole);
    let odd = (u32(abs(series_whole - k)) & 1u) == 1u;
    // sin(pi delta) / (pi delta) and (1 - cos(pi delta)) / (pi delta)
    let across = 2.0 * series_half.x * series_half.y * select(1.0, -1.0, odd);
    let along = 2.0 * select(series_half.y * series_half.y, series_half.x * series_half.x, odd);
    let none = abs(delta) < 1.0e-20;
    let divisor = PI * select(delta, 1.0, none);
    let sinc = select(across / divisor, 1.0, none);
    let rest = select(along / divisor, 0.0, none);
    let c = 2.0 * series_m1 / (series_m1 + k) * (series_phase.x * sinc - series_phase.y * rest);
    return select(c, 0.5 * c, k == 0.0);
}
