//! The block device (virtio 1.2, section 5.2): disks whose files the host opened.
//!
//! ```text
//!   Block ── request: what the driver asks for, every field checked
//!     │                                                            ┌─ Ring: io_uring ──▶ raw file
//!     └── Backend: jobs in, results out, an eventfd in between ────┤
//!                                                                  └─ Threaded ──▶ dyn Image:
//!                                                                     raw file, qcow2 over its base
//! ```
//!
//! **Nothing blocks the device thread.** A raw file is read and written by the kernel's io_uring;
//! where a kernel or a sandbox has none, and for qcow2, whose library blocks, the disk has a thread
//! of its own. Either way what is under way is bounded in requests and bytes, which bounds how long
//! a pause waits.
//!
//! **Nobody shares what is written.** A VM's writes go to a file that it has locked for itself. An
//! image that many VMs use is the base of a qcow2 overlay that each has for itself; it is locked
//! against writers. Locks go with the open file description: whoever opened a file for a VM closes
//! its own copy when the VM has it.
//!
//! **Durability is what the driver was told.** A flush is answered after `fdatasync`. A driver that
//! did not negotiate `VIRTIO_BLK_F_FLUSH`, or that turned the cache off, gets each write answered
//! when it is durable (section 5.2.6.2).

mod backend;
mod config;
mod counters;
mod device;
mod events;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod open;
mod request;
mod space;
mod state;
#[cfg(test)]
mod tests;

pub use backend::{BaseName, create_qcow2};
pub use config::{BaseImage, DiskConfig, DiskError, DiskFormat, IoEngine};
pub(crate) use device::Block;
#[cfg(any(test, fuzzing))]
pub(crate) use fuzz::Bench as BlockBench;
pub use open::disk_bytes;
pub(crate) use state::BlockState;
