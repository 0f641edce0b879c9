//! ArcGrad's soft margin: the gap between the angles that a scale leads to, on Iris.

use margin_softmax::{Backend, MarginSoftmax, Options, data::Inputs, theory::arcgrad_scale};

use crate::{
    common::{
        Result,
        learner::{self, Model, Settings, Sizes, accuracy, flat},
    },
    data::Problem,
    validation::{BATCH, DIM, LAYERS, Protocol, RATE, WIDTH},
};

/// The scales that are tried. For the first and the last the paper names the gap: 84° and 2°.
pub const SCALES: [f64; 6] = [1.0, 2.0, 5.0, 10.0, 20.0, 40.0];

/// Bins of a histogram of gaps, degrees.
pub const BIN: f64 = 5.0;

/// The result of a scale.
pub struct Gaps {
    pub scale: f64,
    /// Where the pull of this scale is the steepest, degrees.
    pub predicted: f64,
    /// Per flower: the mean angle to the other prototypes, less the angle to its own, degrees.
    pub measured: Vec<f64>,
    /// On the flowers that were trained.
    pub accuracy: f64,
}

/// Trains on all flowers with one scale, then measures them.
pub fn measure(backend: &Backend, problem: &Problem, protocol: &Protocol, scale: f64) -> Result<Gaps> {
    let lengths = [vec![problem.set.inputs.ncols()], vec![WIDTH; LAYERS - 1], vec![DIM]].concat();
    let sizes = Sizes { lengths, classes: problem.classes, sub_centers: 1 };
    let rows: Vec<usize> = (0..problem.set.labels.len()).collect();
    let [set, _] = problem.set.select(&rows).standardised(problem.set.select(&[]));
    let mut model = Model::untrained(&sizes, protocol.seed);
    let settings = Settings { epochs: protocol.epochs, batch: BATCH, rate: RATE, seed: protocol.seed };
    let loss = MarginSoftmax::arcgrad().with_scale(scale);
    learner::train(backend, &loss.clone().into(), &mut model, &set, &settings, |_| Ok(()))?;

    let classes = problem.classes;
    let mut predictor = backend.predictor(&loss, model.shape(rows.len())?, classes, &Options::default())?;
    let embeddings = model.embed(&set);
    let inputs = Inputs::new(flat(&embeddings), flat(&model.prototypes.value));
    let nearest = predictor.predict(&inputs)?;
    let angle = |cosine: f32| f64::from(cosine).clamp(-1.0, 1.0).acos().to_degrees();
    let gap = |((found, cosines), &label): ((&[u32], &[f32]), &u32)| {
        let all = || found.iter().zip(cosines);
        let own: f64 = all().filter(|(class, _)| **class == label).map(|(_, &c)| angle(c)).sum();
        let total: f64 = all().map(|(_, &c)| angle(c)).sum();
        (total - own) / (classes - 1) as f64 - own
    };
    let lists = nearest.classes.chunks(classes).zip(nearest.cosines.chunks(classes));
    Ok(Gaps {
        scale,
        predicted: (arcgrad_scale(classes, 1.0)? / scale).to_degrees(),
        measured: lists.zip(&set.labels).map(gap).collect(),
        accuracy: accuracy(&model.judge(backend, &loss, &set)?),
    })
}
