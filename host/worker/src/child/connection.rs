//! One connection to a worker: frames in, frames out, and how long a peer may take.

use std::collections::BTreeSet;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use bytes::{Buf as _, BytesMut};
use rustix::net::sockopt::socket_peercred;
use serde::Serialize;
use tokio_util::codec::LengthDelimitedCodec;

use crate::frame::{self, FrameError};
use crate::limits::{
    HELLO_DEADLINE, MAX_FRAME_BYTES, MAX_HELLO_BYTES, MAX_PENDING_OUTPUT_BYTES, PROGRESS_DEADLINE,
};
use crate::protocol::{HostMessage, WorkerMessage};

/// Bytes that are read at a time; the stack's, so that an idle connection costs no heap.
const READ_BYTES: usize = 8 << 10;

/// Buffers that have grown past this are given back when they are empty.
const KEPT_BUFFER_BYTES: usize = 8 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The peer has not said hello yet.
    Greeting,
    /// The peer is the host.
    Serving,
    /// What is queued is still sent; nothing is read any more.
    Closing,
}

pub(crate) struct Connection {
    stream: UnixStream,
    codec: LengthDelimitedCodec,
    input: BytesMut,
    output: BytesMut,
    phase: Phase,
    /// When the peer must have said hello or finished the frame that it began.
    input_due: Option<Instant>,
    /// When the peer must have read something of what is queued.
    output_due: Option<Instant>,
    /// Whether input was left unlooked at because the peer does not read.
    held: bool,
    /// Whether the peer wants to know of more output.
    pub(crate) watching: bool,
    /// The ports of the console of whose output it wants to know more: each of them exists.
    pub(crate) watching_ports: BTreeSet<usize>,
    /// The number of the last event that was queued.
    pub(crate) told: u64,
}

impl Connection {
    /// A connection whose peer is this user or root; `None` if it is not.
    pub(crate) fn accept(stream: UnixStream, now: Instant) -> io::Result<Option<Self>> {
        let peer = socket_peercred(&stream)?;
        if !peer.uid.is_root() && peer.uid != rustix::process::getuid() {
            return Ok(None);
        }
        stream.set_nonblocking(true)?;
        Ok(Some(Self {
            stream,
            codec: frame::codec(MAX_HELLO_BYTES),
            input: BytesMut::new(),
            output: BytesMut::new(),
            phase: Phase::Greeting,
            input_due: Some(now + HELLO_DEADLINE),
            output_due: None,
            held: false,
            watching: false,
            watching_ports: BTreeSet::new(),
            told: 0,
        }))
    }

    pub(crate) const fn phase(&self) -> Phase {
        self.phase
    }

    pub(crate) const fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// The peer has proved that it is the host.
    pub(crate) fn authenticated(&mut self) {
        self.phase = Phase::Serving;
        self.codec.set_max_frame_length(MAX_FRAME_BYTES);
        self.input_due = None;
    }

    /// Sends what is queued, then closes.
    pub(crate) fn close(&mut self) {
        self.phase = Phase::Closing;
        self.watching = false;
        self.watching_ports.clear();
        self.input_due = None;
        self.input = BytesMut::new();
    }

    /// Whether more is read from the peer now: not while it does not read what it was sent.
    pub(crate) fn takes_input(&self) -> bool {
        self.phase != Phase::Closing && self.output.len() <= MAX_PENDING_OUTPUT_BYTES
    }

    /// Whether input waits that can be looked at now.
    pub(crate) fn has_waiting_input(&self) -> bool {
        self.held && self.takes_input()
    }

    pub(crate) fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// The moment at which the connection is given up unless the peer does something.
    pub(crate) fn due(&self) -> Option<Instant> {
        [self.input_due, self.output_due]
            .into_iter()
            .flatten()
            .min()
    }

    /// Reads what there is, up to a bound; an error when the peer is gone.
    pub(crate) fn fill(&mut self) -> io::Result<()> {
        let mut bytes = [0; READ_BYTES];
        while self.input.len() <= MAX_FRAME_BYTES {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.input
                        .extend_from_slice(bytes.get(..count).unwrap_or_default());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The next whole message, if there is one and it may be taken now.
    pub(crate) fn next(&mut self, now: Instant) -> Result<Option<HostMessage>, FrameError> {
        self.held = !self.takes_input() && !self.input.is_empty();
        if !self.takes_input() {
            return Ok(None);
        }
        let message = frame::decode(&mut self.codec, &mut self.input)?;
        if self.phase == Phase::Serving {
            // A frame that has begun must end; the time runs from its first byte.
            self.input_due = match (&message, self.input.is_empty()) {
                (_, true) => None,
                (Some(_), false) => Some(now + PROGRESS_DEADLINE),
                (None, false) => self.input_due.or(Some(now + PROGRESS_DEADLINE)),
            };
        }
        shrink(&mut self.input);
        Ok(message)
    }

    /// Queues a message.
    pub(crate) fn queue(&mut self, message: &WorkerMessage, now: Instant) {
        // Answers are bounded to fit a frame; one that would not is a fault of this program,
        // and the host's deadline for it tells.
        let encoded = encode(message, &mut self.output);
        if encoded.is_ok() {
            self.output_due.get_or_insert(now + PROGRESS_DEADLINE);
        }
    }

    /// Sends of what is queued as much as the peer takes; an error when it is gone.
    pub(crate) fn flush(&mut self, now: Instant) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.output.advance(count);
                    self.output_due = Some(now + PROGRESS_DEADLINE);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.output_due = None;
        shrink(&mut self.output);
        Ok(())
    }
}

#[cfg(any(test, fuzzing))]
impl Connection {
    /// What a peer can make the worker keep is bounded.
    pub(super) fn assert_bounded(&self) {
        // The last piece that was read, and the length of a frame.
        assert!(self.input.len() <= MAX_FRAME_BYTES + READ_BYTES);
        // The last answer, which may be as large as a frame is.
        assert!(self.output.len() <= MAX_PENDING_OUTPUT_BYTES + MAX_FRAME_BYTES + 4);
    }
}

fn encode<M: Serialize>(message: &M, output: &mut BytesMut) -> Result<(), FrameError> {
    frame::encode(&mut frame::codec(MAX_FRAME_BYTES), message, output)
}

fn shrink(buffer: &mut BytesMut) {
    if buffer.is_empty() && buffer.capacity() > KEPT_BUFFER_BYTES {
        *buffer = BytesMut::new();
    }
}
