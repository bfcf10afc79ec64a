//! Waiting for a descriptor on tokio.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Has the runtime watch `fd` for being readable.
#[allow(unsafe_code)]
pub(crate) fn watch(fd: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: an `OwnedFd` is open and keeps its number until it is dropped, and the result
    // holds a share of it that it gives to nobody as its own.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}
