//! burn: the head as a module of a burn model.
//!
//! The crate `margin-softmax-burn` (`integrations/burn` in the repository; it has its own versions because burn needs a
//! newer Rust, see [the table](super#versions)) holds the prototypes as a burn parameter and runs this head as an autodiff
//! operation on burn's own wgpu device and buffers: nothing is copied through the host. Its documentation has the code.
//!
//! Without that crate, any framework on wgpu can share its device as in [`device`](super::device): the library binds a
//! range of a `wgpu::Buffer` and does not ask whose it is. What to mind with burn: tensors begin at offsets of a shared
//! buffer, and inputs and results of one head often lie in the same one, which WebGPU cannot bind for reading and writing
//! at once; its int tensors are the i32 that labels are.
