//! The items of a gallery that are nearest to each probe.

/// The items of a gallery nearest to each of some probes, from [`Backend::nearest`](crate::Backend::nearest).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Nearest {
    /// k, the items of each probe.
    pub count: usize,
    /// \[probes, k\]: rows of the gallery, the nearest first; of equal cosines the lower row.
    pub items: Vec<u32>,
    /// \[probes, k\]: their cosines.
    pub cosines: Vec<f32>,
}
