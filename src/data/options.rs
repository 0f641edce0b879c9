//! How a head is to be computed: what to compute, in how much memory, for which kind of device.

use super::GradientFilter;

/// Options of a head; every field has a default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Which gradients to compute; default both.
    pub want: Want,
    /// The most bytes of workspace; default 256 MiB.
    pub budget: Budget,
    /// How the GPU path cuts its work; default: chosen from the device.
    pub preset: DevicePreset,
    /// The matrix tile of the GPU path, refused where the device cannot run it; default: chosen from preset and shape.
    pub tile: Option<Tile>,
    /// Leaves small entries of the gradient out; default none: exact gradients.
    pub filter: Option<GradientFilter>,
    /// k: the k nearest classes of each row come out with the loss, 1 ≤ k ≤ 64 and at most the number of classes; default none.
    /// For a whole head: over slices [`Output::predictions`](crate::Output::predictions) has them, over tensors `gpu::Io::predictions`.
    ///
    /// The label plays no part in them: [`Predictions`](crate::data::Predictions) are of the cosines without margin.
    /// [`Backend::predictor`](crate::Backend::predictor) predicts without labels.
    pub predictions: Option<usize>,
    /// The most targets of a row that [`Batch::soft_labels`](crate::Batch::soft_labels) may bring, 1 to 16; default none. They take
    /// some hundred bytes per row and target of the budget.
    pub soft_labels: Option<usize>,
    /// The most work of one dispatch and of one submit on the GPU path, in multiply-adds; default none: one submit for a call.
    /// For systems that reset a device whose submit takes too long: Windows after 2 s, browsers sooner.
    ///
    /// A step of a head takes 3·N·C·D multiply-adds, 4·N·C·D where its cosines are computed twice. Kernels that do something
    /// else count as the multiply-adds that take as long. What a device does in a second is up to half of its peak, which
    /// is counted in FLOP/s, two for each multiply-add:
    ///
    /// | | multiply-adds in 0.1 s | |
    /// |---|---|---|
    /// | a software driver on two cores | 4·10⁸ | measured |
    /// | an old integrated GPU, 0.4 TFLOP/s | 10¹⁰ | half of its peak |
    /// | a phone or a small laptop, 2 TFLOP/s | 5·10¹⁰ | half of its peak |
    /// | a desktop GPU, 20 TFLOP/s | 5·10¹¹ | half of its peak |
    ///
    /// So 10¹⁰ is safe on all but software, and costs a large GPU some submits that it would not need. Chunks are cut so that
    /// no dispatch exceeds it; [`Error::Work`](crate::Error::Work) says what 64 classes, or a pass over the prototypes of a
    /// shard, take. Results have the bits of one submit with the same option; another value may cut the sums elsewhere.
    /// Heads over slices submit part by part, [`BoundHead::forward_parts`](crate::gpu::BoundHead::forward_parts) records
    /// the parts for a caller's own submits. The other paths ignore it.
    pub work_per_submit: Option<u64>,
}

/// The most bytes that a head may hold beside the inputs, the outputs and the staging copies of slices.
///
/// A large budget keeps all N·C cosines between the forward and the backward pass; a smaller one works in chunks of
/// classes and computes the cosines twice, a quarter to a third more time. On a GPU the chunks may take all of it.
///
/// On the CPU path, for both gradients:
///
/// | N×C×D | cosines kept from | least for 8, 4, 2 threads | least |
/// |---|---|---|---|
/// | 256×5,994×192 | 6.75 MB, 1.1·4NC bytes | 3.3, 1.4, 0.7 MB | 0.34 MB |
/// | 512×20,000×512 | 43 MB, 1.05·4NC bytes | 11, 5.3, 2.7 MB | 1.3 MB |
/// | 256×96,000×128 | 99 MB, 1.01·4NC bytes | 2.7, 1.1, 0.53 MB | 0.27 MB |
///
/// Where the cosines are not kept, the number of classes does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Budget(u64);

impl Budget {
    /// A budget in bytes.
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// A budget in mebibytes.
    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::mib(256)
    }
}

