//! `pos_squash_k` of ChebyAAM's released code: the target cosine is squashed before the margin.
//!
//! With x' = 1 − (1 − x)^k the loss sees φ(x'), where φ is ChebyAAM's curve with its threshold. x' has the slope 0 at
//! x = 1, so the last degrees pull less; below x = 0 it leaves [−1, 1] and φ goes on as the fallback's straight line.

use margin_softmax::{
    Margin, MarginSoftmax, Target,
    objective::{
        Custom, Series,
        chebyshev::{closed, value_slope},
    },
};

/// The degree is that of the preset.
const DEGREE: usize = 30;

/// ChebyAAM after a squashed cosine.
#[derive(Debug)]
pub struct Squashed {
    /// k, 1 for none.
    power: u32,
    /// m, radians.
    margin: f64,
    /// Of cos(θ + m).
    series: Vec<f64>,
}

impl Squashed {
    pub fn new(power: u32, margin: f64) -> Self {
        debug_assert_eq!(DEGREE, Series::default().degree);
        Self { power, margin, series: closed(1.0, margin, DEGREE) }
    }

    /// A whole loss, like the preset `chebyaam`.
    pub fn loss(power: u32, margin: f64, scale: f64) -> MarginSoftmax {
        let target = Target::Custom(Custom::new(Self::new(power, margin)));
        MarginSoftmax { target, ..MarginSoftmax::normface().with_scale(scale) }
    }
}

impl Margin for Squashed {
    fn name(&self) -> &str {
        "chebyaam_squashed"
    }

    fn value_slope(&self, x: f64) -> (f64, f64) {
        let far = 1.0 - x;
        let (squashed, stretch) =
            (1.0 - far.powi(self.power as i32), self.power as f64 * far.powi(self.power as i32 - 1));
        let threshold = -self.margin.cos();
        let (value, slope) =
            if squashed > threshold { value_slope(&self.series, squashed) } else { (squashed - threshold - 1.0, 1.0) };
        (value, slope * stretch)
    }

    /// The even coefficients of the closed form are (4/π) sin m/(4k² − 1), the odd ones end with cos m, so the sum runs in
    /// T_2(x) = 2x² − 1.
    fn wgsl(&self) -> &str {
        "fn margin_target(x: f32) -> ValueSlope {
            let turn = vec2<f32>(parameter(1u), parameter(2u)); // cos m, 4/pi sin m
            let far = 1.0 - x;
            var stretch = 1.0;
            for (var i = 1.0; i < parameter(0u); i += 1.0) {
                stretch *= far;
            }
            let squashed = 1.0 - far * stretch;
            stretch *= parameter(0u);
            if (squashed <= -turn.x) {
                return ValueSlope(squashed + turn.x - 1.0, stretch);
            }
            let y = 1.0 - 2.0 * (1.0 - squashed) * (1.0 + squashed);
            var value = vec2<f32>(0.0);
            var slope = vec2<f32>(0.0);
            for (var k = parameter(3u); k > 0.0; k -= 1.0) {
                let a = turn.y / (4.0 * k * k - 1.0);
                let next = a + 2.0 * y * value.x - value.y;
                slope = vec2<f32>(2.0 * value.x + 2.0 * y * slope.x - slope.y, slope.x);
                value = vec2<f32>(next, value.x);
            }
            let even = -0.5 * turn.y + y * value.x - value.y;
            let even_slope = value.x + y * slope.x - slope.y;
            return ValueSlope(even + squashed * turn.x, stretch * (4.0 * squashed * even_slope + turn.x));
        }"
    }

    fn parameters(&self) -> Vec<f64> {
        let (sin, cos) = self.margin.sin_cos();
        vec![self.power.into(), cos, std::f64::consts::FRAC_2_PI * 2.0 * sin, (DEGREE / 2) as f64]
    }
}
