//! Scores for verification: cosines of chosen pairs, and the nearest items of a gallery, in bounded memory.

use super::{
    Backend,
    precision::{thin, wide},
};
#[cfg(feature = "cpu")]
use crate::cpu;
#[cfg(feature = "gpu")]
use crate::gpu;
use crate::{
    Error, MarginSoftmax, Options, Result, Shape,
    data::{Inputs, Predictions},
    monitor::vectors,
    reference,
    verification::{Nearest, all_finite, check_pairs},
};

/// Cosines of a product: 16 MiB.
const CELLS: usize = 1 << 22;
/// Values of an operand: 32 MiB, a quarter of what WebGPU binds.
const VALUES: usize = 1 << 23;
/// Multiply-adds of a product: a software adapter needs less than a second for them.
const WORK: usize = 1 << 31;
/// Most rows of the right operand of a product.
const WIDTH: usize = 4096;
/// Most rows of a call of a predictor.
const ROWS: usize = 4096;

impl Backend {
    /// Cosines of chosen pairs: of a row of `left` \[N, D\] and one of `right` \[M, D\] each, in the order of `pairs`; `left` and
    /// `right` may be the same slice.
    ///
    /// Beside its input and output a call takes 4 bytes for each pair, and on a GPU about 100 MB whatever the sizes are. There
    /// the pairs are put in order and computed in blocks of rows that occur together; the CPU takes them one by one.
    ///
    /// A vector shorter than 1e-12 is x/1e-12. Errors: lengths that are no multiples of `dim`, a value that is NaN or infinite,
    /// a pair beyond the rows.
    ///
    /// ```
    /// use margin_softmax::Backend;
    ///
    /// let embeddings = [3.0, 4.0, 1.0, 0.0, 0.0, -2.0];
    /// let cosines = Backend::reference().pair_cosines(2, &embeddings, &embeddings, &[[0, 1], [0, 2]])?;
    /// assert_eq!(cosines, [0.6, -0.8]);
    /// # Ok::<(), margin_softmax::Error>(())
    /// ```
    pub fn pair_cosines(&self, dim: usize, left: &[f32], right: &[f32], pairs: &[[u32; 2]]) -> Result<Vec<f32>> {
        self.wait("pair_cosines", self.pair_cosines_async(dim, left, right, pairs))
    }

    /// [`pair_cosines`](Self::pair_cosines) as a future: the only form that works in a browser.
    pub async fn pair_cosines_async(
        &self,
        dim: usize,
        left: &[f32],
        right: &[f32],
        pairs: &[[u32; 2]],
    ) -> Result<Vec<f32>> {
        check_pairs(pairs, [vectors("left", dim, left.len())?, vectors("right", dim, right.len())?])?;
        all_finite("left", left)?;
        all_finite("right", right)?;
        match self {
            Self::Reference => Ok(thin(&reference::pair_cosines(dim, &wide(left), &wide(right), pairs)?)),
            #[cfg(feature = "cpu")]
            Self::Cpu => Ok(cpu::scores::pair_cosines(dim, left, right, pairs)),
            #[cfg(feature = "gpu")]
            Self::Gpu(_) => self.blocks_of_pairs(dim, [left, right], pairs).await,
        }
    }

    /// Pairs in blocks: of rows that occur together, the cosines of all.
    #[cfg(feature = "gpu")]
    async fn blocks_of_pairs(&self, dim: usize, from: [&[f32]; 2], pairs: &[[u32; 2]]) -> Result<Vec<f32>> {
        let count = u32::try_from(pairs.len()).map_err(|_| {
            let (needed, allowed) = (pairs.len() as u64, u32::MAX.into());
            Error::Size { what: "pairs", needed, allowed }
        })?;
        let mut order: Vec<u32> = (0..count).collect();
        // so that a list of all pairs becomes blocks of many rows each
        order.sort_unstable_by_key(|&at| {
            let [left, right] = pairs[at as usize];
            (right as usize / WIDTH, left, right)
        });
        let mut out = vec![0.0; pairs.len()];
        let mut rest = &order[..];
        while !rest.is_empty() {
            let block = PairBlock::first_of(rest, dim, pairs);
            let rows = [0, 1].map(|side| gathered(from[side], dim, &block.rows[side]));
            let cosines = self.cosines(dim, &rows[0], &rows[1]).await?;
            let (own, next) = rest.split_at(block.places.len());
            for (&pair, [i, j]) in own.iter().zip(block.places) {
                out[pair as usize] = cosines[i * block.rows[1].len() + j];
            }
            rest = next;
        }
        Ok(out)
    }

    /// The `count` rows of `gallery` \[M, D\] nearest to each of `probes` \[N, D\], 1 ≤ `count` ≤ M, by cosine.
    ///
    /// Up to 64 come from a [`Predictor`](crate::predict::Predictor), more from blocks of cosines; the N×M cosines are never all
    /// in memory, beside input and output a call takes some 100 MB and the predictor's [`Budget`](crate::Budget). Of equal
    /// cosines the lower row comes first; those that differ by rounding alone may come in either order.
    ///
    /// A vector shorter than 1e-12 is x/1e-12. Errors: lengths that are no multiples of `dim`, a value that is NaN or infinite,
    /// a `count` outside its range.
    ///
    /// ```
    /// use margin_softmax::Backend;
    ///
    /// let gallery = [1.0, 0.0, 0.0, 1.0, -1.0, 0.0];
    /// let nearest = Backend::reference().nearest(2, &[3.0, 4.0], &gallery, 2)?;
    /// assert_eq!((nearest.items, nearest.cosines), (vec![1, 0], vec![0.8, 0.6]));
    /// # Ok::<(), margin_softmax::Error>(())
    /// ```
    pub fn nearest(&self, dim: usize, probes: &[f32], gallery: &[f32], count: usize) -> Result<Nearest> {
        self.wait("nearest", self.nearest_async(dim, probes, gallery, count))
    }

