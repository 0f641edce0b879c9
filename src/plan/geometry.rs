//! The monitors as kernels and plans.

#[cfg(feature = "gpu")]
use super::driver_limits::MONITORED_ROWS;
use super::{
    Element, Grid, Limits, Plan, StepConstants, TensorRole,
    builder::Builder,
    driver_limits::{ROWS_PER_PASS, at_most, indexable},
    kernels as k,
};
#[cfg(feature = "gpu")]
use crate::data::DevicePreset;
use crate::{Error, MarginSoftmax, Result, Shape, Tile};

/// Blocks of classes whose directions are summed apart; their sums are added by one lane per four values.
const MAX_BLOCKS: usize = 512;

/// The histograms of [`k::monitor`] take more workgroup memory than a head.
#[cfg(feature = "gpu")]
pub(crate) fn check(limits: &Limits) -> Result<()> {
    super::limits::need("the monitor", "max_compute_workgroup_storage_size", 14_u64 << 10, limits.workgroup_bytes)
}

/// The constants of the steps that count so many rows, one after the other.
#[cfg(feature = "gpu")]
pub(crate) fn monitor_steps(rows: usize, bins: usize) -> impl ExactSizeIterator<Item = StepConstants> {
    (0..rows.max(1)).step_by(MONITORED_ROWS).map(move |first| StepConstants {
        begin: u32::from(first == 0),
        row_first: first as u32,
        row_count: MONITORED_ROWS as u32,
        ..StepConstants::over(bins)
    })
}

/// The tile of the pairs of so many vectors; beside it each invocation keeps a sum.
#[cfg(feature = "gpu")]
pub(crate) fn pair_tile(rows: usize, columns: usize, limits: &Limits) -> Tile {
    // at most WebGPU's default, so that the kernel is one that every WebGPU compiler has seen
    let workgroup_bytes = limits.workgroup_bytes.min(Limits::WEBGPU.workgroup_bytes).saturating_sub(512);
    DevicePreset::Auto.tile(rows, columns, &Limits { workgroup_bytes, matrix_units: None, ..*limits })
}

/// The pairs that one plan of [`Plan::pairs`] works on: all left vectors with some of the right ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strip {
    /// The first right vector.
    pub first: usize,
    /// Tiles of right vectors.
    pub wide: usize,
}

impl Plan {
    /// The length of the mean direction of prototypes in shards, \[1\], f32: the buffer `mean`.
    pub fn mean_prototype(shards: &[usize], dim: usize, element: Element, limits: &Limits) -> Result<Plan> {
        if shards.contains(&0) {
            return Err(Error::Zero { what: "shards" });
        }
        let classes = shards.iter().fold(0_usize, |sum, &count| sum.saturating_add(count));
        let shape = Shape::new(1, classes, dim)?;
        let w = element.loader("prototypes", dim, limits)?;
        let mut b = Builder::new(limits, 1, shape)?;
        let mut data = vec![];
        for (i, &count) in shards.iter().enumerate() {
            data.push(b.given(TensorRole::Prototypes(i), prototypes(count, dim)? * element.bytes())?);
        }
        let span = classes.div_ceil(MAX_BLOCKS).max(256);
        // so that no span has more rows than one pass may have
        let most = MAX_BLOCKS as u64 * u64::from(ROWS_PER_PASS - 1);
        at_most("classes of a mean prototype", classes as u64, most)?;
        let blocks: usize = shards.iter().map(|count| count.div_ceil(span)).sum();
        let groups: usize = shards.iter().map(|count| count.div_ceil(64)).sum();
        let quads = dim.div_ceil(4);
        let class = b.classes(classes as u64)?;
        let totals = b.totals(groups as u64)?;
        let sums = b.workspace("sums", (blocks * quads) as u64 * 16)?;
        let mean = b.workspace("mean", 4)?;

        let (class_norms, direction_sums) = (k::class_norms(w, false), k::direction_sums(w));
        let (mut first, mut group, mut block, mut steps) = (0, 0, 0, vec![]);
        for (&count, &data) in shards.iter().zip(&data) {
            let splits = quads.div_ceil(64);
            let part = StepConstants {
                first: first as u32,
                local: group as u32,
                splits: splits as u32,
                slots: blocks as u32,
                slot_span: span as u32,
                row_first: block as u32,
                ..StepConstants::over(count)
            };
            let grid = Grid::fixed(count.div_ceil(64) as u64);
            steps.push(b.step(&class_norms, part, grid, &[data, class, totals])?);
            let grid = Grid::fixed(count.div_ceil(span) as u64 * splits as u64);
            steps.push(b.step(&direction_sums, part, grid, &[data, class, sums])?);
            (first, group, block) = (first + count, group + count.div_ceil(64), block + count.div_ceil(span));
        }
        let part = StepConstants { slots: blocks as u32, ..StepConstants::over(groups) };
        steps.push(b.step(&k::monitor_mean(), part, Grid::fixed(1), &[sums, totals, mean])?);
        Ok(b.single(&MarginSoftmax::default(), (shape, 1, [element; 2]), Tile::Direct, [steps, vec![]]))
    }

