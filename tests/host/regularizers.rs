//! Regularisers and center loss: the reference against the mathematics, the CPU path against the reference, the plans.

use margin_softmax::{
    Backend, CenterLoss, Error, Regularizer, Shape,
    plan::{Element, Limits, Plan, Role},
    reference,
};
#[cfg(feature = "cpu")]
use rand::RngExt;

use crate::common::*;

/// \[C, D\] = \[3, 2\], the prototypes of the golden numbers.
const W: [f64; 6] = [1.0, 1.0, 0.0, 2.0, -3.0, 1.0];

fn both() -> [Regularizer; 2] {
    [Regularizer::reg_ss(), Regularizer::uniform_face()]
}

/// Vectors of very different lengths, none short.
fn vectors(seed: u64, count: usize, dim: usize) -> Vec<f64> {
    let mut rng = random(seed);
    let lengths = [1.0, 0.2, 7.0];
    let vector = |i: usize| loop {
        let v = uniform(&mut rng, dim);
        if length(&v) > 0.3 {
            break v.into_iter().map(|x| x * lengths[i % 3]).collect::<Vec<_>>();
        }
    };
    (0..count).flat_map(vector).collect()
}

/// To f32 and back, so that both precisions see the same numbers.
#[cfg(feature = "cpu")]
fn rounded(values: Vec<f64>) -> (Vec<f64>, Vec<f32>) {
    let thin: Vec<f32> = values.into_iter().map(|x| x as f32).collect();
    (thin.iter().map(|&x| x.into()).collect(), thin)
}

#[test]
fn golden_numbers() {
    let out = reference::regularize(&Regularizer::reg_ss(), 2, &W).unwrap();
    printed("Reg_ss", out.value, "0.679235019");
    all_printed("its gradient", &out.gradient, "-0.1309916 0.1309916 -0.0197589 0 0.0301501 0.0904503");
    let out = reference::regularize(&Regularizer::uniform_face(), 2, &W).unwrap();
    printed("UniformFace", out.value, "0.4658663");
    all_printed("its gradient", &out.gradient, "-0.0614155 0.0614155 0.0206792 0 0.0081473 0.0244418");
    // two opposite prototypes are 2 apart, two orthogonal ones √2; the mean of the latter has length 1/√2
    let opposite = reference::regularize(&Regularizer::uniform_face(), 1, &[5.0, -0.1]).unwrap();
    close("opposite", opposite.value, 1.0 / 3.0, 1e-15);
    let mean = reference::regularize(&Regularizer::reg_ss(), 2, &[3.0, 0.0, 0.0, 0.1]).unwrap();
    close("orthogonal", mean.value, 0.5_f64.sqrt(), 1e-15);
}

/// By hand: t − c = (1, 2), (−3, 0), (0, 1); the third row has another class.
#[test]
fn the_center_loss_by_hand() {
    let loss = CenterLoss { weight: 0.6, rate: 0.5, ignore_index: Some(-1) };
    let (centers, labels) = ([1.0, 1.0, 5.0, 5.0, 9.0, 9.0], [0, 0, 2, -1]);
    let embeddings = [2.0, 3.0, -2.0, 1.0, 9.0, 10.0, 1e9, f64::NAN];
    let out = reference::center_loss(&loss, 2, &embeddings, &labels, &centers).unwrap();
    close("loss", out.loss, 0.6 / 6.0 * (5.0 + 9.0 + 1.0), 1e-15);
    all_close("gradient", &out.grad_embeddings, &[0.2, 0.4, -0.6, 0.0, 0.0, 0.2, 0.0, 0.0], 1e-15);
    let mut moved = centers;
    reference::update_centers(&loss, 2, &embeddings, &labels, &mut moved).unwrap();
    // c − α Σ(c − t)/(1 + n): (−1 + 3, −2 + 0) / 3 and (0, −1) / 2
    all_close("centers", &moved, &[1.0 - 1.0 / 3.0, 1.0 + 1.0 / 3.0, 5.0, 5.0, 9.0, 9.25], 1e-15);
}

