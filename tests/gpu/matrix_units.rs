//! Matrix units: devices that have them are opened with them, so that every trial which goes over the tiles meets theirs too.

use libtest_mimic::Failed;
use margin_softmax::{
    data::DevicePreset,
    gpu::{self, Context},
    plan::{Limits, Plan, Vendor},
    *,
};

use crate::{
    Check,
    cases::Data,
    device::adapter_of,
    rig::{Rig, plain},
    tiles,
};

pub const CHECKS: &[(&str, Check)] = &[
    ("matrix_units_are_offered_once_they_were_tried", matrix_units_are_offered_once_they_were_tried),
    ("matrix_units_keep_the_precision_of_f32", matrix_units_keep_the_precision_of_f32),
    ("half_products_are_off_by_eleven_bits", half_products_are_off_by_eleven_bits),
];

/// Every adapter, opened with its matrix units where it has some that compute right.
pub fn contexts() -> Vec<Context> {
    Context::all().into_iter().map(|context| with_units(&context).unwrap_or(context)).collect()
}

/// Another device of the context's adapter.
fn with_units(context: &Context) -> Option<Context> {
    let context = opened(&adapter_of(context), wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX)?;
    context.check_matrix_units(&adapter_of(&context)).unwrap().map(|_| context)
}

fn opened(adapter: &wgpu::Adapter, further: wgpu::Features) -> Option<Context> {
    if !adapter.features().contains(further) {
        return None;
    }
    let descriptor = wgpu::DeviceDescriptor {
        required_limits: gpu::recommended_limits(adapter),
        required_features: gpu::optional_features(adapter) | further,
        // SAFETY: wgpu asks the caller to accept that an experimental feature may have bugs; the tests look for them
        #[allow(unsafe_code)]
        experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
        ..Default::default()
    };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).unwrap();
    Some(Context::from_device(&device, &queue).unwrap())
}

/// Without a check no tile of theirs is taken, and one that is asked for is an error; with it presets for large GPUs take it.
fn matrix_units_are_offered_once_they_were_tried(context: &Context) -> Result<(), Failed> {
    let adapter = adapter_of(context);
    let plain = Context::new(context.name().split(" (").next())?;
    assert_eq!(plain.check_matrix_units(&adapter)?, None);
    let of_units = |tile: &&Tile| tile.geometry().units.is_some();
    let shape = Shape::new(70, 130, 16)?;
    let layout = crate::rig::plain(&[130]);
    for &tile in Tile::ALL.iter().filter(of_units) {
        let options = Options { tile: Some(tile), ..Default::default() };
        let refused = Plan::head(&MarginSoftmax::default(), shape, &layout, plain.limits(), &options).err();
        assert!(matches!(refused, Some(Error::Missing { what: "matrix_units", .. })), "{refused:?}");
    }
    let Some(units) = context.limits().matrix_units else { return Ok(()) };
    let fresh = opened(&adapter, wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX).unwrap();
    assert_eq!(fresh.limits().matrix_units, None);
    let before = *fresh.limits();
    assert_eq!(fresh.check_matrix_units(&adapter)?, Some(units));
    assert_eq!(fresh.clone().limits(), &Limits { matrix_units: Some(units), ..before });
    assert_eq!(pollster::block_on(fresh.check_matrix_units_async(&adapter))?, Some(units));
    // others take them where they are asked for
    let chosen = |preset, vendor| {
        let (options, limits) = (Options { preset, ..Default::default() }, Limits { vendor, ..*fresh.limits() });
        let plan = Plan::head(&MarginSoftmax::default(), shape, &layout, &limits, &options)?;
        Ok::<_, Error>(plan.schedule().tile)
    };
    assert_eq!(chosen(DevicePreset::Desktop, Vendor::Nvidia)?.geometry().units, Some(units));
    assert_eq!(chosen(DevicePreset::Desktop, Vendor::Amd)?, Tile::Tile64);
    assert_eq!(chosen(DevicePreset::Software, Vendor::Nvidia)?, Tile::Direct64);
    // another adapter's units say nothing about this device
    for other in Context::all().iter().map(adapter_of).filter(|other| other.get_info() != adapter.get_info()) {
        let refused = fresh.check_matrix_units(&other).err();
        assert!(matches!(refused, Some(Error::Combination { what: "adapter", .. })), "{refused:?}");
    }
    Ok(())
}

