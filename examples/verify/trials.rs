//! Lists of trials: which pairs of items are compared, and whether they are the same.

use std::{fs, path::Path};

use clap::ValueEnum;

use crate::{common::Result, embeddings::Names};

/// How a list is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Format {
    /// pairs.txt of LFW: FOLDS and PAIRS, then in each fold PAIRS lines NAME N1 N2 and PAIRS lines NAME1 N1 NAME2 N2; an item is
    /// called NAME_0001
    Lfw,
    /// TEMPLATE1 TEMPLATE2 LABEL on each line; --templates says which items a template has
    Ijb,
    /// LABEL ENROLLED TESTED on each line
    Voxceleb,
}

/// The pairs of a list.
#[derive(Debug, Default)]
pub struct Trials {
    /// Rows of the embeddings.
    pub pairs: Vec<[u32; 2]>,
    pub same: Vec<bool>,
    /// Of each pair, where the list has folds.
    pub folds: Option<Vec<u32>>,
}

/// A list from a file. An error in a line names its number.
pub fn read(path: &Path, format: Format, names: &Names) -> Result<Trials> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let trials = match format {
        Format::Lfw => lfw(&text, names),
        Format::Ijb => labelled(&text, names, ["TEMPLATE1", "TEMPLATE2", "LABEL"], 2),
        Format::Voxceleb => labelled(&text, names, ["LABEL", "ENROLLED", "TESTED"], 0),
    };
    let at = |(line, why): (usize, String)| match line {
        0 => format!("{}: {why}", path.display()),
        _ => format!("{}:{line}: {why}", path.display()),
    };
    Ok(trials.map_err(at)?)
}

/// The number of a line, from 1, or 0 for the whole list; and what is wrong.
type Wrong = (usize, String);

/// The lines that are not empty, with their numbers.
fn lines(text: &str) -> impl Iterator<Item = (usize, Vec<&str>)> {
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.split_whitespace().collect::<Vec<_>>()));
    lines.filter(|(_, columns)| !columns.is_empty())
}

/// Three columns, of which one is a label.
fn labelled(text: &str, names: &Names, columns: [&str; 3], label: usize) -> Result<Trials, Wrong> {
    let mut trials = Trials::default();
    for (line, found) in lines(text) {
        let Ok(own) = <[&str; 3]>::try_from(found.clone()) else {
            return Err((line, format!("{} columns, expected {}", found.len(), columns.join(" "))));
        };
        trials.same.push(match own[label] {
            "1" => true,
            "0" => false,
            other => return Err((line, format!("the label is `{other}`, expected 0 or 1"))),
        });
        let mut items = own.iter().enumerate().filter(|(at, _)| *at != label).map(|(_, name)| names.row(name));
        let mut next = || items.next().unwrap_or(Err("a column is missing".into())).map_err(|why| (line, why));
        trials.pairs.push([next()?, next()?]);
    }
    not_empty(trials)
}

fn lfw(text: &str, names: &Names) -> Result<Trials, Wrong> {
    let mut lines = lines(text);
    let (first, header) = lines.next().ok_or((0, "an empty list".to_owned()))?;
    let numbers: Option<Vec<usize>> = header.iter().map(|column| column.parse().ok().filter(|&n| n > 0)).collect();
    // the development lists of LFW have no folds
    let (folds, each) = match numbers.as_deref() {
        Some([folds, each]) => (*folds, *each),
        Some([each]) => (1, *each),
        _ => return Err((first, format!("`{}`, expected FOLDS PAIRS or PAIRS", header.join(" ")))),
    };
    let (mut trials, mut of_fold, mut last) = (Trials::default(), vec![], first);
    for (line, columns) in lines {
        let at = trials.pairs.len();
        let (fold, same) = (at / each / 2, at / each % 2 == 0);
        if fold >= folds {
            return Err((line, format!("more pairs than the {folds} · 2 · {each} of the first line")));
        }
        let item = |name: &str, number: &str| {
            let number: u32 = number.parse().map_err(|_| (line, format!("`{number}` is no number of an image")))?;
            names.row(&format!("{name}_{number:04}")).map_err(|why| (line, why))
        };
        trials.pairs.push(match (&columns[..], same) {
            ([name, a, b], true) => [item(name, a)?, item(name, b)?],
            ([one, a, other, b], false) => [item(one, a)?, item(other, b)?],
            _ => {
                let expected =
                    if same { "NAME N1 N2 for a same pair" } else { "NAME1 N1 NAME2 N2 for a different pair" };
                return Err((line, format!("{} columns, expected {expected} of fold {}", columns.len(), fold + 1)));
            }
        });
        trials.same.push(same);
        of_fold.push(fold as u32);
        last = line;
    }
    let expected = folds.saturating_mul(each).saturating_mul(2);
    if trials.pairs.len() != expected {
        return Err((last, format!("the list ends after {} of {expected} pairs", trials.pairs.len())));
    }
    trials.folds = (folds > 1).then_some(of_fold);
    Ok(trials)
}

fn not_empty(trials: Trials) -> Result<Trials, Wrong> {
    if trials.pairs.is_empty() { Err((0, "no pair in the list".into())) } else { Ok(trials) }
}
