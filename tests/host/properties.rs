//! What any such loss must satisfy, on random batches of random families; the same on the native path.

use std::ops::Range;

use margin_softmax::{
    shard::{Statistics, Targets},
    *,
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::{common::*, engines::*, families, problems::*};

/// A family that does not have a property.
struct Exclusion {
    property: Property,
    family: &'static str,
    of: fn(&MarginSoftmax) -> bool,
    #[allow(dead_code)] // for readers
    why: &'static str,
}

/// Which families lack which property, and why. That each entry is needed is a test of its own.
const EXCLUSIONS: &[Exclusion] = &[
    Exclusion {
        property: Property::LengthOfEmbeddings,
        family: "linear",
        of: is_linear,
        why: "plain products grow with the length",
    },
    Exclusion {
        property: Property::LengthOfEmbeddings,
        family: "adaface",
        of: |loss| matches!(loss.adaptive, Adaptive::AdaFace(f) if f.margin > 0.0),
        why: "margins follow the length among the lengths seen",
    },
    Exclusion {
        property: Property::LengthOfEmbeddings,
        family: "magface",
        of: is_magface,
        why: "margins and a term of the loss follow the length",
    },
    Exclusion {
        property: Property::LengthOfEmbeddings,
        family: "length",
        of: scales_by_length,
        why: "the scale is that of the length",
    },
    Exclusion {
        property: Property::LengthOfPrototypes,
        family: "linear",
        of: is_linear,
        why: "plain products grow with the length",
    },
    Exclusion {
        property: Property::OrthogonalEmbeddings,
        family: "linear",
        of: is_linear,
        why: "a longer embedding has other products",
    },
    Exclusion {
        property: Property::OrthogonalEmbeddings,
        family: "magface",
        of: is_magface,
        why: "the length has a gradient of its own",
    },
    Exclusion {
        property: Property::OrthogonalEmbeddings,
        family: "length",
        of: scales_by_length,
        why: "the length has a gradient of its own",
    },
    Exclusion {
        property: Property::OrthogonalPrototypes,
        family: "linear",
        of: is_linear,
        why: "a longer prototype has other products",
    },
    Exclusion {
        property: Property::OrderOfRows,
        family: "elastic, unsorted",
        of: |loss| matches!(loss.adaptive, Adaptive::Elastic(f) if !f.sorted),
        why: "a draw belongs to the number of its row",
    },
    Exclusion {
        property: Property::Batches,
        family: "elastic",
        of: is_elastic,
        why: "a draw belongs to the number of its row, or to its place in the batch",
    },
    Exclusion {
        property: Property::Duplicates,
        family: "elastic",
        of: is_elastic,
        why: "equal rows have different draws",
    },
    Exclusion {
        property: Property::NoMargin,
        family: "rectified",
        of: |loss| loss.others == Others::Rectified,
        why: "the others are cut off whatever the margin is",
    },
    Exclusion {
        property: Property::NoMargin,
        family: "filter",
        of: |loss| matches!(loss.others, Others::InterclassFilter(_)),
        why: "the others are filtered whatever the margin is",
    },
    Exclusion {
        property: Property::NoMargin,
        family: "curricular",
        of: |loss| loss.others == Others::Curricular,
        why: "hard classes are weighed whatever the margin is",
    },
    Exclusion {
        property: Property::NoMargin,
        family: "angle or power against others",
        of: |loss| families::target(&loss.target).same != Some(families::others(&loss.others).same),
        why: "target and others are different curves without a margin too",
    },
];

fn is_linear(loss: &MarginSoftmax) -> bool {
    loss.similarity == Similarity::Dot
}

fn is_magface(loss: &MarginSoftmax) -> bool {
    matches!(loss.adaptive, Adaptive::MagFace(_))
}

fn scales_by_length(loss: &MarginSoftmax) -> bool {
    matches!(loss.adaptive, Adaptive::Length(_))
}

fn is_elastic(loss: &MarginSoftmax) -> bool {
    matches!(loss.adaptive, Adaptive::Elastic(_))
}

/// What is tested.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Property {
    /// A longer embedding has the same loss and the smaller gradient.
    LengthOfEmbeddings,
    /// So has a longer prototype.
    LengthOfPrototypes,
    /// A gradient along its own vector would change only the length.
    OrthogonalEmbeddings,
    OrthogonalPrototypes,
    /// Permuting classes permutes dW and db.
    OrderOfClasses,
    /// Permuting rows permutes losses and dX.
    OrderOfRows,
    /// Without a margin it is the softmax (or the sum of binary losses) of the scaled curve.
    NoMargin,
    /// Sums add over batches.
    Batches,
    /// Equal rows have equal results, and dW counts both.
    Duplicates,
    /// No loss is negative.
    Sign,
    /// Classes in several shards give what one head gives, at a state and in a training step.
    Shards,
}

