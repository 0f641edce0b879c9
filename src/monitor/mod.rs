//! Reports of a run: accuracy and angles of the batches, the spread of the prototypes, a warning when they collapse.
//!
//! A [`Report`] is measured on raw cosines, before margin, transform and scale, over the rows that count. Angles are
//! radians; a cosine may round to just above 1, so no angle comes from an arccos: θ = atan2(√((1−c)(1+c)), c).
//!
//! | quantity | meaning | cost |
//! |---|---|---|
//! | accuracy | share of rows whose own class has the largest cosine, strictly | N |
//! | M_intra | mean angle to the labelled prototype | N |
//! | M_inter | mean angle to the nearest other prototype | N |
//! | target cosine | mean cosine of the labelled class | N |
//! | \|mean prototype\| | length of the mean of the prototypes' directions: 1 if all agree, about 1/√C at random | C·D |
//! | WC-Intra | mean angle between a class' prototype and the mean of its embeddings | C·D |
//! | W-Inter, C-Inter | mean angle between all pairs of prototypes, or of class centers | C²·D |
//!
//! [`BatchReport`] has the numbers of one batch as its loss saw it, and measures with margin and scale:
//!
//! | quantity | meaning | cost |
//! |---|---|---|
//! | \|x\| | smallest, mean and largest length of an embedding; the share outside MagFace's bounds | N·D |
//! | margins | means of m0..m3 in force: of loss, classes and rows, or as AdaFace, MagFace and ElasticFace set them | N |
//! | parts of the loss | MagFace's term of the length, and the rest | N |
//! | target cosines | 5, 25, 50, 75 and 95 % quantiles | N·log N |
//! | gradients | norms of dX and dW, where they were asked for | N·D, C·D |
//!
//! M_intra, M_inter and the mean prototype as in "Unifying Margin-Based Softmax Losses in Face Recognition" (WACV 2023);
//! the last three as in "ArcGrad: Angular Gradient Margin Loss for Classification".
//!
//! ```
//! # #[cfg(feature = "cpu")] {
//! use margin_softmax::{monitor::{CollapseDetector, CollapseThresholds, Monitor}, Backend, Batch, MarginSoftmax, Shape};
//!
//! let (x, w, y) = ([3.0, 4.0, -1.0, 2.0], [1.0, 1.0, 0.0, 2.0, -3.0, 1.0], [0, 2]);
//! let (backend, loss) = (Backend::cpu(), MarginSoftmax::arcface());
//! let shape = Shape::new(2, 3, 2)?;
//! let mut head = backend.head(&loss, shape)?;
//! let mut detector = CollapseDetector::new(CollapseThresholds::default(), shape)?;
//! let mut epoch = Monitor::new(90)?;
//! let out = head.evaluate(&Batch { embeddings: &x, prototypes: &w, labels: &y, ..Default::default() })?;
//! epoch.add(&out, &y, loss.ignore_index)?;                 // once per batch
//! let report = epoch.report().with_mean_prototype(backend.mean_prototype(2, &w)?);
//! assert_eq!((report.rows, report.accuracy), (2, 0.5));
//! assert!(detector.check(&report).is_none());               // once per report
//! # }
//! # Ok::<(), margin_softmax::Error>(())
//! ```

mod batch;
mod centers;
mod collapse;
mod nearest;

use std::f64::consts::PI;

pub use batch::{BatchReport, QUANTILES};
pub use centers::ClassCenters;
pub(crate) use centers::norm;
pub use collapse::{Collapse, CollapseDetector, CollapseKind, CollapseThresholds};
pub use nearest::NearestAngles;
pub(crate) use nearest::NearestSums;

use crate::{Error, Label, Output, Result, shape::check_length};

/// The most bins of a histogram: both of them fit into the workgroup memory of every device.
pub const MAX_BINS: usize = 1024;

/// Sums over the rows of any number of batches, from which a [`Report`] is made.
///
/// Plain data: batches may be added in one monitor or in several that are merged later. Counts are then the same, means
/// the same up to the rounding of a sum in f64.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Sums", into = "Sums"))]
pub struct Monitor(Sums);

#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
struct Sums {
    rows: u64,
    hits: u64,
    intra: f64,
    inter: f64,
    cosines: f64,
    intra_histogram: Vec<u64>,
    inter_histogram: Vec<u64>,
}

#[cfg(feature = "serde")]
impl From<Monitor> for Sums {
    fn from(Monitor(sums): Monitor) -> Self {
        sums
    }
}

#[cfg(feature = "serde")]
impl TryFrom<Sums> for Monitor {
    type Error = Error;

