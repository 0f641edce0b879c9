//! Sub-centres that hardly any row is near, and rows that are far from their class.

use super::tensors::{per_class, rebuild, select};
use crate::{
    Error, Label, Result, Shape,
    checkpoint::{Checkpoint, TensorData},
    data::numbers,
    monitor::angle,
    objective::{SHORTEST, in_range},
    shape::check_length,
};

/// The angle beyond which Sub-center ArcFace drops a row: 75°, in radians.
pub const OUTLIER_ANGLE: f64 = 75.0 / 180.0 * std::f64::consts::PI;

/// Counts, for each class, the rows that are nearest to each of its sub-centres. The most of them make one *dominant*: clean rows
/// gather there, and the others collect what is hard or wrongly labelled. Dropping them and the rows beyond an angle from
/// the dominant one cleans a data set: "Sub-center ArcFace: Boosting Face Recognition by Large-scale Noisy Web Faces" (ECCV
/// 2020), as `drop.py` of its authors does it.
///
/// Each row is compared with the K sub-centres of its own class alone: time in proportion to N·K·D, 8 bytes for each
/// sub-centre, no N×C.
///
/// ```
/// use margin_softmax::{Shape, classes::{OUTLIER_ANGLE, SubCenters}};
///
/// // one class with two sub-centres; three rows near the first, one near the second
/// let w = [1.0, 0.0, 0.0, 2.0];
/// let (x, y) = ([3.0, 1.0, 3.0, -1.0, 1.0, 0.0, 0.1, 1.0], [0; 4]);
/// let mut counts = SubCenters::new(Shape::new(0, 1, 2)?.with_sub_centers(2)?, &w)?;
/// counts.add(&x, &y, None)?;                                  // once per batch of the data
/// assert_eq!(counts.counts(), [3, 1]);
/// let dominant = counts.dominant();
/// assert_eq!(dominant.prototypes()?, [1.0, 0.0]);             // for a head without sub-centres
/// let far = dominant.outliers(&x, &y, None, OUTLIER_ANGLE)?;  // again once per batch
/// assert_eq!(far.iter().map(|outlier| outlier.row).collect::<Vec<_>>(), [3]);
/// # Ok::<(), margin_softmax::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct SubCenters<'a> {
    shape: Shape,
    prototypes: &'a [f32],
    /// [C, K].
    counts: Vec<u64>,
}

impl<'a> SubCenters<'a> {
    /// No rows yet; prototypes \[C, K, D\] of a head of this shape, of which the rows do not matter.
    ///
    /// [`Error::Length`] where the prototypes do not fit, [`Error::Class`] for one that is not finite.
    pub fn new(shape: Shape, prototypes: &'a [f32]) -> Result<Self> {
        check_length("prototypes", prototypes.len(), shape.prototypes()?)?;
        let each = shape.sub_centers() * shape.dim();
        let broken = |class: &[f32]| class.iter().any(|v| !v.is_finite());
        if let Some(class) = prototypes.chunks_exact(each).position(broken) {
            return Err(Error::Class { class, why: "has a prototype that is not finite" });
        }
        Ok(Self { shape, prototypes, counts: vec![0; shape.vectors()] })
    }

    /// Counts the rows of a batch: embeddings \[N, D\] and labels \[N\]. A row counts for the sub-centre of its class with the
    /// largest cosine, the first of equal ones. Rows with the ignore index and rows with a NaN or infinite value are left out.
    ///
    /// [`Error::Length`] and [`Error::Label`] as everywhere; on an error nothing is counted.
    pub fn add<L: Label>(&mut self, embeddings: &[f32], labels: &[L], ignore_index: Option<i64>) -> Result<()> {
        let (k, dim) = (self.shape.sub_centers(), self.shape.dim());
        for (_, x, class) in own_rows(self.shape, embeddings, labels, ignore_index)? {
            if x.iter().any(|v| !v.is_finite()) {
                continue;
            }
            let vectors = self.prototypes[class * k * dim..][..k * dim].chunks_exact(dim);
            let mut nearest = (0, f64::NEG_INFINITY);
            for (sub_center, w) in vectors.enumerate() {
                let cosine = cosine(x, w);
                if cosine > nearest.1 {
                    nearest = (sub_center, cosine);
                }
            }
            self.counts[class * k + nearest.0] += 1;
        }
        Ok(())
    }

    /// \[C, K\]: rows that are nearest to each sub-centre.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// The dominant sub-centre of every class: the one with the most rows, the first of equal ones, so that of a class without
    /// rows too.
    pub fn dominant(&self) -> Dominant<'a> {
        let first = |counts: &[u64]| {
            let most = counts.iter().max();
            counts.iter().position(|count| Some(count) == most).unwrap_or(0)
        };
        let indices = self.counts.chunks_exact(self.shape.sub_centers()).map(first).collect();
        Dominant { shape: self.shape, prototypes: self.prototypes, indices }
    }
}