/// Differences with h = 1e-4 of vectors longer than 0.06: the fifth derivative is below 1e3/0.06⁵, times h⁴/30 below 5e-9
/// relative to the largest entries, about 1/0.06.
#[test]
fn gradients_are_the_derivatives_of_the_values() {
    for (classes, dim) in [(1, 3), (2, 2), (3, 2), (5, 3), (8, 1), (7, 5)] {
        let w = vectors(classes as u64, classes, dim);
        for regularizer in both().map(|r| r.with_weight(0.7)) {
            let out = reference::regularize(&regularizer, dim, &w).unwrap();
            for at in 0..w.len() {
                let value = |x: f64| {
                    let mut moved = w.clone();
                    moved[at] = x;
                    reference::regularize(&regularizer, dim, &moved).unwrap().value
                };
                let name = format!("{} {classes}x{dim} [{at}]", regularizer.name());
                let step = 1e-3 * length(&w[at / dim * dim..][..dim]);
                close(name, out.gradient[at], central_difference(value, w[at], step), 1e-7);
            }
        }
        let loss = CenterLoss { weight: 0.7, ignore_index: Some(9), ..Default::default() };
        let (x, labels) = (vectors(77, 4, dim), [0, classes as i32 - 1, 9, 0]);
        let out = reference::center_loss(&loss, dim, &x, &labels, &w).unwrap();
        for at in 0..x.len() {
            let value = |new: f64| {
                let mut moved = x.clone();
                moved[at] = new;
                reference::center_loss(&loss, dim, &moved, &labels, &w).unwrap().loss
            };
            close("center loss", out.grad_embeddings[at], central_difference(value, x[at], 1e-3), 1e-9);
        }
    }
}

/// Only directions count: a gradient along its own vector would change nothing but the length.
#[test]
fn gradients_are_orthogonal_and_scale_with_the_inverse_length() {
    let w = vectors(5, 6, 4);
    for regularizer in both() {
        let out = reference::regularize(&regularizer, 4, &w).unwrap();
        let mut longer = w.clone();
        longer[4..8].iter_mut().for_each(|x| *x *= 8.0);
        let mut scaled = reference::regularize(&regularizer, 4, &longer).unwrap();
        scaled.gradient[4..8].iter_mut().for_each(|x| *x *= 8.0);
        close("value", scaled.value, out.value, 1e-15);
        all_close("gradient", &scaled.gradient, &out.gradient, 1e-14);
        for (g, v) in out.gradient.chunks(4).zip(w.chunks(4)) {
            assert!(length(g) > 1e-4);
            close("radial part", dot(g, v), 0.0, 1e-15);
        }
        // the weight is a factor of both
        let double = reference::regularize(&regularizer.with_weight(2.0), 4, &w).unwrap();
        close("value", double.value, 2.0 * out.value, 1e-15);
        all_close("gradient", &double.gradient, &out.gradient.iter().map(|g| 2.0 * g).collect::<Vec<_>>(), 1e-15);
    }
}

fn backends() -> Vec<Backend> {
    vec![
        Backend::Reference,
        #[cfg(feature = "cpu")]
        Backend::Cpu,
    ]
}

