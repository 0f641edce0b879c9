//! The table of a compiler, and the thresholds that it is compared with: both are tables in Markdown of the same form.

use std::fmt::Write;

use crate::{kernels::Entry, listing::Listing};

/// The measured values of a compiled kernel; `None` where the compiler does not report one.
#[derive(Clone, Default, Debug, PartialEq)]
pub struct Row {
    pub name: String,
    /// Workgroups at each of the two shapes.
    pub groups: [Option<f64>; 2],
    pub registers: Option<f64>,
    pub waves: Option<f64>,
    pub spills: Option<f64>,
    pub scratch: Option<f64>,
    /// FMA among the slots of the loop over k.
    pub share: Option<f64>,
    /// Reads of workgroup memory for 64 FMA.
    pub reads: Option<f64>,
    /// Of indices, in a step over k.
    pub clamps: Option<f64>,
    /// Code of the loop over k.
    pub loop_bytes: Option<f64>,
    /// The mean width of a load from a buffer in the loop over k.
    pub load_bits: Option<f64>,
    /// Instructions for an element of the matrix of cosines.
    pub per_element: Option<f64>,
}

/// The kinds of thresholds.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Bound {
    None,
    AtLeast,
    AtMost,
}

/// A column: its heading, its value, its digits after the point, and its bound.
struct Column {
    heading: &'static str,
    value: fn(&Row) -> Option<f64>,
    set: fn(&mut Row) -> &mut Option<f64>,
    digits: usize,
    bound: Bound,
}

macro_rules! column {
    ($heading:literal, $digits:literal, $bound:ident, $($field:tt)+) => {
        Column {
            heading: $heading,
            value: |row| row.$($field)+,
            set: |row| &mut row.$($field)+,
            digits: $digits,
            bound: Bound::$bound,
        }
    };
}

const COLUMNS: &[Column] = &[
    column!("groups A", 0, None, groups[0]),
    column!("B", 0, None, groups[1]),
    column!("registers", 0, AtMost, registers),
    column!("waves", 0, AtLeast, waves),
    column!("spills", 0, AtMost, spills),
    column!("scratch", 0, AtMost, scratch),
    column!("FMA share", 3, AtLeast, share),
    column!("reads / 64 FMA", 2, AtMost, reads),
    column!("clamps", 0, AtMost, clamps),
    column!("loop bytes", 0, AtMost, loop_bytes),
    column!("load bits", 0, AtLeast, load_bits),
    column!("per element", 1, AtMost, per_element),
];

impl Row {
    /// Values from the listings of the kernel and of its path. `wave`: invocations that run together.
    pub fn of(entry: &Entry, listing: &Listing, path: Option<&Listing>, wave: u32) -> Self {
        let mut row = Row { name: entry.name.clone(), groups: entry.groups.map(|g| Some(g as f64)), ..Row::default() };
        if let Some(mix) = entry.step().and_then(|step| listing.product(step, entry.loading(wave))) {
            row.share = Some(mix.fma / mix.slots);
            row.reads = Some(64.0 * mix.workgroup_reads / mix.fma);
            row.clamps = Some(mix.clamps);
            row.load_bits = (mix.loads > 0.0).then(|| mix.load_bits / mix.loads);
        }
        row.per_element = path.and_then(Listing::per_element);
        row
    }

    /// Whether it has thresholds of its own; the others share theirs.
    fn has_own(&self) -> bool {
        self.share.is_some() || self.per_element.is_some()
    }
}

fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

