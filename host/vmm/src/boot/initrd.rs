//! Where the initial RAM disk goes.

use super::kernel::Kernel;
use super::layout;

/// Pages are what Linux frees an initrd by.
const PAGE: u64 = 4096;

/// Room that a kernel needs beside the initrd, bytes: it is loaded at 16 MiB by default, and
/// this leaves it as much again.
const KERNEL_ROOM: u64 = 32 << 20;

/// The initial RAM disk does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InitrdError {
    /// It is empty.
    #[error("it is empty")]
    Empty,
    /// There is no room for it beside the kernel.
    #[error("it has {bytes} bytes; beside the kernel there is room for {room}")]
    TooLarge {
        /// Size of the initrd.
        bytes: u64,
        /// What there is room for.
        room: u64,
    },
}

/// Whether an initrd of `initrd_bytes` can fit into a VM of `memory_bytes`, whatever its kernel.
///
/// # Errors
/// [`InitrdError`] with the sizes.
pub fn check_initrd(initrd_bytes: u64, memory_bytes: u64) -> Result<(), InitrdError> {
    let room = memory_bytes
        .min(layout::HOLE_START)
        .saturating_sub(KERNEL_ROOM);
    match initrd_bytes {
        0 => Err(InitrdError::Empty),
        bytes if bytes > room => Err(InitrdError::TooLarge { bytes, room }),
        _ => Ok(()),
    }
}

/// The highest page-aligned place for `bytes` above the kernel and below what the kernel allows.
pub(crate) fn place(kernel: &Kernel, bytes: u64, memory_bytes: u64) -> Result<u64, InitrdError> {
    if bytes == 0 {
        return Err(InitrdError::Empty);
    }
    let top = memory_bytes.min(layout::HOLE_START).min(kernel.initrd_max);
    let floor = kernel.end().next_multiple_of(PAGE);
    let address = top.saturating_sub(bytes) & !(PAGE - 1);
    if address < floor {
        return Err(InitrdError::TooLarge {
            bytes,
            room: top.saturating_sub(floor),
        });
    }
    Ok(address)
}
