//! Apple: the assembly that Mesa's Honeykrisp prints for a chip that is not there. The driver writes it to its process' standard
//! output, so one process compiles, and another one reads what it and the driver have written.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Write},
};

use crate::{
    driver::{Compiled, Driver},
    kernels::Entry,
    listing::{Instruction, Kind, Listing, mesa_version},
    modules::Buffers,
    table::Row,
};

/// Before the lines of this program, which no driver writes.
const MARK: &str = "@@ ";

/// Compiles all kernels, as wgpu's Metal backend would have them, with a mark before each.
pub fn dump(entries: &[Entry]) -> Result<(), String> {
    let driver = Driver::open(Buffers::Module)?;
    let mark = |words: &str| writeln!(io::stdout(), "{MARK}{words}").map_err(|error| error.to_string());
    mark(&format!("compiler {}", driver.name))?;
    for entry in entries {
        let path = entry.path()?.map(|path| ("path", path));
        for (what, kernel) in [("kernel", entry.kernel.clone())].into_iter().chain(path) {
            mark(&format!("{what} {}", entry.name))?;
            for (name, value) in driver.compile(&kernel)?.statistics {
                mark(&format!("statistic {name} = {value}"))?;
            }
        }
    }
    Ok(())
}

/// The driver's name, and what there is of each kernel and each path.
fn read(lines: impl Iterator<Item = String>) -> (String, BTreeMap<String, Compiled>) {
    let (mut driver, mut found, mut current) = (String::new(), BTreeMap::new(), String::new());
    for line in lines {
        let marked = line.strip_prefix(MARK).and_then(|words| words.split_once(' '));
        let compiled = found.get_mut(&current);
        match (marked, compiled) {
            (Some(("compiler", name)), _) => driver = name.to_owned(),
            (Some(("statistic", text)), Some(Compiled { statistics, .. })) => {
                let (name, value) = text.split_once(" = ").unwrap_or((text, ""));
                statistics.extend(value.parse().ok().map(|value| (name.to_owned(), value)));
            }
            (Some((what, name)), _) => {
                current = format!("{what} {name}");
                let compiled = Compiled { statistics: vec![], assembly: String::new(), subgroup: 32 };
                found.insert(current.clone(), compiled);
            }
            (None, Some(compiled)) => compiled.assembly += &(line + "\n"),
            (None, None) => {}
        }
    }
    (driver, found)
}

fn kind(name: &str, operands: &str) -> Kind {
    let mask = operands.split([',', ' ']).find(|part| !part.is_empty() && "xyzw".starts_with(part));
    let bits = mask.map_or(1, |mask| mask.len() as u32) * if operands.contains("i16") { 16 } else { 32 };
    match name {
        "ffma" | "hfma" => Kind::Fma(1),
        "lload" => Kind::WorkgroupRead,
        "lstore" => Kind::WorkgroupWrite,
        "load" => Kind::Load(bits),
        "store" => Kind::Store(bits),
        _ => Kind::Other,
    }
}

/// `12a: 20c00c010000   jmp_none 268`: the place in bytes, the code, the instruction.
fn line(text: &str) -> Option<(usize, &str, &str)> {
    let (at, rest) = text.split_once(": ")?;
    let at = usize::from_str_radix(at.trim(), 16).ok()?;
    let (code, rest) = rest.trim_start().split_once(' ')?;
    code.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(())?;
    let rest = rest.trim();
    let (name, operands) = rest.split_once(' ').unwrap_or((rest, ""));
    Some((at, name, operands.trim()))
}