#[test]
fn edges_have_the_values_that_the_docs_promise() {
    let zero = |g: &[f32]| g.iter().all(|&g| g == 0.0);
    let [mean, uniform] = both();
    for backend in backends() {
        // one class: the mean is its direction, and there is no pair
        let one = backend.regularize(&mean, 2, &[3.0, 4.0]).unwrap();
        assert!((one.value - 1.0).abs() < 1e-7 && one.gradient.iter().all(|g| g.abs() < 1e-7), "{one:?}");
        let one = backend.regularize(&uniform, 2, &[3.0, 4.0]).unwrap();
        assert!(one.value == 0.0 && zero(&one.gradient), "{one:?}");
        // balanced, and equal
        let out = backend.regularize(&mean, 2, &[3.0, 4.0, -3.0, -4.0]).unwrap();
        assert!(out.value == 0.0 && zero(&out.gradient), "{out:?}");
        let out = backend.regularize(&uniform, 2, &[3.0, 4.0, 3.0, 4.0]).unwrap();
        assert!(out.value == 1.0 && zero(&out.gradient), "{out:?}");
        // a short vector takes part with w/1e-12 and gets no gradient
        for short in [[0.0, 0.0], [5e-13, 0.0], [1e-30, 0.0]] {
            let w = [short[0], short[1], 0.0, 2.0, 1.0, 1.0];
            let stands_for = f64::from(short[0]) / 1e-12;
            let (d1, d2) = (1.0_f64.hypot(stands_for), (stands_for - 0.5_f64.sqrt()).hypot(0.5_f64.sqrt()));
            let d3 = (2.0 - 2.0_f64.sqrt()).sqrt();
            let out = backend.regularize(&uniform, 2, &w).unwrap();
            let value: f64 = [d1, d2, d3].iter().map(|d| 1.0 / (1.0 + d) / 3.0).sum();
            close("pairs", out.value.into(), value, 1e-6);
            assert!(zero(&out.gradient[..2]) && !zero(&out.gradient[2..]), "{out:?}");
            let out = backend.regularize(&mean, 2, &w).unwrap();
            let value = (stands_for + 0.5_f64.sqrt()).hypot(1.0 + 0.5_f64.sqrt()) / 3.0;
            close("mean", out.value.into(), value, 1e-6);
            assert!(zero(&out.gradient[..2]) && !zero(&out.gradient[2..]), "{out:?}");
        }
        // neighbours keep the direction between them: each is pushed away by 1/(1+d)², across itself, over its length
        for gap in [1e-2_f32, 1e-4, 1e-6, 1e-9] {
            let out = backend.regularize(&uniform, 2, &[1.0, 0.0, 2.0, 2.0 * gap]).unwrap();
            let push = 1.0 / (1.0 + gap).powi(2);
            for (found, expected) in out.gradient.iter().zip([0.0, push, push * gap / 2.0, -push / 2.0]) {
                // chord and arc differ in second order
                assert!((found - expected).abs() < gap * gap + 1e-6, "{gap}: {out:?}");
            }
        }
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for regularizer in both() {
                let out = backend.regularize(&regularizer, 2, &[1.0, 0.0, 2.0, bad, 0.0, 1.0]).unwrap();
                assert!(out.value.is_nan() && out.gradient.len() == 6 && zero(&out.gradient), "{out:?}");
            }
            // in a row that counts, or in its center; not in an ignored row or in a center without rows
            let loss = CenterLoss { ignore_index: Some(7), ..Default::default() };
            let good = [1.0, 2.0, 3.0, 4.0];
            for (x, labels, c, spoils) in [
                ([1.0, bad, 3.0, 5.0], [0, 1], good, true),
                ([1.0, 2.0, 3.0, 5.0], [0, 1], [bad, 2.0, 3.0, 4.0], true),
                ([1.0, bad, 3.0, 5.0], [7, 1], good, false),
                ([1.0, 2.0, 3.0, 5.0], [1, 1], [bad, 2.0, 3.0, 4.0], false),
            ] {
                let out = backend.center_loss(&loss, 2, &x, &labels, &c).unwrap();
                assert_eq!((out.loss.is_nan(), zero(&out.grad_embeddings)), (spoils, spoils), "{out:?}");
                let mut moved = c;
                backend.update_centers(&loss, 2, &x, &labels, &mut moved).unwrap();
                // the bad row moves nothing, the good one its center; a bad center stays bad
                assert_eq!(moved[..2].map_bits(), c[..2].map_bits(), "{moved:?}");
                assert!(moved[2..].iter().all(|c| c.is_finite()) && moved[3] != 4.0, "{moved:?}");
            }
        }
        // no row at all, all ignored
        let loss = CenterLoss { ignore_index: Some(0), ..Default::default() };
        for (x, labels) in [(&[][..], &[][..]), (&[1.0, 2.0, 3.0, f32::NAN][..], &[0, 0][..])] {
            let mut centers = [1.0, 1.0];
            let out = backend.center_loss(&loss, 2, x, labels, &centers).unwrap();
            assert!(out.loss.to_bits() == 0 && out.grad_embeddings.len() == x.len() && zero(&out.grad_embeddings));
            backend.update_centers(&loss, 2, x, labels, &mut centers).unwrap();
            assert_eq!(centers, [1.0, 1.0]);
        }
    }
}

