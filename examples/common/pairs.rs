//! Verification over all pairs of a set.

use margin_softmax::verification::DetectionCurve;
use ndarray::Array2;

use super::Result;

/// Both errors over every threshold on the cosine of two rows; "same" is the same label.
pub fn detection(embeddings: &Array2<f32>, labels: &[u32]) -> Result<DetectionCurve> {
    let mut unit = embeddings.clone();
    unit.rows_mut().into_iter().for_each(|mut row| row /= row.dot(&row).sqrt().max(1e-12));
    let cosines = unit.dot(&unit.t());
    let pairs = || (0..labels.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
    let scores: Vec<f32> = pairs().map(|(i, j)| cosines[[i, j]]).collect();
    let same: Vec<bool> = pairs().map(|(i, j)| labels[i] == labels[j]).collect();
    Ok(DetectionCurve::new(&scores, &same)?)
}
