//! The data sets of the table. Seven more of the paper's fifteen, and two whose only packages have another licence, are
//! read from a folder.

mod folder;
mod lines;

use crate::common::{Result, learner::Set};

pub use folder::folder;
use lines::{Header, Layout, Source};

/// A data set.
pub struct Problem {
    pub name: &'static str,
    pub classes: usize,
    pub set: Set,
}

impl Problem {
    /// The share of the largest class: what it takes no learning to reach.
    pub fn majority(&self) -> f64 {
        let count = |class| self.set.labels.iter().filter(|&&label| label as usize == class).count();
        (0..self.classes).map(count).max().unwrap_or(0) as f64 / self.set.labels.len() as f64
    }
}

/// A file with a line of names, then the numbers of a row and its class.
const fn embedded_source(name: &'static str, file: &'static [&'static str], sizes: [usize; 3]) -> Source {
    let layout = Layout { header: Header::Line, ..Layout::commas(sizes[1]) };
    Source { name, files: file, rows: sizes[0], classes: sizes[2], layout }
}

/// Origins and licences: examples/data/README.md.
const EMBEDDED: [(Source, &str); 5] = [
    (embedded_source("Iris", &["iris.csv"], [150, 4, 3]), include_str!("../../data/iris.csv")),
    (embedded_source("Hayes-Roth", &["hayes_roth.csv"], [160, 3, 3]), include_str!("../../data/hayes_roth.csv")),
    (
        embedded_source("Teaching Assistant", &["teaching_assistant.csv"], [151, 5, 3]),
        include_str!("../../data/teaching_assistant.csv"),
    ),
    (embedded_source("Haberman", &["haberman.csv"], [306, 3, 2]), include_str!("../../data/haberman.csv")),
    (embedded_source("Pima", &["pima.csv"], [392, 8, 2]), include_str!("../../data/pima.csv")),
];

/// The sets that need no folder: Iris, Balance Scale, then the others.
pub fn embedded() -> Result<Vec<Problem>> {
    let read = |(source, text): &(Source, &str)| source.read(&[(source.files[0].to_string(), (*text).into())]);
    let mut all = EMBEDDED.iter().map(read).collect::<Result<Vec<_>>>()?;
    all.insert(1, balance_scale());
    Ok(all)
}

/// 150 flowers, 50 of each of 3 species, 4 lengths each.
pub fn iris() -> Result<Problem> {
    let (source, text) = &EMBEDDED[0];
    source.read(&[("iris.csv".into(), (*text).into())])
}

/// All 625 settings of two weights and two distances from 1 to 5, and the side the scale tips to: the data set is the
/// full factorial, so it is made rather than read. 288 tip to either side, 49 to none.
pub fn balance_scale() -> Problem {
    let settings = || (0..625).map(|i| [125, 25, 5, 1].map(|place| i / place % 5 + 1));
    let side = |[weight, distance, right_weight, right_distance]: [i32; 4]| {
        1 - (weight * distance - right_weight * right_distance).signum()
    };
    let labels = settings().map(|setting| side(setting) as u32).collect();
    let all: Vec<[f32; 4]> = settings().map(|setting| setting.map(|v| v as f32)).collect();
    Problem { name: "Balance Scale", classes: 3, set: Set { inputs: all.into(), labels } }
}
