//! Numbers that Rust and the shaders share and that no loss decides: flags, codes, the ends of f32. Each is declared once, in
//! Rust. The text of every kernel begins with [`TEXT`], which declares them in WGSL, so that a shader cannot use another
//! value. tests/shaders.rs fails where a shader declares such a number itself or writes it as a literal.

/// A number as WGSL writes it. A float is abstract there: an expression of constants is evaluated in f64 and rounded once.
pub(crate) trait Wgsl {
    fn wgsl(self) -> String;
}

impl Wgsl for u32 {
    fn wgsl(self) -> String {
        format!("{self}u")
    }
}

impl Wgsl for f64 {
    fn wgsl(self) -> String {
        format!("{self:?}")
    }
}

/// A comment in WGSL, which browsers go without.
#[cfg(not(target_arch = "wasm32"))]
macro_rules! comment {
    ($($text:literal),+) => {
        concat!($($text),+)
    };
}
#[cfg(target_arch = "wasm32")]
macro_rules! comment {
    ($($text:literal),+) => {
        ""
    };
}
pub(crate) use comment;

macro_rules! shared {
    ($(#[doc = $doc:literal] $name:ident: $number:ty = $value:expr;)+) => {
        $(#[doc = $doc] pub(crate) const $name: $number = $value;)+

        /// A line of WGSL for each of them.
        pub(crate) static TEXT: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
            let lines = [$(format!("const {} = {};", stringify!($name), $name.wgsl()) + $crate::uniforms::constants::comment!(" //", $doc) + "\n"),+];
            lines.concat()
        });
    };
}
pub(crate) use shared;

shared! {
    // settings.flags

    /// Rows with the label settings.ignore are ignored.
    HAS_IGNORE: u32 = 1;
    /// The target is a straight line.
    STRAIGHT: u32 = 1 << 1;
    /// The slope of the target is detached.
    DETACHED: u32 = 1 << 2;
    /// The curve of the target is a series.
    SERIES: u32 = 1 << 3;
    /// Class weights are bound.
    CLASS_WEIGHTS: u32 = 1 << 4;
    /// An upstream gradient is bound.
    UPSTREAM: u32 = 1 << 5;
    /// The upstream gradient has a number per row.
    UPSTREAM_ROWS: u32 = 1 << 6;
    /// The loss is the mean.
    MEAN: u32 = 1 << 7;
    /// dX is added to what its buffer holds.
    ADD_EMBEDDINGS: u32 = 1 << 8;
    /// dW is added to what its buffer holds.
    ADD_PROTOTYPES: u32 = 1 << 9;
    /// Dot products instead of cosines.
    DOT_PRODUCT: u32 = 1 << 10;
    /// Margins of classes are bound.
    CLASS_MARGINS: u32 = 1 << 11;
    /// Margins of rows are bound.
    ROW_MARGINS: u32 = 1 << 12;
    /// Weights of rows are bound.
    ROW_WEIGHTS: u32 = 1 << 15;
    /// Margins differ from row to row.
    VARIED: u32 = 1 << 13;
    /// Series coefficients follow m1.
    CLOSED: u32 = 1 << 14;
    /// The scale is the state's.
    OWN_SCALE: u32 = 1 << 16;
    /// The transform of the other classes is CurricularFace's.
    CURRICULAR: u32 = 1 << 17;
    /// The curve of the other classes is a series.
    OTHER_SERIES: u32 = 1 << 18;
    /// The slope of the other classes is detached.
    OTHER_DETACHED: u32 = 1 << 19;
    /// The margin of SphereFace2 is one of the angle.
    ANGULAR: u32 = 1 << 20;
    /// So is the margin of the other classes.
    OTHER_ANGULAR: u32 = 1 << 21;
    /// The sum of the weighted logits is used: with label smoothing, and in shards.
    WEIGHS: u32 = 1 << 22;
    /// ElasticFace's draws are sorted.
    SORTED: u32 = 1 << 23;
    /// Series coefficients follow nothing.
    GIVEN: u32 = 1 << 24;
    /// Rows have no labels, and count whatever theirs say.
    UNLABELLED: u32 = 1 << 25;
    /// Soft labels are bound.
    SOFT_LABELS: u32 = 1 << 26;

    // settings.adaptive; 0 for all others

    /// m2 and m3 follow the length.
    ADAFACE: u32 = 1;
    /// m2 follows the length, which has a gradient.
    MAGFACE: u32 = 2;
    /// m2 is drawn.
    ELASTIC_ANGLE: u32 = 3;
    /// m3 is drawn.
    ELASTIC_COSINE: u32 = 4;
    /// The scale follows the length, which has a gradient.
    LENGTH_SCALE: u32 = 5;

    // settings.fallback

    /// x - x* - 1 beyond the threshold x*.
    CONTINUOUS: u32 = 0;
    /// x - m2 sin m2 beyond the threshold.
    SINE: u32 = 1;
    /// The monotone continuation.
    MIRROR: u32 = 2;
    /// cos u, unchanged.
    NONE: u32 = 3;
    /// The angle is clipped.
    CLIP: u32 = 4;
    /// x where x <= 0.
    EASY: u32 = 5;

    // Row.state: which row counts, and why not

    /// It counts.
    COUNTS: u32 = 0;
    /// It has the label that is ignored.
    IGNORED: u32 = 1;
    /// Its vector, or a logit of a linear head, is not finite.
    NON_FINITE: u32 = 2;
    /// Its label names no class, or its margins are none that a loss may have.
    INVALID: u32 = 3;
    /// It counts, but its vector is shorter than SHORTEST: no gradient to it.
    SHORT: u32 = 4;

    // numbers

    /// In the place of a class: the label of a row that has none, and an empty entry of a list.
    NO_CLASS: u32 = u32::MAX;
    /// A sum of more terms adds up the sums of so many: 256 for each of 256 lanes.
    LONG: u32 = 1 << 16;
    /// Stands for minus infinity, which drivers treat differently.
    LOWEST: f64 = -3.0e38;
}
