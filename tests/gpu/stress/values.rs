//! NaN and infinity at any place, and the ends of the 16-bit types.

use half::{bf16, f16};
use libtest_mimic::Failed;
use margin_softmax::{
    data::GradientFilter,
    plan::{Element, Layout},
    *,
};

use super::{Cases, Problem, Runner, SHAPES, Trial, WANT, compare};
use crate::{
    agreement::Device,
    families::{Family, Suite, with_centers},
    rig::Rig,
};

pub const TRIALS: &[Trial] = &[
    ("bad_values_at_any_place_of_a_row", bad_values_at_any_place_of_a_row),
    ("bad_values_at_any_place_of_a_prototype", bad_values_at_any_place_of_a_prototype),
    ("products_beyond_f32", products_beyond_f32),
    ("the_ends_of_f16_and_bf16", the_ends_of_f16_and_bf16),
    ("bad_values_of_f16_and_bf16", bad_values_of_f16_and_bf16),
    ("numbers_that_only_the_host_refuses", numbers_that_only_the_host_refuses),
];

/// Quiet and signalling NaN with several payloads and signs, and both infinities.
const BAD: [u32; 8] =
    [0x7fc0_0000, 0xffc0_0000, 0x7f80_0001, 0xff80_0001, 0x7fff_ffff, 0x7fa5_a5a5, 0x7f80_0000, 0xff80_0000];

/// One loss for each way through the kernels, in both shapes.
fn problems() -> Vec<Problem> {
    let problem =
        |(family, centers): (Family, usize)| SHAPES.map(|s| Problem::new(family.name, &family.loss, centers, s));
    with_centers(Suite::BadValues).into_iter().flat_map(problem).collect()
}

/// Such a row has a NaN loss and no gradient, and the others are as if it were not there.
fn bad_values_at_any_place_of_a_row(device: &Device) -> Result<(), Failed> {
    let mut cases = Cases::new();
    for plain in problems() {
        let mut runner = Runner::new(device, &plain)?;
        let (n, d) = (plain.rows(), plain.dim());
        for at in 0..d {
            for shift in [0, 3] {
                if !cases.next() {
                    continue;
                }
                let mut problem = plain.clone();
                // all rows but one, each at a place of its own
                for i in 1..n {
                    problem.embedding(i)[(at + i) % d] = f32::from_bits(BAD[(at + i + shift) % 8]);
                }
                cases.take(runner.check(&format!("bad from {at}, {shift}"), &problem));
            }
            if !cases.next() {
                continue;
            }
            let mut problem = plain.clone();
            problem.embedding(n - 1).fill(f32::from_bits(BAD[at % 8]));
            cases.take(runner.check(&format!("a whole row of {:x}", BAD[at % 8]), &problem));
        }
    }
    cases.end()
}

/// Such a prototype makes every loss NaN and every gradient 0.
fn bad_values_at_any_place_of_a_prototype(device: &Device) -> Result<(), Failed> {
    let mut cases = Cases::new();
    for plain in problems() {
        let mut runner = Runner::new(device, &plain)?;
        let (vectors, d) = (plain.shape.classes() * plain.shape.sub_centers(), plain.dim());
        for at in 0..d {
            for (q, bits) in BAD.into_iter().enumerate() {
                if !cases.next() {
                    continue;
                }
                let mut problem = plain.clone();
                let v = [0, vectors - 1, (at * 8 + q) % vectors][q % 3];
                problem.prototype(v)[at] = f32::from_bits(bits);
                cases.take(runner.check(&format!("{bits:x} at {at} of {v}"), &problem));
                let found = runner.run(&problem)?;
                let gradients = found.grad_embeddings.iter().chain(&found.grad_prototypes).chain(&found.grad_bias);
                if gradients.chain([&found.grad_scale]).any(|g| *g != 0.0) {
                    cases.failed.push(format!("{}: a gradient is not 0: {found:?}", problem.name));
                }
            }
        }
    }
    cases.end()
}