/// A table in Markdown, with columns of even width; `groups`: with the columns that have no threshold.
pub fn print(rows: &[Row], groups: bool) -> String {
    let columns: Vec<&Column> = COLUMNS.iter().filter(|column| groups || column.bound != Bound::None).collect();
    let headings =
        ["kernel"].into_iter().chain(columns.iter().map(|column| column.heading)).map(str::to_owned).collect();
    let mut lines: Vec<Vec<String>> = vec![headings];
    for row in rows {
        let cells = columns.iter().map(|column| cell((column.value)(row), column.digits));
        lines.push([row.name.clone()].into_iter().chain(cells).collect());
    }
    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (at, (one, width)) in line.iter().zip(&widths).enumerate() {
            let _ = if at == 0 { write!(text, "| {one:<width$} ") } else { write!(text, "| {one:>width$} ") };
        }
        text += "|\n";
        if number == 0 {
            for (at, width) in widths.iter().enumerate() {
                let _ = write!(text, "|{:-<w$}{}", "", if at == 0 { '-' } else { ':' }, w = width + 1);
            }
            text += "|\n";
        }
    }
    text
}

/// The row of the kernels that have no thresholds of their own.
const OTHERS: &str = "all others";

/// The thresholds of all compilers, each below a heading with its name and version.
#[derive(Clone, Debug, Default)]
pub struct Thresholds {
    /// The text before the first heading.
    introduction: String,
    compilers: Vec<(String, Vec<Row>)>,
}

impl Thresholds {
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split("\n## ");
        let introduction = parts.next().unwrap_or_default().to_owned();
        let mut compilers = vec![];
        for part in parts {
            let (name, table) = part.split_once('\n').ok_or("a heading without a table")?;
            let mut lines = table.lines().filter(|line| line.starts_with('|'));
            let headings: Vec<&str> = cells(lines.next().unwrap_or_default());
            let rows: Result<Vec<Row>, String> = lines.skip(1).map(|line| parse_row(&headings, &cells(line))).collect();
            compilers.push((name.trim().to_owned(), rows.map_err(|error| format!("{name}: {error}"))?));
        }
        Ok(Self { introduction, compilers })
    }

    /// The names and versions that have thresholds.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.compilers.iter().map(|(name, _)| name.as_str())
    }

    /// A line for each breach; `None` where this compiler has no thresholds.
    pub fn breaches(&self, compiler: &str, rows: &[Row]) -> Option<Vec<String>> {
        let (_, limits) = self.compilers.iter().find(|(name, _)| name == compiler)?;
        let mut found = vec![];
        for row in rows {
            let name = if row.has_own() { &row.name } else { OTHERS };
            match limits.iter().find(|limit| limit.name == name) {
                Some(limit) => breaches(row, limit, &mut found),
                None => found.push(format!("{}: no thresholds", row.name)),
            }
        }
        let stale = |limit: &&Row| limit.name != OTHERS && !rows.iter().any(|row| row.name == limit.name);
        for limit in limits.iter().filter(stale) {
            found.push(format!("{}: thresholds, but no such kernel", limit.name));
        }
        Some(found)
    }

    /// Takes the values of these rows as the thresholds of the compiler.
    pub fn accept(&mut self, compiler: &str, rows: Vec<Row>) {
        let (mut rows, others): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(Row::has_own);
        if !others.is_empty() {
            let most = |of: fn(&Row) -> Option<f64>| others.iter().filter_map(of).reduce(f64::max);
            let (spills, scratch) = (most(|row| row.spills), most(|row| row.scratch));
            rows.push(Row { name: OTHERS.to_owned(), spills, scratch, ..Row::default() });
        }
        match self.compilers.iter_mut().find(|(name, _)| name == compiler) {
            Some((_, known)) => *known = rows,
            None => self.compilers.push((compiler.to_owned(), rows)),
        }
    }

    pub fn print(&self) -> String {
        let mut text = self.introduction.trim_end().to_owned() + "\n";
        for (name, rows) in &self.compilers {
            let _ = write!(text, "\n## {name}\n\n{}", print(rows, false));
        }
        text
    }
}

fn cells(line: &str) -> Vec<&str> {
    line.trim().trim_matches('|').split('|').map(str::trim).collect()
}

