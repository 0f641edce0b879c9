//! What `--loss` takes: a name, JSON, or a file with JSON.

use std::path::Path;

use margin_softmax::objective::PRESETS;

use crate::{common::Result, training::Loss};

/// A loss from the command line.
pub fn parse(text: &str) -> Result<Loss, String> {
    read(text).map_err(|why| why.to_string())
}

fn read(text: &str) -> Result<Loss> {
    if PRESETS.iter().any(|preset| preset.name == text) {
        return Loss::named(text);
    }
    if text.trim_start().starts_with('{') {
        return json("JSON", text);
    }
    let path = Path::new(text);
    if !path.is_file() {
        let names = PRESETS.iter().map(|preset| preset.name).collect::<Vec<_>>().join(", ");
        return Err(format!("neither a loss as JSON, nor a file, nor a name: {names}").into());
    }
    let content = std::fs::read_to_string(path)?;
    json(&path.file_stem().map_or_else(|| text.into(), |stem| stem.to_string_lossy()), &content)
}

fn json(title: &str, text: &str) -> Result<Loss> {
    Ok(Loss { name: String::new(), title: title.into(), loss: crate::common::json::parse(text)? })
}
