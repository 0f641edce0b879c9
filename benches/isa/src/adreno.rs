//! Qualcomm's Adreno: the assembly that Mesa's Turnip prints for a chip that is not there.

use crate::{
    driver::Compiled,
    kernels::Entry,
    listing::{Instruction, Kind, Listing, mesa_version},
    table::Row,
};

/// Components of an access: `(xyzw)` of a texture's read, or the number in `ldib.b.untyped.1d.u32.4.imm.base0`.
fn components(name: &str, operands: &str) -> u32 {
    let mask = operands.split(['(', ')']).find(|part| !part.is_empty() && "xyzw".starts_with(part));
    let number = name.split('.').find_map(|part| part.parse().ok().filter(|number| (1..=4).contains(number)));
    mask.map(|mask| mask.len() as u32).or(number).unwrap_or(1)
}

fn kind(name: &str, operands: &str) -> Kind {
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    let bits = || components(name, operands) * if operands.contains("16)") || name.contains("16") { 16 } else { 32 };
    match name {
        "mad.f32" | "mad.f16" => Kind::Fma(1),
        "nop" => Kind::Wait,
        _ if starts(&["ldl"]) => Kind::WorkgroupRead,
        _ if starts(&["stl"]) => Kind::WorkgroupWrite,
        _ if starts(&["isam", "ldib", "ldg"]) => Kind::Load(bits()),
        _ if starts(&["stib", "stg"]) => Kind::Store(bits()),
        _ => Kind::Other,
    }
}

/// The number in a flag such as `(rpt3)`.
fn flag(flags: &str, name: &str) -> usize {
    let found = flags.split(['(', ')']).find_map(|flag| flag.strip_prefix(name)?.parse().ok());
    found.unwrap_or(0)
}

/// Instructions take a slot for each repetition, and for each cycle that is spent waiting for them.
fn listing(assembly: &str) -> Listing {
    let mut labels = vec![];
    let mut found: Vec<(&str, Instruction)> = vec![];
    for line in assembly.lines().map(str::trim) {
        if let Some(label) = line.strip_suffix(':').filter(|label| label.starts_with('l')) {
            labels.push((label, found.len()));
            continue;
        }
        // `(sy)(rpt3)mad.f32 ..` or `(nop2) min.u ..`
        let mut code = line;
        while let Some((_, rest)) = code.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            code = rest.trim_start();
        }
        let flags = &line[..line.len() - code.len()];
        let (name, operands) = code.split_once(' ').unwrap_or((code, ""));
        let described = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.';
        if name.is_empty() || !name.chars().all(described) || line.starts_with([';', '@']) {
            continue;
        }
        let one = |kind| Instruction { kind, slot: true, clamp: name.starts_with("min.u"), jump: None };
        (0..=flag(flags, "rpt")).for_each(|_| found.push((operands, one(kind(name, operands)))));
        (0..flag(flags, "nop")).for_each(|_| found.push(("", Instruction { clamp: false, ..one(Kind::Wait) })));
    }
    let jump = |operands: &str| {
        let (_, target) = operands.rsplit_once('#')?;
        labels.iter().find(|(label, _)| *label == target.trim()).map(|(_, at)| *at)
    };
    Listing(found.iter().map(|&(operands, one)| Instruction { jump: jump(operands), ..one }).collect())
}

/// The chip and the version.
pub fn compiler(driver: &str) -> String {
    format!("{}, Mesa {}", driver.split(", ").next().unwrap_or(driver), mesa_version(driver))
}

pub fn row(entry: &Entry, compiled: &Compiled, path: Option<&Compiled>) -> Result<Row, String> {
    let path = path.map(|path| listing(&path.assembly));
    Ok(Row {
        registers: Some(compiled.statistic("Registers used")?),
        waves: Some(compiled.statistic("Max Waves Per Core")?),
        spills: Some(compiled.statistic("STP Count")?),
        ..Row::of(entry, &listing(&compiled.assembly), path.as_ref(), compiled.subgroup)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_counted_by_what_its_instructions_do() {
        let text = "; num_ubos: 0\n@in(r0.x) in0 (wrmask=0x7)\nl290:\n(sy)(ss)ldl.u32 r4.x, l[r0.x], 4\n\
            (rpt3)mad.f32 r2.x, (r)r3.x, r1.w, (r)r2.x\n(nop2) min.u r1.x, r2.x, 63\n(rpt1)nop\n\
            isam.v.base0 (u32)(xyzw)r7.x, r5.w, s#0, t#5\n(ss)br p0.y, #l290\nend\n";
        let mix = listing(text).product(4, 1.0).unwrap();
        assert_eq!((mix.fma, mix.slots, mix.workgroup_reads, mix.clamps), (4.0, 12.0, 1.0, 1.0));
        assert_eq!((mix.loads, mix.load_bits), (1.0, 128.0));
    }
}
