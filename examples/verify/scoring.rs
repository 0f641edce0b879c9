//! Scores of trials: cosines, and those after normalisation by a cohort.

use margin_softmax::{
    Backend,
    verification::{CohortStatistics, adaptive_s_norm},
};

use crate::{common::Result, embeddings::Embeddings, trials::Trials};

/// The nearest of a cohort that count unless told otherwise, as is usual for some thousands of speakers.
pub const TOP: usize = 300;

/// A cosine for each pair.
pub fn cosines(backend: &Backend, embeddings: &Embeddings, trials: &Trials) -> Result<Vec<f32>> {
    Ok(backend.pair_cosines(embeddings.dim, &embeddings.values, &embeddings.values, &trials.pairs)?)
}

/// The cosines normalised by the `top` nearest of a cohort. Only items that a trial names are compared with it.
pub fn normalised(
    backend: &Backend,
    embeddings: &Embeddings,
    trials: &Trials,
    cosines: &[f32],
    (cohort, top): (&Embeddings, usize),
) -> Result<Vec<f32>> {
    if cohort.dim != embeddings.dim {
        return Err(format!("the cohort has {} dimensions, the embeddings {}", cohort.dim, embeddings.dim).into());
    }
    let mut rows: Vec<u32> = trials.pairs.iter().flatten().copied().collect();
    rows.sort_unstable();
    rows.dedup();
    let items: Vec<f32> = rows.iter().flat_map(|&row| embeddings.row(row)).copied().collect();
    let nearest = backend.nearest(cohort.dim, &items, &cohort.values, top)?;
    let statistics = CohortStatistics::new(top, &nearest.cosines)?;
    let mut places = vec![0; embeddings.rows()];
    rows.iter().zip(0..).for_each(|(&row, place)| places[row as usize] = place);
    let pairs: Vec<[u32; 2]> = trials.pairs.iter().map(|pair| pair.map(|row| places[row as usize])).collect();
    Ok(adaptive_s_norm(cosines, &pairs, &statistics, &statistics)?)
}
