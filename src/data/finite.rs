//! Numbers of a batch, in f32 or f64.

/// Values whose finiteness can be asked.
pub trait Finite: Copy {
    /// Neither NaN nor infinite.
    fn is_finite(self) -> bool;
    /// As `f64`.
    fn wide(self) -> f64;
}

impl Finite for f32 {
    fn is_finite(self) -> bool {
        f32::is_finite(self)
    }
    fn wide(self) -> f64 {
        self as f64
    }
}

impl Finite for f64 {
    fn is_finite(self) -> bool {
        f64::is_finite(self)
    }
    fn wide(self) -> f64 {
        self
    }
}