const PROPERTIES: [Property; 11] = [
    Property::LengthOfEmbeddings,
    Property::LengthOfPrototypes,
    Property::OrthogonalEmbeddings,
    Property::OrthogonalPrototypes,
    Property::OrderOfClasses,
    Property::OrderOfRows,
    Property::NoMargin,
    Property::Batches,
    Property::Duplicates,
    Property::Sign,
    Property::Shards,
];

/// The shards' outputs together, and the state that they leave.
fn sharded(
    engine: &Engine,
    problem: &Problem,
    ranges: &[Range<usize>],
    train: bool,
) -> Result<(Output<f64>, State), Off> {
    let (parts, state) = match engine {
        Engine::Exact => on_exact_shards(problem, ranges, train)?,
        Engine::Slices(backend) => on_sharded_slices(backend, problem, ranges, train)?,
        Engine::Head(_) => return Err(Off("a whole head has no shards".into())),
    };
    // NaN and counts of rows are the same on every shard
    for part in &parts {
        near("loss of a shard", &[part.loss], &[parts[0].loss], 0.0)?;
        near("losses of a shard", &part.row_losses, &parts[0].row_losses, 0.0)?;
        near("cosines of a shard", &part.target_cosines, &parts[0].target_cosines, 0.0)?;
        near("other cosines of a shard", &part.other_cosines, &parts[0].other_cosines, 0.0)?;
        if part.counts != parts[0].counts {
            return Err(Off("counts of a shard".into()));
        }
    }
    Ok((together(&parts, is_linear(&problem.loss)), state))
}

/// The outputs of several heads, each with a shard of the classes, and the state of the last.
fn on_sharded_slices(
    backend: &Backend,
    problem: &Problem,
    ranges: &[Range<usize>],
    train: bool,
) -> Result<(Vec<Output<f64>>, State)> {
    let classes = problem.classes();
    let head = |range: &Range<usize>| {
        let mut head = backend.shard(&problem.loss, problem.shape, range.clone(), &OPTIONS())?;
        head.set_state(&problem.state)?;
        Ok((head, Thin::new(problem, range)))
    };
    let mut heads = ranges.iter().map(head).collect::<Result<Vec<_>>>()?;
    let targets = heads.iter_mut().map(|(head, part)| head.targets(&part.batch())).collect::<Result<Vec<_>>>()?;
    let targets = Targets::merged(&targets, classes)?;
    if train {
        heads.iter_mut().try_for_each(|(head, part)| head.follow(&part.batch(), &targets))?;
    }
    let sums = heads.iter_mut().map(|(head, part)| head.statistics(&part.batch(), &targets));
    let sums = Statistics::merged(&sums.collect::<Result<Vec<_>>>()?, classes)?;
    let out = heads.iter_mut().map(|(head, part)| Ok(wide(head.gradients(&part.batch(), &targets, &sums)?)));
    let out = out.collect::<Result<Vec<_>>>()?;
    let state = *heads[0].0.state();
    assert!(heads.iter().all(|(head, _)| *head.state() == state), "shards with different states");
    Ok((out, state))
}

/// The same in f64.
fn on_exact_shards(problem: &Problem, ranges: &[Range<usize>], train: bool) -> Result<(Vec<Output<f64>>, State)> {
    let mut state = problem.state;
    let shard = |range: &Range<usize>| {
        let bias = problem.bias.as_ref().map(|b| &b[range.clone()]);
        let batch = Batch { prototypes: prototypes_of(problem, range), bias, ..problem.batch() };
        reference::Shard::new(&problem.loss, problem.shape, range.clone(), &batch, &problem.state)
    };
    let shards = ranges.iter().map(shard).collect::<Result<Vec<_>>>()?;
    let targets: Vec<Targets> = shards.iter().map(|shard| shard.targets(&state)).collect();
    let targets = Targets::merged(&targets, problem.classes())?;
    if train {
        shards[0].follow(&targets, &mut state);
        state.step += 1;
    }
    let at = State { step: problem.state.step, ..state };
    let sums = shards.iter().map(|shard| shard.statistics(&targets, &at)).collect::<Result<Vec<_>>>()?;
    let sums = Statistics::merged(&sums, problem.classes())?;
    let out = shards.iter().map(|shard| shard.gradients(EVERYTHING, &targets, &sums, &at));
    Ok((out.collect::<Result<Vec<_>>>()?, state))
}

