//! Every kernel x margin x tile x element loader: validated by naga, translated to MSL and HLSL, built on a device
//! without a driver, and its structs and bindings compared with Rust's.
#![cfg(feature = "gpu")]

use margin_softmax::{
    Tile,
    plan::{Binding, Kernel, Limits, kernels::all},
};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};

fn parse(name: &str, kernel: &Kernel) -> (naga::Module, ModuleInfo) {
    let module = naga::front::wgsl::parse_str(&kernel.source)
        .unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(&kernel.source)));
    // nothing beyond a bare WebGPU device, where unpack2x16float is plain WGSL; to naga it is a capability
    let halves = kernel.source.contains("unpack2x16float");
    let mut capabilities = if halves { Capabilities::SHADER_FLOAT16_IN_FLOAT32 } else { Capabilities::empty() };
    // and the type f16 where the device has it
    capabilities.set(Capabilities::SHADER_FLOAT16, needs_f16(kernel));
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(&kernel.source)));
    (module, info)
}

fn needs_f16(kernel: &Kernel) -> bool {
    kernel.source.starts_with("enable f16;")
}

#[test]
fn every_kernel_is_valid_and_binds_what_its_descriptor_says() {
    let kernels = all();
    assert!(kernels.len() > 500, "{} kernels", kernels.len());
    for (name, kernel) in &kernels {
        let (module, _) = parse(name, kernel);
        let entry = &module.entry_points[0];
        assert_eq!((module.entry_points.len(), entry.name.as_str()), (1, kernel.name), "{name}");
        let mut found = vec![None; kernel.bindings.len() + 2];
        for (_, variable) in module.global_variables.iter() {
            let Some(binding) = &variable.binding else { continue };
            assert_eq!(binding.group, 0, "{name}");
            let size = module.types[variable.ty].inner.size(module.to_ctx());
            let slot = found.get_mut(binding.binding as usize).unwrap_or_else(|| panic!("{name}: {binding:?}"));
            assert!(slot.is_none(), "{name}: binding {} twice", binding.binding);
            *slot = Some((variable.space, size));
        }
        for (i, (slot, bytes)) in found.iter().zip(Kernel::UNIFORMS).enumerate() {
            let expected = (naga::AddressSpace::Uniform, bytes as u32);
            assert_eq!(*slot, Some(expected), "{name}: binding {i}");
        }
        for (i, (slot, kind)) in found[2..].iter().zip(&kernel.bindings).enumerate() {
            let (space, _) = slot.unwrap_or_else(|| panic!("{name}: nothing at binding {}", i + 2));
            let access = match kind {
                Binding::Read => naga::StorageAccess::LOAD,
                Binding::Write => naga::StorageAccess::LOAD | naga::StorageAccess::STORE,
            };
            assert_eq!(space, naga::AddressSpace::Storage { access }, "{name}: binding {}", i + 2);
        }
        assert!(kernel.bindings.len() <= 8, "{name}: more storage buffers than WebGPU promises");
    }
}

/// Fields of a struct in the shader, with their offsets.
fn fields(module: &naga::Module, name: &str) -> (Vec<(String, u32)>, u32) {
    for (_, ty) in module.types.iter() {
        if let (Some(found), naga::TypeInner::Struct { members, span }) = (&ty.name, &ty.inner)
            && found == name
        {
            return (members.iter().map(|m| (m.name.clone().unwrap(), m.offset)).collect(), *span);
        }
    }
    panic!("no struct {name}");
}

#[test]
fn structs_have_the_same_fields_at_the_same_offsets_in_rust() {
    let (_, kernel) = all().into_iter().find(|(_, k)| k.name == "batch_loss").unwrap();
    let module = naga::front::wgsl::parse_str(&kernel.source).unwrap();
    for (name, rust, bytes) in margin_softmax::plan::twins() {
        let (shader, span) = fields(&module, name);
        let shader: Vec<(&str, u32)> =
            shader.iter().map(|(n, o)| (n.as_str(), *o)).filter(|(n, _)| !n.starts_with("pad")).collect();
        let rust: Vec<(&str, u32)> = rust.into_iter().map(|(n, o)| (n, o as u32)).collect();
        assert_eq!(shader, rust, "{name}");
        assert_eq!(span as usize, bytes, "{name}");
    }
}

