//! Margins by the number of rows of a class.

use crate::{Error, Result, objective::in_range};

/// The margin of a class follows from the number n of its rows, so that rare classes get larger ones:
/// m(n) = `factor` · n^(−`exponent`) + `offset`, within \[`lower`, `upper`\]; dynamic margins of "Google Landmark Recognition 2020
/// Competition Third Place Solution" (arXiv 2010.05350).
///
/// ```
/// use margin_softmax::{Batch, Margins, classes::CountMargins};
///
/// let counts = [16, 81, 10_000];
/// let margins = CountMargins::between(&counts, 0.25, 0.05, 0.5)?.of_all(&counts);
/// assert_eq!(margins.iter().map(|m| format!("{m:.3}")).collect::<Vec<_>>(), ["0.500", "0.312", "0.050"]);
/// let class_margins = Margins { m2: Some(&margins), ..Margins::NONE }; // or m3, for a loss with additive cosine margins
/// let batch = Batch::<u32> { class_margins, ..Default::default() };
/// # let _ = batch;
/// # Ok::<(), margin_softmax::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CountMargins {
    factor: f64,
    exponent: f64,
    offset: f64,
    lower: f64,
    upper: f64,
}

impl CountMargins {
    /// λ of the paper, and of the other solutions that took its margins.
    pub const EXPONENT: f64 = 0.25;
    /// The smallest and the largest margin of its authors' code for m2, and mmpretrain's defaults.
    pub const RANGE: (f64, f64) = (0.05, 0.5);

    /// a = `factor`, λ = `exponent`, b = `offset` as they are. −1e6 ≤ a, b ≤ 1e6; 0 < λ ≤ 4; 0 ≤ `lower` ≤ `upper` < π.
    /// [`Error::Parameter`] outside.
    pub fn new(factor: f64, exponent: f64, offset: f64, lower: f64, upper: f64) -> Result<Self> {
        for (what, found) in [("factor", factor), ("offset", offset)] {
            in_range(what, found, found.abs() <= 1e6, "-1e6 <= value <= 1e6")?;
        }
        in_range("exponent", exponent, exponent > 0.0 && exponent <= 4.0, "0 < exponent <= 4")?;
        in_range("lower", lower, (0.0..=upper).contains(&lower), "0 <= lower <= upper")?;
        in_range("upper", upper, upper < std::f64::consts::PI, "upper < pi")?;
        Ok(Self { factor, exponent, offset, lower, upper })
    }

    /// n^(−λ) scaled so that the class with the most rows gets `lower` and the one with the fewest `upper`: the authors' code,
    /// and mmpretrain's `SetAdaptiveMarginsHook`, with λ = [`EXPONENT`](Self::EXPONENT) between the ends of
    /// [`RANGE`](Self::RANGE). Classes without rows are not asked. The result may be kept for classes that come later: what
    /// lies beyond is clipped.
    ///
    /// [`Error::Parameter`] as from [`new`](Self::new); [`Error::Combination`] where no two classes differ in their rows.
    pub fn between(counts: &[u64], exponent: f64, lower: f64, upper: f64) -> Result<Self> {
        Self::new(0.0, exponent, 0.0, lower, upper)?;
        let powers = || counts.iter().filter(|&&n| n > 0).map(|&n| power(n, exponent));
        let (low, high) = (powers().fold(f64::INFINITY, f64::min), powers().fold(0.0, f64::max));
        if low >= high {
            let why = "all classes have as many rows, so there is nothing to scale: one margin is enough";
            return Err(Error::Combination { what: "counts", why });
        }
        let factor = (upper - lower) / (high - low);
        Ok(Self { factor, exponent, offset: lower - factor * low, lower, upper })
    }

    /// The margin of a class with that many rows; 0 counts as 1.
    pub fn of(&self, count: u64) -> f64 {
        (self.factor * power(count, self.exponent) + self.offset).clamp(self.lower, self.upper)
    }

    /// \[C\]: the margin of every class.
    pub fn of_all(&self, counts: &[u64]) -> Vec<f32> {
        counts.iter().map(|&count| self.of(count) as f32).collect()
    }
}

fn power(count: u64, exponent: f64) -> f64 {
    (count.max(1) as f64).powf(-exponent)
}
