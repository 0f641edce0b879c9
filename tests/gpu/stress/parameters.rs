//! Scales, margins, weights and upstream gradients at the ends of their ranges, alone and together.

use std::f64::consts::{FRAC_PI_2, PI};

use libtest_mimic::Failed;
use margin_softmax::{objective::*, *};

use super::{Cases, Problem, Runner, SHAPES, Trial, losses};
use crate::{agreement::Device, cases::FALLBACKS};

/// The end of the range of a margin, as far as f32 tells it from π.
const NEAR_PI: f64 = PI - 1e-6;

pub const TRIALS: &[Trial] = &[
    ("scales", scales),
    ("margins", margins),
    ("numbers_of_the_families", numbers_of_the_families),
    ("weights_and_upstream_gradients", weights_and_upstream_gradients),
];

/// The first is 0 in f32, and has one digit in f64.
const SCALES: [f64; 8] = [5e-324, 1e-30, 1e-6, 0.01, 1.0, 37.7, 1000.0, 1e6];

/// Every scale from the smallest to the largest, with rows that have learnt and rows that have not.
fn scales(device: &Device) -> Result<(), Failed> {
    let mut cases = Cases::new();
    for (l, (name, loss, centers)) in losses().into_iter().enumerate() {
        let mut problem = Problem::new(&name, &loss, centers, SHAPES[l % 2]);
        let mut runner = Runner::new(device, &problem)?;
        for learnt in [false, true] {
            if learnt {
                learn(&mut problem);
            }
            for scale in SCALES {
                if !cases.next() {
                    continue;
                }
                problem.loss = loss.clone().with_scale(scale);
                cases.take(runner.check(&format!("at scale {scale:e}, learnt {learnt}"), &problem));
            }
        }
    }
    cases.end()
}

/// Every row comes close to its class.
fn learn(problem: &mut Problem) {
    for i in 0..problem.rows() {
        let y = problem.data.labels[i] as usize * problem.shape.sub_centers();
        let own = problem.prototype(y).to_vec();
        problem.embedding(i).iter_mut().zip(own).for_each(|(x, w)| *x = 0.2 * *x + w);
    }
}

/// Both ends of m0..m3 with every fallback, exact and as series of the lowest and the highest degree.
fn margins(device: &Device) -> Result<(), Failed> {
    let mut cases = Cases::new();
    let series = |degree, damping| Curve::Series(Series { degree, damping, ..Series::default() });
    let curves = [Curve::Exact, series(1, Damping::None), series(64, Damping::None), series(64, Damping::Jackson)];
    let mut problem = Problem::new("margins", &MarginSoftmax::arcface(), 1, SHAPES[0]);
    let mut runner = Runner::new(device, &problem)?;
    for (m0, m1, m2, m3) in [
        (1e-30, 1.0, 0.5, 0.0),
        (1e6, 1.0, 0.5, 0.0),
        (1.0, 1e-6, 0.0, 0.0),
        (1.0, 1e-6, PI.next_down(), 0.0),
        (1.0, 2.0, 0.0, 0.0),
        (1.0, 16.0, 0.0, 0.35),
        (1.0, 16.0, PI.next_down(), 0.0),
        (1.0, 1.0, 1e-30, 0.0),
        (1.0, 1.0, PI.next_down(), 0.0),
        (1.0, 1.0, FRAC_PI_2, 1e6),
        (1.0, 1.0, 0.0, 1e6),
        (1.0, 1.0, 0.0, -1e6),
        (1e6, 16.0, NEAR_PI, -1e6),
    ] {
        for (f, fallback) in FALLBACKS.into_iter().enumerate() {
            for (q, curve) in curves.iter().enumerate() {
                let slope = if (f + q) % 3 == 0 { Slope::Detached } else { Slope::Analytic };
                let own = Unified { m0, m1, m2, m3, fallback, curve: curve.clone(), slope };
                for scale in [0.01, 64.0, 1000.0] {
                    problem.loss = MarginSoftmax { target: Target::Unified(own.clone()), ..MarginSoftmax::default() }
                        .with_scale(scale);
                    if problem.loss.validate().is_err() || !cases.next() {
                        continue;
                    }
                    if *runner.head.loss() != problem.loss && runner.head.update(&problem.loss).is_err() {
                        runner = Runner::new(device, &problem)?;
                    }
                    cases.take(runner.check(&format!("{own:?} at {scale}"), &problem));
                }
            }
        }
    }
    cases.end()
}