/// A linear row one of whose products leaves f32, to either side, at its class or another, or within a sum that would not:
/// NaN, counted, and the other rows as if it were not there.
fn products_beyond_f32(device: &Device) -> Result<(), Failed> {
    let mut cases = Cases::new();
    for (name, smoothing) in [("softmax", 0.0), ("m_softmax", 0.0), ("softmax", 0.1)] {
        for shape in SHAPES {
            let loss = MarginSoftmax::named(name).unwrap().with_label_smoothing(smoothing);
            let plain = Problem::new(name, &loss, 1, shape);
            let mut runner = Runner::new(device, &plain)?;
            let own = plain.data.labels[1] as usize;
            for class in [own, (own + 1) % shape[1]] {
                for (what, signs) in [("above", [1.0; 2]), ("below", [-1.0; 2]), ("within", [1.0, -1.0])] {
                    cases.run += 1;
                    let mut problem = plain.clone();
                    // the product of a bad row is what the reference shall take for NaN
                    problem.data.embeddings.iter_mut().for_each(|x| *x *= 1e-20);
                    problem.data.prototypes.iter_mut().for_each(|w| *w *= 1e-3);
                    problem.embedding(1).fill(1e20);
                    problem.prototype(class).iter_mut().enumerate().for_each(|(k, w)| *w = signs[k % 2] * 1e20);
                    if what == "within" && shape[2] % 2 == 1 {
                        // as many of one sign as of the other
                        problem.prototype(class)[shape[2] - 1] = 0.0;
                    }
                    let found = runner.run(&problem)?;
                    // a sum that f32 holds although its terms do not may also be found as it is
                    let mut result = Err(String::new());
                    if what == "within" {
                        result = compare::agrees(&problem, &found);
                    }
                    problem.embedding(1)[0] = f32::NAN;
                    let result = result.or_else(|_| compare::agrees(&problem, &found));
                    cases.take(
                        result.map_err(|why| format!("{name} {smoothing} {what} at {class}, own {own}: {why}").into()),
                    );
                }
            }
        }
    }
    cases.end()
}

/// Pairs of types, and what they hold at their ends.
const PAIRS: [[Element; 2]; 4] = [
    [Element::F16, Element::F16],
    [Element::Bf16, Element::Bf16],
    [Element::F16, Element::Bf16],
    [Element::F32, Element::F16],
];

/// 65504, the smallest normal and subnormal numbers, zeros of either sign.
fn ends(element: Element) -> Vec<f32> {
    match element {
        Element::F16 => [0x7bff, 0xfbff, 0x0001, 0x8001, 0x03ff, 0x0400, 0x0000, 0x8000, 0x3c01]
            .map(|bits| f16::from_bits(bits).to_f32())
            .into(),
        // the largest whose vectors are not endless, and subnormal numbers of f32
        Element::Bf16 => [0x7d7f, 0xfd7f, 0x0001, 0x8001, 0x007f, 0x0080, 0x0000, 0x8000, 0x3f81]
            .map(|bits| bf16::from_bits(bits).to_f32())
            .into(),
        _ => vec![1e30, -1e30, 1e-45, -1e-40, 1e-38, 1.2e-38, 0.0, -0.0, 1.1],
    }
}

fn rounded(values: &mut [f32], element: Element) {
    match element {
        Element::F16 => values.iter_mut().for_each(|v| *v = f16::from_f32(*v).to_f32()),
        Element::Bf16 => values.iter_mut().for_each(|v| *v = bf16::from_f32(*v).to_f32()),
        _ => {}
    }
}

/// Runs a problem whose values are exact in the elements.
fn run(device: &Device, problem: &Problem, elements: [Element; 2]) -> Result<Output, Failed> {
    run_with(device, problem, elements, Options { want: WANT, ..Options::default() })
}