    fn try_from(sums: Sums) -> Result<Self> {
        let bins = Self::new(sums.intra_histogram.len())?.bins();
        check_length("inter_histogram", sums.inter_histogram.len(), bins)?;
        let total = |bins: &[u64]| bins.iter().fold(0_u64, |sum, &n| sum.saturating_add(n)) as usize;
        check_length("intra_histogram", total(&sums.intra_histogram), sums.rows as usize)?;
        check_length("inter_histogram", total(&sums.inter_histogram), sums.rows as usize)?;
        if sums.hits > sums.rows {
            return Err(Error::Size { what: "hits", needed: sums.hits, allowed: sums.rows });
        }
        for (what, found) in [("intra", sums.intra), ("inter", sums.inter), ("cosines", sums.cosines)] {
            if !found.is_finite() {
                return Err(Error::Parameter { what, found, allowed: "a finite sum" });
            }
        }
        Ok(Self(sums))
    }
}

impl Monitor {
    /// No rows yet; histograms of `bins` equal bins over \[0, π\], 1 ≤ `bins` ≤ [`MAX_BINS`].
    pub fn new(bins: usize) -> Result<Self> {
        if bins == 0 {
            return Err(Error::Zero { what: "bins" });
        }
        if bins > MAX_BINS {
            return Err(Error::Size { what: "bins", needed: bins as u64, allowed: MAX_BINS as u64 });
        }
        let empty = vec![0; bins];
        let (intra_histogram, inter_histogram) = (empty.clone(), empty);
        Ok(Self(Sums { rows: 0, hits: 0, intra: 0.0, inter: 0.0, cosines: 0.0, intra_histogram, inter_histogram }))
    }

    /// Adds the rows of one batch: what a head returned, with the labels and the ignore index it was given.
    ///
    /// A row with the ignore index does not count, nor one whose loss is NaN: it had a NaN or infinite value or an invalid
    /// label, or a prototype had one. [`Error::Length`] where the lengths differ, and where other rows count than the head
    /// counted, since labels or ignore index are then not the batch's; nothing is added. With a single class the largest
    /// other cosine is −1 and its angle π. [`Error::Parameter`] for what is no cosine: a linear head gives products, so
    /// measure its vectors with a head of [`normface`](crate::MarginSoftmax::normface).
    pub fn add<L: Label, T: Copy + Into<f64>>(
        &mut self,
        out: &Output<T>,
        labels: &[L],
        ignore_index: Option<i64>,
    ) -> Result<()> {
        let cosines = |row: usize| (out.target_cosines[row].into(), out.other_cosines[row].into());
        let counting: Vec<(f64, f64)> = counting(out, labels, ignore_index)?.into_iter().map(cosines).collect();
        // a cosine rounds to little more than 1
        let beyond = |c: &f64| c.abs() > 1.0 + 1e-3;
        if let Some(found) = counting.iter().flat_map(|&(x, other)| [x, other]).find(beyond) {
            let allowed = "a cosine; a linear head gives products, which have no angle";
            return Err(Error::Parameter { what: "target_cosines", found, allowed });
        }
        for (x, other) in counting {
            let (intra, inter) = (angle(x), angle(other));
            self.0.rows = self.0.rows.saturating_add(1);
            self.0.hits = self.0.hits.saturating_add(u64::from(x > other));
            self.0.intra += intra;
            self.0.inter += inter;
            self.0.cosines += x;
            count(&mut self.0.intra_histogram, intra);
            count(&mut self.0.inter_histogram, inter);
        }
        Ok(())
    }

    /// Adds the rows of another monitor. [`Error::Length`] where it has another number of bins.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        check_length("histogram", other.bins(), self.bins())?;
        self.0.rows = self.0.rows.saturating_add(other.0.rows);
        self.0.hits = self.0.hits.saturating_add(other.0.hits);
        self.0.intra += other.0.intra;
        self.0.inter += other.0.inter;
        self.0.cosines += other.0.cosines;
        let bins = self.0.intra_histogram.iter_mut().zip(&other.0.intra_histogram);
        let bins = bins.chain(self.0.inter_histogram.iter_mut().zip(&other.0.inter_histogram));
        bins.for_each(|(own, other)| *own = own.saturating_add(*other));
        Ok(())
    }

    /// Bins of each histogram.
    pub fn bins(&self) -> usize {
        self.0.intra_histogram.len()
    }

    /// Means over all rows so far; 0 where no row counts.
    pub fn report(&self) -> Report {
        let mean = |sum: f64| if self.0.rows > 0 { sum / self.0.rows as f64 } else { 0.0 };
        Report {
            rows: self.0.rows,
            accuracy: mean(self.0.hits as f64),
            intra_angle: mean(self.0.intra),
            inter_angle: mean(self.0.inter),
            target_cosine: mean(self.0.cosines),
            mean_prototype: None,
            intra_histogram: self.0.intra_histogram.clone(),
            inter_histogram: self.0.inter_histogram.clone(),
        }
    }

    /// The words that the monitor kernel wrote for `bins` bins: rows, hits, three sums as bits of f32, and the two histograms.
    #[cfg(feature = "gpu")]
    pub(crate) fn from_words(bins: usize, words: &[u32]) -> Result<Self> {
        let Self(mut monitor) = Self::new(bins)?;
        check_length("monitor", words.len(), device_words(bins))?;
        let (sums, histograms) = words.split_at(8);
        (monitor.rows, monitor.hits) = (sums[0].into(), sums[1].into());
        let sum = |i: usize| f64::from(f32::from_bits(sums[i]));
        (monitor.intra, monitor.inter, monitor.cosines) = (sum(2), sum(3), sum(4));
        let own = monitor.intra_histogram.iter_mut().chain(&mut monitor.inter_histogram);
        own.zip(histograms).for_each(|(own, &found)| *own = u64::from(found));
        Ok(Self(monitor))
    }
}