/// What the shards' outputs are together, in the order of their classes.
fn together(parts: &[Output<f64>], linear: bool) -> Output<f64> {
    let mut all = parts[0].clone();
    for part in &parts[1..] {
        all.grad_embeddings.iter_mut().zip(&part.grad_embeddings).for_each(|(a, b)| *a += b);
        all.grad_prototypes.extend(&part.grad_prototypes);
        all.grad_scale += part.grad_scale;
        if linear {
            all.grad_bias.extend(&part.grad_bias);
        } else {
            all.grad_bias.iter_mut().zip(&part.grad_bias).for_each(|(a, b)| *a += b);
        }
    }
    all
}

fn shuffled(rng: &mut ChaCha8Rng, count: usize) -> Vec<usize> {
    let mut all: Vec<usize> = (0..count).collect();
    (1..count).for_each(|i| all.swap(i, rng.random_range(0..=i)));
    all
}

impl Property {
    fn holds(self, engine: &Engine, problem: &Problem, rng: &mut ChaCha8Rng) -> Result<(), Off> {
        let before = engine.run(problem)?;
        let tolerance = engine.tolerance(problem, rng);
        let (dim, k) = (problem.shape.dim(), problem.shape.sub_centers());
        let mut other = problem.clone();
        match self {
            Self::LengthOfEmbeddings | Self::LengthOfPrototypes => {
                let embeddings = self == Self::LengthOfEmbeddings;
                let vectors = if embeddings { &mut other.embeddings } else { &mut other.prototypes };
                // a power of two, so that f32 keeps its precision
                let factors: Vec<f64> = (0..vectors.len() / dim).map(|_| pick(rng, &[0.25, 1.0, 2.0, 8.0])).collect();
                vectors.iter_mut().enumerate().for_each(|(at, v)| *v *= factors[at / dim]);
                let mut after = engine.run(&other)?;
                let gradient = if embeddings { &mut after.grad_embeddings } else { &mut after.grad_prototypes };
                gradient.iter_mut().enumerate().for_each(|(at, g)| *g *= factors[at / dim]);
                near("all", &numbers(&after), &numbers(&before), tolerance)
            }
            Self::OrthogonalEmbeddings | Self::OrthogonalPrototypes => {
                let (vectors, gradient) = match self {
                    Self::OrthogonalEmbeddings => (&problem.embeddings, &before.grad_embeddings),
                    _ => (&problem.prototypes, &before.grad_prototypes),
                };
                let radial = vectors.chunks(dim).zip(gradient.chunks(dim)).map(|(v, g)| dot(v, g) / length(v));
                let radial: Vec<f64> = radial.collect();
                near("radial part", &radial, &vec![0.0; radial.len()], tolerance)
            }
            Self::OrderOfClasses => {
                let places = shuffled(rng, problem.classes());
                let new = |old: i64| places.iter().position(|&p| p as i64 == old).map_or(old, |p| p as i64);
                other.prototypes = ordered(&problem.prototypes, &places, k * dim);
                other.labels = problem.labels.iter().map(|&y| new(y)).collect();
                other.loss.ignore_index = problem.loss.ignore_index.map(new);
                let choose = |v: &Vec<f64>| ordered(v, &places, 1);
                other.weights = problem.weights.as_ref().map(choose);
                other.bias = problem.bias.as_ref().map(choose);
                other.class_margins = problem.class_margins.each_ref().map(|m| m.as_ref().map(choose));
                let after = engine.run(&other)?;
                let mut expected = before.clone();
                expected.grad_prototypes = ordered(&before.grad_prototypes, &places, k * dim);
                if before.grad_bias.len() == places.len() && is_linear(&problem.loss) {
                    expected.grad_bias = choose(&before.grad_bias);
                }
                near("all", &numbers(&after), &numbers(&expected), tolerance)
            }
            Self::OrderOfRows => {
                let places = shuffled(rng, problem.rows());
                let after = engine.run(&with_rows(problem, &places))?;
                let mut expected = before.clone();
                expected.row_losses = ordered(&before.row_losses, &places, 1);
                if !before.log_sum_exps.is_empty() {
                    expected.log_sum_exps = ordered(&before.log_sum_exps, &places, 1);
                }
                expected.grad_embeddings = ordered(&before.grad_embeddings, &places, dim);
                near("all", &numbers(&after), &numbers(&expected), tolerance)
            }
            Self::NoMargin => {
                other = without_margin(problem);
                let after = engine.run(&other)?;
                // other_value is the curve by its formula; a target of the same curve, no margin
                let curve = Problem {
                    loss: MarginSoftmax { others: families::others(&problem.loss.others).same, ..other.loss.clone() },
                    ..other.clone()
                };
                let none = [1.0, 1.0, 0.0, 0.0];
                let rows = curve.defined(|i, _, c| curve.other_value(i, c, &none));
                let tolerance = engine.tolerance(&other, rng);
                near("rows", &after.row_losses, &rows, tolerance)?;
                near("loss", &[after.loss], &[other.reduced(&rows)], tolerance)
            }
            Self::Batches | Self::Duplicates => {
                other.loss.reduction = Reduction::Sum;
                (other.upstream, other.divisor) = (None, None);
                let (n, all) = (other.rows(), (0..other.rows()).collect::<Vec<_>>());
                let (first, second) = match self {
                    Self::Batches => all.split_at(n / 2),
                    _ => (&all[..], &all[..1]),
                };
                let whole = engine.run(&with_rows(&other, &[first, second].concat()))?;
                let (first, second) = (engine.run(&with_rows(&other, first))?, engine.run(&with_rows(&other, second))?);
                let tolerance = engine.tolerance(&other, rng);
                let sum = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + b).collect::<Vec<f64>>();
                if self == Self::Duplicates {
                    near("equal losses", &whole.row_losses[n..], &whole.row_losses[..1], 0.0)?;
                }
                near("loss", &[whole.loss], &[first.loss + second.loss], tolerance)?;
                let dx = [&first.grad_embeddings[..], &second.grad_embeddings].concat();
                near("dX", &whole.grad_embeddings, &dx, tolerance)?;
                near("losses", &whole.row_losses, &[&first.row_losses[..], &second.row_losses].concat(), tolerance)?;
                near("dW", &whole.grad_prototypes, &sum(&first.grad_prototypes, &second.grad_prototypes), tolerance)?;
                near("db", &whole.grad_bias, &sum(&first.grad_bias, &second.grad_bias), tolerance)?;
                near("dL/ds", &[whole.grad_scale], &[first.grad_scale + second.grad_scale], tolerance)
            }
            Self::Shards => {
                let ranges = random_ranges(rng, problem.classes());
                let train = rng.random_bool(0.5);
                let (whole, state) = engine.call(problem, train)?;
                let (all, after) = sharded(engine, problem, &ranges, train)?;
                near("all", &numbers(&all), &numbers(&whole), tolerance)?;
                near("cosines", &all.target_cosines, &whole.target_cosines, 0.0)?;
                near("other cosines", &all.other_cosines, &whole.other_cosines, 0.0)?;
                let values = |s: State| [s.hardness, s.norm_mean, s.norm_deviation, s.scale];
                near("state", &values(after), &values(state), 1e2 * engine.ulp() * state.scale.max(2.0))?;
                let same = (after.step, after.seed, all.counts) == (state.step, state.seed, whole.counts);
                if same { Ok(()) } else { Err(Off(format!("{ranges:?}"))) }
            }
            Self::Sign => {
                let least = before.row_losses.iter().copied().fold(before.loss, f64::min);
                // smoothing adds s·(z_y − z_j), which rounds
                if least >= -tolerance { Ok(()) } else { Err(Off(format!("a loss of {least:e}"))) }
            }
        }
    }
}

