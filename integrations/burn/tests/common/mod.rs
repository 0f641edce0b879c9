//! One device for all tests, and the head in burn's own operations.
#![allow(dead_code)]

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use burn::{
    module::Param,
    tensor::{Device, IndexingUpdateOp, Int, Tensor, TensorData, activation::log_softmax, wgpu::WgpuSetup},
};
use margin_softmax_burn::{MarginHead, MarginHeadConfig, MarginSoftmax, wgpu};
use pollster::block_on;

/// A hardware GPU if there is one, else lavapipe, else any.
pub fn adapter() -> (wgpu::Instance, wgpu::Adapter) {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let rank = |adapter: &wgpu::Adapter| {
        let info = adapter.get_info();
        (info.device_type == wgpu::DeviceType::Cpu, !info.name.contains("llvmpipe"))
    };
    let found = block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY));
    let adapter = found.into_iter().min_by_key(rank).expect("an adapter; mesa-vulkan-drivers is a software one");
    (instance, adapter)
}

pub fn setup(descriptor: &wgpu::DeviceDescriptor<'_>) -> WgpuSetup {
    let (instance, adapter) = adapter();
    let (device, queue) = block_on(adapter.request_device(descriptor)).expect("the adapter opens");
    let backend = adapter.get_info().backend;
    WgpuSetup { instance, adapter, device, queue, backend }
}

/// The device, for one test at a time: allocations are counted.
pub fn device() -> (Device, MutexGuard<'static, ()>) {
    static TURN: Mutex<()> = Mutex::new(());
    static DEVICE: OnceLock<Device> = OnceLock::new();
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let open = || {
        let setup = setup(&margin_softmax_burn::descriptor(&adapter().1));
        println!("on {}", setup.adapter.get_info().name);
        margin_softmax_burn::from_setup(setup).expect("burn takes the device")
    };
    (DEVICE.get_or_init(open).clone(), turn)
}

/// Values that repeat nowhere, about even in (-1, 1).
pub fn values(count: usize, seed: u32) -> Vec<f32> {
    let mut x = seed.wrapping_mul(2_654_435_769).wrapping_add(12_345);
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        x as f32 / u32::MAX as f32 * 2.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

pub fn floats(rows: usize, columns: usize, seed: u32, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values(rows * columns, seed), [rows, columns]), device)
}

pub fn labels(rows: usize, classes: usize, device: &Device) -> (Vec<i32>, Tensor<1, Int>) {
    let labels: Vec<i32> = (0..rows).map(|i| (i * 7 % classes) as i32).collect();
    (labels.clone(), Tensor::from_data(TensorData::new(labels, [rows]), device))
}

/// With the same prototypes in every run.
pub fn head(loss: &MarginSoftmax, classes: usize, dim: usize, device: &Device) -> MarginHead {
    let mut head = MarginHeadConfig::new(classes, dim, loss.clone()).init(device);
    head.prototypes = Param::from_tensor(floats(classes, dim, 90, device));
    head
}

pub fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// Largest difference in units of the largest value expected.
pub fn apart(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    assert!(largest > 0.0, "nothing to compare with");
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    // a NaN must not vanish in the maximum
    differences.fold(0.0_f32, |m, d| if d > m || d.is_nan() { d } else { m }) / largest
}

pub fn assert_near(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    let apart = apart(found, expected);
    assert!(apart <= tolerance, "{what} differs by {apart:e} of its largest value, allowed are {tolerance:e}");
}

/// A margin in burn's own operations.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::enum_variant_names)] // as papers call them
pub enum Composed {
    NormFace,
    CosFace(f64),
    ArcFace(f64),
}

impl Composed {
    pub fn loss(self) -> MarginSoftmax {
        match self {
            Composed::NormFace => MarginSoftmax::normface(),
            Composed::CosFace(m3) => MarginSoftmax::cosface().with_margin(|m| m.m3 = m3),
            Composed::ArcFace(m2) => MarginSoftmax::arcface().with_margin(|m| m.m2 = m2),
        }
    }

    /// \[N\]
    pub fn rows(self, x: Tensor<2>, w: Tensor<2>, y: Tensor<1, Int>, scale: f64) -> Tensor<1> {
        let unit = |v: Tensor<2>| {
            let length = v.clone().powi_scalar(2).sum_dim(1).sqrt();
            v / length
        };
        let at: Tensor<2, Int> = y.unsqueeze_dim(1);
        let z = unit(x).matmul(unit(w).transpose());
        let c = z.clone().gather(1, at.clone());
        let moved = match self {
            Composed::NormFace => c.clone(),
            Composed::CosFace(m3) => c.clone() - m3,
            Composed::ArcFace(m2) => {
                let sine = ((-c.clone() + 1.0) * (c.clone() + 1.0)).sqrt();
                let angle = c.clone() * m2.cos() - sine * m2.sin();
                // beyond π − m2 the preset goes on in parallel to c
                angle.mask_where(c.clone().lower_elem(-m2.cos()), c.clone() + (m2.cos() - 1.0))
            }
        };
        let z = z.scatter(1, at.clone(), moved - c, IndexingUpdateOp::Add) * scale;
        -log_softmax(z, 1).gather(1, at).flatten::<1>(0, 1)
    }

    /// \[1\]
    pub fn mean(self, x: Tensor<2>, w: Tensor<2>, y: Tensor<1, Int>, scale: f64) -> Tensor<1> {
        self.rows(x, w, y, scale).mean()
    }
}