/// The dominant sub-centre of every class, from [`SubCenters::dominant`].
#[derive(Debug, Clone, PartialEq)]
pub struct Dominant<'a> {
    shape: Shape,
    prototypes: &'a [f32],
    /// [C].
    indices: Vec<usize>,
}

/// A row that lies far from the dominant sub-centre of its class.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outlier {
    /// In its batch.
    pub row: usize,
    /// From the dominant sub-centre, in radians; NaN where the row has a NaN or infinite value.
    pub angle: f64,
}

impl Dominant<'_> {
    /// \[C\]: which of the K sub-centres.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }

    /// The values of the dominant sub-centres alone, from \[C, K, ...\] to \[C, ...\], bit for bit: for what an optimiser keeps.
    /// [`Error::Length`] if they are not C·K times as many.
    pub fn values(&self, values: &[f32]) -> Result<Vec<f32>> {
        let k = self.shape.sub_centers();
        let each = per_class(values.len(), self.shape.vectors())?;
        Ok(select(values, each, self.indices.iter().enumerate().map(|(class, index)| class * k + index)))
    }

    /// The dominant prototypes, \[C, D\], for a head without sub-centres.
    pub fn prototypes(&self) -> Result<Vec<f32>> {
        self.values(self.prototypes)
    }

    /// A checkpoint for a head without sub-centres: the tensors of the list become \[C, ...\] from \[C, K, ...\], the other
    /// tensors, state and sampler stay.
    ///
    /// [`Error::Shape`] for a state or a listed tensor of other classes or sub-centres, [`Error::Name`] for a name that is not
    /// there, [`Error::Combination`] for one that is listed twice.
    pub fn checkpoint(&self, from: &Checkpoint, tensors: &[&str]) -> Result<Checkpoint> {
        let (classes, k) = (self.shape.classes(), self.shape.sub_centers());
        from.state.validate(self.shape)?;
        let names: Vec<(&str, ())> = tensors.iter().map(|&name| (name, ())).collect();
        rebuild(from, from.state, &names, |tensor, ()| match tensor.shape() {
            [found, sub_centers, rest @ ..] if (*found, *sub_centers) == (classes, k) => {
                let shape: Vec<usize> = [classes].into_iter().chain(rest.iter().copied()).collect();
                TensorData::new(&shape, self.values(tensor.data())?)
            }
            found => {
                let expected = [classes, k].into_iter().chain(found.iter().skip(2).copied()).collect();
                Err(Error::Shape { what: "tensor of a checkpoint", found: found.to_vec(), expected })
            }
        })
    }

    /// The rows of a batch that are farther than `angle` from the dominant sub-centre of their class, in ascending order, and
    /// those with a NaN or infinite value. Rows with the ignore index are none. `angle` is 0 to π radians;
    /// [`OUTLIER_ANGLE`] is the paper's.
    ///
    /// [`Error::Length`], [`Error::Label`], [`Error::Parameter`] for an angle outside its range.
    pub fn outliers<L: Label>(
        &self,
        embeddings: &[f32],
        labels: &[L],
        ignore_index: Option<i64>,
        angle: f64,
    ) -> Result<Vec<Outlier>> {
        let inside = (0.0..=std::f64::consts::PI).contains(&angle);
        in_range("angle", angle, inside, "0 <= angle <= pi (radians)")?;
        let (k, dim) = (self.shape.sub_centers(), self.shape.dim());
        let rows = own_rows(self.shape, embeddings, labels, ignore_index)?;
        let all = rows.map(|(row, x, class)| {
            let vector = class * k + self.indices[class];
            Outlier { row, angle: self::angle(cosine(x, &self.prototypes[vector * dim..][..dim])) }
        });
        Ok(all.filter(|outlier| outlier.angle.is_nan() || outlier.angle > angle).collect())
    }
}

/// Place, embedding and class of the rows that are not ignored.
fn own_rows<'x, L: Label>(
    shape: Shape,
    embeddings: &'x [f32],
    labels: &[L],
    ignore_index: Option<i64>,
) -> Result<impl Iterator<Item = (usize, &'x [f32], usize)>> {
    check_length("embeddings", embeddings.len(), labels.len().saturating_mul(shape.dim()))?;
    let labels = numbers(labels, ignore_index, shape.classes())?;
    let rows = embeddings.chunks_exact(shape.dim()).zip(labels).enumerate();
    let counts = move |&(_, (_, label)): &(usize, (&[f32], i64))| Some(label) != ignore_index;
    Ok(rows.filter(counts).map(|(row, (x, label))| (row, x, label as usize)))
}

/// In f64; NaN where a value is not finite.
fn cosine(x: &[f32], w: &[f32]) -> f64 {
    let norm = |v: &[f32]| v.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt().max(SHORTEST);
    let dot: f64 = x.iter().zip(w).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
    dot / norm(x) / norm(w)
}
