//! Companions of a head: penalties on the prototypes, and the center loss. Plain data.

use crate::{Error, Label, Result, Shape, data::numbers, shape::check_length};

/// A penalty on the prototypes alone, to be added to the loss of a head.
///
/// With ŵ_j = w_j / |w_j| the direction of prototype j of C, and λ the weight:
///
/// ```text
/// RegSs          λ · |mean_j ŵ_j|                                        0 where the prototypes balance
/// UniformFace    λ · 2/(C(C−1)) · Σ_{j<k} 1 / (1 + |ŵ_j − ŵ_k|)          least where they spread evenly
/// ```
///
/// Both depend on directions only, so each gradient is orthogonal to its own prototype and divided by its length.
///
/// A prototype shorter than 1e-12 takes part with the direction w/1e-12 and has a gradient of exactly 0. If any value is
/// NaN or infinite, the penalty is NaN and every gradient 0. Where the prototypes balance exactly `RegSs` has gradient 0,
/// and two equal prototypes do not push each other in `UniformFace`. Where only rounding is left of a mean or of a
/// difference, the direction of that part of the gradient is rounding too. With one class `UniformFace` is 0.
///
/// `RegSs` costs one pass over the prototypes. `UniformFace` costs C²·D operations, in memory linear in C: there is never
/// a C×C matrix.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
pub enum Regularizer {
    /// Reg_ss of "Unifying Margin-Based Softmax Losses in Face Recognition", WACV 2023: the length of the mean direction.
    RegSs {
        /// λ: 0 < λ ≤ 1e6; default 1, the formula as it stands.
        #[cfg_attr(feature = "serde", serde(default = "one"))]
        weight: f64,
    },
    /// UniformFace, Duan et al., CVPR 2019: the mean inverse distance of all pairs. The paper takes the distances between
    /// running class centers; here, as in the WACV 2023 paper, they are those between prototypes.
    UniformFace {
        /// λ: 0 < λ ≤ 1e6; default 1, the formula as it stands.
        #[cfg_attr(feature = "serde", serde(default = "one"))]
        weight: f64,
    },
}

#[cfg(feature = "serde")]
fn one() -> f64 {
    1.0
}

impl Regularizer {
    /// Reg_ss with weight 1.
    pub fn reg_ss() -> Self {
        Self::RegSs { weight: 1.0 }
    }

    /// UniformFace with weight 1.
    pub fn uniform_face() -> Self {
        Self::UniformFace { weight: 1.0 }
    }

    /// With another weight λ.
    pub fn with_weight(self, weight: f64) -> Self {
        match self {
            Self::RegSs { .. } => Self::RegSs { weight },
            Self::UniformFace { .. } => Self::UniformFace { weight },
        }
    }

    /// λ.
    pub fn weight(&self) -> f64 {
        match *self {
            Self::RegSs { weight } | Self::UniformFace { weight } => weight,
        }
    }

    /// The JSON name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::RegSs { .. } => "reg_ss",
            Self::UniformFace { .. } => "uniform_face",
        }
    }

    /// Checks the weight.
    pub fn validate(&self) -> Result<()> {
        weight(self.weight())
    }

    /// The sizes of prototypes of `dim` values, `len` values in all; rows is 1.
    pub(crate) fn check(&self, dim: usize, len: usize) -> Result<Shape> {
        self.validate()?;
        Shape::new(1, vectors("prototypes", dim, len)?, dim)
    }
}

/// The center loss of Wen et al., ECCV 2016: embeddings, not normalised, are drawn to the center of their class.
///
/// ```text
/// loss = λ/(2N) · Σ_i |t_i − c_{y_i}|²            N: the rows that are not ignored
/// dt_i = λ/N · (t_i − c_{y_i})
/// c_j ← c_j − α · Σ_{y_i=j} (c_j − t_i) / (1 + n_j)      n_j: the rows of class j; a class without rows stays
/// ```
///
/// The paper sums without 1/N; here λ does not depend on the batch size. The loss never moves the centers: that is a call
/// of its own, after the step. With N = 0 loss and gradients are 0.
///
/// If a row that is not ignored, or its center, has a NaN or infinite value, the loss is NaN and every gradient 0; such a
/// row moves no center. A label that names no class is an error on the host, and treated like such a row on a device.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct CenterLoss {
    /// λ: 0 < λ ≤ 1e6; default 0.02, beside a plain softmax in "ArcGrad: Angular Gradient Margin Loss for Classification".
    pub weight: f64,
    /// α, how far a center moves: 0 < α ≤ 1; default 0.5, as in Wen et al.
    pub rate: f64,
    /// Rows with this label have loss 0, no gradient, and move no center. Any value, also one that is a class; default
    /// none.
    pub ignore_index: Option<i64>,
}

impl Default for CenterLoss {
    fn default() -> Self {
        Self { weight: 0.02, rate: 0.5, ignore_index: None }
    }
}

impl CenterLoss {
    /// Checks every number against its range.
    pub fn validate(&self) -> Result<()> {
        weight(self.weight)?;
        if !(self.rate > 0.0 && self.rate <= 1.0) {
            return Err(Error::Parameter { what: "rate", found: self.rate, allowed: "0 < rate <= 1" });
        }
        match self.ignore_index {
            Some(index) if i32::try_from(index).is_err() => {
                Err(Error::Parameter { what: "ignore_index", found: index as f64, allowed: "an i32" })
            }
            _ => Ok(()),
        }
    }

    /// Checks sizes and labels before any work. The classes of the rows; `None` for an ignored one.
    pub(crate) fn check<L: Label>(
        &self,
        dim: usize,
        embeddings: usize,
        labels: &[L],
        centers: usize,
    ) -> Result<(Shape, Vec<Option<usize>>)> {
        self.validate()?;
        let shape = Shape::new(labels.len(), vectors("centers", dim, centers)?, dim)?;
        check_length("embeddings", embeddings, shape.embeddings())?;
        let class = |label| (Some(label) != self.ignore_index).then_some(label as usize);
        let labels = numbers(labels, self.ignore_index, shape.classes())?;
        Ok((shape, labels.into_iter().map(class).collect()))
    }
}

fn weight(found: f64) -> Result<()> {
    if found > 0.0 && found <= 1e6 {
        return Ok(());
    }
    Err(Error::Parameter { what: "weight", found, allowed: "0 < weight <= 1e6" })
}

/// How many vectors of `dim` values there are; at least one.
fn vectors(what: &'static str, dim: usize, found: usize) -> Result<usize> {
    match found.checked_rem(dim) {
        None => Err(Error::Zero { what: "dim" }),
        Some(_) if found == 0 => Err(Error::Zero { what }),
        Some(0) => Ok(found / dim),
        Some(rest) => Err(Error::Length { what, found, expected: found.saturating_add(dim - rest) }),
    }
}
