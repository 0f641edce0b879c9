//! The structs that Rust and the shaders share, byte for byte. Each is declared once, in Rust: the declaration gives the
//! WGSL text too, which every kernel begins with after the [`constants`].

pub(crate) mod constants;

use bytemuck::{Pod, Zeroable};

use constants::comment;

/// The name of a field's type in WGSL: that of Rust, or another one for the same bytes.
macro_rules! wgsl_type {
    ($type:ty) => {
        stringify!($type)
    };
    ($type:ty as $wgsl:literal) => {
        $wgsl
    };
}

/// Structs with their names in WGSL; fields with their types there, where these have other names.
macro_rules! shared {
    ($(
        $(#[$meta:meta])*
        $vis:vis struct $name:ident = $wgsl:literal {
            $($(#[doc = $doc:literal])* $field_vis:vis $field:ident: $type:ty $(as $wgsl_type:literal)?,)+
        }
    )+) => {
        $(
            $(#[$meta])*
            #[repr(C)]
            $vis struct $name {
                $($(#[doc = $doc])* $field_vis $field: $type,)+
            }

            impl $name {
                /// The declaration in WGSL.
                pub(crate) const WGSL: &str = concat!(
                    "struct ", $wgsl, " {\n",
                    $($(comment!("    //", $doc, "\n"),)* "    ", stringify!($field), ": ", wgsl_type!($type $(as $wgsl_type)?), ",\n",)+
                    "}\n"
                );
            }
        )+

        /// For each struct its name and declaration in WGSL, its fields with their offsets, and its size.
        #[cfg(all(test, feature = "gpu"))] // with naga
        const DECLARED: &[Declared] = &[$(Declared {
            name: $wgsl,
            text: $name::WGSL,
            fields: &[$((stringify!($field), std::mem::offset_of!($name, $field))),+],
            size: size_of::<$name>(),
        }),+];
    };
}

/// Room for the coefficients of the highest degree.
type PackedSeries = [f32; 68];

shared! {
    /// The settings of a loss and a call: the bytes of binding 0. Made by [`Plan::settings`](crate::plan::Plan::settings).
    #[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
    pub struct Settings = "Settings" {
        /// Rows of this call, all batches together.
        pub(crate) rows: u32,
        /// Rows of one batch; equals `rows` in a head.
        pub(crate) batch_rows: u32,
        /// Classes of the softmax, all shards together.
        pub(crate) classes: u32,
        pub(crate) dim: u32,
        pub(crate) flags: u32,
        pub(crate) ignore: i32,
        pub(crate) fallback: u32,
        /// (Even, odd) pairs of series coefficients.
        pub(crate) pairs: u32,
        pub(crate) scale: f32,
        /// Label smoothing.
        pub(crate) smoothing: f32,
        /// Label smoothing / classes.
        pub(crate) share: f32,
        /// The bits of a NaN: a constant one would not compile.
        pub(crate) nan: u32,
        pub(crate) m0: f32,
        pub(crate) m1: f32,
        pub(crate) m2: f32,
        pub(crate) m3: f32,
        /// (cos, sin) of the phase seen from angle 0.
        pub(crate) front: [f32; 2] as "vec2<f32>",
        /// The same seen from angle pi.
        pub(crate) back: [f32; 2] as "vec2<f32>",
        pub(crate) threshold: f32,
        /// m2 sin m2.
        pub(crate) sine: f32,
        /// The value where the angle is clipped.
        pub(crate) clipped: f32,
        /// Cosines below this one are clipped.
        pub(crate) clip_low: f32,
        /// Cosines above this one are clipped.
        pub(crate) clip_high: f32,
        /// The angle kept from both ends.
        pub(crate) clip: f32,
        /// The head's first class, where it is one of several.
        pub(crate) offset: u32,
        /// Prototypes of a class.
        pub(crate) centers: u32,
        /// The code of the family that sets the margins of a row.
        pub(crate) adaptive: u32,
        /// Classes that inter-topk chooses.
        pub(crate) top_k: u32,
        /// Of the binary link.
        pub(crate) bias: f32,
        /// The lengths between which MagFace's margin grows, or a row's scale.
        pub(crate) lower: f32,
        pub(crate) upper: f32,
        /// The margin at the lower one; AdaFace's margin.
        pub(crate) base: f32,
        /// Its slope; AdaFace's concentration.
        pub(crate) rise: f32,
        /// The margin at the upper one.
        pub(crate) top: f32,
        /// Of MagFace's term of the length.
        pub(crate) strength: f32,
        /// How fast AdaFace's statistics follow.
        pub(crate) rate: f32,
        /// The factor of the binary link at the label.
        pub(crate) attract: f32,
        /// The factor of the binary link elsewhere.
        pub(crate) repel: f32,
        /// In the place of the weights of the rows that count, in the mean; 0 where there is none.
        pub(crate) divisor: f32,
        /// Of the focal loss.
        pub(crate) focal: f32,
        /// Of the square of the log-sum-exp.
        pub(crate) z_loss: f32,
        pub(crate) pad: u32,
        /// Numbers of the transform of the other classes.
        pub(crate) other_a: f32,
        pub(crate) other_b: f32,
        pub(crate) other_c: f32,
        pub(crate) other_pairs: u32,
        /// Coefficients in (even, odd) pairs: of the target; of cos m1 angle where margins differ from row to row.
        pub(crate) series: PackedSeries as "array<vec4<f32>, 17>",
        /// Of sin m1 angle; the numbers of a custom margin.
        pub(crate) turned: PackedSeries as "array<vec4<f32>, 17>",
        /// Factors on coefficients that are computed by the shader.
        pub(crate) damping: PackedSeries as "array<vec4<f32>, 17>",
        pub(crate) other_series: PackedSeries as "array<vec4<f32>, 17>",
    }

    /// The constants of one dispatch: the part of the work that it does.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Pod, Zeroable)]
    pub struct StepConstants = "StepConstants" {
        /// The chunk's first prototype.
        pub first: u32,
        /// Its prototypes.
        pub count: u32,
        /// The first prototype, counted in its shard.
        pub local: u32,
        /// Prototypes from row to row of the chunk.
        pub stride: u32,
        /// Parts of the sum over classes in grad_embeddings.
        pub splits: u32,
        /// Statistics held per row.
        pub slots: u32,
        /// Prototypes of one split.
        pub split_span: u32,
        /// Classes of one slot.
        pub slot_span: u32,
        /// 1 where sums start, 0 where they go on.
        pub begin: u32,
        /// The rows of one pass of grad_prototypes; the classes of one span of select_classes.
        pub row_first: u32,
        /// Their number.
        pub row_count: u32,
        /// The bits of a filter's threshold, an f32.
        pub epsilon: u32,
    }

    /// A row of the batch, from its norm to its gradients.
    #[derive(Debug, Clone, Copy, Pod, Zeroable)]
    pub(crate) struct Row = "Row" {
        /// COUNTS, or why it does not.
        pub state: u32,
        pub label: u32,
        /// Of the labelled class; from row_loss on times that of the row.
        pub weight: f32,
        /// Of the row itself.
        pub row_weight: f32,
        /// Of the labelled class.
        pub cosine: f32,
        /// The margin's curve there, without scale.
        pub value: f32,
        pub slope: f32,
        /// Its derivative in m2; in the backward pass dL/dvalue.
        pub slope_m2: f32,
        /// |x|.
        pub length: f32,
        pub scale: f32,
        /// From here on a class is a hard one.
        pub bound: f32,
        /// The last class that may lie on the bound.
        pub last: u32,
        /// A number of the transform of the other classes.
        pub hardness: f32,
        /// The noise that ElasticFace adds to the margin.
        pub margin_noise: f32,
        /// The largest cosine of the other classes.
        pub nearest: f32,
        /// log sum exp over the other classes.
        pub others: f32,
        /// And over all.
        pub total: f32,
        /// dloss/dlogit of another class for each unit of its probability, without the smoothing; in the backward pass times gain /
        /// normalizer.
        pub mass: f32,
        /// dloss/dlogit of the label is this less mass times the probability of the others: of the smoothing and of the z-loss.
        pub rest: f32,
        /// By its bits.
        pub loss: f32 as "u32",
        /// upstream * scale.
        pub gain: f32,
        /// Of its batch entry: what the sum over the rows is divided by.
        pub normalizer: f32,
        /// dL/dcosine of the labelled class.
        pub pull: f32,
        /// dL/dscale.
        pub grad_scale: f32,
        /// dL/dbias of a binary link.
        pub grad_bias: f32,
        /// MagFace's term of the length without factors; in the backward pass dL/d|x|.
        pub length_gradient: f32,
    }

    /// A row's sums over the other classes, or over some of them. v is the logit without scale.
    #[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
    pub(crate) struct RowStatisticsF32 = "RowStatistics" {
        /// The largest logit; 0 with a binary link.
        pub max_logit: f32,
        /// Of exp(z - max_logit); with a binary link of softplus z.
        pub sum: f32,
        /// Of exp(z - max_logit) v; with a binary link of sigmoid(z) v.
        pub value_sum: f32,
        /// Of class weight * v; with a binary link of sigmoid(z).
        pub weighted: f32,
        /// The largest cosine.
        pub nearest: f32,
        /// 1 where a logit of a linear head is not finite.
        pub overflowed: u32,
        pub pad0: u32,
        pub pad1: u32,
    }

    /// A batch entry.
    #[derive(Debug, Clone, Copy, Pod, Zeroable)]
    pub(crate) struct BatchState = "Batch" {
        /// By its bits.
        pub loss: f32 as "u32",
        /// The sum of the weights of the rows that count.
        pub normalizer: f32,
        /// The sum of all class weights.
        pub weights: f32,
        pub rows: u32,
        pub ignored: u32,
        pub non_finite_rows: u32,
        pub invalid_labels: u32,
        pub zero_embeddings: u32,
        pub zero_prototypes: u32,
        pub non_finite_prototypes: u32,
        /// The median of the target cosines.
        pub median: f32,
        /// A power of two. The gradient of a cosine is stored times it and the inverse length of the prototype, so that dX needs
        /// no lengths. With lengths from 1e-12 to 8e37 and a third of the longest one's exponent, gradients from 1e-12 to 1e12
        /// keep their digits; it is 1 where no prototype is longer than 4.
        pub balance: f32,
    }

    /// The sums of what a filter left out, and the number of entries that it left.
    #[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
    pub(crate) struct FilterTotals = "FilterTotals" {
        /// The sum of |gradient| over the entries that were left out.
        pub dropped: f32,
        /// And over all.
        pub total: f32,
        /// The lower half of the number of entries.
        pub low: u32,
        pub high: u32,
    }
}

/// The structs that every kernel knows.
pub(crate) const TEXT: [&str; 5] =
    [Settings::WGSL, StepConstants::WGSL, Row::WGSL, RowStatisticsF32::WGSL, BatchState::WGSL];

impl Settings {
    /// As they go into the uniform buffer.
    pub fn bytes(&self) -> &[u8] {
        bytemuck::bytes_of(self)
    }

    /// With a flag set or cleared.
    pub(crate) fn flag(&mut self, flag: u32, on: bool) {
        if on { self.flags |= flag } else { self.flags &= !flag }
    }
}

/// Numbers into their place; the number of (even, odd) pairs.
pub(crate) fn put(place: &mut PackedSeries, values: &[f64]) -> u32 {
    place.iter_mut().zip(values).for_each(|(place, v)| *place = *v as f32);
    values.len().div_ceil(2) as u32
}

impl StepConstants {
    /// Those of a step over so many prototypes.
    pub(crate) fn over(count: usize) -> Self {
        Self { count: count as u32, ..Self::default() }
    }

    /// As they go into the uniform buffer, each at a multiple of [`CONSTANTS_STRIDE`](crate::plan::CONSTANTS_STRIDE).
    pub fn bytes(&self) -> &[u8] {
        bytemuck::bytes_of(self)
    }
}

#[cfg(all(feature = "gpu", not(target_arch = "wasm32")))] // shards are read back there
impl RowStatisticsF32 {
    /// Minus infinity on a device.
    pub const LOWEST: f32 = constants::LOWEST as f32;
    /// Of no class.
    pub const EMPTY: Self = Self {
        max_logit: Self::LOWEST,
        sum: 0.0,
        value_sum: 0.0,
        weighted: 0.0,
        nearest: Self::LOWEST,
        overflowed: 0,
        pad0: 0,
        pad1: 0,
    };
}

#[cfg(all(test, feature = "gpu"))] // with naga
struct Declared {
    name: &'static str,
    text: &'static str,
    fields: &'static [(&'static str, usize)],
    size: usize,
}

#[cfg(all(test, feature = "gpu"))] // with naga
mod tests {
    use super::{DECLARED, Declared};

    /// Where a shader finds a field is decided by WGSL alone.
    #[test]
    fn fields_have_the_same_offsets_in_wgsl() {
        for &Declared { name, text, fields, size } in DECLARED {
            let module = naga::front::wgsl::parse_str(text).unwrap_or_else(|e| panic!("{}", e.emit_to_string(text)));
            let named = |(_, ty): (_, &naga::Type)| (ty.name.as_deref() == Some(name)).then(|| ty.inner.clone());
            let Some(naga::TypeInner::Struct { members, span }) = module.types.iter().find_map(named) else {
                panic!("no struct {name}: {text}");
            };
            let found: Vec<(&str, usize)> =
                members.iter().map(|m| (m.name.as_deref().unwrap_or_default(), m.offset as usize)).collect();
            assert_eq!((found.as_slice(), span as usize), (fields, size), "{name}");
        }
        assert!(DECLARED.len() >= 6);
    }
}