/// A random split of the classes: from one shard to one per class.
fn random_ranges(rng: &mut ChaCha8Rng, classes: usize) -> Vec<Range<usize>> {
    let mut cuts: Vec<usize> = (1..classes).filter(|_| rng.random_bool(0.4)).collect();
    cuts.push(classes);
    let mut start = 0;
    cuts.into_iter().map(|end| std::mem::replace(&mut start, end)..end).collect()
}

/// The same batch with every margin taken away.
fn without_margin(problem: &Problem) -> Problem {
    let mut bare = problem.clone();
    (bare.class_margins, bare.row_margins) = (Default::default(), Default::default());
    let loss = &mut bare.loss;
    loss.target = families::target(&loss.target).bare;
    loss.others = families::others(&loss.others).bare;
    match &mut loss.adaptive {
        Adaptive::AdaFace(f) => f.margin = 0.0,
        Adaptive::MagFace(f) => (f.lower_margin, f.upper_margin, f.weight) = (0.0, 0.0, 0.0),
        Adaptive::Elastic(f) => f.deviation = 0.0,
        _ => {}
    }
    bare
}

/// A random family that is not (or is) of these.
fn random_case(rng: &mut ChaCha8Rng, from: &[MarginSoftmax]) -> Problem {
    let loss = pick(rng, from);
    random_problem(rng, &loss)
}