/// A summary of the rows of one or more batches. Angles in radians.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Report {
    /// Rows that count; every mean below is 0 if there is none.
    pub rows: u64,
    /// Share of rows with a target cosine strictly above every other.
    pub accuracy: f64,
    /// M_intra: mean angle to the labelled prototype.
    pub intra_angle: f64,
    /// M_inter: mean angle to the nearest other prototype; π with a single class.
    pub inter_angle: f64,
    /// Mean cosine of the labelled class.
    pub target_cosine: f64,
    /// Length of the mean of the prototypes' directions, if it was measured.
    pub mean_prototype: Option<f64>,
    /// Rows by their angle to the labelled prototype: equal bins over \[0, π\], the last includes π.
    pub intra_histogram: Vec<u64>,
    /// Rows by their angle to the nearest other prototype.
    pub inter_histogram: Vec<u64>,
}

impl Report {
    /// With the length of the mean prototype, from [`Backend::mean_prototype`](crate::Backend::mean_prototype).
    pub fn with_mean_prototype(mut self, length: f64) -> Self {
        self.mean_prototype = Some(length);
        self
    }

    /// ArcGrad's mean gap, M_inter − M_intra: by how much the nearest other prototype is farther away than the own one.
    ///
    /// [`arcgrad_scale`](crate::theory::arcgrad_scale) is the scale with the steepest pull at a gap; it takes all other
    /// prototypes to be as far away as the nearest. At most 0 where an average embedding is not classified correctly, and
    /// then no scale follows.
    pub fn mean_gap(&self) -> f64 {
        self.inter_angle - self.intra_angle
    }
}

/// The rows of a batch that count, given what a head returned for it.
fn counting<L: Label, T: Copy + Into<f64>>(
    out: &Output<T>,
    labels: &[L],
    ignore_index: Option<i64>,
) -> Result<Vec<usize>> {
    check_length("row_losses", out.row_losses.len(), labels.len())?;
    check_length("target_cosines", out.target_cosines.len(), labels.len())?;
    check_length("other_cosines", out.other_cosines.len(), labels.len())?;
    let ignored = |label: L| ignore_index.is_some_and(|index| label.number() == i128::from(index));
    let rows = labels.iter().zip(&out.row_losses).enumerate();
    let counting = rows.filter(|&(_, (&label, &loss))| !ignored(label) && !loss.into().is_nan());
    let counting: Vec<usize> = counting.map(|(row, _)| row).collect();
    if out.counts.non_finite_prototypes == 0 {
        check_length("rows that are not ignored", counting.len(), out.counts.rows)?;
    }
    Ok(counting)
}

/// θ of a cosine; one that rounded past ±1 gives 0 or π.
pub(crate) fn angle(cosine: f64) -> f64 {
    ((1.0 - cosine) * (1.0 + cosine)).max(0.0).sqrt().atan2(cosine)
}

/// Adds one to the bin of an angle.
fn count(histogram: &mut [u64], angle: f64) {
    let last = histogram.len().saturating_sub(1);
    let bin = (angle / PI * histogram.len() as f64) as usize;
    if let Some(bin) = histogram.get_mut(bin.min(last)) {
        *bin = bin.saturating_add(1);
    }
}

/// Words that a device's monitor writes for this many bins.
#[cfg(feature = "gpu")]
pub(crate) fn device_words(bins: usize) -> usize {
    8 + 2 * bins
}

/// The number of vectors of `dim` values in a slice of `len`.
pub(crate) fn vectors(what: &'static str, dim: usize, len: usize) -> Result<usize> {
    if dim == 0 {
        return Err(Error::Zero { what: "dim" });
    }
    let count = len / dim;
    check_length(what, len, count * dim)?;
    Ok(count)
}
