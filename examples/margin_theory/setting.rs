//! The classes, dimensions and scale that all tables and pictures are about, and the losses they compare.

use margin_softmax::{MarginSoftmax, Result, objective::Fallback, theory};

/// The pull that counts as none, per radian.
pub const PULL: f64 = 1.0;
/// The probability that counts as certain.
pub const CERTAIN: f64 = 0.95;

/// What was asked for, and what follows from it alone.
pub struct Setting {
    pub classes: usize,
    pub dim: usize,
    pub scale: f64,
    /// Mean angle of the nearest other prototype, radians.
    pub nearest: f64,
    /// ln of the wrong-class sum.
    pub ln_b: f64,
    /// The same as published.
    pub ln_b_published: f64,
}

impl Setting {
    pub fn new(classes: usize, dim: usize, scale: f64) -> Result<Self> {
        Ok(Self {
            classes,
            dim,
            scale,
            nearest: theory::nearest_prototype_angle(classes, dim)?,
            ln_b: theory::ln_wrong_class_sum(classes, dim, scale)?,
            ln_b_published: theory::ln_wrong_class_sum_published(classes, dim, scale)?,
        })
    }

    /// Half way to the nearest other prototype, radians.
    pub fn half(&self) -> f64 {
        self.nearest / 2.0
    }

    /// A loss at this scale.
    pub fn loss(&self, [m0, m1, m2, m3]: [f64; 4], fallback: Fallback) -> MarginSoftmax {
        MarginSoftmax::unified(m0, m1, m2, m3).with_scale(self.scale).with_margin(|m| m.fallback = fallback)
    }

    /// Whether the unified paper prints numbers for it.
    pub fn is_the_papers(&self) -> bool {
        (self.classes, self.dim, self.scale) == (85_742, 512, 64.0)
    }
}

/// One margin alone: m0, m1, m2, m3.
pub struct Family {
    pub name: &'static str,
    pub margins: [f64; 4],
}

/// The margins that the unified paper compares. The order is also that of the colours.
pub const FAMILIES: [Family; 5] = [
    Family { name: "NormFace", margins: [1.0, 1.0, 0.0, 0.0] },
    Family { name: "AmpFace m0 = 0.35", margins: [0.35, 1.0, 0.0, 0.0] },
    Family { name: "SphereFace m1 = 1.35", margins: [1.0, 1.35, 0.0, 0.0] },
    Family { name: "ArcFace m2 = 0.5", margins: [1.0, 1.0, 0.5, 0.0] },
    Family { name: "CosFace m3 = 0.35", margins: [1.0, 1.0, 0.0, 0.35] },
];
