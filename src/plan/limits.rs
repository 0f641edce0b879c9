//! The limits of a device.

use crate::{Error, Result};

/// The limits of a device that matter for a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Limits {
    /// Bytes of one buffer.
    pub max_buffer: u64,
    /// Bytes of one storage binding.
    pub max_binding: u64,
    /// Workgroups along one axis.
    pub max_groups: u32,
    /// Storage buffers of one kernel; 8 are needed.
    pub storage_buffers: u32,
    /// Invocations of a workgroup; 128 are needed, and up to 256 are used.
    pub invocations: u32,
    /// Invocations along the first axis of a workgroup; 128 are needed, and up to 256 are used.
    #[cfg_attr(feature = "serde", serde(default = "size_x"))]
    pub size_x: u32,
    /// Bytes of workgroup memory; 8 KiB are needed, and more by most tiles.
    pub workgroup_bytes: u32,
    /// The alignment of a storage binding: its offset must be a multiple of this.
    pub alignment: u32,
    /// Whether shaders know the type f16; tensors of that element do without it too.
    #[cfg_attr(feature = "serde", serde(default))]
    pub f16: bool,
    /// Whether the device computes in software: what [`DevicePreset::Auto`](crate::data::DevicePreset) goes by.
    #[cfg_attr(feature = "serde", serde(default))]
    pub software: bool,
    /// Who made the GPU, as far as the adapter says: the other thing that `Auto` goes by.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Vendor::is_unknown"))]
    pub vendor: Vendor,
    /// The matrix units that were tried and compute right; none unless `gpu::Context::check_matrix_units` found some.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub matrix_units: Option<MatrixUnits>,
}

/// Units that multiply square matrices of f16 and add the product to one of f32 (cooperative matrices, tensor cores).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MatrixUnits {
    /// Rows, columns and depth of a product: 8 or 16.
    pub size: u32,
    /// Invocations of a subgroup, which holds the matrices: 8, 32 or 64.
    pub lanes: u32,
}

/// The makers of GPUs whose compilers are known, see `benches/isa`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Vendor {
    /// Another one, or an adapter that hides it.
    #[default]
    Unknown,
    /// AMD.
    Amd,
    /// Apple, through Metal.
    Apple,
    /// Intel.
    Intel,
    /// NVIDIA.
    Nvidia,
    /// Qualcomm.
    Qualcomm,
}

impl Vendor {
    #[cfg(feature = "serde")]
    fn is_unknown(&self) -> bool {
        *self == Self::Unknown
    }
}

#[cfg(feature = "serde")]
fn size_x() -> u32 {
    Limits::WEBGPU.size_x
}

impl Limits {
    /// The limits that every WebGPU device has.
    pub const WEBGPU: Self = Self {
        max_buffer: 256 << 20,
        max_binding: 128 << 20,
        max_groups: 65_535,
        storage_buffers: 8,
        invocations: 256,
        size_x: 256,
        workgroup_bytes: 16 << 10,
        alignment: 256,
        f16: false,
        software: false,
        vendor: Vendor::Unknown,
        matrix_units: None,
    };

    /// The least that every head needs, apart from sizes and alignment, which decide what fits.
    pub(crate) const MIN: Self =
        Self { max_groups: 1, alignment: 1, workgroup_bytes: 8 << 10, invocations: 128, size_x: 128, ..Self::WEBGPU };

    /// Whether the widest workgroups must do with half their lanes, as in WebGPU's compatibility mode.
    pub(crate) fn is_narrow(&self) -> bool {
        self.invocations.min(self.size_x) < Self::WEBGPU.invocations
    }

    /// The most bytes of a buffer that is bound whole, and the limit that says so.
    pub(crate) fn tightest(&self) -> (&'static str, u64) {
        if self.max_buffer < self.max_binding {
            ("max_buffer_size", self.max_buffer)
        } else {
            ("max_storage_buffer_binding_size", self.max_binding)
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        let least = Self::MIN;
        need("a kernel", "max_storage_buffers_per_shader_stage", least.storage_buffers, self.storage_buffers)?;
        need("a workgroup", "max_compute_invocations_per_workgroup", least.invocations, self.invocations)?;
        need("a workgroup", "max_compute_workgroup_size_x", least.size_x, self.size_x)?;
        need("a workgroup", "max_compute_workgroup_storage_size", least.workgroup_bytes, self.workgroup_bytes)?;
        need("a dispatch", "max_compute_workgroups_per_dimension", least.max_groups, self.max_groups)?;
        need("a binding", "min_storage_buffer_offset_alignment", least.alignment, self.alignment)
    }
}

/// [`Error::Limit`] where more of a limit is needed than allowed.
pub(crate) fn need(
    what: &'static str,
    limit: &'static str,
    needed: impl Into<u64>,
    allowed: impl Into<u64>,
) -> Result<()> {
    let (needed, allowed) = (needed.into(), allowed.into());
    if needed > allowed { Err(Error::Limit { what, limit, needed, allowed }) } else { Ok(()) }
}