/// The numbers of every other curve, transform, link and adaptive margin at both ends of their ranges.
fn numbers_of_the_families(device: &Device) -> Result<(), Failed> {
    let mut cases = Cases::new();
    let mut all: Vec<MarginSoftmax> = vec![];
    for (factor, margin, offset) in [(1e-30, 0.0, 0.0), (1e6, NEAR_PI, 1e6), (1e6, -NEAR_PI, -1e6), (1.0, NEAR_PI, 0.0)]
    {
        for curve in [Curve::Exact, Curve::Series(Series { degree: 64, ..Series::default() })] {
            let angle = Angle { factor, margin, offset, curve, ..Angle::default() };
            all.push(
                MarginSoftmax { target: Target::Angle(angle.clone()), ..MarginSoftmax::arcgrad() }
                    .with_others(Others::Angle(angle)),
            );
        }
    }
    for (exponent, margin, angular) in
        [(1, 1e6, false), (16, -1e6, false), (16, 0.2, false), (1, NEAR_PI, true), (16, NEAR_PI, true), (16, 0.0, true)]
    {
        let power = SimilarityAdjustment { exponent, margin, angular, slope: Slope::Analytic };
        for link in [
            Link::Softmax,
            Link::Binary(Binary { weight: 0.0, factor: 1e6, bias: 1e6 }),
            Link::Binary(Binary { weight: 1.0, factor: 1e6, bias: -1e6 }),
            Link::Binary(Binary { weight: 0.5, factor: 1e-30, bias: 0.0 }),
        ] {
            all.push(
                MarginSoftmax { target: Target::SimilarityAdjustment(power), link, ..MarginSoftmax::sphereface2() }
                    .with_others(Others::SimilarityAdjustment(power)),
            );
        }
    }
    for others in [
        Others::TopK(TopK { count: 1, margin: 0.0 }),
        Others::TopK(TopK { count: 19, margin: 1.57 }),
        Others::InterclassFilter(InterclassFilter { threshold: 1e-30 }),
        Others::InterclassFilter(InterclassFilter { threshold: 1.0 }),
        Others::Curricular,
        Others::Rectified,
    ] {
        for m2 in [0.0, 0.5, NEAR_PI] {
            all.push(MarginSoftmax::arcface().with_margin(|m| m.m2 = m2).with_others(others.clone()));
        }
    }
    for fallback in FALLBACKS {
        let base = MarginSoftmax::normface().with_margin(|m| m.fallback = fallback);
        for adaptive in [
            Adaptive::AdaFace(AdaFace { margin: 1.57, concentration: 100.0, rate: 1.0 }),
            Adaptive::AdaFace(AdaFace { margin: 0.0, concentration: 1e-30, rate: 1.0 }),
            Adaptive::MagFace(MagFace {
                lower_length: 1e-6,
                upper_length: 1e6,
                lower_margin: 0.0,
                upper_margin: 1.5,
                weight: 1e6,
            }),
            Adaptive::MagFace(MagFace {
                lower_length: 1.0,
                upper_length: 1.001,
                lower_margin: 0.0,
                upper_margin: 1.5,
                weight: 0.0,
            }),
            Adaptive::Elastic(Elastic { cosine: true, deviation: 10.0, sorted: true }),
        ] {
            all.push(base.clone().with_adaptive(adaptive));
        }
    }
    all.retain(|loss| loss.validate().is_ok());
    for loss in all {
        let plain = Problem::new(
            &format!("{:?} {:?} {:?} {:?}", loss.target, loss.others, loss.link, loss.adaptive),
            &loss,
            1,
            SHAPES[1],
        );
        let mut runner = Runner::new(device, &plain)?;
        for scale in [0.01, 64.0, 1000.0] {
            if !cases.next() {
                continue;
            }
            let mut problem = plain.clone();
            problem.loss = loss.clone().with_scale(scale);
            cases.take(runner.check(&format!("at scale {scale}"), &problem));
        }
    }
    cases.end()
}

/// Class weights 0, 1e-30 and 1e24, upstream gradients from 1e-30 to 1e30, in every reduction.
fn weights_and_upstream_gradients(device: &Device) -> Result<(), Failed> {
    let mut cases = Cases::new();
    for (l, (name, loss, centers)) in losses().into_iter().enumerate() {
        for reduction in [Reduction::Mean, Reduction::Sum, Reduction::None] {
            let plain = Problem::new(&name, &loss.clone().with_reduction(reduction), centers, SHAPES[l % 2]);
            let mut runner = Runner::new(device, &plain)?;
            let (n, c) = (plain.rows(), plain.shape.classes());
            for (w, weights) in
                [&[1e-30][..], &[1e24], &[0.0], &[1.0, 0.0, 1e-30, 1e24], &[1e-30, 1e-29, 0.0], &[1e-30, 1.0]]
                    .into_iter()
                    .enumerate()
            {
                for (u, upstream) in [[1e-30; 3], [1e30; 3], [-1.0; 3], [1e-30, 1.0, -1e30]].into_iter().enumerate() {
                    if !cases.next() {
                        continue;
                    }
                    let mut problem = plain.clone();
                    if (w + u) % 2 == 1 {
                        learn(&mut problem);
                    }
                    problem.data.weights = Some((0..c).map(|j| weights[j % weights.len()]).collect());
                    let count = if reduction == Reduction::None { n } else { 1 };
                    problem.data.upstream = Some((0..count).map(|i| upstream[i % 3]).collect());
                    let what = format!("{} weights {weights:?} upstream {upstream:?}", reduction.name());
                    cases.take(runner.check(&what, &problem));
                }
            }
        }
    }
    cases.end()
}
