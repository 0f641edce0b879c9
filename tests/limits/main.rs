//! Every plan keeps to the limits of its device, or is refused with the limit's name: as data, and on a device without a
//! driver. No arithmetic overflows on the way.

mod check;
mod heads;
#[cfg(feature = "gpu")]
mod noop;
mod pieces;

use margin_softmax::plan::{Limits, Vendor};

/// A large GPU's.
const LARGE: Limits = Limits {
    max_buffer: 4 << 30,
    max_binding: (1 << 31) - 1,
    max_groups: 65_535,
    storage_buffers: 64,
    invocations: 1024,
    size_x: 1024,
    workgroup_bytes: 48 << 10,
    alignment: 16,
    f16: true,
    software: false,
    vendor: Vendor::Nvidia,
    matrix_units: None,
};

/// Devices: those there are, and some that nobody has. The first can run a head.
const DEVICES: [(&str, Limits); 16] = [
    ("WebGPU's default", Limits::WEBGPU),
    ("a large GPU", LARGE),
    (
        "lavapipe",
        Limits {
            max_buffer: 1 << 31,
            max_binding: 128 << 20,
            workgroup_bytes: 32 << 10,
            alignment: 16,
            software: true,
            vendor: Vendor::Unknown,
            ..LARGE
        },
    ),
    (
        "SwiftShader",
        Limits {
            max_buffer: 1 << 30,
            max_binding: 1 << 30,
            invocations: 256,
            size_x: 256,
            workgroup_bytes: 16 << 10,
            alignment: 16,
            software: true,
            vendor: Vendor::Unknown,
            ..LARGE
        },
    ),
    // only indices bound it
    (
        "without limits",
        Limits {
            max_buffer: u64::MAX,
            max_binding: u64::MAX,
            max_groups: u32::MAX,
            storage_buffers: u32::MAX,
            invocations: u32::MAX,
            size_x: u32::MAX,
            workgroup_bytes: u32::MAX,
            alignment: 1,
            f16: false,
            software: false,
            vendor: Vendor::Unknown,
            matrix_units: None,
        },
    ),
    ("bindings of 1 MiB", Limits { max_binding: 1 << 20, ..Limits::WEBGPU }),
    ("buffers of 1 MiB", Limits { max_buffer: 1 << 20, ..Limits::WEBGPU }),
    ("256 groups along an axis", Limits { max_groups: 256, ..LARGE }),
    ("8 KiB of workgroup memory", Limits { workgroup_bytes: 8 << 10, ..Limits::WEBGPU }),
    ("128 invocations along x", Limits { size_x: 128, ..Limits::WEBGPU }),
    ("WebGPU's compatibility mode", Limits { invocations: 128, size_x: 128, ..Limits::WEBGPU }),
    ("4 KiB of workgroup memory", Limits { workgroup_bytes: 4 << 10, ..Limits::WEBGPU }),
    ("64 invocations along x", Limits { size_x: 64, ..Limits::WEBGPU }),
    ("64 invocations", Limits { invocations: 64, ..Limits::WEBGPU }),
    // WebGL's and OpenGL ES's
    ("downlevel", Limits { storage_buffers: 4, ..Limits::WEBGPU }),
    ("no alignment", Limits { alignment: 0, ..Limits::WEBGPU }),
];

/// How many of them can run a head.
const ABLE: usize = 11;

/// What a device lacks that every plan needs.
fn lacks(limits: &Limits) -> Option<&'static str> {
    [
        (limits.storage_buffers < 8, "max_storage_buffers_per_shader_stage"),
        (limits.invocations < 128, "max_compute_invocations_per_workgroup"),
        (limits.size_x < 128, "max_compute_workgroup_size_x"),
        (limits.workgroup_bytes < 8 << 10, "max_compute_workgroup_storage_size"),
        (limits.alignment == 0, check::ALIGNMENT),
    ]
    .into_iter()
    .find_map(|(lacks, name)| lacks.then_some(name))
}

/// The other tests would not see a wrapped sum without.
#[test]
fn these_tests_check_for_overflow() {
    let most = std::hint::black_box(u32::MAX);
    assert!(std::panic::catch_unwind(|| std::hint::black_box(most + 1)).is_err(), "build with overflow-checks");
}
