//! A Vulkan driver as a compiler: it makes the pipeline of a kernel and tells what its compiler says of it. Nothing runs, so
//! the device may be one that is not there.

#![allow(unsafe_code)] // Vulkan through `ash`

use std::{
    ffi::{CStr, CString, c_char},
    ptr,
};

use ash::{
    Device, Entry, Instance,
    khr::{cooperative_matrix, pipeline_executable_properties},
    vk::{self, PFN_vkGetPipelineExecutableInternalRepresentationsKHR as GetRepresentations},
};
use margin_softmax::plan::Kernel;

use crate::modules::{self, Buffers};

/// A compiler's report on a kernel.
pub struct Compiled {
    /// Its statistics, by the driver's names.
    pub statistics: Vec<(String, f64)>,
    /// Its last representation: the assembly.
    pub assembly: String,
    /// Invocations that run together.
    pub subgroup: u32,
}

/// Statistics by their names.
impl Compiled {
    pub fn statistic(&self, name: &str) -> Result<f64, String> {
        let found = self.statistics.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let known: Vec<&str> = self.statistics.iter().map(|(known, _)| known.as_str()).collect();
            format!("the driver has no statistic `{name}`; it has {}", known.join(", "))
        })
    }
}

/// An open device, which lives as long as the process.
pub struct Driver {
    /// The device and the driver's version.
    pub name: String,
    buffers: Buffers,
    device: Device,
    executables: pipeline_executable_properties::Device,
    // last: the loader stays while the others are there
    _loader: (Instance, Entry),
}

fn text(characters: &[c_char]) -> String {
    // SAFETY: Vulkan ends its names with a zero within the array.
    unsafe { CStr::from_ptr(characters.as_ptr()) }.to_string_lossy().into_owned()
}

fn failed(what: &str) -> impl Fn(vk::Result) -> String {
    let what = what.to_owned();
    move |error| format!("{what}: {error}")
}

