//! From an image to a guest that can take its first step.
//!
//! [`kernel`] looks into the image without believing it, with a reader for each format; [`load`]
//! copies it and writes what its boot protocol wants to find; [`layout`] says where. [`firmware`] is
//! what a kernel may jump back to.

mod bzimage;
mod elf;
pub(crate) mod firmware;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod initrd;
mod kernel;
pub(crate) mod layout;
mod load;

#[cfg(any(test, fuzzing))]
pub(crate) use fuzz::Boot;
pub use initrd::{InitrdError, check_initrd};
pub(crate) use kernel::read_kernel;
pub use kernel::{KernelError, KernelFormat, KernelInfo, MAX_KERNEL_BYTES, inspect_kernel};
pub use load::LoadError;
pub(crate) use load::{Entry, Protocol, load};
