//! Prints every kernel in every variant as a line of JSON, for users of the shaders outside Rust and for
//! `tests/tint/check.mjs`:
//!
//! ```text
//! variant     "cosines [tile_64 F32x4 F32x4 F32x4]"
//! name        entry point
//! uniforms    bytes of binding 0 (settings) and of binding 1 (part, with a dynamic offset)
//! storage     WebGPU's buffer binding types, from binding 2 on
//! source      the whole WGSL text
//! ```

use std::io::{BufWriter, Write};

use margin_softmax::plan::{Binding, Kernel, catalogue::kernels};

fn main() -> std::io::Result<()> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    for (variant, kernel) in kernels() {
        let storage = kernel.bindings.iter().map(|binding| match binding {
            Binding::Read => "read-only-storage",
            Binding::Write => "storage",
        });
        let line = serde_json::json!({
            "variant": variant,
            "name": kernel.name,
            "uniforms": Kernel::UNIFORMS,
            "storage": storage.collect::<Vec<_>>(),
            "source": kernel.source,
        });
        writeln!(out, "{line}")?;
    }
    out.flush()
}
