//! The experiments.

use margin_softmax::Backend;

use crate::{
    collapse::{self, Trace},
    common::{Result, digits::Digits, progress::Progress, runs::parallel},
    data::{Problem, balance_scale, iris},
    losses::{EIGHT, Entry, entries},
    scales::{self, Gaps, SCALES},
    validation::{LAYERS, Protocol, Repeat, refusal, repeat},
};

/// Most layers of the depth sweep.
pub const DEEPEST: usize = 10;

/// Most repeats of the depth sweep: it has ten times the runs.
pub const DEPTH_REPEATS: usize = 3;

/// Which experiments are wanted.
#[derive(Clone, Copy, PartialEq)]
pub struct Wanted {
    pub table: bool,
    pub depth: bool,
    pub scales: bool,
    pub collapse: bool,
}

/// A loss on a data set.
pub enum Cell {
    /// Accuracies in %.
    Measured {
        /// [repeats].
        repeats: Vec<f64>,
        /// [repeats · folds].
        folds: Vec<f64>,
    },
    /// Why the library refuses it.
    Refused(String),
}

/// A data set of the table.
pub struct Line {
    pub name: &'static str,
    pub rows: usize,
    pub columns: usize,
    pub classes: usize,
    /// The share of the largest class, %.
    pub majority: f64,
    /// Per loss.
    pub cells: Vec<Cell>,
}

/// Per loss, number of layers and repeat, %; no repeats where the library refuses the loss.
pub type Sweep = Vec<Vec<Option<Vec<f64>>>>;

/// Everything that was measured.
pub struct Results {
    pub device: String,
    pub protocol: Protocol,
    pub entries: Vec<Entry>,
    /// Empty if not wanted.
    pub table: Vec<Line>,
    /// Per data set. Empty if not wanted.
    pub depth: Vec<(&'static str, Sweep)>,
    /// Empty if not wanted.
    pub scales: Vec<Gaps>,
    /// Empty if not wanted.
    pub traces: Vec<Trace>,
}

/// Everything that the runs share.
struct Bench<'a> {
    backend: &'a Backend,
    protocol: Protocol,
    entries: Vec<Entry>,
    progress: Progress,
}

impl Results {
    /// All of it, as far as wanted.
    pub fn measure(backend: &Backend, protocol: Protocol, problems: &[Problem], wanted: Wanted) -> Result<Self> {
        let (entries, variants) = (entries(), collapse::variants());
        let swept = [iris()?, balance_scale()];
        let repeats = protocol.repeats.min(DEPTH_REPEATS);
        let parts = [
            (wanted.table, problems.len() * entries.len() * protocol.repeats),
            (wanted.depth, swept.len() * entries.len() * DEEPEST * repeats),
            (wanted.scales, SCALES.len()),
            (wanted.collapse, variants.len()),
        ];
        let progress = Progress::new(parts.iter().map(|&(wanted, count)| if wanted { count } else { 0 }).sum());
        let bench = Bench { backend, protocol, entries, progress };
        let table = if wanted.table { bench.table(problems)? } else { vec![] };
        let depth = if wanted.depth { bench.depth(&swept, repeats)? } else { vec![] };
        let scales = if wanted.scales { bench.scales(&swept[0])? } else { vec![] };
        let traces = if wanted.collapse { bench.collapse(&variants)? } else { vec![] };
        bench.progress.finish();
        Ok(Self { device: backend.name(), protocol, entries: bench.entries, table, depth, scales, traces })
    }

    /// Accuracies in % of a loss, averaged over data sets; `None` where it was refused on one.
    pub fn average<'a>(lines: impl Iterator<Item = &'a Line>, loss: usize) -> Option<f64> {
        let means = lines.map(|line| line.mean(loss)).collect::<Option<Vec<f64>>>()?;
        Some(means.iter().sum::<f64>() / means.len() as f64)
    }

    /// The sets that a mean of the paper's figures is over, if all are there.
    pub fn eight(&self) -> Option<Vec<&Line>> {
        EIGHT.iter().map(|name| self.table.iter().find(|line| line.name == *name)).collect()
    }

    /// Per loss: on how many sets none is more accurate.
    pub fn wins(&self) -> Vec<usize> {
        let best = |line: &Line| (0..self.entries.len()).filter_map(|i| line.mean(i)).fold(f64::NEG_INFINITY, f64::max);
        let won = |line: &&Line, loss: usize| line.mean(loss) == Some(best(line));
        (0..self.entries.len()).map(|loss| self.table.iter().filter(|line| won(line, loss)).count()).collect()
    }
}