/// A tile's invocations and workgroup memory are what the planner believes; no other kernel needs more than every plan may.
#[test]
fn workgroups_are_as_large_as_the_planner_believes() {
    let least = Limits { workgroup_bytes: 8 << 10, ..Limits::WEBGPU };
    for (name, kernel) in all() {
        let (module, _) = parse(&name, &kernel);
        let memory = |(_, v): (_, &naga::GlobalVariable)| match v.space {
            naga::AddressSpace::WorkGroup => module.types[v.ty].inner.size(module.to_ctx()),
            _ => 0,
        };
        let bytes: u32 = module.global_variables.iter().map(memory).sum();
        let lanes: u32 = module.entry_points[0].workgroup_size.iter().product();
        let tile = Tile::ALL.iter().find(|tile| name.contains(&format!("[{} ", tile.name())));
        match tile.map(|tile| tile.geometry()) {
            // beside its own memory there may be a number per invocation
            Some(tile) => assert!(lanes == tile.lanes && bytes - tile.bytes <= 4 * lanes, "{name}: {lanes}, {bytes}"),
            None => {
                // the monitor's histograms need more, and it says so
                let allowed = if kernel.name == "monitor" { 13 << 10 } else { least.workgroup_bytes };
                assert!(lanes <= least.invocations && bytes <= allowed, "{name}: {lanes}, {bytes}");
            }
        }
    }
}

/// The guard for Metal and DX12: translated, not run.
#[test]
fn every_kernel_translates_to_msl_and_hlsl() {
    for (name, kernel) in all() {
        let (module, info) = parse(&name, &kernel);
        let options = naga::back::msl::Options { fake_missing_bindings: true, ..Default::default() };
        let pipeline = naga::back::msl::PipelineOptions::default();
        let (text, _) = naga::back::msl::write_string(&module, &info, &options, &pipeline)
            .unwrap_or_else(|e| panic!("{name}: MSL: {e}"));
        assert!(text.contains("kernel void"), "{name}");

        // f16 came with shader model 6.2
        let default = naga::back::hlsl::Options::default().shader_model;
        let shader_model = if needs_f16(&kernel) { naga::back::hlsl::ShaderModel::V6_2 } else { default };
        let options = naga::back::hlsl::Options { fake_missing_bindings: true, shader_model, ..Default::default() };
        let pipeline = naga::back::hlsl::PipelineOptions::default();
        let mut text = String::new();
        naga::back::hlsl::Writer::new(&mut text, &options, &pipeline)
            .write(&module, &info, None)
            .unwrap_or_else(|e| panic!("{name}: HLSL: {e}"));
        assert!(text.contains("numthreads"), "{name}");
    }
}

/// wgpu's own validation of layouts, bindings and limits, with WebGPU's default limits, without a driver.
#[test]
fn every_kernel_builds_on_a_device_without_a_driver() {
    let (device, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor::default());
    let context = margin_softmax::gpu::Context::from_device(&device, &queue).unwrap();
    assert!(!context.limits().f16);
    for (name, kernel) in all().into_iter().filter(|(_, k)| !needs_f16(k)) {
        context.compile(&kernel).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

/// A downlevel device has four storage buffers per stage; eight are needed.
#[test]
fn a_device_with_too_few_storage_buffers_is_refused() {
    let required_limits = wgpu::Limits { max_storage_buffers_per_shader_stage: 4, ..Default::default() };
    let (device, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor { required_limits, ..Default::default() });
    let limit = "max_storage_buffers_per_shader_stage";
    let expected = margin_softmax::Error::Limit { what: "a kernel", limit, needed: 8, allowed: 4 };
    assert_eq!(margin_softmax::gpu::Context::from_device(&device, &queue).err(), Some(expected));
}
