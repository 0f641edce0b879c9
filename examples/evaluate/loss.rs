//! A loss from JSON.

use std::path::Path;

use margin_softmax::{MarginSoftmax, State};
use serde_json::{Value, from_str};

use crate::{command::Result, files};

/// Far more than any loss needs.
const MOST_BYTES: u64 = 1 << 20;

/// The short form: a name of `objective::PRESETS` and nothing else.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    preset: String,
}

/// A validated loss from a file.
pub fn read(path: &Path) -> Result<MarginSoftmax> {
    let text = String::from_utf8(files::read(path, MOST_BYTES)?);
    let loss = text.map_err(Into::into).and_then(|text| parse(&text));
    loss.map_err(|why| format!("{}: {why}", path.display()).into())
}

/// A state from a file; whether it fits is the head's to say.
pub fn state(path: &Path) -> Result<State> {
    let text = String::from_utf8(files::read(path, MOST_BYTES)?);
    let state = text.map_err(Into::into).and_then(|text| match from_str(&text)? {
        Value::Object(_) => Ok(from_str::<State>(&text)?),
        _ => Err("expected an object".into()),
    });
    state.map_err(|why: Box<dyn std::error::Error>| format!("{}: {why}", path.display()).into())
}

/// A validated loss: a whole `MarginSoftmax`, or `{"preset": "arcface"}`.
pub fn parse(text: &str) -> Result<MarginSoftmax> {
    // the text is read twice, so that errors keep their line and column
    let loss = match from_str(text)? {
        Value::Object(fields) if fields.contains_key("preset") => match from_str::<Named>(text) {
            Ok(named) => MarginSoftmax::named(&named.preset)?,
            Err(e) if fields.len() > 1 => {
                return Err(format!("{e}; `preset` stands alone, to change a loss write it out").into());
            }
            Err(e) => return Err(e.into()),
        },
        Value::Object(fields) => {
            let loss = from_str(text)?;
            for (name, value) in &fields {
                no_lists(name, value)?;
            }
            loss
        }
        _ => return Err("expected an object: a whole loss, or {\"preset\": NAME}".into()),
    };
    loss.validate()?;
    Ok(loss)
}

/// serde also takes a struct's fields as a list, by position: `"unified": []` would silently be no margin at all.
fn no_lists(name: &str, value: &Value) -> Result<()> {
    match value {
        Value::Array(_) if name != "given" => Err(format!("`{name}` is a list, expected an object or a value").into()),
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| no_lists(name, value)),
        _ => Ok(()),
    }
}