fn run_with(device: &Device, problem: &Problem, elements: [Element; 2], options: Options) -> Result<Output, Failed> {
    match device {
        Device::Gpu(context, tile) => {
            let layout =
                Layout { shards: &[problem.shape.classes()], embeddings: elements[0], prototypes: elements[1] };
            let options = Options { tile: Some(*tile), ..options };
            let rig = Rig::new(context, &problem.loss, problem.shape, &layout, &options, &problem.data)?;
            let mut out = rig.run(context)?;
            out.counts = rig.bound.read_counts()?;
            Ok(out)
        }
        Device::Cpu => {
            let mut head = Backend::cpu().head_with(&problem.loss, problem.shape, &options)?;
            let Problem { data, .. } = problem;
            let rest = Batch { embeddings: &[], prototypes: &[], ..data.batch() };
            let f16s = |v: &[f32]| v.iter().map(|&v| f16::from_f32(v)).collect::<Vec<_>>();
            let bf16s = |v: &[f32]| v.iter().map(|&v| bf16::from_f32(v)).collect::<Vec<_>>();
            let (x, w) = (&data.embeddings, &data.prototypes);
            Ok(match elements {
                [Element::F16, Element::F16] => head.evaluate_stored(&f16s(x), &f16s(w), &rest)?,
                [Element::Bf16, Element::Bf16] => head.evaluate_stored(&bf16s(x), &bf16s(w), &rest)?,
                [Element::F16, _] => head.evaluate_stored(&f16s(x), &bf16s(w), &rest)?,
                _ => head.evaluate_stored(&x[..], &f16s(w), &rest)?,
            })
        }
    }
}

/// Whole vectors of such numbers, and single ones beside others.
fn the_ends_of_f16_and_bf16(device: &Device) -> Result<(), Failed> {
    let mut cases = Cases::new();
    for elements in PAIRS {
        for (name, shape) in [("arcface", SHAPES[0]), ("chebyaam", SHAPES[1]), ("arcgrad", SHAPES[0])] {
            for (q, &end) in ends(elements[0]).iter().enumerate() {
                if !cases.next() {
                    continue;
                }
                let mut problem = Problem::new(name, &MarginSoftmax::named(name).unwrap(), 1, shape);
                rounded(&mut problem.data.embeddings, elements[0]);
                rounded(&mut problem.data.prototypes, elements[1]);
                let (d, other) = (shape[2], ends(elements[1])[q]);
                // a whole vector, one entry first, one in the tail
                problem.embedding(0).iter_mut().for_each(|x| *x = end.copysign(*x * end));
                problem.embedding(1)[0] = end;
                problem.embedding(2)[d - 1] = end;
                problem.prototype(4).iter_mut().for_each(|x| *x = other.copysign(*x * other));
                problem.prototype(5)[0] = other;
                problem.prototype(6)[d - 1] = other;
                let found = run(device, &problem, elements)?;
                let result = compare::agrees(&problem, &found);
                cases.take(result.map_err(|why| format!("{name} {elements:?} {end:e} {other:e}: {why}").into()));
            }
        }
    }
    cases.end()
}

/// NaN and infinity of 16-bit types at any place.
fn bad_values_of_f16_and_bf16(device: &Device) -> Result<(), Failed> {
    let mut cases = Cases::new();
    for elements in PAIRS {
        for shape in SHAPES {
            let mut plain = Problem::new("arcface", &MarginSoftmax::arcface(), 1, shape);
            rounded(&mut plain.data.embeddings, elements[0]);
            rounded(&mut plain.data.prototypes, elements[1]);
            for at in 0..shape[2] {
                for (b, bad) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].into_iter().enumerate() {
                    if !cases.next() {
                        continue;
                    }
                    let mut problem = plain.clone();
                    if (at + b) % 4 == 0 {
                        problem.prototype(at)[at] = bad;
                    } else {
                        problem.embedding(at % shape[0])[at] = bad;
                    }
                    let found = run(device, &problem, elements)?;
                    let result = compare::agrees(&problem, &found);
                    cases.take(result.map_err(|why| format!("{elements:?} {bad} at {at}: {why}").into()));
                }
            }
        }
    }
    cases.end()
}

