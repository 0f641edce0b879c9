//! A loss from JSON.

use std::error::Error;

use margin_softmax::MarginSoftmax;
use serde::de::DeserializeOwned;
use serde_json::{Value, from_str};

type Result<T = (), E = Box<dyn Error>> = std::result::Result<T, E>;

/// The short form: a name of `objective::PRESETS` and nothing else.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    preset: String,
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
        Value::Object(_) => object(text)?,
        _ => return Err("expected an object: a whole loss, or {\"preset\": NAME}".into()),
    };
    loss.validate()?;
    Ok(loss)
}

/// A value whose JSON is an object.
pub fn object<T: DeserializeOwned>(text: &str) -> Result<T> {
    let Value::Object(fields) = from_str(text)? else { return Err("expected an object".into()) };
    let value = from_str(text)?;
    fields.iter().try_for_each(|(name, value)| no_lists(name, value))?;
    Ok(value)
}

/// serde also takes a struct's fields as a list, by position: `"unified": []` would silently be no margin at all.
fn no_lists(name: &str, value: &Value) -> Result<()> {
    match value {
        Value::Array(_) if name != "given" => Err(format!("`{name}` is a list, expected an object or a value").into()),
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| no_lists(name, value)),
        _ => Ok(()),
    }
}