    /// [`nearest`](Self::nearest) as a future: the only form that works in a browser.
    pub async fn nearest_async(&self, dim: usize, probes: &[f32], gallery: &[f32], count: usize) -> Result<Nearest> {
        let (rows, items) = (vectors("probes", dim, probes.len())?, vectors("gallery", dim, gallery.len())?);
        if count == 0 || count > items {
            let allowed = "at least 1, and no more than the gallery has";
            return Err(Error::Parameter { what: "count", found: count as f64, allowed });
        }
        all_finite("probes", probes)?;
        all_finite("gallery", gallery)?;
        let (items, cosines) = (Vec::with_capacity(rows * count), Vec::with_capacity(rows * count));
        let mut found = Nearest { count, items, cosines };
        if count <= Predictions::<f32>::MAX {
            self.predicted(dim, probes, gallery, &mut found).await?;
        } else {
            self.selected(dim, probes, gallery, &mut found).await?;
        }
        Ok(found)
    }

    /// By a predictor, whose classes are the gallery.
    async fn predicted(&self, dim: usize, probes: &[f32], gallery: &[f32], found: &mut Nearest) -> Result<()> {
        let shape = Shape::new((probes.len() / dim).min(ROWS), gallery.len() / dim, dim)?;
        let loss = MarginSoftmax::normface();
        let mut predictor = self.predictor(&loss, shape, found.count, &Options::default())?;
        for block in probes.chunks(ROWS * dim) {
            let own = predictor.predict_async(&Inputs::new(block, gallery)).await?;
            found.items.extend(own.classes);
            found.cosines.extend(own.cosines);
        }
        Ok(())
    }

    /// From the cosines of blocks.
    async fn selected(&self, dim: usize, probes: &[f32], gallery: &[f32], found: &mut Nearest) -> Result<()> {
        let [width, rows] = block(dim, gallery.len() / dim);
        let order = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        for probes in probes.chunks(rows * dim) {
            let mut best = vec![Vec::with_capacity(found.count + width); probes.len() / dim];
            for (at, items) in gallery.chunks(width * dim).enumerate() {
                let cosines = self.cosines(dim, probes, items).await?;
                for (best, cosines) in best.iter_mut().zip(cosines.chunks_exact(items.len() / dim)) {
                    // -0 becomes 0
                    best.extend(cosines.iter().enumerate().map(|(j, c)| (c + 0.0, (at * width + j) as u32)));
                    if best.len() > found.count {
                        best.select_nth_unstable_by(found.count - 1, order);
                        best.truncate(found.count);
                    }
                }
            }
            for mut best in best {
                best.sort_unstable_by(order);
                found.items.extend(best.iter().map(|(_, item)| item));
                found.cosines.extend(best.iter().map(|(cosine, _)| cosine));
            }
        }
        Ok(())
    }

    /// All cosines of two sets, neither of them empty, that fit in memory.
    async fn cosines(&self, dim: usize, left: &[f32], right: &[f32]) -> Result<Vec<f32>> {
        match self {
            Self::Reference => Ok(thin(&reference::cosines(dim, &wide(left), &wide(right))?)),
            #[cfg(feature = "cpu")]
            Self::Cpu => Ok(cpu::scores::cosines(dim, left, right)),
            #[cfg(feature = "gpu")]
            Self::Gpu(context) => gpu::scores::cosines(context, dim, left, right).await,
        }
    }
}

/// Most rows of the right and of the left operand of a product, each at least 1.
fn block(dim: usize, right: usize) -> [usize; 2] {
    let width = right.min(WIDTH).min(VALUES / dim).max(1);
    let rows = (CELLS / width).min(VALUES / dim).min(WORK / dim / width).max(1);
    [width, rows]
}

#[cfg(feature = "gpu")]
fn gathered(from: &[f32], dim: usize, rows: &[u32]) -> Vec<f32> {
    rows.iter().flat_map(|&row| &from[row as usize * dim..][..dim]).copied().collect()
}

/// Pairs that are computed together.
#[cfg(feature = "gpu")]
struct PairBlock {
    /// Rows of the left and of the right vectors, each once.
    rows: [Vec<u32>; 2],
    /// Of each pair its rows' places among them.
    places: Vec<[usize; 2]>,
}

#[cfg(feature = "gpu")]
impl PairBlock {
    /// As many of the pairs in `order` as a product may have, at least one.
    fn first_of(order: &[u32], dim: usize, pairs: &[[u32; 2]]) -> Self {
        let mut known = [std::collections::HashMap::new(), std::collections::HashMap::new()];
        let mut new = Self { rows: [vec![], vec![]], places: vec![] };
        for &at in order {
            let pair = pairs[at as usize];
            let more = [0, 1].map(|side| usize::from(!known[side].contains_key(&pair[side])));
            let [left, right] = [0, 1].map(|side| new.rows[side].len() + more[side]);
            let [width, rows] = block(dim, right);
            if !new.places.is_empty() && (right > width || left > rows) {
                break;
            }
            let place = |side: usize| {
                let own: &mut Vec<u32> = &mut new.rows[side];
                *known[side].entry(pair[side]).or_insert_with(|| {
                    own.push(pair[side]);
                    own.len() - 1
                })
            };
            new.places.push([0, 1].map(place));
        }
        new
    }
}
