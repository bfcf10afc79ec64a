//! Packets as they are in the queues (virtio 1.2, section 5.10.6): a header, then the payload.

use crate::devices::virtio::{Reader, ShortBuffer};

/// Bytes of a header.
pub(super) const HEADER_BYTES: usize = 44;
/// The context id of the host.
pub(super) const HOST_CID: u64 = 2;
/// `VIRTIO_VSOCK_TYPE_STREAM`.
pub(super) const TYPE_STREAM: u16 = 1;
/// `VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE`: who sends it receives no more.
const SHUTDOWN_RECEIVE: u32 = 1;
/// `VIRTIO_VSOCK_SHUTDOWN_F_SEND`: who sends it sends no more.
const SHUTDOWN_SEND: u32 = 2;

/// What a packet is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Op {
    /// Connect to a port.
    Request = 1,
    /// Connected.
    Response = 2,
    /// Not, or no longer, connected.
    Reset = 3,
    /// One or both directions end.
    Shutdown = 4,
    /// Payload.
    Data = 5,
    /// Tells how much can be sent.
    CreditUpdate = 6,
    /// Asks how much can be sent.
    CreditRequest = 7,
}

impl Op {
    /// The operation of this number, if there is one.
    pub(super) fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Reset,
            4 => Self::Shutdown,
            5 => Self::Data,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            _ => return None,
        })
    }
}

/// The directions that one end is done with, for good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Done {
    /// It receives no more.
    pub(super) receiving: bool,
    /// It sends no more.
    pub(super) sending: bool,
}

impl Done {
    /// The flags of a `SHUTDOWN`; unknown ones mean nothing.
    pub(super) fn from_flags(flags: u32) -> Self {
        Self {
            receiving: flags & SHUTDOWN_RECEIVE != 0,
            sending: flags & SHUTDOWN_SEND != 0,
        }
    }

    pub(super) fn flags(self) -> u32 {
        let receiving = if self.receiving { SHUTDOWN_RECEIVE } else { 0 };
        let sending = if self.sending { SHUTDOWN_SEND } else { 0 };
        receiving | sending
    }

    pub(super) fn both(self) -> bool {
        self.receiving && self.sending
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self {
            receiving: self.receiving || other.receiving,
            sending: self.sending || other.sending,
        }
    }
}

/// `struct virtio_vsock_hdr`, as it came: nothing is checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) src_cid: u64,
    pub(super) dst_cid: u64,
    pub(super) src_port: u32,
    pub(super) dst_port: u32,
    /// Bytes of payload.
    pub(super) len: u32,
    /// The type of socket: [`TYPE_STREAM`].
    pub(super) kind: u16,
    /// See [`Op`].
    pub(super) op: u16,
    pub(super) flags: u32,
    /// Bytes that the sender of the packet buffers for the connection.
    pub(super) buf_alloc: u32,
    /// Bytes that it has passed on out of its buffer, modulo 2^32.
    pub(super) fwd_cnt: u32,
}

impl Header {
    /// Reads a header; the payload comes next.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ShortBuffer> {
        let mut bytes = [0; HEADER_BYTES];
        reader.read_exact(&mut bytes)?;
        Ok(Self::decode(&bytes))
    }

    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Self {
        let mut fields = Fields(bytes);
        Self {
            src_cid: u64::from_le_bytes(fields.next()),
            dst_cid: u64::from_le_bytes(fields.next()),
            src_port: u32::from_le_bytes(fields.next()),
            dst_port: u32::from_le_bytes(fields.next()),
            len: u32::from_le_bytes(fields.next()),
            kind: u16::from_le_bytes(fields.next()),
            op: u16::from_le_bytes(fields.next()),
            flags: u32::from_le_bytes(fields.next()),
            buf_alloc: u32::from_le_bytes(fields.next()),
            fwd_cnt: u32::from_le_bytes(fields.next()),
        }
    }

    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let fields: [&[u8]; 10] = [
            &self.src_cid.to_le_bytes(),
            &self.dst_cid.to_le_bytes(),
            &self.src_port.to_le_bytes(),
            &self.dst_port.to_le_bytes(),
            &self.len.to_le_bytes(),
            &self.kind.to_le_bytes(),
            &self.op.to_le_bytes(),
            &self.flags.to_le_bytes(),
            &self.buf_alloc.to_le_bytes(),
            &self.fwd_cnt.to_le_bytes(),
        ];
        let mut bytes = [0; HEADER_BYTES];
        for (to, from) in bytes.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        bytes
    }
}

/// The fields of a structure, one after the other; zero past its end.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn next<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().unwrap_or((&[0; N], &[]));
        self.0 = rest;
        *field
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_laid_out_as_the_specification_says() {
        let header = Header {
            src_cid: 0x0807_0605_0403_0201,
            dst_cid: 0x100f_0e0d_0c0b_0a09,
            src_port: 0x1413_1211,
            dst_port: 0x1817_1615,
            len: 0x1c1b_1a19,
            kind: 0x1e1d,
            op: 0x201f,
            flags: 0x2423_2221,
            buf_alloc: 0x2827_2625,
            fwd_cnt: 0x2c2b_2a29,
        };
        let bytes: Vec<u8> = (1..=44).collect();
        assert_eq!(header.encode().as_slice(), bytes);
        assert_eq!(Header::decode(&bytes.try_into().unwrap()), header);
    }

    #[test]
    fn operations_and_shutdown_flags_have_their_numbers() {
        for number in 0..=u16::MAX {
            let op = Op::from_number(number);
            assert_eq!(op.is_some(), (1..=7).contains(&number));
            assert!(op.is_none_or(|op| op as u16 == number));
        }
        for flags in 0..4 {
            assert_eq!(Done::from_flags(flags | !3).flags(), flags);
        }
    }
}