/// Class weights, biases, margins and upstream gradients that are no numbers, which the host refuses and a device cannot:
/// none of them passes unseen, and only those of weights and biases, which every row meets, spoil other rows.
fn numbers_that_only_the_host_refuses(device: &Device) -> Result<(), Failed> {
    if matches!(device, Device::Cpu) {
        return Ok(());
    }
    let f32s = [Element::F32; 2];
    let mut cases = Cases::new();
    for bits in BAD {
        let bad = f32::from_bits(bits);
        for reduction in [Reduction::Mean, Reduction::None] {
            let arc = MarginSoftmax::arcface().with_reduction(reduction);
            let plain = Problem::new("arcface", &arc, 1, SHAPES[0]);
            let (n, classes) = (plain.rows(), plain.shape.classes());
            let own = plain.data.labels[1] as usize;

            let mut problem = plain.clone();
            problem.data.weights = Some(vec![1.0; classes]);
            problem.data.weights.as_mut().unwrap()[own] = bad;
            let out = run(device, &problem, f32s)?;
            cases.expect(!out.loss.is_finite() && !out.row_losses[1].is_finite(), || {
                format!("a class weight {bits:x}: {out:?}")
            });

            for by_class in [false, true] {
                let mut problem = plain.clone();
                let (margins, count, at) = if by_class {
                    (&mut problem.data.class_margins, classes, own)
                } else {
                    (&mut problem.data.row_margins, n, 1)
                };
                let mut values = vec![0.5; count];
                values[at] = bad;
                margins[2] = Some(values);
                let out = run(device, &problem, f32s)?;
                let hit = |i: usize| if by_class { plain.data.labels[i] as usize == own } else { i == 1 };
                let expected = if bad.is_nan() { 0 } else { (0..n).filter(|&i| hit(i)).count() };
                let nan = (0..n).all(|i| out.row_losses[i].is_nan() == (hit(i) && !bad.is_nan()));
                let finite = out.grad_embeddings.iter().chain(&out.grad_prototypes).all(|g| g.is_finite());
                let met = out.counts.invalid_labels == expected && nan && finite;
                cases.expect(met, || format!("a margin {bits:x}, by class {by_class}: {out:?}"));
            }

            if reduction != Reduction::None {
                continue;
            }
            // a filter takes it for no small entry
            for filter in [None, Some(GradientFilter::new(1e-9)?)] {
                let options = Options { want: WANT, filter, ..Options::default() };
                let clean = run_with(device, &plain, f32s, options)?;
                let mut problem = plain.clone();
                problem.data.upstream = Some((0..n).map(|i| if i == 1 { bad } else { 1.0 }).collect());
                let out = run_with(device, &problem, f32s, options)?;
                let d = plain.dim();
                let same = (0..n)
                    .filter(|&i| i != 1)
                    .all(|i| (i * d..(i + 1) * d).all(|k| out.grad_embeddings[k] == clean.grad_embeddings[k]));
                let loud = out.grad_embeddings[d..2 * d].iter().all(|g| !g.is_finite());
                let met = same && loud && out.loss == clean.loss;
                cases.expect(met, || format!("an upstream gradient {bits:x}, {filter:?}: {out:?}, not {clean:?}"));
            }
        }
        let mut problem = Problem::new("softmax", &MarginSoftmax::softmax(), 1, SHAPES[1]);
        let n = problem.rows();
        problem.data.bias = Some(vec![0.1; problem.shape.classes()]);
        problem.data.bias.as_mut().unwrap()[3] = bad;
        let out = run(device, &problem, f32s)?;
        let zero = out.grad_embeddings.iter().chain(&out.grad_prototypes).chain(&out.grad_bias).all(|g| *g == 0.0);
        let met = out.counts.non_finite_rows == n && zero && out.row_losses.iter().all(|l| l.is_nan());
        cases.expect(met, || format!("a bias {bits:x}: {out:?}"));
    }
    cases.end()
}
