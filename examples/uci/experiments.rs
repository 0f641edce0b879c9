//! The three experiments.

use margin_softmax::Backend;

use crate::{
    collapse::{self, Trace},
    common::{Result, digits::Digits, progress::Progress},
    data::{Problem, balance_scale, iris},
    losses::{Entry, entries},
    validation::{Protocol, parallel, repeat},
};

/// Layers of the network of the table.
const LAYERS: usize = 3;

/// Most layers of the depth sweep.
pub const DEEPEST: usize = 8;

/// Losses of the depth sweep.
const SWEPT: [&str; 4] = ["Softmax", "ArcFace", "ArcGrad 30", "ArcGrad 5"];

/// The place of a loss in the table, and its accuracies per number of layers and repeat.
pub type Swept = (usize, Vec<Vec<f64>>);

/// Everything that was measured.
pub struct Results {
    pub device: String,
    pub protocol: Protocol,
    pub entries: Vec<Entry>,
    /// Per data set, per loss, per repeat, %. Empty if not wanted.
    pub table: Vec<(&'static str, Vec<Vec<f64>>)>,
    /// Per data set and swept loss: its place in `entries`, and per number of layers and repeat, %. Empty if not wanted.
    pub depth: Vec<(&'static str, Vec<Swept>)>,
    pub traces: Vec<Trace>,
}

impl Results {
    /// Table, depth sweep and collapse, as far as wanted.
    pub fn measure(backend: &Backend, protocol: Protocol, [table, depth, collapse]: [bool; 3]) -> Result<Self> {
        let (entries, variants) = (entries(), collapse::variants());
        let problems = [iris()?, balance_scale()];
        let swept: Vec<usize> = (0..entries.len()).filter(|&i| SWEPT.contains(&entries[i].title)).collect();
        let wanted = |wanted: bool, count: usize| if wanted { count } else { 0 };
        let parts = [
            wanted(table, problems.len() * entries.len() * protocol.repeats),
            wanted(depth, problems.len() * swept.len() * DEEPEST * protocol.repeats),
            wanted(collapse, variants.len()),
        ];
        let progress = Progress::new(parts.iter().sum());
        let validate = |problem: &Problem, entry: &Entry, layers: usize, i: usize| {
            let share = repeat(backend, problem, &entry.objective, layers, &protocol, i);
            progress.advance(|| format!("{}, {}, {layers} layers", problem.name, entry.title));
            share.map(|share| 100.0 * share).map_err(|why| format!("{}, {}: {why}", problem.name, entry.title).into())
        };

        let (repeats, count) = (protocol.repeats, entries.len());
        let all = parallel(parts[0], |job| {
            let (entry, problem) = (&entries[job / repeats % count], &problems[job / repeats / count]);
            validate(problem, entry, LAYERS, job % repeats)
        })?;
        let table: Vec<_> =
            problems.iter().zip(all.chunks(repeats * count)).map(|(p, all)| (p.name, grouped(all, repeats))).collect();
        progress.line(|| format!("table: {} cross-validations", parts[0]));

        let all = parallel(parts[1], |job| {
            let (layers, loss) = (1 + job / repeats % DEEPEST, job / repeats / DEEPEST);
            let (entry, problem) = (&entries[swept[loss % swept.len()]], &problems[loss / swept.len()]);
            validate(problem, entry, layers, job % repeats)
        })?;
        let of_losses = |all: &[f64]| {
            let sweeps = swept.iter().zip(all.chunks(repeats * DEEPEST));
            sweeps.map(|(&i, all)| (i, grouped(all, repeats))).collect()
        };
        let sweeps = problems.iter().zip(all.chunks(repeats * DEEPEST * swept.len()));
        let depth: Vec<_> = sweeps.map(|(p, all)| (p.name, of_losses(all))).collect();
        progress.line(|| format!("depth: {} cross-validations", parts[1]));

        let digits = Digits::load()?;
        let traces = parallel(parts[2], |job| {
            let trace = collapse::watch(backend, &digits, &variants[job], protocol.seed);
            progress.advance(|| variants[job].0.into());
            trace
        })?;
        progress.finish();
        Ok(Self { device: backend.name(), protocol, entries, table, depth, traces })
    }
}

fn grouped(all: &[f64], size: usize) -> Vec<Vec<f64>> {
    all.chunks(size).map(<[_]>::to_vec).collect()
}
