//! Every failure that a caller can see.

use burn::tensor::wgpu::WgpuInitError;

/// What went wrong, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // each field is named in its message
pub enum Error {
    /// The head refused its input or the device: a shape, an element type, a limit, a lost device.
    #[error(transparent)]
    Head(#[from] margin_softmax::Error),
    /// A tensor of another backend.
    #[error(
        "`{what}` is on {found}, the head runs on burn's wgpu backend: move tensor and module to a device of `init` or `from_setup`"
    )]
    Backend { what: &'static str, found: String },
    /// A wgpu device of burn's whose wgpu handles nobody gave.
    #[error(
        "the wgpu handles of {device} are not known: open it with `init` or `from_setup`, or name them with `share`, before the first forward pass"
    )]
    NotShared { device: String },
    /// Tensors on two devices.
    #[error("`{what}` is on {found}, the embeddings are on {expected}: move them to one device")]
    Devices { what: &'static str, found: String, expected: String },
    /// Tensors with two strategies of gradient checkpointing.
    #[error("`embeddings` and `prototypes` have different gradient checkpointing strategies: make both on one device")]
    Checkpointing,
    /// A wgpu device that has less than burn will take from its adapter.
    #[error(
        "the device was opened with {what} = {found}, burn's kernels take {needed} from the adapter: open it with `descriptor`"
    )]
    Setup { what: String, found: String, needed: String },
    /// burn could not open or register the device.
    #[error("burn refused the device: {0}")]
    Init(#[from] WgpuInitError),
    /// A burn operation before this one failed, or burn has no memory left.
    #[error("burn has no buffer for `{what}`: {message}")]
    Buffer { what: &'static str, message: String },
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A tensor that is not on burn's wgpu backend.
    pub(crate) fn backend(what: &'static str, error: impl std::fmt::Debug) -> Self {
        Self::Backend { what, found: format!("{error:?}") }
    }
}
