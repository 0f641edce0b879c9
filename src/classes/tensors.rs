//! Values that a run keeps for each class, when the classes change.

use std::collections::BTreeMap;

use crate::{
    Error, Result, State,
    checkpoint::{Checkpoint, TensorData},
    shape::{check_length, elements},
};

/// The values of one class in a slice of `classes` of them.
pub(super) fn per_class(values: usize, classes: usize) -> Result<usize> {
    let each = values / classes.max(1);
    check_length("values", values, each * classes)?;
    Ok(each)
}

/// Refuses what no slice can hold.
pub(super) fn check_size(classes: usize, each: usize) -> Result<()> {
    let (needed, allowed) = (elements(classes, each), isize::MAX as u64 / 8);
    if needed > allowed { Err(Error::Size { what: "values", needed, allowed }) } else { Ok(()) }
}

/// Some of the rows of `each` values.
pub(super) fn select(values: &[f32], each: usize, rows: impl Iterator<Item = usize>) -> Vec<f32> {
    rows.flat_map(|row| values.get(row * each..(row + 1) * each).unwrap_or_default()).copied().collect()
}

/// A checkpoint with another state, in which the tensors of a list are changed and the others stay.
pub(super) fn rebuild<A: Copy>(
    from: &Checkpoint,
    state: State,
    changes: &[(&str, A)],
    change: impl Fn(&TensorData, A) -> Result<TensorData>,
) -> Result<Checkpoint> {
    let by_name: BTreeMap<&str, A> = changes.iter().copied().collect();
    if by_name.len() < changes.len() {
        return Err(Error::Combination { what: "tensors", why: "one name is listed twice" });
    }
    for &name in by_name.keys() {
        if !from.tensors().contains_key(name) {
            let known = from.tensors().keys().cloned().collect::<Vec<_>>().join(", ");
            return Err(Error::Name { what: "tensor of this checkpoint", found: name.into(), known });
        }
    }
    let mut to = Checkpoint::new(&state);
    to.sampler = from.sampler;
    for (name, tensor) in from.tensors() {
        let tensor = match by_name.get(name.as_str()) {
            Some(&how) => change(tensor, how)?,
            None => tensor.clone(),
        };
        to.insert(name, tensor)?;
    }
    Ok(to)
}
