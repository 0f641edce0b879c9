//! Numbers under stress: lengths, directions, parameters, weights and values at the ends of what f32 holds, for every
//! named loss, on the CPU path and on every adapter, against the f64 reference.

mod compare;
mod parameters;
mod values;
mod vectors;

use libtest_mimic::Failed;
use margin_softmax::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    agreement::Device,
    cases::{Data, FALLBACKS, random},
    families::{self, Suite},
};

/// A property of one device.
pub type Trial = (&'static str, fn(&Device) -> Result<(), Failed>);

pub fn trials() -> Vec<Trial> {
    [vectors::TRIALS, parameters::TRIALS, values::TRIALS].concat()
}

/// Scalar loads with a tail, and whole quads.
const SHAPES: [[usize; 3]; 2] = [[5, 33, 7], [4, 20, 8]];

/// Every named loss, the families of [`Suite::Stress`], every fallback and slope of an angular margin, and several prototypes for a class.
fn losses() -> Vec<(String, MarginSoftmax, usize)> {
    let mut all: Vec<_> =
        families::presets_and(Suite::Stress).into_iter().map(|(name, loss)| (name, loss, 1)).collect();
    for fallback in FALLBACKS {
        for (name, loss) in [
            ("arcface", MarginSoftmax::arcface()),
            ("chebyaam", MarginSoftmax::cheby_aam()),
            ("unified", MarginSoftmax::unified(0.7, 1.35, 0.3, 0.1).with_scale(30.0)),
        ] {
            let loss = loss.with_margin(|m| m.fallback = fallback);
            if loss.validate().is_ok() {
                all.push((format!("{name}, {}", fallback.name()), loss, 1));
            }
        }
    }
    for (name, centers) in [("arcface", 2), ("chebyaam", 3), ("sphereface2", 2), ("arcface_topk", 2)] {
        all.push((format!("{name}, {centers} sub-centers"), MarginSoftmax::named(name).unwrap(), centers));
    }
    let smoothed = |loss: MarginSoftmax| loss.with_label_smoothing(0.1);
    all.push(("arcface, smoothed".into(), smoothed(MarginSoftmax::arcface()), 1));
    all.push(("softmax, smoothed".into(), smoothed(MarginSoftmax::softmax()), 1));
    all
}

/// A batch and the loss that it is for.
#[derive(Clone)]
struct Problem {
    name: String,
    loss: MarginSoftmax,
    shape: Shape,
    data: Data,
}

impl Problem {
    /// Vectors of moderate length: rows at all angles to their classes, but at none where a curve bends.
    fn new(name: &str, loss: &MarginSoftmax, centers: usize, [n, c, d]: [usize; 3]) -> Self {
        let rng = &mut ChaCha8Rng::seed_from_u64(0x57e55);
        let shape = Shape::new(n, c, d).unwrap().with_sub_centers(centers).unwrap();
        let mut data = Data { embeddings: random(rng, n * d), ..Data::default() };
        data.prototypes = random(rng, c * centers * d);
        data.labels = (0..n).map(|_| rng.random_range(0..c as i32)).collect();
        let (name, loss) = (name.into(), loss.clone());
        Self { name, loss, shape, data }
    }

    fn dim(&self) -> usize {
        self.shape.dim()
    }

    fn embedding(&mut self, i: usize) -> &mut [f32] {
        let d = self.dim();
        &mut self.data.embeddings[i * d..(i + 1) * d]
    }

    fn prototype(&mut self, v: usize) -> &mut [f32] {
        let d = self.dim();
        &mut self.data.prototypes[v * d..(v + 1) * d]
    }

    fn rows(&self) -> usize {
        self.data.labels.len()
    }

    fn is_linear(&self) -> bool {
        families::is_linear(&self.loss)
    }
}

/// Everything that can be wanted.
const WANT: Want = Want::ALL.with_scale().with_bias();

/// A head over slices of a device, used for many batches.
struct Runner {
    head: SliceHead,
}

impl Runner {
    fn new(device: &Device, problem: &Problem) -> Result<Self, Failed> {
        let mut options = Options { want: WANT, ..Options::default() };
        let backend = match device {
            Device::Gpu(context, tile) => {
                options.tile = Some(*tile);
                Backend::Gpu(context.clone())
            }
            Device::Cpu => Backend::cpu(),
        };
        Ok(Self { head: backend.head_with(&problem.loss, problem.shape, &options)? })
    }

    fn run(&mut self, problem: &Problem) -> Result<Output, Failed> {
        if *self.head.loss() != problem.loss {
            self.head.update(&problem.loss)?;
        }
        Ok(self.head.evaluate(&problem.data.batch())?)
    }

    /// Runs and compares.
    fn check(&mut self, what: &str, problem: &Problem) -> Result<(), Failed> {
        let found = self.run(problem)?;
        compare::agrees(problem, &found).map_err(|why| format!("{} {what}: {why}", problem.name).into())
    }
}

/// Cases of one trial and what failed of them.
///
/// Every loss with every case took minutes on a software driver. Unless [`full`](crate::full) each loss meets a seventh
/// of the cases, the next loss another seventh.
struct Cases {
    all: bool,
    met: u64,
    run: usize,
    failed: Vec<String>,
}

impl Cases {
    fn new() -> Self {
        Self { all: crate::full(), met: 0, run: 0, failed: vec![] }
    }

    /// Whether the next case is run. Scattered, so that no loop inside another is always cut at the same place.
    fn next(&mut self) -> bool {
        self.met += 1;
        let scattered = self.met.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let chosen = self.all || scattered.is_multiple_of(7);
        self.run += usize::from(chosen);
        chosen
    }

    fn take(&mut self, result: Result<(), Failed>) {
        if let Err(why) = result {
            self.failed.push(why.message().unwrap_or("failed").to_owned());
        }
    }

    /// A case that is always run.
    fn expect(&mut self, met: bool, why: impl FnOnce() -> String) {
        self.run += 1;
        if !met {
            self.failed.push(why());
        }
    }

    fn end(self) -> Result<(), Failed> {
        let Self { run, failed, .. } = self;
        if run == 0 {
            return Err("no case was run".into());
        }
        if failed.is_empty() {
            return Ok(());
        }
        Err(format!("{} of {run} cases:\n{}", failed.len(), failed[..failed.len().min(5)].join("\n")).into())
    }
}
