//! What is trained: a loss of every kind with its head, its shards and its prototypes.

use margin_softmax::{
    Backend, Batch, MarginSoftmax, Options, Output, Reduction, Result, Shape, SliceHead, State, Want,
    data::GradientFilter,
    reference,
    shard::{Statistics, Targets},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    cases::{Case, Data, random},
    families::{Suite, moves_state, on, with_centers},
};

pub const ROWS: usize = 16;
pub const CLASSES: usize = 200;
pub const DIM: usize = 32;
pub const WANT: Want = Want::ALL.with_scale().with_bias();

/// One loss, trained.
pub struct Model {
    pub name: &'static str,
    pub loss: MarginSoftmax,
    pub shape: Shape,
    pub options: Options,
    pub head: SliceHead,
    /// None with soft labels, which shards do not take.
    shards: Vec<SliceHead>,
    /// Prototypes: each backend trains its own, and the reference looks at the same ones. Copies that train by themselves
    /// part from each other whatever the library does, since a step of SGD is not a contraction; what may drift in a head
    /// is what it keeps: its workspace and its state.
    pub w: Vec<f32>,
    /// The reference's own state, which follows every step in f64.
    pub state: State,
    pub out: Output,
}

/// Targets of a row of the model `soft`.
const TARGETS: usize = 3;

/// The families of [`Suite::Soak`]; before them one that changes its family too, behind them one with a filter and one with soft
/// labels.
fn losses() -> Vec<(&'static str, MarginSoftmax, usize, Option<f64>)> {
    let first = [("unified", MarginSoftmax::arcface(), 1, None)];
    let listed = with_centers(Suite::Soak).into_iter().map(|(family, k)| (family.name, family.loss, k, None));
    // so small that what is left out is far below rounding: the exact gradient is the measure here too
    let last = [("filter", MarginSoftmax::ampface(), 1, Some(1e-12)), ("soft", MarginSoftmax::cosface(), 1, None)];
    first.into_iter().chain(listed).chain(last).collect()
}

/// The shards' classes.
pub fn ranges() -> [std::ops::Range<usize>; 2] {
    [0..77, 77..CLASSES]
}

impl Model {
    /// Every model, or those alone that keep something from step to step beside the first.
    pub fn all(backend: &Backend, every: bool) -> Result<Vec<Self>> {
        let model = |(i, (name, loss, centers, filter)): (usize, (_, MarginSoftmax, usize, Option<f64>))| {
            let shape = Shape::new(ROWS, CLASSES, DIM)?.with_sub_centers(centers)?;
            let filter = filter.map(GradientFilter::new).transpose()?;
            let soft_labels = (name == "soft").then_some(TARGETS);
            let options = Options { want: WANT, filter, soft_labels, ..Options::default() };
            let rng = &mut ChaCha8Rng::seed_from_u64(100 + i as u64);
            let ranges = ranges().into_iter().filter(|_| soft_labels.is_none());
            let shards = ranges.map(|range| backend.shard(&loss, shape, range, &options));
            Ok(Self {
                name,
                head: backend.head_with(&loss, shape, &options)?,
                shards: shards.collect::<Result<_>>()?,
                w: random(rng, shape.vectors() * DIM),
                state: State::new(&loss, shape)?,
                out: Output::default(),
                loss,
                shape,
                options,
            })
        };
        let kept = |(i, (_, loss, ..)): &(usize, (_, MarginSoftmax, _, _))| every || *i == 0 || moves_state(loss);
        losses().into_iter().enumerate().filter(kept).map(model).collect()
    }

