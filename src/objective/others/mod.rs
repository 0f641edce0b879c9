//! What happens to the cosine of every class but the labelled one. One file per transform.

mod identity;
mod rectified;

pub use identity::Identity;
use num_traits::Float;
pub use rectified::Rectified;

/// A transform of the other classes' cosines: value and slope of one cosine.
pub trait Other: Copy + Send + Sync {
    /// `(other(c), other'(c))`.
    fn value_slope<T: Float>(&self, c: T) -> (T, T);
}

/// The built-in transforms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Others {
    /// The cosine itself.
    #[default]
    Identity,
    /// max(c, 0): wrong classes behind the equator exert no force (WC-ReLU).
    Rectified,
}

impl Others {
    /// All of them; the name is also that of the shader snippet.
    pub const ALL: &[Others] = &[Others::Identity, Others::Rectified];

    /// The name as it stands in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Others::Identity => "identity",
            Others::Rectified => "rectified",
        }
    }

    /// `(other(c), other'(c))`.
    pub fn value_slope<T: Float>(self, c: T) -> (T, T) {
        match self {
            Others::Identity => Identity.value_slope(c),
            Others::Rectified => Rectified.value_slope(c),
        }
    }
}
