//! Every failure that a caller can see, with its numbers.

/// Every failure that a caller can see, in the caller's words: the argument, the value found and the values allowed.
///
/// Input is checked before any work starts: a call that refuses its input has written nothing. The errors that come from
/// the device itself ([`DeviceLost`](Error::DeviceLost), [`OutOfMemory`](Error::OutOfMemory), [`Device`](Error::Device),
/// [`Timeout`](Error::Timeout)) may come later; host memory is untouched by them too. After [`Cancelled`](Error::Cancelled) an
/// output that was to be used again is empty, and keeps its room; states are untouched.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // each field is named in its message
pub enum Error {
    /// A number of the loss lies outside its range (NaN and infinity lie outside every range).
    #[error("`{what}` is {found}, allowed is {allowed}")]
    Parameter { what: &'static str, found: f64, allowed: &'static str },
    /// Two options that exclude each other.
    #[error("{what}: {why}")]
    Combination { what: &'static str, why: &'static str },
    /// A slice or tensor of the wrong length.
    #[error("`{what}` has {found} values, expected {expected}")]
    Length { what: &'static str, found: usize, expected: usize },
    /// More rows than the head was made for.
    #[error("the batch has {found} rows, this head was made for at most {allowed}")]
    Rows { found: usize, allowed: usize },
    /// A tensor of the wrong shape. Where an axis is free, `expected` has the number found.
    #[error("`{what}` has shape {found:?}, expected {expected:?}")]
    Shape { what: &'static str, found: Vec<usize>, expected: Vec<usize> },
    /// A tensor of the wrong element type.
    #[error("`{what}` holds {found}, expected {expected}")]
    Element { what: &'static str, found: &'static str, expected: &'static str },
    /// A label that names no class and is not the ignore index.
    #[error("row {row} has label {label}, but there are only {classes} classes{}", left_out(*label))]
    Label { row: usize, label: i128, classes: usize },
    /// A class that a call cannot take.
    #[error("class {class} {why}")]
    Class { class: usize, why: &'static str },
    /// Pairs of one kind only, where error rates need pairs of both.
    #[error(
        "of {pairs} pairs {same} are of the same identity: at least one of the same and one of different are needed"
    )]
    OneKind { same: usize, pairs: usize },
    /// A number that is NaN or infinite, in a list of which every one counts.
    #[error("`{what}` has {found} at position {at}, every one must be finite")]
    NonFinite { what: &'static str, at: usize, found: f32 },
    /// An index beyond the end of the list that it refers to.
    #[error("`{what}` names item {found} at position {at}, but there are only {len}")]
    Index { what: &'static str, at: usize, found: u64, len: usize },
    /// Numbers that are all equal, where their deviation is a divisor.
    #[error("the `{what}` of row {row} are all equal, so they have no deviation to divide by")]
    NoSpread { what: &'static str, row: usize },
    /// A dimension that must not be zero.
    #[error("`{what}` is 0, it must be at least 1")]
    Zero { what: &'static str },
    /// A size that this library cannot index.
    #[error("{what}: {needed}, at most {allowed} are possible")]
    Size { what: &'static str, needed: u64, allowed: u64 },
    /// A size that this device does not allow.
    #[error("{what} needs {needed}, the device allows {allowed} (`{limit}`); {}", more(what, limit))]
    Limit { what: &'static str, limit: &'static str, needed: u64, allowed: u64 },
    /// The smallest possible workspace is larger than the budget.
    #[error("the workspace needs at least {needed} bytes, the budget is {allowed}")]
    Budget { needed: u64, allowed: u64 },
    /// A dispatch that cannot be cut takes more than a submit may.
    #[error("a dispatch takes at least {needed} multiply-adds, `work_per_submit` is {allowed}")]
    Work { needed: u64, allowed: u64 },
    /// A head whose last call was given up between two of its submits.
    #[error("the last call was recorded in part, so there are no results: record a forward pass anew")]
    Unfinished,
    /// A progress callback stopped the call.
    #[error("the progress callback stopped the call")]
    Cancelled,
    /// A buffer offset that the device cannot bind.
    #[error("`{what}` starts at byte {offset} of its buffer, the device needs a multiple of {alignment}")]
    Alignment { what: &'static str, offset: u64, alignment: u64 },
    /// A buffer that is too small for the tensor laid over it.
    #[error("`{what}` needs bytes {offset}..{end} of a buffer of {found} bytes")]
    Buffer { what: &'static str, offset: u64, end: u64, found: u64 },
    /// A buffer without a usage flag that this call needs.
    #[error("the buffer of `{what}` was made without the usage {usage}: add it when the buffer is made")]
    Usage { what: &'static str, usage: &'static str },
    /// A buffer that cannot be bound: it belongs to another device of the same `wgpu::Instance`, or was destroyed.
    #[error("the buffer of `{what}` cannot be used here: make it on the context's own device, and keep it ({why})")]
    Foreign { what: &'static str, why: String },
    /// A device that was opened without a feature that this call needs.
    #[error(
        "{what} needs a device with the feature {feature}: request it, `gpu::optional_features` does so where it can"
    )]
    Feature { what: &'static str, feature: &'static str },
    /// One buffer both read and written in a call.
    #[error("`{what}` and `{other}` share a buffer, but one of them is written: give it another buffer")]
    Overlap { what: &'static str, other: &'static str },
    /// Something this call needs was not given.
    #[error("`{what}` is missing: {why}")]
    Missing { what: &'static str, why: &'static str },
    /// The new loss needs other kernels than the head was compiled for.
    #[error("the new loss needs the kernel `{needed}`, this head was compiled with `{compiled}`; make a new head")]
    Recompile { needed: String, compiled: String },
    /// The WGSL text of a custom margin, or of custom other classes, is not valid.
    #[error("the WGSL of the curve `{margin}` is refused: {message}")]
    Wgsl { margin: String, message: String },
    /// Shards that overlap, leave a gap, or are not the head's.
    #[error(
        "shard {}..{} found where one from class {expected} must begin: together they must be {classes} classes, each once",
        found.start, found.end
    )]
    Shards { found: std::ops::Range<usize>, expected: usize, classes: usize },
    /// No adapter answered, none of that name, or one that cannot run the kernels.
    #[error("no GPU adapter: {0}")]
    NoAdapter(String),
    /// A name that is not in the list.
    #[error("`{found}` is not a known {what}; known are: {known}")]
    Name { what: &'static str, found: String, known: String },
    /// Bytes that are not what they should be.
    #[error("this is no {what}: {why}")]
    Format { what: &'static str, why: String },
    /// The system refused to read or write a file.
    #[error("{path}: {why}")]
    File { path: String, why: String },
    /// The device was lost or destroyed; make a new one.
    #[error("the device is lost: {0}")]
    DeviceLost(String),
    /// The device has no memory left.
    #[error("the device is out of memory: {0}")]
    OutOfMemory(String),
    /// The device refused an operation.
    #[error("the device refused: {0}")]
    Device(String),
    /// The device did not answer in time; it works on, and the same call may be made again.
    #[error("the device did not answer within {seconds} s")]
    Timeout { seconds: f64 },
}

impl Error {
    /// The name of its variant, for callers in other languages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Parameter { .. } => "Parameter",
            Self::Combination { .. } => "Combination",
            Self::Length { .. } => "Length",
            Self::Rows { .. } => "Rows",
            Self::Shape { .. } => "Shape",
            Self::Element { .. } => "Element",
            Self::Label { .. } => "Label",
            Self::Class { .. } => "Class",
            Self::OneKind { .. } => "OneKind",
            Self::NonFinite { .. } => "NonFinite",
            Self::Index { .. } => "Index",
            Self::NoSpread { .. } => "NoSpread",
            Self::Zero { .. } => "Zero",
            Self::Size { .. } => "Size",
            Self::Limit { .. } => "Limit",
            Self::Budget { .. } => "Budget",
            Self::Work { .. } => "Work",
            Self::Unfinished => "Unfinished",
            Self::Alignment { .. } => "Alignment",
            Self::Buffer { .. } => "Buffer",
            Self::Usage { .. } => "Usage",
            Self::Foreign { .. } => "Foreign",
            Self::Feature { .. } => "Feature",
            Self::Overlap { .. } => "Overlap",
            Self::Missing { .. } => "Missing",
            Self::Recompile { .. } => "Recompile",
            Self::Wgsl { .. } => "Wgsl",
            Self::Shards { .. } => "Shards",
            Self::NoAdapter(_) => "NoAdapter",
            Self::Name { .. } => "Name",
            Self::Format { .. } => "Format",
            Self::File { .. } => "File",
            Self::DeviceLost(_) => "DeviceLost",
            Self::OutOfMemory(_) => "OutOfMemory",
            Self::Device(_) => "Device",
            Self::Timeout { .. } => "Timeout",
            Self::Cancelled => "Cancelled",
        }
    }
}

/// A negative label is most often meant to mark a row that is left out: PyTorch does so with -100 by default.
fn left_out(label: i128) -> String {
    if label < 0 { format!("; to leave such rows out set `ignore_index` to {label}") } else { String::new() }
}

/// The advice that goes with a limit. A device may have been opened with less than its adapter allows.
fn more(what: &str, limit: &str) -> &'static str {
    match (what, limit) {
        ("prototypes" | "grad_prototypes", _) => {
            "open it with `gpu::recommended_limits` if its adapter allows more, or divide the prototypes as `Plan::shards` \
             says"
        }
        // what `required_limits` has
        (
            _,
            "max_storage_buffers_per_shader_stage"
            | "max_compute_invocations_per_workgroup"
            | "max_compute_workgroup_size_x",
        ) => {
            "open it with `gpu::recommended_limits` if its adapter allows more; on an adapter that does not, the kernels \
             cannot run"
        }
        _ => "open it with `gpu::recommended_limits` if its adapter allows more",
    }
}

#[cfg(feature = "gpu")]
impl Error {
    /// With other names for arguments: those of the caller's function in the place of the plan's.
    pub(crate) fn renamed(mut self, names: &[(&'static str, &'static str)]) -> Self {
        let rename = |what: &mut &'static str| {
            if let Some((_, new)) = names.iter().find(|(old, _)| old == what) {
                *what = new;
            }
        };
        match &mut self {
            Self::Overlap { what, other } => [what, other].into_iter().for_each(rename),
            Self::Element { what, .. }
            | Self::Limit { what, .. }
            | Self::Alignment { what, .. }
            | Self::Buffer { what, .. }
            | Self::Usage { what, .. }
            | Self::Foreign { what, .. } => rename(what),
            _ => {}
        }
        self
    }
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
