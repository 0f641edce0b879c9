//! A short title for a loss without a name.

use margin_softmax::{MarginSoftmax, objective::PRESETS};
use serde_json::Value;

use crate::common::Result;

/// A number or word of a loss, and where it stands in its JSON form.
type Leaf = (Vec<String>, Value);

/// The preset that differs in the fewest numbers, the first of equal ones, and what differs from it: `curricularface, m2 0.4`.
/// NormFace goes without saying, since its numbers are the defaults: `m2 0.4, scale 20`.
pub fn of(loss: &MarginSoftmax) -> Result<String> {
    let own = leaves(loss)?;
    let mut nearest: Option<(&str, Vec<Leaf>)> = None;
    for preset in PRESETS {
        let known = leaves(&preset.loss())?;
        let differs: Vec<Leaf> = own.iter().filter(|leaf| !known.contains(leaf)).cloned().collect();
        if nearest.as_ref().is_none_or(|(_, least)| differs.len() < least.len()) {
            nearest = Some((preset.name, differs));
        }
    }
    let (preset, differs) = nearest.ok_or("no presets")?;
    let last = |path: &[String]| path.last().cloned().unwrap_or_default();
    let name = |path: &[String]| {
        let alone = own.iter().filter(|(other, _)| last(other) == last(path)).count() == 1;
        if alone { last(path) } else { path.join(".") }
    };
    let mut parts: Vec<String> =
        differs.iter().map(|(path, value)| format!("{} {}", name(path), shown(value))).collect();
    if preset != "normface" || parts.is_empty() {
        parts.insert(0, preset.into());
    }
    Ok(parts.join(", "))
}

/// A value as short as it can be.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        Value::String(word) => word.clone(),
        Value::Number(number) => number.as_f64().map_or_else(|| number.to_string(), |number| number.to_string()),
        Value::Array(values) => format!("{} values", values.len()),
        other => other.to_string(),
    }
}

fn leaves(loss: &MarginSoftmax) -> Result<Vec<Leaf>> {
    fn walk(path: &mut Vec<String>, value: &Value, all: &mut Vec<Leaf>) {
        let Value::Object(fields) = value else { return all.push((path.clone(), value.clone())) };
        for (name, field) in fields {
            path.push(name.clone());
            walk(path, field, all);
            path.pop();
        }
    }
    let mut all = vec![];
    walk(&mut vec![], &serde_json::to_value(loss)?, &mut all);
    Ok(all)
}
