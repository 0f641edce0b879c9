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
#[cfg(not(target_arch = "wasm32"))]
macro_rules! wgsl {
    ($($path:expr),+) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $($path),+, ".wgsl"))
    };
}

/// The same without what only people read: a page would load it for nothing.
#[cfg(target_arch = "wasm32")]
macro_rules! wgsl {
    ($($path:expr),+) => {{
        const TEXT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $($path),+, ".wgsl"));
        const BARE: ([u8; TEXT.len()], usize) = $crate::objective::snippet::bare(TEXT);
        const { $crate::objective::snippet::text_of(&BARE.0, BARE.1) }
    }};
}
pub(crate) use wgsl;

/// A text without comments, indentation and empty lines, and its length. (WGSL has no strings.)
#[cfg(any(test, target_arch = "wasm32"))]
pub(crate) const fn bare<const N: usize>(text: &str) -> ([u8; N], usize) {
    let (from, mut out, mut len, mut i) = (text.as_bytes(), [b'\n'; N], 0, 0);
    while i < N {
        let begins = len == 0 || out[len - 1] == b'\n';
        if from[i] == b'/' && i + 1 < N && from[i + 1] == b'/' {
            while i < N && from[i] != b'\n' {
                i += 1;
            }
            continue;
        }
        if !(begins && (from[i] == b' ' || from[i] == b'\n')) {
            out[len] = from[i];
            len += 1;
        }
        i += 1;
    }
    (out, len)
}

/// The first bytes of one that [`bare`] made.
#[cfg(any(test, target_arch = "wasm32"))]
pub(crate) const fn text_of(bytes: &'static [u8], len: usize) -> &'static str {
    match std::str::from_utf8(bytes.split_at(len).0) {
        Ok(text) => text,
        Err(_) => panic!("whole characters stay whole"),
    }
}

#[cfg(test)]
mod tests {
    use super::{bare, text_of};

    #[test]
    fn only_what_people_read_is_left_out() {
        const TEXT: &str = "// α\n\nfn f() -> f32 {\n    // why\n    return 1.0 / 2.0; // β\n}\n";
        const BARE: ([u8; TEXT.len()], usize) = bare(TEXT);
        assert_eq!(text_of(&BARE.0, BARE.1), "fn f() -> f32 {\nreturn 1.0 / 2.0; \n}\n");
    }
}
