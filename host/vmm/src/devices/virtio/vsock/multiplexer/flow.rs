//! A connection with its socket.

use std::os::unix::net::UnixStream;

use vmm_sys_util::epoll::EventSet;

use crate::devices::virtio::Chain;
use crate::devices::virtio::vsock::connection::{Connection, Wait};
use crate::devices::virtio::vsock::packet::{HEADER_BYTES, Op};
use crate::devices::virtio::vsock::stream::{Input, Stream};

/// Most payload of one packet to the guest, however large its buffer: connections take turns.
/// Linux sends and takes as much (`VIRTIO_VSOCK_MAX_PKT_BUF_SIZE`).
const MAX_PAYLOAD_BYTES: usize = 64 << 10;

/// The ports by which a connection is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) host: u32,
    pub(super) guest: u32,
}

/// A packet to the guest whose payload, if any, is in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outgoing {
    pub(super) op: Op,
    pub(super) flags: u32,
    pub(super) payload_bytes: u32,
}

/// See the module.
pub(super) struct Flow {
    pub(super) key: Key,
    pub(super) connection: Connection,
    /// Until the connection needs it no more.
    pub(super) stream: Option<Stream>,
    /// For which events the socket is watched.
    pub(super) interest: EventSet,
    /// What its deadline is for.
    pub(super) wait: Option<Wait>,
    pub(super) is_queued: bool,
    /// Whether the host's port was allocated for it.
    pub(super) owns_port: bool,
}

impl Flow {
    /// `socket` is watched for input.
    pub(super) fn new(
        key: Key,
        connection: Connection,
        socket: UnixStream,
        owns_port: bool,
    ) -> Self {
        Self {
            key,
            connection,
            stream: Some(Stream::new(socket)),
            interest: Stream::INPUT,
            wait: None,
            is_queued: false,
            owns_port,
        }
    }

    fn has_input(&self) -> bool {
        self.stream.as_ref().is_some_and(Stream::has_input)
    }

    /// Whether there may be a packet for the guest.
    pub(super) fn has_work(&self) -> bool {
        let has_input = self.has_input();
        self.connection.due(has_input).is_some() || has_input && self.connection.may_send() > 0
    }

    /// Ends the directions that the guest is done with at the socket.
    pub(super) fn end_directions(&mut self) {
        let done = self.connection.guest_is_done_with();
        if let Some(stream) = &mut self.stream {
            stream.end(done);
        }
    }

    /// The host end takes no more.
    pub(super) fn host_takes_no_more(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.discard();
        }
        self.connection.host_takes_no_more();
    }

    /// Sends what waits for the host end.
    pub(super) fn flush(&mut self) {
        match self.stream.as_mut().map(Stream::flush) {
            Some(Ok(bytes)) => self.connection.passed_on(bytes as u32),
            Some(Err(_)) => self.host_takes_no_more(),
            None => {}
        }
    }

    /// The next packet for the guest. Payload is read to where it belongs in `chain`, which has
    /// room for a header and more.
    pub(super) fn next(&mut self, chain: &Chain) -> Option<Outgoing> {
        if let Some(outgoing) = self.next_without_payload() {
            return Some(outgoing);
        }
        let allowed = self.connection.may_send() as usize;
        let stream = self.stream.as_mut().filter(|stream| stream.has_input())?;
        if allowed == 0 {
            return None;
        }
        let mut writer = chain.writer();
        writer.take(HEADER_BYTES).ok()?;
        let room = writer.remaining().min(MAX_PAYLOAD_BYTES).min(allowed);
        match stream.read(writer.take(room).ok()?) {
            Ok(Input::Bytes(bytes)) => {
                self.connection.sent(bytes as u32);
                return Some(Outgoing {
                    op: Op::Data,
                    flags: 0,
                    payload_bytes: bytes as u32,
                });
            }
            Ok(Input::Nothing) => return None,
            Ok(Input::End) => self.connection.host_ended(),
            // It went away and left unread what the guest had sent.
            Err(_) => self.connection.reset(),
        }
        self.next_without_payload()
    }

    fn next_without_payload(&mut self) -> Option<Outgoing> {
        let (op, flags) = self.connection.due(self.has_input())?;
        self.connection.did(op);
        Some(Outgoing {
            op,
            flags,
            payload_bytes: 0,
        })
    }
}
