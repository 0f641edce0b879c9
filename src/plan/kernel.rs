//! Descriptors: everything that the host must know about a shader, and how its text is composed.

use std::borrow::Cow;

use super::{Limits, constants};
use crate::{
    objective::snippet::wgsl,
    uniforms::{self, Settings, StepConstants},
};

/// How an operand's values lie in memory, and so which snippet reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Loader {
    /// f32, width a multiple of 4.
    F32x4,
    /// f32, any width.
    F32,
    /// f16, width a multiple of 4.
    F16x4,
    /// f16, any width.
    F16,
    /// f16, width a multiple of 4, where the device has the type.
    Halfx4,
    /// f16, any width, where the device has the type.
    Half,
    /// bf16, width a multiple of 4.
    Bf16x4,
    /// bf16, any width.
    Bf16,
}

impl Loader {
    /// All of them.
    pub const ALL: &[Loader] = &[
        Loader::F32x4,
        Loader::F32,
        Loader::F16x4,
        Loader::F16,
        Loader::Halfx4,
        Loader::Half,
        Loader::Bf16x4,
        Loader::Bf16,
    ];

    fn snippet(self) -> String {
        let scalar = wgsl!("elements/scalar");
        let one = match self {
            Loader::F32x4 => wgsl!("elements/f32x4"),
            Loader::F32 => wgsl!("elements/f32"),
            Loader::F16x4 => wgsl!("elements/f16x4"),
            Loader::F16 => wgsl!("elements/f16"),
            Loader::Halfx4 => wgsl!("elements/halfx4"),
            Loader::Half => wgsl!("elements/half"),
            Loader::Bf16x4 => wgsl!("elements/bf16x4"),
            Loader::Bf16 => wgsl!("elements/bf16"),
        };
        match self {
            Loader::F32x4 | Loader::F16x4 | Loader::Halfx4 | Loader::Bf16x4 => one.to_owned(),
            Loader::F32 | Loader::F16 | Loader::Half | Loader::Bf16 => format!("{one}\n{scalar}"),
        }
    }

    fn store(self) -> &'static str {
        match self {
            Loader::F32x4 => wgsl!("elements/store_f32x4"),
            _ => wgsl!("elements/store_f32"),
        }
    }

    /// Whether it needs the device's f16.
    pub(crate) fn is_half(self) -> bool {
        matches!(self, Loader::Halfx4 | Loader::Half)
    }

    /// The f32 loader of this width.
    pub(crate) fn plain(width: usize) -> Self {
        if width.is_multiple_of(4) { Loader::F32x4 } else { Loader::F32 }
    }
}

/// One binding after the settings (0) and the constants (1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Binding {
    /// Read only.
    Read,
    /// Read and written.
    Write,
}

/// A shader as plain data: everything an executor needs to compile and bind it.
///
/// Binding 0 is the uniform `Settings`, binding 1 the uniform `StepConstants` with a dynamic offset, the storage buffers follow
/// from 2. The entry point is named like the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// File, entry point and label.
    pub name: &'static str,
    /// The whole WGSL text.
    pub source: String,
    /// The storage bindings, from binding 2 on.
    pub bindings: Vec<Binding>,
}

impl Kernel {
    /// The sizes of the two uniform bindings.
    pub const UNIFORMS: [u64; 2] = [size_of::<Settings>() as u64, size_of::<StepConstants>() as u64];

    /// The same for this device: of 128 lanes in the place of 256 where it allows no more, or 64 for sums in two steps.
    pub(crate) fn fitted(&self, limits: &Limits) -> Cow<'_, Self> {
        const NARROWER: [[&str; 2]; 2] =
            [["const LANES = 256u;", "const LANES = 128u;"], ["const SIDE = 16u;", "const SIDE = 8u;"]];
        let mut kernel = Cow::Borrowed(self);
        for [wide, narrow] in NARROWER.into_iter().filter(|_| limits.is_narrow()) {
            if self.source.contains(wide) {
                kernel.to_mut().source = kernel.source.replace(wide, narrow);
            }
        }
        kernel
    }
}

/// A shader's recipe: common parts, operands, own text.
pub(crate) struct Recipe {
    name: &'static str,
    parts: Vec<Cow<'static, str>>,
    operands: String,
    /// An operand needs the type f16.
    half: bool,
    bindings: Vec<Binding>,
    text: &'static str,
}

/// Bindings from a word of `r` and `w`.
fn bindings(kinds: &str) -> Vec<Binding> {
    kinds.chars().map(|kind| if kind == 'w' { Binding::Write } else { Binding::Read }).collect()
}

impl Recipe {
    /// `kinds` has one letter per storage binding: `r` read only, `w` read and written.
    pub fn new(name: &'static str, kinds: &str, text: &'static str) -> Self {
        let numbers = [uniforms::constants::TEXT.as_str(), constants::TEXT.as_str()].concat();
        let mut parts = vec![numbers.into()];
        parts.extend(uniforms::TEXT.map(Cow::from));
        parts.push(wgsl!("common/params").into());
        Self { name, parts, operands: String::new(), half: false, bindings: bindings(kinds), text }
    }

    pub fn part(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.parts.push(text.into());
        self
    }

    /// A part with a buffer of its own, which is bound last.
    pub fn bound_part(mut self, text: &'static str) -> Self {
        if text.contains("BINDING") {
            self.operands += &named(text, "", self.bindings.len());
            let written = text.contains("read_write");
            self.bindings.push(if written { Binding::Write } else { Binding::Read });
        } else {
            self.parts.push(text.into());
        }
        self
    }

    /// An operand read by `name(row, column)` at binding `2 + at`.
    pub fn load(mut self, name: &str, at: usize, loader: Loader) -> Self {
        self.operands += &named(&loader.snippet(), name, at);
        self.half |= loader.is_half();
        self
    }

    /// An operand written by `name(row, column, value, add)` at binding `2 + at`.
    pub fn store(mut self, name: &str, at: usize, loader: Loader) -> Self {
        self.operands += &named(loader.store(), name, at);
        self
    }

    pub fn kernel(self) -> Kernel {
        let cooperative = self.parts.iter().any(|part| part.contains("coop_mat"));
        let mut source = String::from(if self.half || cooperative { "enable f16;\n" } else { "" });
        source += if cooperative { "enable wgpu_cooperative_matrix;\n" } else { "" };
        source += &self.parts.join("\n");
        source += "\n";
        source += &self.operands;
        source += self.text;
        Kernel { name: self.name, source, bindings: self.bindings }
    }
}

fn named(snippet: &str, name: &str, at: usize) -> String {
    format!("{}\n", snippet.replace("OPERAND", name).replace("BINDING", &(at + 2).to_string()))
}
