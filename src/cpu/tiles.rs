//! Tiles of classes, taken one by one or range by range, each with the parts of the buffers that belong to it alone.

use super::tiling::Tiling;
use crate::data::StoredValues;

/// The classes of a tile; `W`: their prototypes as f32, or as they are stored.
#[derive(Clone, Copy)]
pub(super) struct TileClasses<'a, W = &'a [f32]> {
    /// The first one among all.
    pub first: usize,
    pub prototypes: W,
    /// Of a linear head, one per class; else empty.
    pub bias: &'a [f32],
}

impl<'a> TileClasses<'a, StoredValues<'a>> {
    /// With prototypes of f32, behind the first `front` values of `scratch` where they are stored otherwise; and those values.
    pub fn widened<'s>(self, scratch: &'s mut Vec<f32>, front: usize) -> (TileClasses<'s>, &'s mut [f32])
    where
        'a: 's,
    {
        let (front, prototypes) = self.prototypes.widened_behind(scratch, front);
        (TileClasses { first: self.first, prototypes, bias: self.bias }, front)
    }
}

/// One tile.
pub(super) struct ClassTile<'a> {
    pub index: usize,
    pub classes: TileClasses<'a, StoredValues<'a>>,
    /// \[N, prototypes of the tile\]: what survives pass 1 in *keep*, at last G.
    pub kept: &'a mut [f32],
    /// \[N\]: the largest logits that `kept` refers to.
    pub max_logit: &'a mut [f32],
    pub grad: &'a mut [f32],
    pub grad_bias: &'a mut [f32],
}

/// Consecutive tiles.
pub(super) struct ClassTiles<'a> {
    pub tiling: Tiling,
    pub rows: usize,
    /// The part that is left.
    pub rest: ClassTile<'a>,
}

impl<'a> ClassTiles<'a> {
    /// So many tiles, taken off; fewer where there are no more.
    pub fn front(&mut self, tiles: usize) -> ClassTile<'a> {
        let (ClassTile { index, classes: left, kept, max_logit, grad, grad_bias }, tiling) =
            (&mut self.rest, self.tiling);
        let columns = (tiling.tile * tiles).min(left.prototypes.len() / tiling.dim);
        let count = (tiling.tile_classes() * tiles).min(columns);
        let classes = TileClasses {
            first: left.first,
            prototypes: left.prototypes.part(0..columns * tiling.dim),
            bias: left.bias.split_off(..count.min(left.bias.len())).unwrap_or_default(),
        };
        left.prototypes = left.prototypes.part(columns * tiling.dim..left.prototypes.len());
        left.first += count;
        *index += tiles;
        ClassTile {
            index: *index - tiles,
            classes,
            kept: front(kept, self.rows * columns),
            max_logit: front(max_logit, self.rows * columns.div_ceil(tiling.tile)),
            grad: front(grad, columns * tiling.dim),
            grad_bias: front(grad_bias, count),
        }
    }
}

impl<'a> Iterator for ClassTiles<'a> {
    type Item = ClassTile<'a>;

    fn next(&mut self) -> Option<ClassTile<'a>> {
        (!self.rest.classes.prototypes.is_empty()).then(|| self.front(1))
    }
}

/// The first `len` values, taken off; fewer where there are no more.
pub(super) fn front<'a, T>(rest: &mut &'a mut [T], len: usize) -> &'a mut [T] {
    rest.split_off_mut(..len.min(rest.len())).unwrap_or_default()
}
