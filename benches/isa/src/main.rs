//! Tables of the kernels as compiled for real GPUs; `run.sh` runs it once for each available compiler.
//!
//! ```text
//! margin-softmax-isa units                the products of matrix units, by RADV's first device of VK_DRIVER_FILES
//! margin-softmax-isa adreno|amd|intel     the first device of VK_DRIVER_FILES, one of Turnip, RADV or ANV
//! margin-softmax-isa dump | margin-softmax-isa apple      the same for Honeykrisp
//! margin-softmax-isa nvidia CHIP          the tools of MARGIN_SOFTMAX_CUDA, for sm_89 or sm_90
//!                                         prints the table and compares it with thresholds.md
//!     --accept                            takes the values as the new thresholds
//!     --only TEXT                         kernels with this in their names
//!     --save FOLDER                       writes the WGSL and the assembly of each kernel there
//! ```

mod adreno;
mod amd;
mod apple;
#[cfg(test)]
mod banks;
mod cuda;
mod driver;
mod expression;
mod intel;
mod kernels;
mod listing;
mod modules;
mod nvidia;
#[cfg(test)]
mod order;
mod table;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use crate::{
    driver::{Compiled, Driver},
    kernels::Entry,
    modules::Buffers,
    table::{Row, Thresholds},
};

const USAGE: &str =
    "margin-softmax-isa adreno|amd|apple|dump|intel|nvidia CHIP [--accept] [--only TEXT] [--save FOLDER]";

#[derive(Default)]
struct Arguments {
    compiler: String,
    chip: String,
    accept: bool,
    only: String,
    save: Option<PathBuf>,
}

impl Arguments {
    fn parse() -> Result<Self, String> {
        let mut found = Self::default();
        let mut words = env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(USAGE);
            match word.as_str() {
                "--accept" => found.accept = true,
                "--only" => found.only = value()?,
                "--save" => found.save = Some(value()?.into()),
                _ if found.compiler.is_empty() => found.compiler = word,
                _ if found.chip.is_empty() => found.chip = word,
                _ => return Err(USAGE.into()),
            }
        }
        if found.accept && !found.only.is_empty() {
            return Err("--accept takes the values of all kernels: not with --only".into());
        }
        Ok(found)
    }

    /// Keeps what the compiler was given, and what it made of it, in a folder of the compiler's name.
    fn save(&self, compiler: &str, entry: &Entry, assembly: &str) -> Result<(), String> {
        let Some(folder) = &self.save else { return Ok(()) };
        let folder = folder.join(compiler.replace([' ', ',', '(', ')'], "_"));
        let write = |kind: &str, text: &str| fs::write(folder.join(format!("{}.{kind}", entry.file())), text);
        let written = fs::create_dir_all(&folder).and_then(|()| write("wgsl", &entry.kernel.source));
        written.and_then(|()| write("txt", assembly)).map_err(|error| format!("{}: {error}", folder.display()))
    }

    fn saved(&self, entries: &[Entry], (compiler, rows): (String, Vec<(Row, String)>)) -> Result<Table, String> {
        for (entry, (_, assembly)) in entries.iter().zip(&rows) {
            self.save(&compiler, entry, assembly)?;
        }
        Ok((compiler, rows.into_iter().map(|(row, _)| row).collect()))
    }
}

/// The compiler with its version, and its rows.
type Table = (String, Vec<Row>);

/// Reads a vendor's listing of a kernel, and of its path through the matrix of cosines.
type Read = fn(&Entry, &Compiled, Option<&Compiled>) -> Result<Row, String>;

/// By the first device of VK_DRIVER_FILES.
fn driver(arguments: &Arguments, entries: &[Entry], name: fn(&str) -> String, read: Read) -> Result<Table, String> {
    let driver = Driver::open(Buffers::Device)?;
    let compiler = name(&driver.name);
    let rows = entries.iter().map(|entry| {
        let compiled = driver.compile(&entry.kernel)?;
        arguments.save(&compiler, entry, &compiled.assembly)?;
        let path = entry.path()?.map(|path| driver.compile(&path)).transpose()?;
        read(entry, &compiled, path.as_ref())
    });
    let rows = rows.collect::<Result<_, _>>()?;
    Ok((compiler, rows))
}

fn entries(arguments: &Arguments) -> Result<Vec<Entry>, String> {
    let entries = kernels::all(arguments.compiler == "units").map_err(|error| error.to_string())?;
    Ok(entries.into_iter().filter(|entry| entry.name.contains(&arguments.only)).collect())
}

fn compile(arguments: &Arguments) -> Result<Table, String> {
    let entries = entries(arguments)?;
    match arguments.compiler.as_str() {
        "units" => {
            let (compiler, rows) = driver(arguments, &entries, amd::compiler, amd::row)?;
            Ok((format!("{compiler}, matrix units"), rows))
        }
        "amd" => driver(arguments, &entries, amd::compiler, amd::row),
        "adreno" => driver(arguments, &entries, adreno::compiler, adreno::row),
        "intel" => driver(arguments, &entries, intel::compiler, intel::row),
        "apple" => arguments.saved(&entries, apple::rows(&entries)?),
        "nvidia" => {
            let folder = |name| env::var_os(name).map(PathBuf::from).ok_or_else(|| format!("{name} is not set"));
            let (tools, work) = (folder("MARGIN_SOFTMAX_CUDA")?, folder("MARGIN_SOFTMAX_WORK")?);
            arguments.saved(&entries, nvidia::compile(&arguments.chip, &entries, &tools, &work)?)
        }
        _ => Err(USAGE.into()),
    }
}

/// Whether the thresholds are kept.
fn run() -> Result<bool, String> {
    let arguments = Arguments::parse()?;
    if arguments.compiler == "dump" {
        return apple::dump(&entries(&arguments)?).map(|()| true);
    }
    let (compiler, rows) = compile(&arguments)?;
    println!("## {compiler}\n\n{}", table::print(&rows, true));

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("thresholds.md");
    let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut thresholds = Thresholds::parse(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    if arguments.accept {
        thresholds.accept(&compiler, rows);
        fs::write(&file, thresholds.print()).map_err(|error| format!("{}: {error}", file.display()))?;
        return Ok(true);
    }
    let Some(breaches) = thresholds.breaches(&compiler, &rows) else {
        let known: Vec<&str> = thresholds.names().collect();
        println!("warning: no thresholds for {compiler}, only for {}", known.join("; "));
        return Ok(true);
    };
    let listed = |line: &&String| arguments.only.is_empty() || !line.ends_with("no such kernel");
    let breaches: Vec<&String> = breaches.iter().filter(listed).collect();
    breaches.iter().for_each(|line| println!("BREACH {line}"));
    Ok(breaches.is_empty())
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
