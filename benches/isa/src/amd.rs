//! AMD: the assembly that Mesa's compiler ACO prints for RADV's null device.

use crate::{
    driver::Compiled,
    kernels::{Entry, UNIT_SLOTS},
    listing::{Instruction, Kind, Listing, mesa_version},
    table::Row,
};

/// Bits from a name such as `buffer_load_dwordx4` or `ds_read_b128`; 16 or 8 for those of parts of a word.
fn bits(name: &str) -> u32 {
    let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.ends_with(suffix));
    match name {
        _ if ends(&["x4", "b128"]) => 128,
        _ if ends(&["x3", "b96"]) => 96,
        _ if ends(&["x2", "b64"]) => 64,
        _ if name.contains("short") || name.contains("16") => 16,
        _ if name.contains("byte") || name.contains("8") => 8,
        _ => 32,
    }
}

fn kind(name: &str) -> Kind {
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    let memory = starts(&["buffer_", "global_", "flat_"]);
    match name {
        _ if starts(&["v_wmma_f32_16x16x16_f16"]) => Kind::Matrix(UNIT_SLOTS),
        _ if starts(&["v_fma", "v_fmac", "v_mad_f", "v_mac_f", "v_dot2"]) && name.contains("_f") => Kind::Fma(1),
        _ if starts(&["v_pk_fma"]) => Kind::Fma(2),
        _ if starts(&["ds_read", "ds_load"]) => Kind::WorkgroupRead,
        _ if starts(&["ds_write", "ds_store"]) => Kind::WorkgroupWrite,
        _ if memory && name.contains("load") => Kind::Load(bits(name)),
        _ if memory && name.contains("store") => Kind::Store(bits(name)),
        _ if starts(&["s_waitcnt", "s_wait", "s_clause", "s_delay", "s_nop", "s_inst_prefetch"]) => Kind::Wait,
        _ => Kind::Other,
    }
}

fn instruction(line: &str) -> Instruction {
    // two operations in one slot: `v_dual_fmac_f32 .. :: v_dual_fmac_f32 ..`
    let parts: Vec<&str> = line.split("::").filter_map(|part| part.split_whitespace().next()).collect();
    let name = parts.first().copied().unwrap_or_default();
    let dual = parts.iter().filter(|name| name.starts_with("v_dual_fma")).count() as u32;
    Instruction {
        kind: if dual > 0 { Kind::Fma(dual) } else { kind(name) },
        slot: name.starts_with("v_"),
        clamp: name.starts_with("v_min_u32") || name.starts_with("s_min_u32") || name.starts_with("v_min3_u32"),
        jump: None,
    }
}

/// A line without its encoding, which follows a semicolon, and without its results, which ACO prints before the name where it
/// has no disassembler for the chip: ` s2: %0:exec = v_cmpx_le_u32 0x2000, %7:v[1]`.
fn stripped(line: &str) -> &str {
    let line = line.split(';').next().unwrap_or_default();
    line.rsplit_once("%").map_or(line, |_| line.split_once(" = ").map_or(line, |(_, rest)| rest)).trim()
}

/// `BB7:` of a disassembler, or `BB7` of ACO.
fn label(line: &str) -> Option<&str> {
    let label = line.strip_suffix(':').unwrap_or(line);
    label.strip_prefix("BB").filter(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

pub fn listing(assembly: &str) -> Listing {
    let mut labels = vec![];
    let mut lines = vec![];
    for line in assembly.lines().map(stripped) {
        let instruction =
            ["s_", "v_", "ds_", "buffer_", "global_", "flat_", "scratch_"].iter().any(|p| line.starts_with(p));
        match label(line) {
            Some(label) => labels.push((label, lines.len())),
            None if instruction => lines.push(line),
            None => {}
        }
    }
    let jump = |line: &str| {
        let target =
            line.split_whitespace().nth(1).filter(|_| line.starts_with("s_cbranch") || line.starts_with("s_branch"))?;
        let target = label(target.strip_prefix("block:").unwrap_or(target))?;
        labels.iter().find(|(label, _)| *label == target).map(|(_, at)| *at)
    };
    Listing(lines.iter().map(|&line| Instruction { jump: jump(line), ..instruction(line) }).collect())
}

/// The chip and the version: `RADV NAVI21, Mesa 22.3.6` of `Null hardware (RADV NAVI21), radv Mesa 22.3.6`.
pub fn compiler(driver: &str) -> String {
    let chip = driver.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(chip, _)| chip);
    format!("{}, Mesa {}", chip.unwrap_or(driver), mesa_version(driver))
}

pub fn row(entry: &Entry, compiled: &Compiled, path: Option<&Compiled>) -> Result<Row, String> {
    let statistic = |name| compiled.statistic(name);
    let path = path.map(|path| listing(&path.assembly));
    Ok(Row {
        registers: Some(statistic("VGPRs")?),
        waves: Some(statistic("Subgroups per SIMD")?),
        spills: Some(statistic("Spilled VGPRs")? + statistic("Spilled SGPRs")?),
        scratch: Some(statistic("Scratch size")?),
        ..Row::of(entry, &listing(&compiled.assembly), path.as_ref(), compiled.subgroup)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_of_aco_are_read_like_those_of_a_disassembler() {
        let text = "After lowering to hw instructions:\nBB0\n/* logical preds: / kind: uniform, */\n\tv1: %0:v[4] = v_mov_b32 0\n\
            BB1\n\tv4: %9:v[0-3] = ds_read_b128 %7:v[1] storage:shared\n\tv1: %3:v[3] = v_fmac_f32 %1:v[1], %2:v[2], %3:v[3]\n\
            \tv1: %3:v[3] = v_fma_f32 %1:v[1], %2:v[2], %3:v[3]\n\tv1: %3:v[3],  v1: %5:v[5] = v_dual_fmac_f32 %1:v[1] :: v_dual_fmac_f32 %2:v[2]\n\
            \ts_cbranch_scc1 block:BB1\n\ts_endpgm\n";
        let mix = listing(text).product(4, 1.0).unwrap();
        assert_eq!((mix.fma, mix.slots, mix.workgroup_reads), (4.0, 3.0, 1.0));
    }

    #[test]
    fn a_loop_is_counted_by_what_its_instructions_do() {
        let text = "BB0:\n\tv_mov_b32_e32 v1, 0 ; 00\nBB1:\n\tds_read_b128 v[4:7], v1 ; 00\n\tv_min_u32_e32 v2, 63, v1\n\
            \ts_waitcnt lgkmcnt(0)\n\tv_fma_f32 v3, v4, v5, v3\n\tv_fmac_f32_e32 v3, v4, v6\n\tv_fmac_f32_e32 v3, v4, v7\n\
            \tv_dual_fmac_f32 v3, v4, v7 :: v_dual_fmac_f32 v5, v6, v7\n\
            \tbuffer_load_dwordx4 v[4:7], v9, s[28:31], 0 offen\n\ts_cbranch_scc1 BB1\nBB2:\n\ts_endpgm";
        let mix = listing(text).product(5, 1.0).unwrap();
        assert_eq!((mix.fma, mix.slots, mix.workgroup_reads, mix.clamps), (5.0, 5.0, 1.0, 1.0));
        assert_eq!((mix.loads, mix.load_bits, mix.instructions), (1.0, 128.0, 8.0));
    }
}
