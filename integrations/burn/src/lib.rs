//! skeleton

#![deny(unsafe_code)]
#![warn(missing_docs)]

mod buffer;
mod device;
mod error;
mod head;
mod op;
mod pool;

pub use device::{context, descriptor, from_setup, init, share};
pub use error::{Error, Result};
pub use head::{MarginHead, MarginHeadConfig};
pub use margin_softmax::{self, MarginSoftmax, wgpu};
