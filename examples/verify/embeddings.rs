//! Named embeddings: a safetensors file, and a text file with a name for each row.

use std::{collections::HashMap, fs, path::Path};

use safetensors::SafeTensors;

use crate::common::{
    Result,
    floats::{FLOATS, widened},
};

/// The rows of a file.
pub struct Embeddings {
    pub dim: usize,
    /// \[N, D\], all of them finite.
    pub values: Vec<f32>,
}

impl Embeddings {
    /// The tensor `embeddings` \[N, D\] of a safetensors file, f32, f16 or bf16; other tensors are left alone.
    pub fn read(path: &Path) -> Result<Self> {
        let failed = |why: String| format!("{}: {why}", path.display());
        let bytes = fs::read(path).map_err(|e| failed(e.to_string()))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| failed(format!("not a safetensors file: {e}")))?;
        let tensor = file.tensor("embeddings").map_err(|_| failed("the tensor `embeddings` is missing".into()))?;
        let shape = tensor.shape();
        if shape.len() != 2 || shape.contains(&0) {
            return Err(failed(format!("`embeddings` has shape {shape:?}, expected [N, D], both at least 1")).into());
        }
        if !FLOATS.contains(&tensor.dtype()) {
            return Err(failed(format!("`embeddings` holds {}, expected F32, F16 or BF16", tensor.dtype())).into());
        }
        let (dim, values) = (shape[1], widened(&tensor));
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(failed(format!("row {} of `embeddings` has {}", at / dim, values[at])).into());
        }
        Ok(Self { dim, values })
    }

    /// N.
    pub fn rows(&self) -> usize {
        self.values.len() / self.dim
    }

    /// A row.
    pub fn row(&self, at: u32) -> &[f32] {
        &self.values[at as usize * self.dim..][..self.dim]
    }
}

/// Rows by their names.
pub struct Names(HashMap<String, u32>);

impl Names {
    /// One name on each line, that of row 0 first; empty lines at the end do not count.
    pub fn read(path: &Path, rows: usize) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let mut names = HashMap::new();
        let lines: Vec<&str> = text.trim_end().lines().map(str::trim).collect();
        for (row, name) in lines.iter().enumerate() {
            let failed = |why: String| format!("{}:{}: {why}", path.display(), row + 1);
            if name.is_empty() {
                return Err(failed("a line without a name".into()).into());
            }
            if let Some(other) = names.insert((*name).to_owned(), row as u32) {
                return Err(failed(format!("`{name}` is on line {} already", other + 1)).into());
            }
        }
        if lines.len() != rows {
            let (path, found) = (path.display(), lines.len());
            return Err(format!("{path}: {found} names, but there are {rows} embeddings").into());
        }
        Ok(Self(names))
    }

    /// The items in the order that their names come in.
    pub fn of(items: impl Iterator<Item = String>) -> Self {
        Self(items.zip(0..).collect())
    }

    /// Its row, or why there is none.
    pub fn row(&self, name: &str) -> Result<u32, String> {
        self.0.get(name).copied().ok_or_else(|| format!("`{name}` has no embedding"))
    }
}