/// The numbers by which the GPU path cuts its work: tile, parts of a sum, size of a chunk that is computed twice. Results
/// agree to rounding whatever the preset is.
///
/// | | tile | `groups` | `row_groups` | chosen by `auto` for |
/// |---|---|---|---|---|
/// | `portable` | `tile_32` | 512 | 4096 | adapters that do not say who made them, and other makers |
/// | `desktop` | `tile_64`, and `tile_128` where it gives 512 workgroups; NVIDIA's matrix units, once tried | 1024 | 4096 | NVIDIA, AMD |
/// | `intel` | `tile_32` | 512 | 4096 | Intel |
/// | `apple` | `tile_64` | 512 | 4096 | Apple through Metal |
/// | `mobile` | `tile_64_short` | 128 | 1024 | Qualcomm |
/// | `software` | `direct_64` | 64 | 64 | software adapters |
///
/// Products of at most 32 rows or columns take the tile `direct`. No preset was measured on a GPU yet: tiles follow what the
/// compilers of these GPUs make of them.
///
/// The sum over the classes in dL/dX is split until it has about `groups` workgroups, a row of the statistics until they have
/// `row_groups`. Cosines that are computed twice come in the largest chunks that the budget allows, or in chunks that stay in
/// a cache, if an estimate of launches and traffic says that those take less time: so on software adapters. If the device
/// cannot run the tile, a smaller one is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum DevicePreset {
    /// By what the adapter says of itself.
    #[default]
    Auto,
    /// Any GPU: the tile that no compiler spills.
    Portable,
    /// A GPU with many registers and units.
    Desktop,
    /// A GPU with 128 registers for each invocation.
    Intel,
    /// Apple's GPUs.
    Apple,
    /// A GPU with few waves and a small cache of instructions.
    Mobile,
    /// A driver that computes on the CPU.
    Software,
}

impl DevicePreset {
    /// All of them.
    pub const ALL: &[DevicePreset] = &[
        DevicePreset::Auto,
        DevicePreset::Portable,
        DevicePreset::Desktop,
        DevicePreset::Intel,
        DevicePreset::Apple,
        DevicePreset::Mobile,
        DevicePreset::Software,
    ];

    /// The name that [`str::parse`] knows.
    pub fn name(self) -> &'static str {
        match self {
            DevicePreset::Auto => "auto",
            DevicePreset::Portable => "portable",
            DevicePreset::Desktop => "desktop",
            DevicePreset::Intel => "intel",
            DevicePreset::Apple => "apple",
            DevicePreset::Mobile => "mobile",
            DevicePreset::Software => "software",
        }
    }
}

