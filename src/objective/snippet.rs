//! The WGSL of a curve or transform: part of the kernels that need it, composed by `plan`.

/// WGSL that several curves and transforms call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SharedText {
    /// Arctangent, sine, cosine.
    Angle,
    /// Chebyshev series; calls [`Angle`](Self::Angle).
    Series,
    /// exp and log.
    Exponential,
    /// SphereFace2's curve.
    PowerCurve,
    /// A target whose margins are those of the loss alone.
    FixedMargins,
}

/// The text of a shader and the shared texts that it calls, in the order in which they come before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Snippet {
    pub text: &'static str,
    pub needs: &'static [SharedText],
}

impl Snippet {
    /// A text that calls nothing else.
    pub const fn plain(text: &'static str) -> Self {
        Self { text, needs: &[] }
    }
}

/// The text of a shader file, whose path may come in pieces.
macro_rules! wgsl {
    ($($path:expr),+) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $($path),+, ".wgsl"))
    };
}
pub(crate) use wgsl;
