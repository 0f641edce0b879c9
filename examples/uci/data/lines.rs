//! One reader for files with a row to a line: numbers, and the name of a class among them.

use ndarray::Array2;

use super::Problem;
use crate::common::{Result, learner::Set};

/// The lines before the rows.
#[derive(Clone, Copy, PartialEq)]
pub enum Header {
    None,
    /// One line of names.
    Line,
    /// ARFF: everything up to the line `@data`; % begins a comment.
    Arff,
}

/// How the cells of a line are told apart.
#[derive(Clone, Copy, PartialEq)]
pub enum Separator {
    Comma,
    Spaces,
}

/// Where the values of a row are in its line.
#[derive(Clone, Copy)]
pub struct Layout {
    pub header: Header,
    pub separator: Separator,
    /// Values of a row without its class.
    pub columns: usize,
    /// The place of the class.
    pub class: usize,
    /// Places that say nothing of the class: numbers of cases.
    pub unread: &'static [usize],
    /// Whether notes for a reader may stand to the right of the rows.
    pub notes: bool,
}

impl Layout {
    /// Values and the class after them, between commas, no header.
    pub const fn commas(columns: usize) -> Self {
        let (header, separator) = (Header::None, Separator::Comma);
        Self { header, separator, columns, class: columns, unread: &[], notes: false }
    }
}

/// A data set in one or more files, and what must come out of them.
pub struct Source {
    pub name: &'static str,
    /// All of them, one after the other.
    pub files: &'static [&'static str],
    /// Without those that miss a value.
    pub rows: usize,
    pub classes: usize,
    pub layout: Layout,
}

impl Source {
    /// The set, from the name and the text of each file. Rows with a "?" are left out; classes are numbered in the order of
    /// their names.
    pub fn read(&self, texts: &[(String, String)]) -> Result<Problem> {
        let (mut inputs, mut names): (Vec<f32>, Vec<String>) = (vec![], vec![]);
        for (file, text) in texts {
            for (number, line) in self.lines(text) {
                let row = self.row(line).map_err(|why| format!("{file}, line {number}: {why}"))?;
                if let Some((values, class)) = row {
                    inputs.extend(values);
                    names.push(class);
                }
            }
        }
        let mut classes = names.clone();
        classes.sort_by(|a, b| match (a.parse::<f64>(), b.parse::<f64>()) {
            (Ok(a), Ok(b)) => a.total_cmp(&b),
            _ => a.cmp(b),
        });
        classes.dedup();
        let (found, expected) = ((names.len(), classes.len()), (self.rows, self.classes));
        if found != expected {
            let files = texts.iter().map(|(file, _)| file.as_str()).collect::<Vec<_>>().join(" and ");
            let count = |(rows, classes)| format!("{rows} complete rows of {classes} classes");
            return Err(format!("{files}: {}, but {} has {}", count(found), self.name, count(expected)).into());
        }
        let place = |name: &String| classes.iter().position(|class| class == name).map_or(0, |place| place as u32);
        let labels = names.iter().map(place).collect();
        let inputs = Array2::from_shape_vec((self.rows, self.layout.columns), inputs)?;
        Ok(Problem { name: self.name, classes: self.classes, set: Set { inputs, labels } })
    }

    /// The lines with rows, numbered from 1.
    fn lines<'a>(&self, text: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
        let text = text.trim_start_matches('\u{feff}');
        let skipped = match self.layout.header {
            Header::None => 0,
            Header::Line => 1,
            Header::Arff => 1 + text.lines().take_while(|line| !line.trim().eq_ignore_ascii_case("@data")).count(),
        };
        let comments = self.layout.header == Header::Arff;
        let all = text.lines().enumerate().skip(skipped).map(|(i, line)| (i + 1, line.trim()));
        all.filter(move |(_, line)| !(line.trim_matches(',').is_empty() || comments && line.starts_with('%')))
    }

    /// Values and class of a line, `None` where one is missing.
    fn row(&self, line: &str) -> Result<Option<(Vec<f32>, String)>> {
        let Layout { separator, columns, class, unread, notes, .. } = self.layout;
        let cells: Vec<&str> = match separator {
            Separator::Comma => line.split(',').map(|cell| cell.trim().trim_matches('"').trim()).collect(),
            Separator::Spaces => line.split_whitespace().collect(),
        };
        let expected = columns + 1 + unread.len();
        if notes && cells[0].is_empty() {
            return Ok(None);
        }
        let enough = if notes { cells.len() >= expected } else { cells.len() == expected };
        if !enough {
            return Err(format!("{} values, expected {expected}", cells.len()).into());
        }
        let cells = &cells[..expected];
        if cells.contains(&"?") {
            return Ok(None);
        }
        let values = cells.iter().enumerate().filter(|(place, _)| *place != class && !unread.contains(place));
        let values = values.map(|(_, cell)| value(cell)).collect::<Result<Vec<_>>>()?;
        if cells[class].is_empty() {
            return Err("the class is empty".into());
        }
        Ok(Some((values, cells[class].to_lowercase().replace('_', " "))))
    }
}

/// A number, or a vote.
fn value(cell: &str) -> Result<f32> {
    match cell {
        "y" => Ok(1.0),
        "n" => Ok(0.0),
        _ => match cell.parse::<f32>() {
            Ok(value) if value.is_finite() => Ok(value),
            _ => Err(format!("{cell:?} is no number").into()),
        },
    }
}
