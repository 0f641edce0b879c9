//! The two data sets of the table, complete: nothing is downloaded.

use ndarray::Array2;

use crate::common::{Result, learner::Set};

/// Origin and licence: examples/data/README.md.
const IRIS: &[u8] = include_bytes!("../data/iris.csv");

/// A data set.
pub struct Problem {
    pub name: &'static str,
    pub classes: usize,
    pub set: Set,
}

/// 150 flowers, 50 of each of 3 species, 4 lengths each.
pub fn iris() -> Result<Problem> {
    let mut rows: Vec<Vec<f32>> = vec![];
    // the first line counts rows and columns
    for row in csv::ReaderBuilder::new().flexible(true).from_reader(IRIS).deserialize() {
        rows.push(row?);
    }
    let labels = rows.iter().filter_map(|row| row.last()).map(|&class| class as u32).collect();
    let inputs = rows.iter().flat_map(|row| &row[..row.len() - 1]).copied().collect();
    let inputs = Array2::from_shape_vec((rows.len(), 4), inputs)?;
    Ok(Problem { name: "Iris", classes: 3, set: Set { inputs, labels } })
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

/// Both sets with mean 0 and deviation 1 of every column, as measured on the first.
pub fn standardised(train: Set, test: Set) -> [Set; 2] {
    train.standardised(test)
}