impl Driver {
    /// The first device of the drivers in `VK_DRIVER_FILES`.
    pub fn open(buffers: Buffers) -> Result<Self, String> {
        // SAFETY: the loader is the system's; all pointers of the structs live until the call that takes them returns.
        unsafe {
            let entry = Entry::load().map_err(|error| error.to_string())?;
            let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
            let info = vk::InstanceCreateInfo::default().application_info(&application);
            let instance = entry.create_instance(&info, None).map_err(failed("vkCreateInstance"))?;
            let physical = instance.enumerate_physical_devices().map_err(failed("vkEnumeratePhysicalDevices"))?;
            let physical = *physical.first().ok_or("the driver has no device")?;

            let mut driver = vk::PhysicalDeviceDriverProperties::default();
            let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut driver);
            instance.get_physical_device_properties2(physical, &mut properties);
            let device_name = text(&properties.properties.device_name);
            let name = format!("{device_name}, {} {}", text(&driver.driver_name), text(&driver.driver_info));

            let robust = buffers == Buffers::Device;
            let mut extensions = vec![pipeline_executable_properties::NAME.as_ptr()];
            if robust {
                extensions.push(ash::ext::robustness2::NAME.as_ptr());
            }
            let known = instance.enumerate_device_extension_properties(physical).map_err(failed("extensions"))?;
            let units = known.iter().any(|one| one.extension_name_as_c_str() == Ok(cooperative_matrix::NAME));
            if units {
                extensions.push(cooperative_matrix::NAME.as_ptr());
            }
            let mut matrices = vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default().cooperative_matrix(true);
            let mut executable =
                vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default().pipeline_executable_info(true);
            let mut robustness = vk::PhysicalDeviceRobustness2FeaturesEXT::default()
                .robust_buffer_access2(true)
                .robust_image_access2(true);
            let mut vulkan11 = vk::PhysicalDeviceVulkan11Features::default().storage_buffer16_bit_access(true);
            let mut vulkan12 =
                vk::PhysicalDeviceVulkan12Features::default().shader_float16(true).vulkan_memory_model(true);
            let mut vulkan13 = vk::PhysicalDeviceVulkan13Features::default()
                .shader_zero_initialize_workgroup_memory(true)
                .subgroup_size_control(true)
                .compute_full_subgroups(true);
            let core = vk::PhysicalDeviceFeatures::default().robust_buffer_access(robust).shader_int16(true);
            let queues = [vk::DeviceQueueCreateInfo::default().queue_priorities(&[1.0])];
            let mut info = vk::DeviceCreateInfo::default()
                .queue_create_infos(&queues)
                .enabled_extension_names(&extensions)
                .enabled_features(&core)
                .push_next(&mut executable)
                .push_next(&mut vulkan11)
                .push_next(&mut vulkan12)
                .push_next(&mut vulkan13);
            if robust {
                info = info.push_next(&mut robustness);
            }
            if units {
                info = info.push_next(&mut matrices);
            }
            let device = instance.create_device(physical, &info, None).map_err(failed("vkCreateDevice"))?;
            let executables = pipeline_executable_properties::Device::new(&instance, &device);
            Ok(Self { name, buffers, device, executables, _loader: (instance, entry) })
        }
    }

    /// Compiles a kernel as wgpu would.
    pub fn compile(&self, kernel: &Kernel) -> Result<Compiled, String> {
        let code = modules::spirv(&kernel.source, kernel.name, self.buffers)?;
        // SAFETY: naga has validated the module; all pointers of the structs live until the call that takes them returns.
        unsafe {
            let device = &self.device;
            let binding = |index: usize, kind| {
                vk::DescriptorSetLayoutBinding::default()
                    .binding(index as u32)
                    .descriptor_type(kind)
                    .descriptor_count(1)
                    .stage_flags(vk::ShaderStageFlags::COMPUTE)
            };
            let uniforms = [vk::DescriptorType::UNIFORM_BUFFER, vk::DescriptorType::UNIFORM_BUFFER_DYNAMIC];
            let storage = kernel.bindings.iter().map(|_| vk::DescriptorType::STORAGE_BUFFER);
            let bindings: Vec<_> =
                uniforms.into_iter().chain(storage).enumerate().map(|(index, kind)| binding(index, kind)).collect();
            let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
            let set = device.create_descriptor_set_layout(&info, None).map_err(failed("a layout"))?;
            let sets = [set];
            let info = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets);
            let layout = device.create_pipeline_layout(&info, None).map_err(failed("a layout"))?;
            let info = vk::ShaderModuleCreateInfo::default().code(&code);
            let module = device.create_shader_module(&info, None).map_err(failed("a module"))?;
            let name = CString::new(kernel.name).map_err(|error| error.to_string())?;
            let stage = vk::PipelineShaderStageCreateInfo::default()
                .stage(vk::ShaderStageFlags::COMPUTE)
                .module(module)
                .name(&name);
            let capture = vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR
                | vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR;
            let info = [vk::ComputePipelineCreateInfo::default().layout(layout).stage(stage).flags(capture)];
            let pipelines = device.create_compute_pipelines(vk::PipelineCache::null(), &info, None);
            let pipeline = pipelines.map_err(|(_, error)| format!("{}: {error}", kernel.name))?[0];
            let compiled = self.executable(pipeline);
            device.destroy_pipeline(pipeline, None);
            device.destroy_shader_module(module, None);
            device.destroy_pipeline_layout(layout, None);
            device.destroy_descriptor_set_layout(set, None);
            compiled
        }
    }

    /// Of several executables (Intel: a SIMD width each) the last one.
    unsafe fn executable(&self, pipeline: vk::Pipeline) -> Result<Compiled, String> {
        // SAFETY: the pipeline is one of this device, made with both capture flags.
        unsafe {
            let info = vk::PipelineInfoKHR::default().pipeline(pipeline);
            let executables = self.executables.get_pipeline_executable_properties(&info);
            let executables = executables.map_err(failed("executables"))?;
            let last = executables.len().checked_sub(1).ok_or("a pipeline without executables")?;
            let info = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline).executable_index(last as u32);
            let statistics = self.executables.get_pipeline_executable_statistics(&info);
            let statistics = statistics.map_err(failed("statistics"))?.into_iter().map(|statistic| {
                let value = match statistic.format {
                    vk::PipelineExecutableStatisticFormatKHR::FLOAT64 => statistic.value.f64,
                    vk::PipelineExecutableStatisticFormatKHR::INT64 => statistic.value.i64 as f64,
                    _ => statistic.value.u64 as f64,
                };
                (text(&statistic.name), value)
            });
            let statistics = statistics.collect();
            let assembly = self.assembly(&info)?;
            Ok(Compiled { statistics, assembly, subgroup: executables[last].subgroup_size })
        }
    }

    /// The representation that is called assembly; the last one where none is.
    unsafe fn assembly(&self, info: &vk::PipelineExecutableInfoKHR<'_>) -> Result<String, String> {
        let get: GetRepresentations = self.executables.fp().get_pipeline_executable_internal_representations_khr;
        let handle = self.device.handle();
        // SAFETY: the first call counts, the second fills in the sizes, the third writes into buffers of these sizes.
        unsafe {
            let mut count = 0;
            get(handle, info, &mut count, ptr::null_mut()).result().map_err(failed("representations"))?;
            let mut list = vec![vk::PipelineExecutableInternalRepresentationKHR::default(); count as usize];
            get(handle, info, &mut count, list.as_mut_ptr()).result().map_err(failed("representations"))?;
            let mut texts: Vec<Vec<u8>> = list.iter().map(|one| vec![0; one.data_size]).collect();
            for (one, text) in list.iter_mut().zip(&mut texts) {
                one.p_data = text.as_mut_ptr().cast();
            }
            get(handle, info, &mut count, list.as_mut_ptr()).result().map_err(failed("representations"))?;
            let named = list.iter().position(|one| text(&one.name).to_lowercase().contains("assembly"));
            let chosen = named.or(texts.len().checked_sub(1)).map(|at| &texts[at]);
            let chosen = chosen.map(|bytes| String::from_utf8_lossy(bytes)).unwrap_or_default();
            Ok(chosen.trim_end_matches('\0').to_owned())
        }
    }
}