    /// Another scale and other margins in every step, on the same kernels.
    pub fn turn(&mut self, step: usize) -> Result<()> {
        let wave = |period: f64| (step as f64 / period).sin();
        let mut loss = self.loss.clone();
        if self.name == "unified" {
            let all = on(Suite::Grid);
            loss = all[step / 8 % all.len()].loss.clone();
        }
        loss = loss.with_scale(24.0 + 8.0 * wave(7.0)).with_margin(|m| {
            m.m2 *= 1.0 + 0.2 * wave(11.0);
            m.m3 *= 1.0 + 0.3 * wave(13.0);
        });
        if loss.validate().is_err() {
            loss = self.loss.clone();
        }
        let reduction = if step % 5 == 4 { Reduction::Sum } else { Reduction::Mean };
        self.loss = if self.name == "unified" { loss.with_reduction(reduction) } else { loss };
        self.head.update(&self.loss)?;
        self.shards.iter_mut().try_for_each(|shard| shard.update(&self.loss))
    }

    /// A batch near the prototypes of a world that does not change, away from every kink of the loss.
    pub fn data(&self, world: &[f32], step: usize, rows: usize) -> Data {
        let centers = self.shape.sub_centers();
        let shape = Shape::new(rows, CLASSES, DIM).unwrap();
        let case = Case { loss: self.loss.clone(), centers, ..Case::random(shape, 0) };
        let mut rng = ChaCha8Rng::seed_from_u64(step as u64);
        let batch = || {
            let labels: Vec<i32> = (0..rows).map(|_| rng.random_range(0..CLASSES) as i32).collect();
            let mut embeddings = random(&mut rng, rows * DIM);
            for (x, &y) in embeddings.chunks_exact_mut(DIM).zip(&labels) {
                x.iter_mut().zip(&world[y as usize * DIM..]).for_each(|(x, w)| *x += w);
            }
            let data = Data { embeddings, prototypes: self.w.clone(), labels, ..Data::default() };
            match self.options.soft_labels {
                Some(count) => data.softened(count, CLASSES),
                None => data,
            }
        };
        let clear = |data: &Data| data.clear(&case);
        std::iter::repeat_with(batch).take(2000).find(clear).expect("a batch that is clear of kinks")
    }

    /// The reference's answer at the same prototypes; moves its state.
    pub fn expected(&mut self, data: &Data, want: Want) -> Result<Output<f64>> {
        let Self { loss, shape, state, .. } = self;
        data.with_wide(|batch| reference::train(loss, *shape, want, batch, state))
    }

    pub fn train(&mut self, data: &Data) -> Result<()> {
        self.head.train_into(&data.batch(), &mut self.out)
    }

    pub fn has_shards(&self) -> bool {
        !self.shards.is_empty()
    }

    /// The same step in two shards, from a state.
    pub fn sharded(&mut self, data: &Data, state: &State) -> Result<Output> {
        let wide = self.shape.sub_centers() * DIM;
        let part = |shard: &SliceHead| {
            let range = shard.range();
            Batch { prototypes: &data.prototypes[range.start * wide..range.end * wide], ..data.batch() }
        };
        let mut targets = vec![];
        for shard in &mut self.shards {
            shard.set_state(state)?;
            targets.push(shard.targets(&part(shard))?);
        }
        let targets = Targets::merged(&targets, CLASSES)?;
        let mut sums = vec![];
        for shard in &mut self.shards {
            shard.follow(&part(shard), &targets)?;
            sums.push(shard.statistics(&part(shard), &targets)?);
        }
        let sums = Statistics::merged(&sums, CLASSES)?;
        let mut all = Output::default();
        for shard in &mut self.shards {
            let out = shard.gradients(&part(shard), &targets, &sums)?;
            if shard.range().start == 0 {
                all = out;
                continue;
            }
            all.grad_embeddings.iter_mut().zip(&out.grad_embeddings).for_each(|(a, b)| *a += b);
            all.grad_prototypes.extend(&out.grad_prototypes);
            all.grad_bias.iter_mut().zip(&out.grad_bias).for_each(|(a, b)| *a += b);
            all.grad_scale += out.grad_scale;
        }
        Ok(all)
    }

    /// A step of SGD.
    pub fn descend(&mut self) {
        self.w.iter_mut().zip(&self.out.grad_prototypes).for_each(|(w, g)| *w -= 0.1 * g);
    }
}
