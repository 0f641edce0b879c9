//! From the classes of one head to those of the next.

use super::tensors::{check_size, per_class, rebuild, select};
use crate::{
    Error, Label, Result, Shape, State,
    checkpoint::{Checkpoint, TensorData},
    data::numbers,
    shape::check_length,
};

/// Which classes of a head go on, and how many come after them. Classes that go on keep their order, and their values every
/// bit; they become 0, 1, 2, ..., and new classes follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassMap {
    old: usize,
    /// Old classes, ascending.
    kept: Vec<usize>,
    added: usize,
}

impl ClassMap {
    /// From `old` classes to `new` ones, of which the first `old` are the same. [`Error::Size`] if `new` is less than `old`.
    pub fn grow(old: usize, new: usize) -> Result<Self> {
        Shape::new(0, old, 1)?;
        Shape::new(0, new, 1)?;
        let Some(added) = new.checked_sub(old) else {
            return Err(Error::Size { what: "classes that go on", needed: old as u64, allowed: new as u64 });
        };
        Ok(Self { old, kept: (0..old).collect(), added })
    }

    /// Of `old` classes only those of a list, in any order. [`Error::Class`] for one that is listed twice or does not exist.
    pub fn keep(old: usize, classes: &[usize]) -> Result<Self> {
        let listed = listed(old, classes)?;
        Self::of(old, |class| listed[class])
    }

    /// Of `old` classes all but those of a list; errors as from [`keep`](Self::keep).
    pub fn without(old: usize, classes: &[usize]) -> Result<Self> {
        let listed = listed(old, classes)?;
        Self::of(old, |class| !listed[class])
    }

    fn of(old: usize, goes_on: impl Fn(usize) -> bool) -> Result<Self> {
        let kept: Vec<usize> = (0..old).filter(|&class| goes_on(class)).collect();
        if kept.is_empty() {
            return Err(Error::Zero { what: "classes" });
        }
        Ok(Self { old, kept, added: 0 })
    }

    /// Classes before.
    pub fn old_classes(&self) -> usize {
        self.old
    }

    /// Classes after.
    pub fn new_classes(&self) -> usize {
        self.kept.len() + self.added
    }

    /// \[old classes\]: the new label of each, `None` for one that is gone.
    pub fn labels(&self) -> Vec<Option<usize>> {
        let mut labels = vec![None; self.old];
        self.kept.iter().enumerate().for_each(|(new, &old)| labels[old] = Some(new));
        labels
    }

    /// New labels for old ones. Rows with the ignore index keep it, and rows whose class is gone get it.
    ///
    /// [`Error::Missing`] for a row whose class is gone where there is no ignore index, [`Error::Label`] for a label that is
    /// neither an old class nor the ignore index, [`Error::Parameter`] for an ignore index that is one of the new classes.
    pub fn relabel<L: Label>(&self, labels: &[L], ignore_index: Option<i64>) -> Result<Vec<i64>> {
        if let Some(index) = ignore_index.filter(|index| (0..self.new_classes() as i64).contains(index)) {
            let allowed = "a number that is none of the new classes, such as -100";
            return Err(Error::Parameter { what: "ignore_index", found: index as f64, allowed });
        }
        let map = self.labels();
        let new = |old: i64| match (ignore_index, map.get(old as usize).copied().flatten()) {
            (Some(index), _) if old == index => Ok(index),
            (_, Some(new)) => Ok(new as i64),
            (Some(index), None) => Ok(index),
            (None, None) => Err(Error::Missing { what: "ignore_index", why: "the class of a row is gone" }),
        };
        numbers(labels, ignore_index, self.old)?.into_iter().map(new).collect()
    }

    /// Values of the classes that go on, then those of new classes: from \[C, ...\] to \[C', ...\]. For prototypes
    /// \[C, K, D\], a bias or class weights \[C\], what an optimiser keeps. `new` has the values of the new classes,
    /// \[C' − C, ...\]; without it they are 0, as momentum and Adam's means begin.
    ///
    /// [`Error::Length`] where the lengths do not fit.
    pub fn values(&self, values: &[f32], new: Option<&[f32]>) -> Result<Vec<f32>> {
        let each = per_class(values.len(), self.old)?;
        check_size(self.new_classes(), each)?;
        let added = self.added * each;
        new.map_or(Ok(()), |new| check_length("new", new.len(), added))?;
        let mut all = select(values, each, self.kept.iter().copied());
        match new {
            Some(new) => all.extend(new),
            None => all.resize(all.len() + added, 0.0),
        }
        Ok(all)
    }

    /// The state for the new head: its number of classes, everything else as it was. (The scale of a fixed AdaCos is in the
    /// loss: make that anew for the new number.) [`Error::Shape`] for a state of another number of classes.
    pub fn state(&self, state: &State) -> Result<State> {
        state.validate(Shape::new(0, self.old, 1)?)?;
        Ok(State { classes: self.new_classes(), ..*state })
    }

    /// A checkpoint for the new head. The tensors of the list, each \[C, ...\], change as [`values`](Self::values) says, with
    /// values for the new classes or 0; the other tensors and the sampler stay. Both checkpoints are in memory at the end.
    ///
    /// [`Error::Shape`] for a state or a listed tensor of another number of classes (a tensor of sub-centres is \[C, K, D\]),
    /// [`Error::Name`] for a name that is not there, [`Error::Combination`] for one that is listed twice, [`Error::Length`] for
    /// a wrong number of new values, [`Error::Size`] beyond the caps of a [`Checkpoint`].
    pub fn checkpoint(&self, from: &Checkpoint, tensors: &[(&str, Option<&[f32]>)]) -> Result<Checkpoint> {
        rebuild(from, self.state(&from.state)?, tensors, |tensor, new| {
            let mut shape = tensor.shape().to_vec();
            match shape.first_mut() {
                Some(classes) if *classes == self.old => *classes = self.new_classes(),
                _ => {
                    let expected = [self.old].into_iter().chain(shape.iter().skip(1).copied()).collect();
                    return Err(Error::Shape { what: "tensor of a checkpoint", found: shape, expected });
                }
            }
            TensorData::new(&shape, self.values(tensor.data(), new)?)
        })
    }
}

/// \[old\]: whether a class is in a list.
fn listed(old: usize, classes: &[usize]) -> Result<Vec<bool>> {
    Shape::new(0, old, 1)?;
    let mut listed = vec![false; old];
    for &class in classes {
        let Some(slot) = listed.get_mut(class) else {
            return Err(Error::Class { class, why: "is none of the head's" });
        };
        if std::mem::replace(slot, true) {
            return Err(Error::Class { class, why: "is listed twice" });
        }
    }
    Ok(listed)
}