fn parse_row(headings: &[&str], cells: &[&str]) -> Result<Row, String> {
    let name = cells.first().copied().unwrap_or_default();
    let mut row = Row { name: name.to_owned(), ..Row::default() };
    for (heading, cell) in headings.iter().zip(cells).skip(1).filter(|(_, cell)| **cell != "–") {
        let column = COLUMNS.iter().find(|column| column.heading == *heading);
        let column = column.ok_or_else(|| format!("no column `{heading}`"))?;
        *(column.set)(&mut row) = Some(cell.parse().map_err(|_| format!("{name}, {heading}: `{cell}` is no number"))?);
    }
    Ok(row)
}

/// Compared as they are printed.
fn breaches(row: &Row, limit: &Row, found: &mut Vec<String>) {
    for column in COLUMNS.iter().filter(|column| (column.value)(limit).is_some()) {
        let [value, allowed] = [row, limit].map(|of| cell((column.value)(of), column.digits));
        let number = |text: &str| text.parse::<f64>().ok();
        let (kept, bound) = match column.bound {
            Bound::None => continue,
            Bound::AtLeast => (number(&value) >= number(&allowed), "at least"),
            Bound::AtMost => (number(&value).is_some() && number(&value) <= number(&allowed), "at most"),
        };
        if !kept {
            found.push(format!("{}: {} {value}, allowed {bound} {allowed}", row.name, column.heading));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            name: "cosines tile_64".into(),
            registers: Some(128.0),
            waves: Some(8.0),
            share: Some(0.74649),
            ..Row::default()
        }
    }

    #[test]
    fn accepted_values_are_read_back_and_kept() {
        let mut thresholds = Thresholds::parse("# Thresholds\n").unwrap();
        assert_eq!(thresholds.breaches("one", &[row()]), None);
        thresholds.accept("one", vec![row()]);
        let read = Thresholds::parse(&thresholds.print()).unwrap();
        assert_eq!(read.print(), thresholds.print());
        assert_eq!(read.breaches("one", &[row()]), Some(vec![]));
        assert_eq!(read.breaches("one, version 2", &[row()]), None);
    }

    #[test]
    fn a_breach_names_the_kernel_the_value_and_the_threshold() {
        let mut thresholds = Thresholds::default();
        thresholds.accept("one", vec![row()]);
        let worse = Row { registers: Some(136.0), waves: Some(7.0), share: Some(0.74), ..row() };
        let expected = [
            "cosines tile_64: registers 136, allowed at most 128",
            "cosines tile_64: waves 7, allowed at least 8",
            "cosines tile_64: FMA share 0.740, allowed at least 0.746",
        ];
        let better = Row { registers: Some(96.0), waves: Some(10.0), share: Some(0.9), ..row() };
        assert_eq!(thresholds.breaches("one", &[better]), Some(vec![]));
        let thresholds = Thresholds::parse(&("\n".to_owned() + &thresholds.print())).unwrap();
        assert_eq!(thresholds.breaches("one", &[worse]).unwrap(), expected);
    }

    #[test]
    fn small_kernels_share_their_thresholds() {
        let small = |name: &str, scratch: f64| Row {
            name: name.into(),
            spills: Some(0.0),
            scratch: Some(scratch),
            ..Row::default()
        };
        let mut thresholds = Thresholds::default();
        thresholds.accept("one", vec![row(), small("row_loss", 0.0), small("batch_loss", 8.0)]);
        let rows = |scratch| [row(), small("row_norms", scratch)];
        assert_eq!(thresholds.breaches("one", &rows(8.0)), Some(vec![]));
        assert_eq!(thresholds.breaches("one", &rows(9.0)).unwrap(), ["row_norms: scratch 9, allowed at most 8"]);
    }

    #[test]
    fn a_kernel_without_thresholds_and_thresholds_without_a_kernel_are_breaches() {
        let mut thresholds = Thresholds::default();
        thresholds.accept("one", vec![row()]);
        let other = Row { name: "cosines tile_96".into(), ..row() };
        let expected = ["cosines tile_96: no thresholds", "cosines tile_64: thresholds, but no such kernel"];
        assert_eq!(thresholds.breaches("one", &[other]).unwrap(), expected);
    }
}