trait Bits {
    fn map_bits(&self) -> Vec<u32>;
}

impl Bits for [f32] {
    fn map_bits(&self) -> Vec<u32> {
        self.iter().map(|x| x.to_bits()).collect()
    }
}

#[test]
fn bad_input_is_refused_with_its_numbers() {
    let bad = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0, 1e6_f64.next_up()];
    for backend in backends() {
        for weight in bad {
            let parameter = |error: Error, name: &str| match error {
                Error::Parameter { what, found, .. } => {
                    assert!(what == name && (found == weight || found.is_nan() && weight.is_nan()));
                }
                other => panic!("{other:?}"),
            };
            for regularizer in both() {
                let regularizer = regularizer.with_weight(weight);
                parameter(regularizer.validate().unwrap_err(), "weight");
                parameter(backend.regularize(&regularizer, 2, &[1.0; 4]).unwrap_err(), "weight");
                let shape = Shape::new(1, 2, 2).unwrap();
                let plan = Plan::regularizer(&regularizer, shape, Element::F32, &Limits::WEBGPU);
                parameter(plan.unwrap_err(), "weight");
            }
            let center = |loss: &CenterLoss| backend.center_loss(loss, 1, &[1.0], &[0], &[1.0]).unwrap_err();
            parameter(center(&CenterLoss { weight, ..Default::default() }), "weight");
            parameter(center(&CenterLoss { rate: weight, ..Default::default() }), "rate");
        }
        let loss = CenterLoss { ignore_index: Some(1 << 40), ..Default::default() };
        assert!(matches!(loss.validate(), Err(Error::Parameter { what: "ignore_index", .. })));
        assert!(CenterLoss { rate: 1.0_f64.next_up(), ..Default::default() }.validate().is_err());

        for regularizer in both() {
            let errors = [(0, &[1.0][..]), (2, &[]), (2, &[1.0; 3])]
                .map(|(dim, w)| backend.regularize(&regularizer, dim, w).unwrap_err());
            let length = Error::Length { what: "prototypes", found: 3, expected: 4 };
            assert_eq!(errors, [Error::Zero { what: "dim" }, Error::Zero { what: "prototypes" }, length]);
        }
        let loss = CenterLoss { ignore_index: Some(-1), ..Default::default() };
        for (x, labels, c, expected) in [
            (&[1.0; 4][..], &[0, 2][..], &[1.0; 4][..], Error::Label { row: 1, label: 2, classes: 2 }),
            (&[1.0; 4], &[-1, -2], &[1.0; 4], Error::Label { row: 1, label: -2, classes: 2 }),
            (&[1.0; 3], &[0, 0], &[1.0; 4], Error::Length { what: "embeddings", found: 3, expected: 4 }),
            (&[1.0; 4], &[0, 0], &[1.0; 5], Error::Length { what: "centers", found: 5, expected: 6 }),
            (&[], &[], &[], Error::Zero { what: "centers" }),
        ] {
            assert_eq!(backend.center_loss(&loss, 2, x, labels, c), Err(expected.clone()));
            let mut moved = c.to_vec();
            assert_eq!(backend.update_centers(&loss, 2, x, labels, &mut moved), Err(expected));
            assert_eq!(moved, c);
        }
    }
}

/// (C, D): one class, one value, no multiple of a block or a tile, several of them.
#[cfg(feature = "cpu")]
const SHAPES: [(usize, usize); 12] =
    [(1, 1), (1, 3), (2, 1), (2, 3), (3, 64), (63, 65), (65, 3), (129, 64), (513, 65), (700, 3), (1500, 1), (2100, 5)];

