//! Labels of any integer type.

use crate::{Error, Result};

/// A whole number that can label a row.
pub trait Label: Copy {
    /// The number.
    fn number(self) -> i128;
}

macro_rules! label {
    ($($t:ty),*) => {$(
        impl Label for $t {
            fn number(self) -> i128 {
                self as i128
            }
        }
    )*};
}
label!(i8, i16, i32, i64, isize, u8, u16, u32, u64, usize);

/// Labels as numbers: each that of a class or the ignore index.
pub(crate) fn numbers<L: Label>(labels: &[L], ignore_index: Option<i64>, classes: usize) -> Result<Vec<i64>> {
    let number = |(row, label): (usize, &L)| {
        let label = label.number();
        let known = Some(label) == ignore_index.map(i128::from) || (0..classes as i128).contains(&label);
        i64::try_from(label).ok().filter(|_| known).ok_or(Error::Label { row, label, classes })
    };
    labels.iter().enumerate().map(number).collect()
}
