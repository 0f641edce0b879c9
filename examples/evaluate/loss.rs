//! A loss from JSON.

#[path = "../common/json.rs"]
mod json;

use std::path::Path;

use margin_softmax::MarginSoftmax;

use crate::{command::Result, files};

/// Far more than any loss needs.
const MOST_BYTES: u64 = 1 << 20;

/// A validated loss from a file.
pub fn read(path: &Path) -> Result<MarginSoftmax> {
    let text = String::from_utf8(files::read(path, MOST_BYTES)?);
    let loss = text.map_err(Into::into).and_then(|text| parse(&text));
    loss.map_err(|why| format!("{}: {why}", path.display()).into())
}

/// A validated loss: a whole `MarginSoftmax`, or `{"preset": "arcface"}`.
pub fn parse(text: &str) -> Result<MarginSoftmax> {
    json::parse(text)
}
