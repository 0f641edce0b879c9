//! Other classes for a head that is trained already: growing, removing, cleaning, and margins by the size of a class.
//!
//! | for | there is |
//! |---|---|
//! | new classes | [`NewPrototypes`]: prototypes from the mean directions of their embeddings; [`ClassMap::grow`] |
//! | classes that go | [`ClassMap::keep`], [`ClassMap::without`], and the labels after them |
//! | what belongs to a run | [`ClassMap::values`] for anything per class, [`ClassMap::state`], [`ClassMap::checkpoint`] |
//! | noisy data | [`SubCenters`]: the dominant sub-centre of every class, the rows far from it, \[C, K, D\] → \[C, D\] |
//! | classes of unequal size | [`CountMargins`]: margins by the number of rows, for [`Batch::class_margins`](crate::Batch) |
//!
//! Everything runs on the host, over f32 slices with sums in f64, and is the same for every engine. Nothing is changed in
//! place: each call returns something new, or an error. A head has a fixed number of classes, so make a new one afterwards.
//!
//! A checkpoint of two classes becomes one of three, and training goes on:
//!
//! ```
//! # #[cfg(feature = "cpu")] {
//! use margin_softmax::{checkpoint::Checkpoint, classes::{ClassMap, NewPrototypes}, monitor::ClassCenters, *};
//!
//! let (loss, old) = (MarginSoftmax::arcface().with_scale(16.0), Shape::new(2, 2, 2)?);
//! let kept = Checkpoint::new(&State::new(&loss, old)?)
//!     .with_tensor("prototypes", &[2, 2], vec![2.0, 0.0, 0.0, 2.0])?
//!     .with_tensor("momentum", &[2, 2], vec![0.1, 0.2, 0.3, 0.4])?;
//!
//! // what the network says of the new class: once per batch, labels as in the grown head
//! let mut centers = ClassCenters::new(3, 2)?;
//! centers.add_directions(&[-3.0, 4.0, -3.0, -4.0], &[2, 2], None)?;
//! let new = NewPrototypes::default().from_centers(old, kept.tensor("prototypes", &[2, 2])?, &centers)?;
//!
//! let grown = ClassMap::grow(2, 3)?.checkpoint(&kept, &[("prototypes", Some(&new)), ("momentum", None)])?;
//! let prototypes = grown.tensor("prototypes", &[3, 2])?;
//! assert_eq!(prototypes, [2.0, 0.0, 0.0, 2.0, -2.0, 0.0]); // the old bits, then the mean direction at their mean length
//! assert_eq!(grown.tensor("momentum", &[3, 2])?, [0.1, 0.2, 0.3, 0.4, 0.0, 0.0]);
//!
//! let mut head = Backend::cpu().head(&loss, Shape::new(2, 3, 2)?)?;
//! head.set_state(&grown.state)?;
//! head.train(&Batch { embeddings: &[1.0, 1.0, -1.0, 0.1], prototypes, labels: &[0, 2], ..Default::default() })?;
//! # }
//! # Ok::<(), margin_softmax::Error>(())
//! ```

mod counts;
mod map;
mod prototypes;
mod sub_centers;
mod tensors;

pub use counts::CountMargins;
pub use map::ClassMap;
pub use prototypes::{NewPrototypes, PrototypeLength};
pub use sub_centers::{Dominant, OUTLIER_ANGLE, Outlier, SubCenters};