/// How a workgroup multiplies matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Tile {
    /// 32×32 outputs, operands straight from the buffers: compiles fast, the choice for small shapes.
    Direct,
    /// 64×64 outputs of 32 invocations, operands straight from the buffers: the choice for software adapters, where
    /// loading is what takes the time. Far too many registers for a GPU.
    Direct64,
    /// 32×64 outputs of 64 invocations over workgroup memory: for GPUs with few registers for each, Intel's above all.
    Tile32,
    /// 64×64 outputs of 64 invocations over workgroup memory: for GPUs with 120 registers or more for each.
    Tile64,
    /// [`Tile64`](Self::Tile64) with half the code in its loop: for GPUs with a small cache of instructions.
    Tile64Short,
    /// 128×128 outputs of 128 invocations over 16 KiB of workgroup memory: for GPUs with many registers and large shapes.
    Tile128,
    /// 16×16 outputs of one subgroup of 8 invocations, by matrix units of 8×8×8: for lavapipe, which tests it.
    ///
    /// This and the other tiles of matrix units need [`Limits::matrix_units`](crate::plan::Limits) of their own size:
    /// `gpu::Context::check_matrix_units` finds and tries them. Operands are two f16 for each value, with a power of two
    /// for each line: as precise as f32.
    #[cfg(feature = "cooperative_matrix")]
    TileCoop8,
    /// 32×32 outputs of one subgroup of 32 invocations, by matrix units of 8×8×8: Metal's.
    #[cfg(feature = "cooperative_matrix")]
    TileCoop8Wide,
    /// 64×64 outputs of one subgroup of 32 invocations, by matrix units of 16×16×16: NVIDIA's through Vulkan.
    #[cfg(feature = "cooperative_matrix")]
    TileCoop16,
    /// 64×64 outputs of one subgroup of 64 invocations, by matrix units of 16×16×16: AMD's through Vulkan.
    #[cfg(feature = "cooperative_matrix")]
    TileCoop16Wide,
    /// [`TileCoop8`](Self::TileCoop8) with one f16 for each value and one product in the place of three.
    ///
    /// Each operand is rounded to eleven bits, so a cosine is off by up to 2⁻¹⁰ (about 10⁻⁴ as a rule), a logit by the scale
    /// times that, and a gradient by 2⁻¹⁰ of the sum of the magnitudes that it adds up. Sums are of f32. For heads whose
    /// values are of f16 anyway. Taken where [`Options::tile`] asks for it, by no preset; likewise the others named `half`.
    #[cfg(feature = "cooperative_matrix")]
    TileCoop8Half,
    /// [`TileCoop8Wide`](Self::TileCoop8Wide) with one product: see [`TileCoop8Half`](Self::TileCoop8Half).
    #[cfg(feature = "cooperative_matrix")]
    TileCoop8WideHalf,
    /// [`TileCoop16`](Self::TileCoop16) with one product: see [`TileCoop8Half`](Self::TileCoop8Half).
    #[cfg(feature = "cooperative_matrix")]
    TileCoop16Half,
    /// [`TileCoop16Wide`](Self::TileCoop16Wide) with one product: see [`TileCoop8Half`](Self::TileCoop8Half).
    #[cfg(feature = "cooperative_matrix")]
    TileCoop16WideHalf,
}

impl Tile {
    /// All of them.
    pub const ALL: &[Tile] = &[
        Tile::Direct,
        Tile::Direct64,
        Tile::Tile32,
        Tile::Tile64,
        Tile::Tile64Short,
        Tile::Tile128,
        #[cfg(feature = "cooperative_matrix")]
        Tile::TileCoop8,
        #[cfg(feature = "cooperative_matrix")]
        Tile::TileCoop8Wide,
        #[cfg(feature = "cooperative_matrix")]
        Tile::TileCoop16,
        #[cfg(feature = "cooperative_matrix")]
        Tile::TileCoop16Wide,
        #[cfg(feature = "cooperative_matrix")]
        Tile::TileCoop8Half,
        #[cfg(feature = "cooperative_matrix")]
        Tile::TileCoop8WideHalf,
        #[cfg(feature = "cooperative_matrix")]
        Tile::TileCoop16Half,
        #[cfg(feature = "cooperative_matrix")]
        Tile::TileCoop16WideHalf,
    ];

    /// The name that [`str::parse`] knows.
    pub fn name(self) -> &'static str {
        match self {
            Tile::Direct => "direct",
            Tile::Direct64 => "direct_64",
            Tile::Tile32 => "tile_32",
            Tile::Tile64 => "tile_64",
            Tile::Tile64Short => "tile_64_short",
            Tile::Tile128 => "tile_128",
            #[cfg(feature = "cooperative_matrix")]
            Tile::TileCoop8 => "tile_coop_8",
            #[cfg(feature = "cooperative_matrix")]
            Tile::TileCoop8Wide => "tile_coop_8_wide",
            #[cfg(feature = "cooperative_matrix")]
            Tile::TileCoop16 => "tile_coop_16",
            #[cfg(feature = "cooperative_matrix")]
            Tile::TileCoop16Wide => "tile_coop_16_wide",
            #[cfg(feature = "cooperative_matrix")]
            Tile::TileCoop8Half => "tile_coop_8_half",
            #[cfg(feature = "cooperative_matrix")]
            Tile::TileCoop8WideHalf => "tile_coop_8_wide_half",
            #[cfg(feature = "cooperative_matrix")]
            Tile::TileCoop16Half => "tile_coop_16_half",
            #[cfg(feature = "cooperative_matrix")]
            Tile::TileCoop16WideHalf => "tile_coop_16_wide_half",
        }
    }
}

