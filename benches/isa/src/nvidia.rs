//! NVIDIA: nvcc and ptxas compile the kernels for a chip, nvdisasm prints what they made of them.

use std::{fmt::Write, fs, path::Path, process::Command};

use regex_lite::Regex;

use crate::{
    cuda,
    kernels::Entry,
    listing::{Instruction, Kind, Listing},
    modules,
    table::Row,
};

/// The resources of a multiprocessor.
struct Chip {
    warps: f64,
    groups: f64,
    shared_bytes: f64,
}

/// Registers of a multiprocessor, and of a warp as they are handed out.
const REGISTERS: f64 = 65_536.0;
const REGISTERS_STEP: f64 = 256.0;
const WARP: u32 = 32;
/// That the driver keeps of a workgroup's shared memory.
const RESERVED: f64 = 1024.0;

fn chip(name: &str) -> Result<Chip, String> {
    match name {
        "sm_90" => Ok(Chip { warps: 64.0, groups: 32.0, shared_bytes: (228 << 10).into() }),
        "sm_89" => Ok(Chip { warps: 48.0, groups: 24.0, shared_bytes: (100 << 10).into() }),
        _ => Err(format!("no numbers of {name}: sm_89, sm_90")),
    }
}

impl Chip {
    /// Warps that a multiprocessor holds at once.
    fn resident(&self, lanes: u32, registers: f64, shared: f64) -> f64 {
        let warps = f64::from(lanes.div_ceil(WARP));
        let of_warp = (registers * f64::from(WARP) / REGISTERS_STEP).ceil() * REGISTERS_STEP;
        let by_registers = (REGISTERS / of_warp / warps).floor();
        let by_memory = (self.shared_bytes / (shared + RESERVED)).floor();
        by_registers.min(by_memory).min((self.warps / warps).floor()).min(self.groups) * warps
    }
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn run(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{program}: {error}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let first: Vec<&str> = errors.lines().filter(|line| line.contains("error")).take(5).collect();
        return Err(format!("{program}: {}", first.join("\n")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &errors)
}

/// Bits of an access such as `LDG.E.128.CONSTANT`.
fn bits(name: &str) -> u32 {
    let has = |part| name.split('.').any(|one| one == part);
    match name {
        _ if has("128") => 128,
        _ if has("64") => 64,
        _ if has("U16") || has("S16") => 16,
        _ if has("U8") || has("S8") => 8,
        _ => 32,
    }
}

fn instruction(text: &str) -> Instruction {
    let mut words = text.split_whitespace();
    let first = words.next().unwrap_or_default();
    // `@P0 FFMA ..`: under a condition, and issued all the same
    let name = if first.starts_with('@') { words.next().unwrap_or_default() } else { first };
    let kind = match name.split('.').next().unwrap_or_default() {
        "FFMA" => Kind::Fma(1),
        // HFMA2 loads constants
        "FFMA2" => Kind::Fma(2),
        "LDS" => Kind::WorkgroupRead,
        "STS" => Kind::WorkgroupWrite,
        "LDG" | "LDGSTS" => Kind::Load(bits(name)),
        "STG" => Kind::Store(bits(name)),
        "NOP" => Kind::Wait,
        _ => Kind::Other,
    };
    let clamp = ["VIMNMX", "IMNMX", "UIMNMX", "VIMNMX3", "UVIMNMX"].iter().any(|one| name.starts_with(one));
    Instruction { kind, slot: kind != Kind::Wait, clamp, jump: None }
}

/// One function of nvdisasm's output.
fn listing(text: &str) -> Listing {
    let (label, line) = (pattern(r"^(\.L_x_\d+):"), pattern(r"^\s+/\*[0-9a-f]{4,}\*/\s+(.*?);"));
    let branch = pattern(r"BRA.*`\((\.L_x_\d+)\)");
    let mut labels = vec![];
    let mut lines: Vec<String> = vec![];
    for one in text.lines() {
        if let Some(found) = label.captures(one) {
            labels.push((found[1].to_owned(), lines.len()));
        } else if let Some(found) = line.captures(one) {
            lines.push(found[1].to_owned());
        }
    }
    let jump = |line: &str| {
        let found = branch.captures(line)?;
        labels.iter().find(|(label, _)| *label == found[1]).map(|(_, at)| *at)
    };
    Listing(lines.iter().map(|line| Instruction { jump: jump(line), ..instruction(line) }).collect())
}

/// The part of a text after `start` and before `end`.
fn part<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    Some(rest.split(end).next().unwrap_or(rest))
}

/// The compiler with its version, and for each kernel its row and its assembly. `tools`: where the compilers are, with `bin`.
pub fn compile(
    chip_name: &str,
    entries: &[Entry],
    tools: &Path,
    work: &Path,
) -> Result<(String, Vec<(Row, String)>), String> {
    let chip = chip(chip_name)?;
    let mut source = String::from("#include \"metal.h\"\n");
    for (number, entry) in entries.iter().enumerate() {
        let path = entry.path()?.map(|path| (path, format!("path_{number}")));
        for (kernel, name) in [(entry.kernel.clone(), format!("kernel_{number}"))].into_iter().chain(path) {
            let metal = modules::msl(&kernel.source)?;
            source += &cuda::translate(&metal, &name).map_err(|error| format!("{}: {error}", entry.name))?;
        }
    }
    let file = |end: &str| work.join(format!("kernels.{chip_name}.{end}"));
    fs::create_dir_all(work).and_then(|()| fs::write(file("cu"), source)).map_err(|error| error.to_string())?;
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("nvidia");
    let nvcc = tools.join("bin/nvcc");
    let report = run(Command::new(&nvcc)
        .args(["-O3", "-cubin", "-Xptxas", "-v", &format!("-arch={chip_name}"), "-I"])
        .arg(include)
        .arg("-o")
        .args([file("cubin"), file("cu")]))?;
    let assembly = run(Command::new(tools.join("bin/nvdisasm")).arg("-c").arg(file("cubin")))?;
    let version = run(Command::new(tools.join("bin/ptxas")).arg("--version"))?;
    let version = pattern(r"V(\d[\d.]*)").captures(&version).map_or_else(String::new, |found| found[1].to_owned());

    let rows = entries.iter().enumerate().map(|(number, entry)| {
        let missing = || format!("{}: nothing of it in what ptxas reports", entry.name);
        let report = part(&report, &format!("'kernel_{number}'"), "Compiling entry function").ok_or_else(missing)?;
        let section = |name: &str| part(&assembly, &format!(".section\t.text.{name}_{number},"), ".section\t");
        let text = section("kernel").ok_or_else(missing)?;
        let path = section("path").map(listing);
        let value = |what: &str| {
            let found = pattern(what).captures(report)?;
            found[1].parse::<f64>().ok()
        };
        let registers = value(r"Used (\d+) registers").ok_or_else(missing)?;
        let spills = value(r"(\d+) bytes spill stores");
        let shared = value(r"(\d+) bytes smem").unwrap_or(0.0);
        let mut listed = String::new();
        write!(listed, "{report}\n{text}").map_err(|error| error.to_string())?;
        let lanes = entry.workgroup();
        let row = Row {
            registers: Some(registers),
            waves: Some(chip.resident(lanes, registers, shared)),
            spills,
            scratch: value(r"(\d+) bytes stack frame"),
            ..Row::of(entry, &listing(text), path.as_ref(), WARP)
        };
        Ok((row, listed))
    });
    let rows: Result<Vec<(Row, String)>, String> = rows.collect();
    Ok((format!("NVIDIA {chip_name}, ptxas {version}"), rows?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_counted_by_what_its_instructions_do() {
        let text = "\n        /*0000*/                   MOV R1, c[0x0][0x28] ;\n.L_x_0:\n\
            \n        /*0010*/                   LDS.128 R4, [R1] ;\n        /*0020*/              @!P0 LDG.E.64 R4, [R2.64] ;\
            \n        /*0030*/                   FFMA R3, R4, R5, R3 ;\n        /*0040*/                   VIMNMX.U32 R3, R4, R5, PT ;\
            \n        /*0050*/                   FFMA R3, R4, R5, R3 ;\n        /*0060*/                   FFMA R3, R4, R5, R3 ;\
            \n        /*0070*/                   FFMA R3, R4, R5, R3 ;\n        /*0080*/              @P0  BRA `(.L_x_0) ;\n";
        let mix = listing(text).product(4, 1.0).unwrap();
        assert_eq!((mix.fma, mix.slots, mix.workgroup_reads, mix.clamps), (4.0, 8.0, 1.0, 1.0));
        assert_eq!((mix.loads, mix.load_bits), (1.0, 64.0));
    }

    #[test]
    fn resident_warps_follow_from_registers_memory_and_their_number() {
        let chip = chip("sm_90").unwrap();
        assert_eq!(chip.resident(64, 128.0, 8192.0), 16.0);
        assert_eq!(chip.resident(64, 32.0, 0.0), 64.0);
        assert_eq!(chip.resident(256, 255.0, 8192.0), 8.0);
    }
}
