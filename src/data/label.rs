//! Labels of any integer type.

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
