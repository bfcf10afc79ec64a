//! The buffers that the driver gave and that no packet was received into yet.
//!
//! They stay here from packet to packet, in the order in which the driver gave them, so that most
//! packets need no look at the ring. The ranges of guest memory that they consist of lie next to
//! each other, as `readv` takes them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;

use vm_memory::VolatileSlice;

use super::header::{HEADER_BYTES, NUM_BUFFERS_OFFSET};
use crate::devices::virtio::{Chain, DeviceError, MAX_SEGMENTS, Virtqueue};

/// Most ranges that are read into: one is kept for the byte that shows that a packet is longer.
const MAX_PIECES: usize = MAX_SEGMENTS - 1;

/// A range of guest memory that a chain of the same [`RxBuffers`] keeps mapped.
#[repr(transparent)]
struct Piece(libc::iovec);

// SAFETY: what it points to is guest memory, which any thread may access and no thread owns.
unsafe impl Send for Piece {}

impl Piece {
    fn of(slice: &VolatileSlice<'_>) -> Self {
        let guard = slice.ptr_guard_mut();
        Self(libc::iovec {
            iov_base: guard.as_ptr().cast(),
            iov_len: guard.len(),
        })
    }
}

struct Held {
    chain: Chain,
    pieces: usize,
    bytes: usize,
}

/// What reading a packet came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// So many bytes, with the header.
    Packet(usize),
    /// A packet that did not fit, and is gone.
    TooLong,
    /// The other end closed.
    End,
}

/// See the module.
#[derive(Default)]
pub(super) struct RxBuffers {
    chains: VecDeque<Held>,
    pieces: VecDeque<Piece>,
    bytes: usize,
}

impl RxBuffers {
    pub(super) fn is_empty(&self) -> bool {
        self.chains.is_empty()
    }

    /// Whether a packet of `bytes`, with its header, fits into one buffer or, if they can be
    /// merged, all. There may be room for no more than that.
    pub(super) fn suffice(&self, bytes: usize, merge: bool) -> bool {
        match merge {
            true => self.bytes >= bytes || self.pieces.len() >= MAX_PIECES,
            false => !self.is_empty(),
        }
    }

    /// Takes a buffer over, or gives it back: then there is no room until a packet was received.
    pub(super) fn push(&mut self, chain: Chain) -> Result<(), Chain> {
        let mut writer = chain.writer();
        // There are as many as remain.
        let slices = writer.take(writer.remaining()).unwrap_or_default();
        let room = MAX_PIECES.saturating_sub(self.pieces.len());
        if slices.len() > room && !self.is_empty() {
            drop(slices);
            return Err(chain);
        }
        // Of a buffer that alone has too many pieces, the last one is not used.
        let (before, mut bytes) = (self.pieces.len(), 0);
        for slice in slices.iter().take(room) {
            bytes += slice.len();
            self.pieces.push_back(Piece::of(slice));
        }
        drop(slices);
        self.bytes += bytes;
        self.chains.push_back(Held {
            chain,
            pieces: self.pieces.len() - before,
            bytes,
        });
        Ok(())
    }

    /// Reads a packet from `link` into the first buffers. `None`: there is none.
    pub(super) fn read_from(&mut self, link: &impl AsRawFd) -> io::Result<Option<Received>> {
        let mut beyond = 0_u8;
        self.pieces.push_back(Piece(libc::iovec {
            iov_base: (&raw mut beyond).cast(),
            iov_len: 1,
        }));
        let pieces = self.pieces.make_contiguous();
        let descriptor = link.as_raw_fd();
        // SAFETY: `pieces` are as many as it says, and a `Piece` is laid out as an iovec. Each is a
        // range that is valid for writing: `beyond`, or guest memory that a chain in `self.chains`
        // keeps mapped, since a piece goes when its chain goes. To guest memory there are no Rust
        // references.
        let read = unsafe {
            libc::readv(
                descriptor,
                pieces.as_ptr().cast(),
                pieces.len() as libc::c_int,
            )
        };
        // Before the byte that it points to goes.
        self.pieces.pop_back();
        match usize::try_from(read) {
            Ok(0) => Ok(Some(Received::End)),
            Ok(bytes) if bytes > self.bytes => Ok(Some(Received::TooLong)),
            Ok(bytes) => Ok(Some(Received::Packet(bytes))),
            Err(_) => match io::Error::last_os_error() {
                error if is_passing(&error) => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Gives the driver the packet of `bytes` that was read into the first buffers.
    pub(super) fn deliver(
        &mut self,
        bytes: usize,
        queue: &mut Virtqueue,
    ) -> Result<(), DeviceError> {
        let mut left = bytes;
        let uses = |held: &&Held| {
            let is_used = left > 0;
            left = left.saturating_sub(held.bytes);
            is_used
        };
        let count = self.chains.iter().take_while(uses).count();
        if let Some(first) = self.chains.front() {
            let mut writer = first.chain.writer();
            // It has room for the header, which was seen to when it was taken.
            writer.take(NUM_BUFFERS_OFFSET)?;
            writer.write_all(&(count as u16).to_le_bytes())?;
        }
        for held in self.chains.iter().take(count) {
            self.pieces.drain(..held.pieces);
            self.bytes -= held.bytes;
        }
        let mut left = bytes;
        let used = self.chains.drain(..count).map(|held| {
            let written = left.min(held.bytes);
            left -= written;
            (held.chain, written as u32)
        });
        Ok(queue.complete_together(used)?)
    }

    /// Gives all buffers back as if they had never been taken.
    pub(super) fn give_back(&mut self, queue: &mut Virtqueue) {
        self.pieces.clear();
        self.bytes = 0;
        while let Some(held) = self.chains.pop_back() {
            queue.unpop(held.chain);
        }
    }

    /// Forgets all of them: their queue is gone.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Whether `chain` is a buffer that packets can be received into (section 5.1.6.3.1).
pub(super) fn is_usable(chain: &Chain) -> bool {
    chain.readable_bytes() == 0 && chain.writable_bytes() as usize >= HEADER_BYTES
}

/// Whether reading may work the next time.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM)
    )
}
