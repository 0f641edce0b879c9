//! WGSL to what a driver or a compiler takes, by naga, with the options that wgpu's backends set for a module with its
//! runtime checks on.

use naga::{
    Module, ShaderStage,
    back::{msl, spv},
    front::wgsl,
    proc::{BoundsCheckPolicies, BoundsCheckPolicy},
    valid::{Capabilities, ModuleInfo, ValidationFlags, Validator},
};

/// Who checks that an index of a buffer is inside it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Buffers {
    /// The device: Vulkan with `robustBufferAccess2`.
    Device,
    /// The module.
    Module,
}

fn parsed(source: &str) -> Result<(Module, ModuleInfo), String> {
    let module = wgsl::parse_str(source).map_err(|error| error.emit_to_string(source))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::all())
        .validate(&module)
        .map_err(|error| error.emit_to_string(source))?;
    Ok((module, info))
}

fn checks(buffers: Buffers) -> BoundsCheckPolicies {
    BoundsCheckPolicies {
        index: BoundsCheckPolicy::Restrict,
        buffer: match buffers {
            Buffers::Device => BoundsCheckPolicy::Unchecked,
            Buffers::Module => BoundsCheckPolicy::Restrict,
        },
        ..BoundsCheckPolicies::default()
    }
}

/// As wgpu's Vulkan backend writes it for a device of Vulkan 1.3.
pub fn spirv(source: &str, entry_point: &str, buffers: Buffers) -> Result<Vec<u32>, String> {
    let (module, info) = parsed(source)?;
    let options = spv::Options {
        lang_version: (1, 6),
        flags: spv::WriterFlags::LABEL_VARYINGS | spv::WriterFlags::FORCE_POINT_SIZE,
        fake_missing_bindings: true,
        bounds_check_policies: checks(buffers),
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::Native,
        force_loop_bounding: true,
        emit_int_div_checks: true,
        use_storage_input_output_16: false,
        ..spv::Options::default()
    };
    let pipeline = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: entry_point.to_owned() };
    spv::write_vec(&module, &info, &options, Some(&pipeline)).map_err(|error| error.to_string())
}

/// As wgpu's Metal backend writes it.
pub fn msl(source: &str) -> Result<String, String> {
    let (module, info) = parsed(source)?;
    let options = msl::Options {
        lang_version: (3, 0),
        fake_missing_bindings: true,
        bounds_check_policies: checks(Buffers::Module),
        zero_initialize_workgroup_memory: true,
        force_loop_bounding: true,
        ..msl::Options::default()
    };
    let (text, _) = msl::write_string(&module, &info, &options, &msl::PipelineOptions::default())
        .map_err(|error| error.to_string())?;
    Ok(text)
}