    /// Strips that cover all pairs of `left` vectors with `right` ones, each of about `most` tiles and at least one per tile
    /// of left vectors: so are memory and the time of a submit bounded, whatever the number of pairs is.
    pub fn strips(tile: Tile, left: usize, right: usize, most: usize) -> impl Iterator<Item = Strip> {
        let (tile_m, tile_n) = (tile.rows() as usize, tile.columns() as usize);
        let wide = (most / left.div_ceil(tile_m).max(1)).clamp(1, right.div_ceil(tile_n).max(1));
        let strip = move |first| Strip { first, wide: wide.min((right - first).div_ceil(tile_n)) };
        (0..right).step_by(wide.saturating_mul(tile_n)).map(strip)
    }

    /// Sums of (π/2 − θ) over the pairs of a strip: the buffer `sums`, one f32 per tile, the strip's tiles of each tile of
    /// left vectors side by side. `right` is the number of vectors of a second shard; without it the pairs lie within the
    /// first. The third of each four values of the buffer `totals` counts vectors that are not finite.
    pub fn pairs(
        (left, right): (usize, Option<usize>),
        dim: usize,
        element: Element,
        (tile, strip): (Tile, Strip),
        limits: &Limits,
    ) -> Result<Plan> {
        // the sums of its invocations are added up
        tile.check_beside(limits, 4)?;
        let columns = right.unwrap_or(left);
        if left == 0 || columns == 0 {
            return Err(Error::Zero { what: "vectors" });
        }
        at_most("the first vector of a strip", strip.first as u64, columns as u64 - 1)?;
        let all = left.saturating_add(right.unwrap_or(0));
        let shape = Shape::new(1, all, dim)?;
        let w = element.loader("vectors", dim, limits)?;
        let mut b = Builder::new(limits, 1, shape)?;
        let (tile_m, tile_n) = (tile.rows() as usize, tile.columns() as usize);
        let wide = strip.wide.min((columns - strip.first).div_ceil(tile_n));
        let tiles = left.div_ceil(tile_m) as u64 * wide as u64;
        let own = b.given(TensorRole::Prototypes(0), prototypes(left, dim)? * element.bytes())?;
        let other = match right {
            Some(count) => b.given(TensorRole::Prototypes(1), prototypes(count, dim)? * element.bytes())?,
            None => own,
        };
        let class = b.classes(all as u64)?;
        let groups = left.div_ceil(64) + right.map_or(0, |count| count.div_ceil(64));
        let totals = b.totals(groups as u64)?;
        let sums = b.workspace("sums", tiles * 4)?;

        let class_norms = k::class_norms(w, false);
        let mut steps = vec![];
        let mut measure = |b: &mut Builder, data, first: usize, count: usize, group: usize| {
            let part = StepConstants { first: first as u32, local: group as u32, ..StepConstants::over(count) };
            let grid = Grid::fixed(count.div_ceil(64) as u64);
            steps.push(b.step(&class_norms, part, grid, &[data, class, totals])?);
            Ok::<_, Error>(())
        };
        measure(&mut b, own, 0, left, 0)?;
        if let Some(count) = right {
            measure(&mut b, other, left, count, left.div_ceil(64))?;
        }
        let part = StepConstants {
            first: if right.is_some() { left as u32 } else { 0 },
            count: left as u32,
            local: strip.first as u32,
            stride: columns as u32,
            splits: wide as u32,
            ..StepConstants::default()
        };
        steps.push(b.step(&k::monitor_pairs(tile, w), part, Grid::fixed(tiles), &[own, other, class, sums])?);
        Ok(b.single(&MarginSoftmax::default(), (shape, 1, [element; 2]), tile, [steps, vec![]]))
    }
}

/// Values of a shard, within what a shader can index.
fn prototypes(count: usize, dim: usize) -> Result<u64> {
    let values = crate::shape::elements(count, dim);
    indexable("vectors of a shard · dim", values)?;
    Ok(values)
}