impl Line {
    /// Over the repeats, %.
    pub fn mean(&self, loss: usize) -> Option<f64> {
        match &self.cells[loss] {
            Cell::Measured { repeats, .. } => Some(repeats.iter().sum::<f64>() / repeats.len() as f64),
            Cell::Refused(_) => None,
        }
    }
}

impl Bench<'_> {
    fn validate(&self, problem: &Problem, loss: usize, layers: usize, i: usize) -> Result<Option<Repeat>> {
        let entry = &self.entries[loss];
        let run = || -> Result<Option<Repeat>> {
            if refusal(self.backend, problem, &entry.objective)?.is_some() {
                return Ok(None);
            }
            repeat(self.backend, problem, &entry.objective, layers, &self.protocol, i).map(Some)
        };
        let out = run().map_err(|why| format!("{}, {}: {why}", problem.name, entry.title).into());
        self.progress.advance(|| format!("{}, {}, {layers} layers", problem.name, entry.title));
        out
    }

    fn table(&self, problems: &[Problem]) -> Result<Vec<Line>> {
        let (repeats, losses) = (self.protocol.repeats, self.entries.len());
        let mut all = parallel(problems.len() * losses * repeats, |job| {
            let problem = &problems[job / repeats / losses];
            self.validate(problem, job / repeats % losses, LAYERS, job % repeats)
        })?
        .into_iter();
        self.progress.line(|| format!("table: {} cross-validations", problems.len() * losses * repeats));
        let mut cell = |problem: &Problem, entry: &Entry| -> Result<Cell> {
            let runs: Vec<Repeat> = all.by_ref().take(repeats).flatten().collect();
            Ok(match refusal(self.backend, problem, &entry.objective)? {
                Some(why) => Cell::Refused(why),
                None => Cell::Measured {
                    repeats: runs.iter().map(|run| 100.0 * run.share).collect(),
                    folds: runs.iter().flat_map(|run| &run.folds).map(|share| 100.0 * share).collect(),
                },
            })
        };
        let line = |problem: &Problem| {
            let (rows, columns) = problem.set.inputs.dim();
            let cells = self.entries.iter().map(|entry| cell(problem, entry)).collect::<Result<_>>()?;
            let majority = 100.0 * problem.majority();
            Ok(Line { name: problem.name, rows, columns, classes: problem.classes, majority, cells })
        };
        problems.iter().map(line).collect()
    }

    fn depth(&self, problems: &[Problem], repeats: usize) -> Result<Vec<(&'static str, Sweep)>> {
        let losses = self.entries.len();
        let all = parallel(problems.len() * losses * DEEPEST * repeats, |job| {
            let (layers, loss) = (1 + job / repeats % DEEPEST, job / repeats / DEEPEST);
            let run = self.validate(&problems[loss / losses], loss % losses, layers, job % repeats)?;
            Ok(run.map(|run| 100.0 * run.share))
        })?;
        self.progress.line(|| format!("depth: {} cross-validations", all.len()));
        let depths = |all: &[Option<f64>]| all.chunks(repeats).map(|runs| runs.iter().copied().collect()).collect();
        let sweeps = |all: &[Option<f64>]| all.chunks(repeats * DEEPEST).map(depths).collect();
        let of_problems = problems.iter().zip(all.chunks(repeats * DEEPEST * losses));
        Ok(of_problems.map(|(problem, all)| (problem.name, sweeps(all))).collect())
    }

    fn scales(&self, problem: &Problem) -> Result<Vec<Gaps>> {
        let all = parallel(SCALES.len(), |job| {
            let gaps = scales::measure(self.backend, problem, &self.protocol, SCALES[job]);
            self.progress.advance(|| format!("ArcGrad, s = {}", SCALES[job]));
            gaps
        });
        self.progress.line(|| format!("scales: {} runs", SCALES.len()));
        all
    }

    fn collapse(&self, variants: &[(&'static str, crate::common::learner::Objective)]) -> Result<Vec<Trace>> {
        let digits = Digits::load()?;
        parallel(variants.len(), |job| {
            let trace = collapse::watch(self.backend, &digits, &variants[job], self.protocol.seed);
            self.progress.advance(|| variants[job].0.into());
            trace
        })
    }
}