/// An f32 direction is known to a few 1e-7, and so is a distance or the unit vector between two that are not near; the
/// gradient is an average of those, times λ/(C·|w|). Near ones are taken from the vectors themselves, in f64.
#[cfg(feature = "cpu")]
#[test]
fn the_cpu_agrees_with_the_reference() {
    for (classes, dim) in SHAPES {
        let (mut wide, mut thin) = rounded(vectors((classes * dim) as u64, classes, dim));
        if classes > 4 {
            // a near pair, an equal pair, a short one
            for d in 0..dim {
                thin[dim + d] = thin[d] * if d == 0 { 1.0001 } else { 1.0 };
                thin[2 * dim + d] = 2.0 * thin[3 * dim + d];
                thin[4 * dim + d] *= 1e-13;
            }
            wide = thin.iter().map(|&x| x.into()).collect();
        }
        for regularizer in both().map(|r| r.with_weight(3.0)) {
            let name = format!("{} {classes}x{dim}", regularizer.name());
            let expected = reference::regularize(&regularizer, dim, &wide).unwrap();
            let found = Backend::Cpu.regularize(&regularizer, dim, &thin).unwrap();
            close(&name, found.value.into(), expected.value, 3.0 * 1e-6);
            for (at, (f, e)) in found.gradient.iter().zip(&expected.gradient).enumerate() {
                let length = length(&wide[at / dim * dim..][..dim]);
                let unit = 3.0 / (classes as f64 * length);
                close(format_args!("{name} [{at}]"), f64::from(*f), *e, 2e-6 * unit.min(1e12));
            }
        }
        let loss = CenterLoss { weight: 0.3, rate: 0.7, ignore_index: Some(-100) };
        for rows in [1, 3, 200] {
            let (x, thin_x) = rounded(vectors(rows as u64, rows, dim));
            let mut rng = random(9);
            let labels: Vec<i64> =
                (0..rows).map(|i| if i % 5 == 4 { -100 } else { rng.random_range(0..classes as i64) }).collect();
            let expected = reference::center_loss(&loss, dim, &x, &labels, &wide).unwrap();
            let found = Backend::Cpu.center_loss(&loss, dim, &thin_x, &labels, &thin).unwrap();
            // f64 throughout, rounded once
            close("loss", found.loss.into(), expected.loss, 1e-7 * expected.loss);
            for (f, e) in found.grad_embeddings.iter().zip(&expected.grad_embeddings) {
                close("gradient", f64::from(*f), *e, 1e-7 * e.abs());
            }
            let (mut moved, mut thin_moved) = (wide.clone(), thin.clone());
            reference::update_centers(&loss, dim, &x, &labels, &mut moved).unwrap();
            Backend::Cpu.update_centers(&loss, dim, &thin_x, &labels, &mut thin_moved).unwrap();
            for (f, e) in thin_moved.iter().zip(&moved) {
                close("center", f64::from(*f), *e, 1e-7 * e.abs());
            }
            let used = |class: usize| labels.contains(&(class as i64));
            let rest = (0..classes).filter(|&class| !used(class));
            for class in rest {
                let own = class * dim..(class + 1) * dim;
                assert_eq!(thin_moved[own.clone()].map_bits(), thin[own].map_bits(), "class {class} moved");
            }
        }
    }
}

#[cfg(feature = "cpu")]
#[test]
fn threads_change_no_bit() {
    let (_, w) = rounded(vectors(1, 1300, 17));
    let (_, x) = rounded(vectors(2, 500, 17));
    let labels: Vec<usize> = (0..500).map(|i| i * 7 % 1300).collect();
    let all = || {
        let mut bits = vec![];
        for regularizer in both() {
            let out = Backend::Cpu.regularize(&regularizer, 17, &w).unwrap();
            bits.extend([out.value].map_bits());
            bits.extend(out.gradient.map_bits());
        }
        let out = Backend::Cpu.center_loss(&CenterLoss::default(), 17, &x, &labels, &w).unwrap();
        bits.extend([out.loss].map_bits());
        bits.extend(out.grad_embeddings.map_bits());
        bits
    };
    let expected = all();
    for threads in [1, 2, 3, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert!(pool.install(all) == expected, "other bits on {threads} threads");
    }
}

