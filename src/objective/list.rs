//! A list of built-in curves or transforms, from which everything about their number follows.

/// Declares an enum, one line for each variant: how it is written in the enum, and what has the duties of the trait. After a
/// `;` comes one that is not built in and has no default.
macro_rules! list {
    (
        $(#[$meta:meta])*
        pub enum $list:ident: $duties:ident {
            $($(#[$doc:meta])* $name:ident $(($numbers:ident: $of:ty))? => $object:expr),+
            $(; $(#[$out_doc:meta])* $out:ident($out_numbers:ident: $out_of:ty) => $out_object:expr)?
        }
    ) => {
        $(#[$meta])*
        pub enum $list {
            $($(#[$doc])* $name $(($of))?,)+
            $($(#[$out_doc])* $out($out_of),)?
        }

        impl $list {
            /// Each that is built in, once, with its default numbers.
            pub fn all() -> Vec<Self> {
                vec![$(Self::$name $((<$of>::default()))?),+]
            }

            fn duties(&self) -> &dyn $duties {
                match self {
                    $(Self::$name $(($numbers))? => $object,)+
                    $(Self::$out($out_numbers) => $out_object,)?
                }
            }
        }
    };
}
pub(crate) use list;