/// How many random batches each property meets.
const CASES: usize = 256;

fn check(engine: &Engine, property: Property, cases: usize) {
    let mut rng = random(30 + property as u64);
    let excluded = |loss: &MarginSoftmax| EXCLUSIONS.iter().any(|e| e.property == property && (e.of)(loss));
    let losses: Vec<_> = families().into_iter().map(|(_, loss)| loss).filter(|loss| !excluded(loss)).collect();
    for _ in 0..cases {
        let problem = random_case(&mut rng, &losses);
        if let Err(Off(why)) = property.holds(engine, &problem, &mut rng) {
            panic!("{property:?}: {why} in {problem:?}");
        }
    }
}

#[test]
fn every_property_holds_for_every_family_that_is_not_excluded() {
    for property in PROPERTIES {
        check(&Engine::Exact, property, CASES);
    }
}

/// The front over slices rounds its results to f32, no more.
#[test]
fn every_property_holds_over_slices() {
    for property in PROPERTIES {
        check(&Engine::Slices(Backend::reference()), property, 32);
    }
}

#[cfg(feature = "cpu")]
#[test]
fn every_property_holds_on_the_cpu() {
    let engine = Engine::Slices(Backend::cpu());
    for property in PROPERTIES {
        check(&engine, property, CASES);
    }
}

/// The splits that go wrong first: one class each, fewer classes than inter-topk chooses, a shard without any label, all
/// labels in the last.
#[test]
fn uneven_shards_and_shards_without_a_label_are_the_whole() {
    let mut rng = random(51);
    for (name, loss) in families().into_iter().filter(|(name, _)| objective::PRESETS.iter().any(|p| p.name == name)) {
        let mut problem = random_problem(&mut rng, &loss);
        let classes = problem.classes();
        let last = classes - 1;
        for labels in [0, last as i64] {
            (problem.labels, problem.loss.ignore_index) = (vec![labels; problem.rows()], None);
            let whole = problem.run();
            let tolerance = Engine::Exact.tolerance(&problem, &mut rng);
            let single: Vec<Range<usize>> = (0..classes).map(|j| j..j + 1).collect();
            for mut ranges in [single, vec![0..1, 1..classes], vec![0..last, last..classes]] {
                ranges.retain(|r| !r.is_empty());
                let Ok((all, _)) = sharded(&Engine::Exact, &problem, &ranges, false) else {
                    panic!("{name} {ranges:?}")
                };
                let near = near("all", &numbers(&all), &numbers(&whole), tolerance);
                assert!(near.is_ok(), "{name} {ranges:?}: {all:?} and {whole:?}");
            }
        }
    }
}

/// Each exclusion is needed: the property fails for some batch of that family.
#[test]
fn every_exclusion_is_needed() {
    for exclusion in EXCLUSIONS {
        let Exclusion { property, family, of, .. } = exclusion;
        let mut rng = random(50);
        // this exclusion alone
        let others = |loss: &MarginSoftmax| {
            EXCLUSIONS.iter().any(|e| e.property == *property && e.family != *family && (e.of)(loss))
        };
        let losses: Vec<_> =
            families().into_iter().map(|(_, loss)| loss).filter(|loss| of(loss) && !others(loss)).collect();
        let fails = (0..64).any(|_| {
            let problem = random_case(&mut rng, &losses);
            matches!(property.holds(&Engine::Exact, &problem, &mut rng), Err(Off(_)))
        });
        assert!(fails, "{property:?} holds for {family}");
    }
}
