//! A loss from JSON.

#[path = "../common/json.rs"]
mod json;

use std::path::Path;

use margin_softmax::{MarginSoftmax, State};
use serde_json::{Value, from_str};

use crate::{command::Result, files};

/// Far more than any loss needs.
const MAX_BYTES: u64 = 1 << 20;

/// A validated loss from a file.
pub fn read(path: &Path) -> Result<MarginSoftmax> {
    let text = String::from_utf8(files::read(path, MAX_BYTES)?);
    let loss = text.map_err(Into::into).and_then(|text| parse(&text));
    loss.map_err(|why| format!("{}: {why}", path.display()).into())
}

/// A state from a file; whether it fits is the head's to say.
pub fn state(path: &Path) -> Result<State> {
    let text = String::from_utf8(files::read(path, MAX_BYTES)?);
    let state = text.map_err(Into::into).and_then(|text| match from_str(&text)? {
        Value::Object(_) => Ok(from_str::<State>(&text)?),
        _ => Err("expected an object".into()),
    });
    state.map_err(|why: Box<dyn std::error::Error>| format!("{}: {why}", path.display()).into())
}

/// A validated loss: a whole `MarginSoftmax`, or `{"preset": "arcface"}`.
pub fn parse(text: &str) -> Result<MarginSoftmax> {
    json::parse(text)
}
