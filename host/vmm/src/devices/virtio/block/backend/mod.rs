//! What carries out a disk's requests while the device thread does something else.

mod image;
mod qcow2;
mod qcow2_header;
mod raw;
mod ring;
mod segments;
mod slot;
mod threaded;
mod wake;

use std::io;
use std::os::fd::BorrowedFd;

use vm_memory::VolatileSlice;

pub(super) use self::image::Image;
pub(super) use self::qcow2::Qcow2Image;
pub use self::qcow2::{BaseName, create_qcow2};
pub(super) use self::qcow2_header::Qcow2Header;
pub(super) use self::raw::RawImage;
pub(super) use self::ring::Ring;
pub(super) use self::threaded::Threaded;
use super::request::HEADER_BYTES;
use crate::devices::virtio::{Chain, ShortBuffer};

/// Most ranges of memory in one call to the kernel (Linux, `UIO_MAXIOV`).
const MAX_RANGES: usize = 1024;

/// Bytes of a disk. Inside of it: that was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ByteRange {
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

/// What a backend does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Read(ByteRange),
    Write(ByteRange),
    /// What was written becomes durable.
    Flush,
    /// What is in the range is of no use any more.
    Discard(ByteRange),
    /// The range reads as zeroes. If `unmap` it need not stay allocated.
    WriteZeroes {
        range: ByteRange,
        unmap: bool,
    },
    /// What was written is in the file for whoever opens it next, durable or not.
    Settle,
}

impl Operation {
    /// Bytes that are copied to or from the guest.
    pub(super) fn data_bytes(self) -> u64 {
        match self {
            Self::Read(range) | Self::Write(range) => range.bytes,
            _ => 0,
        }
    }
}

/// An operation on its way.
pub(super) struct Job {
    pub(super) operation: Operation,
    /// The request that it is for.
    pub(super) chain: Option<Chain>,
    /// It is done only when it is durable.
    pub(super) durable: bool,
}

impl Job {
    /// The guest's buffers for the data.
    fn buffers(&self) -> Result<Vec<VolatileSlice<'_>>, ShortBuffer> {
        let bytes = self.operation.data_bytes() as usize;
        match (&self.chain, self.operation) {
            (Some(chain), Operation::Read(_)) => chain.writer().take(bytes),
            (Some(chain), Operation::Write(_)) => {
                let mut reader = chain.reader();
                reader.take(HEADER_BYTES as usize)?;
                reader.take(bytes)
            }
            _ => Ok(Vec::new()),
        }
    }
}

/// A job that came to its end.
pub(super) struct Done {
    pub(super) job: Job,
    pub(super) result: io::Result<()>,
}

/// Carries out jobs in any order, several at once. What must come after something else is
/// submitted when that is done.
pub(super) trait Backend: Send {
    /// What it is, for tests.
    #[cfg(test)]
    fn name(&self) -> &'static str;

    /// Readable when jobs are done, until [`Self::completed`].
    fn wake(&self) -> BorrowedFd<'_>;

    /// Jobs that were submitted and not yet returned.
    fn in_flight(&self) -> usize;

    /// Takes a job. It may wait for [`Self::start`].
    ///
    /// # Errors
    /// The job is lost, and the backend of no use any more.
    fn submit(&mut self, job: Job) -> io::Result<()>;

    /// Starts what was submitted.
    ///
    /// # Errors
    /// The backend is of no use any more.
    fn start(&mut self) -> io::Result<()>;

    /// The jobs that are done. Does not wait.
    ///
    /// # Errors
    /// The backend is of no use any more.
    fn completed(&mut self) -> io::Result<Vec<Done>>;

    /// Waits for a job to be done, if there are any, and returns those that are.
    ///
    /// # Errors
    /// The backend is of no use any more.
    fn wait(&mut self) -> io::Result<Vec<Done>>;

    /// Gives up all jobs. None is under way afterwards; what they would have done may have been
    /// done in part.
    fn cancel(&mut self);
}
