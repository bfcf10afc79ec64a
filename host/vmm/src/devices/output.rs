//! What the host keeps of a port's output, and how it is told of more. Serial port and virtio
//! console have the same.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

/// Output that is kept of each port, bytes: a screenful of a crash, several times over.
pub const OUTPUT_RING_BYTES: usize = 64 << 10;

/// A piece of a guest's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SerialChunk {
    /// Position of the first byte in all output since the guest started.
    pub offset: u64,
    /// The output.
    pub bytes: Vec<u8>,
}

/// The last bytes of output. Nothing is allocated before there is some.
#[derive(Debug, Default)]
pub(crate) struct OutputRing {
    bytes: VecDeque<u8>,
    /// Bytes that ever got in.
    end: u64,
}

impl OutputRing {
    /// Appends `bytes`; the oldest that have no room any more are gone.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let kept = bytes.len().min(OUTPUT_RING_BYTES);
        let (_, last) = bytes.split_at(bytes.len() - kept);
        let excess = (self.bytes.len() + kept).saturating_sub(OUTPUT_RING_BYTES);
        // First the oldest, so that it never holds more.
        self.bytes.drain(..excess);
        self.bytes.extend(last);
        self.end += bytes.len() as u64;
    }

    /// Output from position `from` on, at most `max` bytes. What is no longer kept is skipped.
    pub(crate) fn read(&self, from: u64, max: usize) -> SerialChunk {
        let start = self.end - self.bytes.len() as u64;
        let offset = from.clamp(start, self.end);
        let skip = (offset - start) as usize;
        SerialChunk {
            offset,
            bytes: self.bytes.iter().skip(skip).take(max).copied().collect(),
        }
    }

    /// Bytes that ever got in.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }
}

/// An eventfd that becomes readable when something happens; whoever waits for it drains it.
#[derive(Debug)]
pub(crate) struct Signal(OwnedFd);

impl Signal {
    /// # Errors
    /// No more descriptors.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(
            0,
            EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC,
        )?))
    }

    /// Makes it readable.
    pub(crate) fn raise(&self) {
        // It can fail only when the counter is full, and then it is readable.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// How often it was raised since the last call.
    pub(crate) fn take(&self) -> u64 {
        let mut count = [0; 8];
        match rustix::io::read(&self.0, &mut count) {
            Ok(_) => u64::from_ne_bytes(count),
            // Not once.
            Err(_) => 0,
        }
    }
}

impl AsFd for Signal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl std::os::fd::AsRawFd for Signal {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_larger_than_the_ring_leaves_its_end_and_counts_whole() {
        let mut ring = OutputRing::default();
        ring.push(b"before");
        let piece: Vec<u8> = (0..OUTPUT_RING_BYTES + 7).map(|n| n as u8).collect();
        ring.push(&piece);
        assert_eq!(ring.end(), 6 + piece.len() as u64);
        let chunk = ring.read(0, usize::MAX);
        assert_eq!((chunk.offset, &*chunk.bytes), (13, &piece[7..]));
        assert!(ring.bytes.capacity() < 2 * OUTPUT_RING_BYTES);
        ring.push(b"xy");
        let chunk = ring.read(ring.end() - 3, 2);
        assert_eq!(chunk.bytes, [piece[piece.len() - 1], b'x']);
    }

    #[test]
    fn a_signal_is_readable_once_for_all_that_happened() {
        let signal = Signal::new().unwrap();
        assert_eq!(signal.take(), 0);
        signal.raise();
        signal.raise();
        assert_eq!((signal.take(), signal.take()), (2, 0));
    }
}
