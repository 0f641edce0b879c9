//! Builds a crate for the browser: wasm and its ES module.
//!
//! ```text
//! cargo run --release -p web-build -- --inline web/planner
//! ```
//!
//! writes `web/dist/planner.js` and `web/dist/planner_wasm.js`, named like the crate's library; the second carries the wasm, compiled
//! with the profile `web-inline`: a package of ES modules alone needs no fetch and no setting of a bundler. Without `--inline` the
//! wasm is a file, `web/dist/planner_bg.wasm`, and the profile is `web`. Adds the target wasm32-unknown-unknown where rustup is
//! there and it is missing. (`wasm-opt -Oz` was tried: 0.8 % less after gzip, and with all features on a module that Chromium
//! refuses.)
//!
//! ```text
//! cargo run --release -p web-build -- --threads --features threads --out web/dist/threads tests/browser/rust
//! ```
//!
//! compiles for several threads, for pages that are cross-origin isolated. Stable Rust cannot: it takes a nightly toolchain with the
//! component rust-src, which compiles the standard library again.

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use clap::Parser;
use flate2::{Compression, write::GzEncoder};
use serde_json::Value;
use wasm_bindgen_cli_support::Bindgen;

const TARGET: &str = "wasm32-unknown-unknown";

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Builds crates for the browser: wasm and ES modules.
#[derive(Parser)]
struct Arguments {
    /// Folders of the crates, or their names in web/.
    #[arg(required = true)]
    crates: Vec<PathBuf>,
    /// Where the modules go; default web/dist of this repository.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Features of the crates, separated by commas.
    #[arg(long, default_value = "")]
    features: String,
    /// Also writes the wasm as an ES module, which exports it as base64 of gzip; the crate's module then names no wasm file.
    #[arg(long)]
    inline: bool,
    /// For several threads, with a nightly toolchain and its component rust-src: the crate exports `initThreadPool` of the crate
    /// wasm-bindgen-rayon.
    #[arg(long, conflicts_with = "inline")]
    threads: bool,
    /// Fails where a crate's wasm and module are larger than this many bytes, compressed with gzip -9.
    #[arg(long)]
    most: Option<usize>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let out = match &arguments.out {
        Some(out) => out.clone(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist"),
    };
    fs::create_dir_all(&out)?;
    let out = out.canonicalize()?;
    add_target()?;
    if arguments.threads {
        check_nightly()?;
    }
    for folder in &arguments.crates {
        let profile = if arguments.inline { "web-inline" } else { "web" };
        let wasm = compile(folder, &arguments.features, profile, arguments.threads)?;
        let files = bind(&wasm, &out, arguments.inline)?;
        let mut sum = 0;
        for file in &files {
            let bytes = fs::read(file)?;
            let packed = gzip(&bytes)?.len();
            sum += packed;
            println!("{}: {} bytes, {packed} with gzip -9", file.display(), bytes.len());
        }
        if let Some(most) = arguments.most
            && sum > most
        {
            return Err(format!("{} is {sum} bytes compressed, allowed are {most}", folder.display()).into());
        }
    }
    Ok(())
}

/// The target, where rustup can tell and add it.
fn add_target() -> Result<()> {
    let Ok(installed) = Command::new("rustup").args(["target", "list", "--installed"]).output() else { return Ok(()) };
    if !String::from_utf8_lossy(&installed.stdout).lines().any(|line| line == TARGET) {
        run(Command::new("rustup").args(["target", "add", TARGET]))?;
    }
    Ok(())
}

/// Whether threads can be compiled here; an error says what is missing.
fn check_nightly() -> Result<()> {
    let listed = Command::new("rustup").args(["component", "list", "--toolchain", "nightly", "--installed"]).output();
    match listed {
        Ok(listed) if String::from_utf8_lossy(&listed.stdout).lines().any(|line| line == "rust-src") => Ok(()),
        Ok(_) => Err("--threads needs a nightly toolchain with its sources: rustup toolchain install nightly --component rust-src".into()),
        Err(e) => Err(format!("--threads needs rustup, for a nightly toolchain: {e}").into()),
    }
}

/// Cargo, and the flags of its compiler.
fn cargo(threads: bool) -> (Command, String) {
    // every browser with WebGPU has it; the CPU path is several times as fast with it
    let simd = "-C target-feature=+simd128";
    if !threads {
        return (Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into())), simd.into());
    }
    let mut cargo = Command::new("rustup");
    cargo.args(["run", "nightly", "cargo", "-Z", "build-std=panic_abort,std"]);
    // the memory that all instances share, and what wasm-bindgen needs to give each its own stack and thread-locals
    let exports = ["__heap_base", "__wasm_init_tls", "__tls_size", "__tls_align", "__tls_base"];
    let memory = ["--shared-memory", "--import-memory", "--max-memory=4294967296"].map(String::from);
    let linked = exports.iter().map(|name| format!("--export={name}")).chain(memory);
    let linked = linked.map(|argument| format!(" -C link-arg={argument}")).collect::<String>();
    (cargo, format!("{simd},+atomics,+bulk-memory{linked}"))
}

