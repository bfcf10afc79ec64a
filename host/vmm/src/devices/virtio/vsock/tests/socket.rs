//! Packets and connections as a guest keeps them.

use super::guest::GUEST_CID;
use crate::devices::virtio::vsock::packet::{HOST_CID, Header, Op, TYPE_STREAM};

/// What the guest buffers for each connection, unless a test says otherwise.
const GUEST_ROOM: u32 = 256 << 10;

/// A packet that the guest received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) header: Header,
    pub(super) payload: Vec<u8>,
}

impl Packet {
    pub(super) fn op(&self) -> Op {
        Op::from_number(self.header.op).unwrap()
    }
}

/// One end of a connection, as the guest knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Socket {
    pub(super) host_port: u32,
    pub(super) guest_port: u32,
    /// What the guest buffers, and what it has passed on.
    pub(super) room: u32,
    pub(super) passed: u32,
    /// What it sent.
    pub(super) sent: u32,
    /// What it knows of the host.
    pub(super) host_room: u32,
    pub(super) host_passed: u32,
}

impl Socket {
    pub(super) fn new(host_port: u32, guest_port: u32) -> Self {
        Self {
            host_port,
            guest_port,
            room: GUEST_ROOM,
            passed: 0,
            sent: 0,
            host_room: 0,
            host_passed: 0,
        }
    }

    /// A legal header.
    pub(super) fn header(&self, op: Op) -> Header {
        Header {
            src_cid: GUEST_CID.into(),
            dst_cid: HOST_CID,
            src_port: self.guest_port,
            dst_port: self.host_port,
            kind: TYPE_STREAM,
            op: op as u16,
            buf_alloc: self.room,
            fwd_cnt: self.passed,
            ..Header::default()
        }
    }

    pub(super) fn is_of(&self, packet: &Packet) -> bool {
        let header = &packet.header;
        (header.src_port, header.dst_port) == (self.host_port, self.guest_port)
    }

    /// Bytes that the guest may send.
    pub(super) fn credit(&self) -> u32 {
        self.host_room - self.sent.wrapping_sub(self.host_passed)
    }

    /// Takes in what a packet says of the host's buffer.
    pub(super) fn learn(&mut self, packet: &Packet) {
        self.host_room = packet.header.buf_alloc;
        self.host_passed = packet.header.fwd_cnt;
    }
}