/// Which gradients to compute. Work that nobody asked for is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
pub struct Want {
    /// dL/dX.
    pub grad_embeddings: bool,
    /// dL/dW.
    pub grad_prototypes: bool,
    /// dL/ds.
    pub grad_scale: bool,
    /// dL/db, for a linear head or a binary link.
    pub grad_bias: bool,
    /// dL/dm0..m3 of a unified target: default none. See [`MarginGradients`].
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub grad_margins: Option<MarginGradients>,
}

/// How the gradients of the margins m0..m3 are summed, for margins that are learned: dL/dm2 is in units of the loss per radian,
/// the others are per unit of their margin.
///
/// A row's gradient is dL/dφ · dφ/dm at its target cosine. It has the reduction, the upstream gradient, label smoothing and the weights
/// of classes and rows in it as the other gradients have; it is 0 for a row that is left out. In
/// [`Output::grad_margins`](crate::Output::grad_margins).
///
/// dφ/dm is the derivative of the curve as it is: of the fallback at and beyond the threshold (a series holds at the threshold itself),
/// of the series where the curve is one, and of the forward curve where [`Slope::Detached`](crate::objective::Slope) replaces
/// dφ/dx. At m1 = 1, m2 = 0, where no curve is evaluated, it is the derivative of the curve with margins nearby.
/// Transforms of the other classes that look at the target see it as a constant, as for dX.
///
/// A margin that must stay has gradient 0: m1 with the sine fallback and with fitted series coefficients, m1 and m2 of a linear
/// head. Refused, as [`Error::Combination`](crate::Error::Combination): targets without m0..m3, margins that
/// [`Adaptive`](crate::Adaptive) sets by the row, given series coefficients, and soft labels. The JavaScript module refuses all of them:
/// its planner comes without their kernels.
///
/// Of shards, the one from class 0 reports them, all classes together; the others report zeros. Over sampled classes
/// [`Classes`](Self::Classes) is in the order of the sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum MarginGradients {
    /// Over all rows: of the loss' own margins, where the batch brings none of the margin. \[4\].
    Sum,
    /// Over the rows of each class: of [`Batch::class_margins`](crate::Batch::class_margins). \[C, 4\].
    Classes,
    /// Each row's: of [`Batch::row_margins`](crate::Batch::row_margins). \[N, 4\].
    Rows,
}

impl MarginGradients {
    /// All of them.
    pub const ALL: &[MarginGradients] = &[MarginGradients::Sum, MarginGradients::Classes, MarginGradients::Rows];

    /// How many times four numbers there are.
    pub(crate) fn count(self, rows: usize, classes: usize) -> usize {
        match self {
            MarginGradients::Sum => 1,
            MarginGradients::Classes => classes,
            MarginGradients::Rows => rows,
        }
    }
}

impl Want {
    /// The loss only.
    pub const LOSS: Self = Self {
        grad_embeddings: false,
        grad_prototypes: false,
        grad_scale: false,
        grad_bias: false,
        grad_margins: None,
    };
    /// The loss and dL/dX.
    pub const EMBEDDINGS: Self = Self { grad_embeddings: true, ..Self::LOSS };
    /// The loss and dL/dW.
    pub const PROTOTYPES: Self = Self { grad_prototypes: true, ..Self::LOSS };
    /// The loss, dL/dX and dL/dW.
    pub const ALL: Self = Self { grad_embeddings: true, grad_prototypes: true, ..Self::LOSS };

    /// And dL/ds.
    pub const fn with_scale(mut self) -> Self {
        self.grad_scale = true;
        self
    }

    /// And dL/db.
    pub const fn with_bias(mut self) -> Self {
        self.grad_bias = true;
        self
    }

    /// And dL/dm0..m3.
    pub const fn with_margins(mut self, margins: MarginGradients) -> Self {
        self.grad_margins = Some(margins);
        self
    }

    /// Whether anything beside the loss is wanted.
    pub fn any(self) -> bool {
        self != Self::LOSS
    }
}

impl Default for Want {
    fn default() -> Self {
        Self::ALL
    }
}