/// Runs cargo; the path of the wasm that it made.
fn compile(folder: &Path, features: &str, profile: &str, threads: bool) -> Result<PathBuf> {
    let named = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder).join("Cargo.toml");
    let manifest = folder.join("Cargo.toml").canonicalize().or_else(|_| named.canonicalize());
    let manifest = manifest.map_err(|e| format!("{}: {e}", folder.display()))?;
    let (mut cargo, flags) = cargo(threads);
    let mut cargo = cargo
        .args([
            "build",
            "--lib",
            "--profile",
            profile,
            "--target",
            TARGET,
            "--message-format",
            "json-render-diagnostics",
        ])
        .args(["--features", features, "--manifest-path"])
        .arg(&manifest)
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", flags)
        // who takes threads wants speed before size
        .envs(threads.then_some(("CARGO_PROFILE_WEB_OPT_LEVEL", "3")))
        .stdout(Stdio::piped())
        .spawn()?;
    let mut made = None;
    for line in BufReader::new(cargo.stdout.take().ok_or("cargo has no output")?).lines() {
        let message: Value = serde_json::from_str(&line?)?;
        if message["reason"] == "compiler-artifact" && message["manifest_path"] == manifest.to_string_lossy().as_ref() {
            let files = message["filenames"].as_array().into_iter().flatten().filter_map(Value::as_str);
            made = files.filter(|file| file.ends_with(".wasm")).map(PathBuf::from).next().or(made);
        }
    }
    if !cargo.wait()?.success() {
        return Err(format!("{} does not build", folder.display()).into());
    }
    Ok(made.ok_or_else(|| format!("{} makes no wasm: it needs crate-type = [\"cdylib\"]", folder.display()))?)
}

/// The ES module and the wasm behind it, as a page loads them.
fn bind(wasm: &Path, out: &Path, inline: bool) -> Result<[PathBuf; 2]> {
    let name = wasm.file_stem().and_then(|name| name.to_str()).ok_or("the wasm has no name")?;
    Bindgen::new()
        .input_path(wasm)
        .web(true)?
        // a bundler would copy the file that the module names
        .omit_default_module_path(inline)
        .remove_name_section(true)
        .remove_producers_section(true)
        .generate(out)?;
    let (module, mut wasm) = (out.join(format!("{name}.js")), out.join(format!("{name}_bg.wasm")));
    if inline {
        // compressed first: base64 alone would cost a third of the download, this way it costs about one percent
        let text = BASE64_STANDARD.encode(gzip(&fs::read(&wasm)?)?);
        wasm = out.join(format!("{name}_wasm.js"));
        fs::write(&wasm, format!("// {name}_bg.wasm, gzip, base64\nexport default '{text}';\n"))?;
    }
    Ok([module, wasm])
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(vec![], Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

fn run(command: &mut Command) -> Result<()> {
    match command.status()?.success() {
        true => Ok(()),
        false => Err(format!("{command:?} failed").into()),
    }
}