/// Entries from 1e-7 to 1, lengths from 1e-18 to 1e18, gradients that differ as much from row to row: the f32 gates of the
/// stress tests, unchanged.
fn matrix_units_keep_the_precision_of_f32(context: &Context) -> Result<(), Failed> {
    let (n, c, d) = (70, 130, 192);
    let shape = Shape::new(n, c, d)?;
    let mut data = Data::random(shape, 41);
    for (i, v) in data.embeddings.iter_mut().enumerate() {
        *v *= 10_f32.powi(-((i % d * 5 % 8) as i32)) * 10_f32.powi(i32::try_from(i / d % 7)? * 6 - 18);
    }
    for (i, v) in data.prototypes.iter_mut().enumerate() {
        *v *= 10_f32.powi(-((i % d * 3 % 8) as i32)) * 10_f32.powi(18 - i32::try_from(i / d % 7)? * 6);
    }
    let loss = MarginSoftmax::arcface().with_scale(16.0).with_reduction(Reduction::None);
    data.upstream = Some((0..n).map(|i| 10_f32.powi(-((i % 9) as i32))).collect());
    let expected = data.reference(&loss, shape);
    // as the agreement table
    let gate = 1e-5 + 3e-7 * 16.0;
    for tile in tiles(context) {
        let options = Options { tile: Some(tile), ..Default::default() };
        let found = Rig::new(context, &loss, shape, &plain(&[c]), &options, &data)?.run(context)?;
        for (found, expected) in found.row_losses.iter().zip(&expected.row_losses) {
            let error = (f64::from(*found) - expected).abs() / expected;
            assert!(error <= gate, "{}: loss {found} is not {expected}", tile.name());
        }
        for (what, found, expected) in [
            ("dX", &found.grad_embeddings, &expected.grad_embeddings),
            ("dW", &found.grad_prototypes, &expected.grad_prototypes),
        ] {
            // every row and class by its own size
            for (i, (found, expected)) in found.chunks(d).zip(expected.chunks(d)).enumerate() {
                let largest = expected.iter().fold(0.0_f64, |most, v| most.max(v.abs()));
                let error = found.iter().zip(expected).map(|(f, e)| (f64::from(*f) - e).abs()).fold(0.0, f64::max);
                assert!(error <= gate * largest, "{}: {what} of {i} is off by {:e}", tile.name(), error / largest);
            }
        }
    }
    Ok(())
}

/// One product of f16 in the place of three is off by what its documentation says, and is another result.
fn half_products_are_off_by_eleven_bits(context: &Context) -> Result<(), Failed> {
    let (n, c, d, scale) = (70, 130, 192, 16.0);
    let shape = Shape::new(n, c, d)?;
    let data = Data::random(shape, 43);
    // its target's cosine comes from another kernel, so a loss is off by no more than the largest of the other logits
    let loss = MarginSoftmax::normface().with_scale(scale).with_reduction(Reduction::None);
    let expected = data.reference(&loss, shape);
    // two operands, each rounded to the nearest of eleven bits; f32 beside it
    let cosine = 2.0_f64.powi(-10) + 1e-5;
    let logit = scale * cosine;
    for &tile in Tile::ALL.iter().filter(|tile| tile.geometry().single && tile.check(context.limits()).is_ok()) {
        let options = Options { tile: Some(tile), ..Default::default() };
        let found = Rig::new(context, &loss, shape, &plain(&[c]), &options, &data)?.run(context)?;
        let off = |found: &[f32], expected: &[f64]| {
            found.iter().zip(expected).map(|(f, e)| (f64::from(*f) - e).abs()).fold(0.0, f64::max)
        };
        let error = off(&found.row_losses, &expected.row_losses);
        assert!((1e-5..=logit).contains(&error), "{}: a loss is off by {error:e}, {logit:e} is allowed", tile.name());
        // a probability grows by at most exp(2·logit), and its product with a unit vector is off by `cosine`; the sum of the
        // magnitudes of a row's entries is at most twice the scale, over its length
        let allowed = (2.0 * logit).exp_m1() + cosine;
        for (i, (found, expected)) in
            found.grad_embeddings.chunks(d).zip(expected.grad_embeddings.chunks(d)).enumerate()
        {
            let length = data.embeddings[i * d..][..d].iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            let error = off(found, expected);
            assert!(error <= 2.0 * scale / length * allowed, "{}: dX of {i} is off by {error:e}", tile.name());
        }
        let largest = expected.grad_prototypes.iter().fold(0.0_f64, |most, v| most.max(v.abs()));
        let error = off(&found.grad_prototypes, &expected.grad_prototypes);
        assert!(error <= allowed * largest, "{}: dW is off by {:e} of its largest", tile.name(), error / largest);
    }
    Ok(())
}