/// The workspace of both grows with C, not with C²: at most 1 KiB of distances per class, the partial sums of a mean, and
/// a constant.
#[test]
fn the_workspace_is_linear_in_the_number_of_classes() {
    for dim in [1, 3, 64, 512] {
        for classes in [1, 2, 31, 257, 1000, 10_000, 65_000, 100_003] {
            let shape = Shape::new(1, classes, dim).unwrap();
            for regularizer in both() {
                // a desktop device: prototypes beyond 128 MiB too
                let limits = Limits { max_binding: 1 << 31, max_buffer: 1 << 31, ..Limits::WEBGPU };
                let plan = Plan::regularizer(&regularizer, shape, Element::F32, &limits).unwrap();
                let own = plan.buffers().iter().filter(|b| b.role == Role::Workspace);
                let bytes: usize = own.map(|b| b.bytes as usize).sum();
                let prototypes = classes * dim * 4;
                // slabs: up to 16 of 256 rows, or as many as give 1024 workgroups
                let most = 1100 * classes + prototypes / 4 + (16 * 256 * 4 * dim).min(1024 * 32 * 32 * 4 * 2) + 8192;
                assert!(bytes <= most, "{} {classes}x{dim}: {bytes} bytes, expected {most}", regularizer.name());
                // over classes, over their groups of 64, and one for each block of pairs
                assert!(plan.constants().len() <= 3 + classes / 32, "{} parts", plan.constants().len());
            }
        }
    }
    // where 256 rows of distances exceed a binding, fewer are held
    let shape = Shape::new(1, 200_000, 8).unwrap();
    let plan = Plan::regularizer(&Regularizer::uniform_face(), shape, Element::F32, &Limits::WEBGPU).unwrap();
    assert!(plan.buffers().iter().all(|b| b.bytes <= Limits::WEBGPU.max_binding));
}

#[test]
fn what_a_device_cannot_hold_is_refused() {
    let shape = |rows, classes, dim| Shape::new(rows, classes, dim).unwrap();
    let [mean, uniform] = both();
    let regularizer = |r, classes, dim| {
        Plan::regularizer(r, shape(1, classes, dim), Element::F32, &Limits::WEBGPU).map(|_| ()).unwrap_err()
    };
    assert!(matches!(regularizer(&mean, 1 << 20, 64), Error::Limit { what: "prototypes", .. }));
    assert!(matches!(regularizer(&uniform, (1 << 22) + 1, 1), Error::Size { .. }));
    assert!(matches!(regularizer(&mean, 2, 1 << 17), Error::Size { what: "dim on a GPU", .. }));
    let loss = CenterLoss::default();
    let update = |rows| Plan::center_update(&loss, shape(rows, 3, 2), Element::F32, &Limits::WEBGPU).map(|_| ());
    assert_eq!(update(1 << 15), Ok(()));
    assert!(matches!(update((1 << 15) + 1), Err(Error::Size { needed: 32_769, allowed: 32_768, .. })));
    assert_eq!(update(0), Err(Error::Zero { what: "rows" }));
    let halves = Plan::regularizer(&mean, shape(1, 2, 2), Element::I32, &Limits::WEBGPU);
    assert!(matches!(halves, Err(Error::Element { what: "prototypes", .. })));
}

#[cfg(feature = "serde")]
#[test]
fn they_survive_json() {
    use serde_json::{from_str, to_string};
    for regularizer in both().map(|r| r.with_weight(0.1 + 0.2)) {
        let text = to_string(&regularizer).unwrap();
        assert!(text.contains(regularizer.name()), "{text}");
        assert_eq!(from_str::<Regularizer>(&text).unwrap(), regularizer);
    }
    assert_eq!(from_str::<Regularizer>(r#"{"uniform_face": {}}"#).unwrap(), Regularizer::uniform_face());
    assert!(from_str::<Regularizer>(r#"{"uniform_face": {"wieght": 1}}"#).is_err());
    let loss = CenterLoss { weight: 0.003, rate: 0.25, ignore_index: Some(-100) };
    assert_eq!(from_str::<CenterLoss>(&to_string(&loss).unwrap()).unwrap(), loss);
    assert_eq!(from_str::<CenterLoss>("{}").unwrap(), CenterLoss::default());
    assert!(from_str::<CenterLoss>(r#"{"alpha": 0.5}"#).is_err());
}
