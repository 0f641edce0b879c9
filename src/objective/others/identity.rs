use num_traits::Float;

use super::Place;

/// The cosine itself.
#[derive(Debug, Clone, Copy)]
pub struct Identity;

impl super::Other for Identity {
    #[inline(always)]
    fn value_slope<T: Float>(&self, c: T, _: Place<T>) -> (T, T) {
        (c, T::one())
    }
}
