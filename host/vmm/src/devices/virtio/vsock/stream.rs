//! The host end of a connection: a Unix stream socket that never blocks, and what it does not take
//! yet.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use rustix::net::{SendFlags, send};
use vm_memory::{ReadVolatile as _, VolatileMemoryError, VolatileSlice};
use vmm_sys_util::epoll::EventSet;

use super::packet::Done;
use crate::devices::virtio::Reader;

/// Bytes that are copied from guest memory at a time.
const PIECE_BYTES: usize = 64 << 10;

/// What came of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Nothing is there.
    Nothing,
    /// Nothing will come any more.
    End,
}

/// A place to copy payload to; one for all connections.
#[derive(Debug, Default)]
pub(super) struct Scratch(Vec<u8>);

/// The host end.
#[derive(Debug)]
pub(super) struct Stream {
    socket: UnixStream,
    /// From the guest, not taken yet. The connection's credit bounds it.
    waiting: VecDeque<u8>,
    /// Whether there may be something to read.
    has_input: bool,
    /// What of the guest's the peer knows to be done.
    ended: Done,
}

impl Stream {
    /// `socket` must not block.
    pub(super) fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            waiting: VecDeque::new(),
            has_input: false,
            ended: Done::default(),
        }
    }

    /// What a socket is watched for at first. Edge-triggered: a peer that sends to a guest that does
    /// not read costs one event.
    pub(super) const INPUT: EventSet = EventSet::IN.union(EventSet::EDGE_TRIGGERED);

    /// The events that are of interest.
    pub(super) fn interest(&self) -> EventSet {
        match self.waiting.is_empty() {
            true => Self::INPUT,
            false => Self::INPUT | EventSet::OUT,
        }
    }

    pub(super) fn has_input(&self) -> bool {
        self.has_input
    }

    /// There may be something to read.
    pub(super) fn set_has_input(&mut self) {
        self.has_input = true;
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes `bytes` bytes of `reader`, which has them; returns how many the peer took of all that
    /// waited. The rest waits.
    ///
    /// # Errors
    /// The peer takes no more.
    pub(super) fn deliver(
        &mut self,
        reader: &mut Reader<'_>,
        bytes: usize,
        scratch: &mut Scratch,
    ) -> io::Result<usize> {
        let (mut left, mut taken) = (bytes, 0);
        while left > 0 {
            let piece = scratch.piece(left);
            let read = reader.read(piece);
            let (piece, _) = piece.split_at(read);
            let direct = match self.waiting.is_empty() {
                true => self.send(piece)?,
                false => 0,
            };
            self.waiting.extend(piece.iter().skip(direct));
            taken += direct;
            left = if read == 0 { 0 } else { left - read };
        }
        Ok(taken)
    }

    /// Sends what waits; returns how many bytes the peer took.
    ///
    /// # Errors
    /// The peer takes no more.
    pub(super) fn flush(&mut self) -> io::Result<usize> {
        let mut taken = 0;
        loop {
            let (first, _) = self.waiting.as_slices();
            let sent = match first.is_empty() {
                true => break,
                false => self.send(first)?,
            };
            if sent == 0 {
                return Ok(taken);
            }
            self.waiting.drain(..sent);
            taken += sent;
        }
        // Connections are many, and most of them are idle.
        self.waiting = VecDeque::new();
        Ok(taken)
    }

    /// Nothing waits any more.
    pub(super) fn discard(&mut self) {
        self.waiting = VecDeque::new();
    }

    /// Sends as much as the socket takes now.
    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match send(&self.socket, bytes, flags).map_err(io::Error::from) {
            Err(error) if is_not_now(&error) => Ok(0),
            result => result,
        }
    }

    /// Sends a few bytes at once, which the peer has to have room for.
    pub(super) fn send_whole(&self, bytes: &[u8]) -> io::Result<()> {
        match self.send(bytes)? {
            sent if sent == bytes.len() => Ok(()),
            _ => Err(ErrorKind::WriteZero.into()),
        }
    }

    /// Reads what is there into guest memory. `slices` are not empty.
    ///
    /// # Errors
    /// The peer is gone, and did not take all that it was sent.
    pub(super) fn read(&mut self, slices: Vec<VolatileSlice<'_>>) -> io::Result<Input> {
        let mut total = 0;
        for mut slice in slices {
            match self.socket.read_volatile(&mut slice) {
                Ok(0) if total == 0 => return Ok(Input::End),
                Ok(read) => {
                    total += read;
                    if read < slice.len() {
                        break;
                    }
                }
                // Whatever it is, it comes again.
                Err(_) if total > 0 => break,
                Err(VolatileMemoryError::IOError(error)) if is_not_now(&error) => {
                    self.has_input = false;
                    return Ok(Input::Nothing);
                }
                Err(VolatileMemoryError::IOError(error)) => return Err(error),
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(Input::Bytes(total))
    }

    /// The guest is done with this: so is the socket, as soon as all is taken.
    pub(super) fn end(&mut self, guest: Done) {
        // It can fail only when the peer is gone, and then there is nothing to end.
        if guest.receiving && !self.ended.receiving {
            let _ = self.socket.shutdown(Shutdown::Read);
            self.ended.receiving = true;
        }
        if guest.sending && !self.ended.sending && self.is_flushed() {
            let _ = self.socket.shutdown(Shutdown::Write);
            self.ended.sending = true;
        }
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Scratch {
    /// Room for `bytes`, or as much as there is at a time.
    fn piece(&mut self, bytes: usize) -> &mut [u8] {
        let bytes = bytes.min(PIECE_BYTES);
        if self.0.len() < bytes {
            self.0.resize(bytes, 0);
        }
        self.0.split_at_mut(bytes).0
    }
}

fn is_not_now(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