/// With the place in bytes of each instruction. The kernel comes first; a second part, from byte 0 again, runs once for all.
fn listing(assembly: &str) -> (Listing, Vec<usize>) {
    let mut lines: Vec<(usize, &str, &str)> = vec![];
    for one in assembly.lines().filter_map(line) {
        if one.0 == 0 && !lines.is_empty() {
            break;
        }
        lines.push(one);
    }
    let index = |place: i64| lines.iter().position(|(at, ..)| *at as i64 == place);
    let jump = |(at, name, operands): (usize, &str, &str)| {
        let offset: i64 = operands.split_whitespace().last().filter(|_| name.starts_with("jmp"))?.parse().ok()?;
        index(at as i64 + offset)
    };
    let mut found: Vec<Instruction> = vec![];
    for &(at, name, operands) in &lines {
        found.push(Instruction {
            kind: kind(name, operands),
            slot: true,
            clamp: false,
            jump: jump((at, name, operands)),
        });
    }
    // a part of moves between registers is jumped over until the loop is left: it counts for nothing
    let moves = |at: usize| ["mov", "xor", "ldimm", "pop_exec"].contains(&lines[at].1);
    for at in 0..found.len() {
        let Some(to) = found[at].jump.filter(|&to| to > at + 1) else { continue };
        let part = at + 1..to;
        if part.clone().all(moves) {
            found[part].iter_mut().for_each(|one| (one.kind, one.slot) = (Kind::Wait, false));
        }
    }
    (Listing(found), lines.iter().map(|(at, ..)| *at).collect())
}

fn row(entry: &Entry, compiled: &Compiled, path: Option<&Compiled>) -> Result<Row, String> {
    let path = path.map(|path| listing(&path.assembly).0);
    let (listing, places) = listing(&compiled.assembly);
    let looped = entry.step().and_then(|step| listing.loop_over_k(step));
    // an index is clamped by a comparison, which has other uses
    let row = Row::of(entry, &listing, path.as_ref(), compiled.subgroup);
    Ok(Row {
        registers: Some(compiled.statistic("GPRs")?),
        waves: Some(compiled.statistic("Threads")? / 32.0),
        spills: Some(compiled.statistic("Spills")?),
        scratch: Some(compiled.statistic("Scratch")?),
        clamps: None,
        loop_bytes: looped.map(|(first, last)| (places[last] - places[first]) as f64),
        ..row
    })
}

/// The compiler with its version, and the rows with their assembly, from what [`dump`] and the driver wrote.
pub fn rows(entries: &[Entry]) -> Result<(String, Vec<(Row, String)>), String> {
    let (driver, found) = read(io::stdin().lock().lines().map_while(Result::ok));
    let chip = driver.split(", ").next().unwrap_or(&driver);
    let rows = entries.iter().map(|entry| {
        let kernel =
            found.get(&format!("kernel {}", entry.name)).ok_or_else(|| format!("{}: not compiled", entry.name))?;
        let row = row(entry, kernel, found.get(&format!("path {}", entry.name)))?;
        Ok((row, kernel.assembly.clone()))
    });
    let rows: Result<Vec<(Row, String)>, String> = rows.collect();
    Ok((format!("{chip}, Mesa {}", mesa_version(&driver)), rows?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_counted_by_what_its_instructions_do() {
        let text = "@@ compiler Apple M1, Honeykrisp Mesa 26\n@@ kernel one\nshader: one\n   0: b500010521800000       stack_adjust 16\n\
            \x2010: 0571c00621c01200       load     r14, dr16, r14, i32, xy, a\n  18: 0571       lload     r4, l0, 0, i32, xyzw\n\
            \x201a: 3e      ffma r1, r2, r3, r1\n  1c: 3e      ffma r1, r2, r3, r1\n  1e: 3e      ffma r1, r2, r3, r1\n\
            \x2020: 3e      ffma r1, r2, r3, r1\n  22: 20c0  jmp_exec_any -18\n  24: 88 stop\n   0: 88 stop\n@@ statistic GPRs = 12\n";
        let (driver, found) = read(text.lines().map(str::to_owned));
        assert_eq!((driver.as_str(), found.len()), ("Apple M1, Honeykrisp Mesa 26", 1));
        assert_eq!(found["kernel one"].statistic("GPRs"), Ok(12.0));
        let (listing, places) = listing(&found["kernel one"].assembly);
        assert_eq!(listing.loop_over_k(4).map(|(first, last)| places[last] - places[first]), Some(18));
        let mix = listing.product(4, 1.0).unwrap();
        assert_eq!((mix.fma, mix.slots, mix.workgroup_reads), (4.0, 7.0, 1.0));
        assert_eq!((mix.loads, mix.load_bits), (1.0, 64.0));
    }
}
