//! The four requests about interfaces that TAPs need, as rtnetlink(7) has them: look up, change,
//! delete, and the kernel's acknowledgement. They are a few dozen bytes each and answered at once,
//! which is why they are written here, rather than by an asynchronous library for all of it.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send};

// Types and flags of messages: linux/netlink.h and linux/rtnetlink.h.
const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
// Attributes of interfaces: linux/if_link.h.
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
/// The bits of an attribute's type that are its type, not flags.
const NLA_TYPE_MASK: u16 = 0x3fff;
/// The interface is up: linux/if.h.
const IFF_UP: u32 = 1;

/// Bytes of `nlmsghdr`, and of `ifinfomsg` behind it.
const HEADER_BYTES: usize = 16;
/// Most bytes of an answer: what libmnl recommends.
const ANSWER_BYTES: usize = 32 << 10;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) index: i32,
    /// What made it: `tun`, `bridge`, …; empty for a piece of hardware.
    pub(super) kind: String,
    /// The index of the bridge that it belongs to.
    pub(super) bridge: Option<i32>,
    pub(super) mtu: Option<u32>,
    pub(super) is_up: bool,
}

/// A socket of the kernel's routing.
pub(super) struct Netlink(OwnedFd);

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        // No protocol is NETLINK_ROUTE.
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok(Self(socket))
    }

    /// The interface of this name, if there is one.
    pub(super) fn find(&self, name: &str) -> io::Result<Option<Interface>> {
        let mut request = Request::new(RTM_GETLINK, 0, 0);
        request.attribute(IFLA_IFNAME, &[name.as_bytes(), &[0]].concat());
        match self.ask(&request) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NODEV) => Ok(None),
            Err(error) => Err(error),
            Ok(answer) => answer.ok_or_else(nonsense).map(Some),
        }
    }

    /// Puts an interface up, with this MTU and into this bridge, if they are given.
    pub(super) fn set_up(
        &self,
        index: i32,
        mtu: Option<u32>,
        bridge: Option<i32>,
    ) -> io::Result<()> {
        let mut request = Request::new(RTM_NEWLINK, index, IFF_UP);
        if let Some(mtu) = mtu {
            request.attribute(IFLA_MTU, &mtu.to_ne_bytes());
        }
        if let Some(bridge) = bridge {
            request.attribute(IFLA_MASTER, &bridge.to_ne_bytes());
        }
        self.ask(&request).map(drop)
    }

    /// Deletes an interface, whoever has it open; it is no error if it is gone.
    pub(super) fn delete(&self, index: i32) -> io::Result<()> {
        match self.ask(&Request::new(RTM_DELLINK, index, 0)) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NODEV) => Ok(()),
            result => result.map(drop),
        }
    }

    /// Sends a request and reads the answer: an interface, or nothing but that it was done.
    fn ask(&self, request: &Request) -> io::Result<Option<Interface>> {
        send(&self.0, &request.finished(), SendFlags::empty())?;
        let mut answer = vec![0; ANSWER_BYTES];
        let (bytes, _) = recv(&self.0, &mut answer[..], RecvFlags::empty())?;
        answer.truncate(bytes);
        read_answer(&answer)
    }
}

/// A message being written. Numbers are in the machine's byte order.
struct Request(Vec<u8>);

impl Request {
    /// About the interface of `index`, or 0; `flags` are set on it.
    fn new(kind: u16, index: i32, flags: u32) -> Self {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        // What is looked up is its own acknowledgement.
        let ack = if kind == RTM_GETLINK { 0 } else { NLM_F_ACK };
        bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | ack).to_ne_bytes());
        // ifinfomsg: family and type are any, then index, flags, and which flags count.
        bytes.extend([0; 4]);
        bytes.extend(index.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        Self(bytes)
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let bytes = 4 + value.len();
        self.0.extend((bytes as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn finished(&self) -> Vec<u8> {
        let mut bytes = self.0.clone();
        bytes[..4].copy_from_slice(&(self.0.len() as u32).to_ne_bytes());
        bytes
    }
}

fn nonsense() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "an answer of the kernel's that makes no sense",
    )
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    bytes.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

fn read_answer(bytes: &[u8]) -> io::Result<Option<Interface>> {
    let kind = u16_at(bytes, 4).ok_or_else(nonsense)?;
    let body = bytes.get(HEADER_BYTES..).ok_or_else(nonsense)?;
    match kind {
        NLMSG_ERROR => match u32_at(body, 0).ok_or_else(nonsense)?.cast_signed() {
            0 => Ok(None),
            error => Err(io::Error::from_raw_os_error(error.saturating_neg())),
        },
        RTM_NEWLINK => read_interface(body).map(Some).ok_or_else(nonsense),
        _ => Err(nonsense()),
    }
}

fn read_interface(body: &[u8]) -> Option<Interface> {
    let mut interface = Interface {
        index: u32_at(body, 4)?.cast_signed(),
        kind: String::new(),
        bridge: None,
        mtu: None,
        is_up: u32_at(body, 8)? & IFF_UP != 0,
    };
    for (kind, value) in attributes(body.get(HEADER_BYTES..)?) {
        match kind {
            IFLA_MASTER => interface.bridge = u32_at(value, 0).map(u32::cast_signed),
            IFLA_MTU => interface.mtu = u32_at(value, 0),
            IFLA_LINKINFO => {
                let name = attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND);
                let name = name.map_or(&[][..], |(_, name)| name);
                let name = name.strip_suffix(&[0]).unwrap_or(name);
                interface.kind = String::from_utf8_lossy(name).into_owned();
            }
            _ => {}
        }
    }
    Some(interface)
}

/// Types and values; it ends where they make no sense.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & NLA_TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_its_length_and_pads_its_attributes() {
        let mut request = Request::new(RTM_GETLINK, 0, 0);
        request.attribute(IFLA_IFNAME, b"tap10\0");
        let bytes = request.finished();
        assert_eq!(bytes.len(), 16 + 16 + 4 + 8);
        assert_eq!(u32_at(&bytes, 0), Some(44));
        assert_eq!(u16_at(&bytes, 32), Some(10), "without the padding");
        let found: Vec<_> = attributes(&bytes[32..]).collect();
        assert_eq!(found, [(IFLA_IFNAME, &b"tap10\0"[..])]);
    }

    #[test]
    fn an_answer_is_an_interface_an_acknowledgement_or_an_error() {
        let mut interface = Request::new(RTM_NEWLINK, 7, IFF_UP);
        interface.attribute(IFLA_MTU, &1400_u32.to_ne_bytes());
        interface.attribute(IFLA_MASTER, &3_u32.to_ne_bytes());
        let kind = [8, 0, 1, 0, b't', b'u', b'n', 0];
        interface.attribute(IFLA_LINKINFO | 0x8000, &kind);
        let read = read_answer(&interface.finished()).unwrap();
        let expected = Interface {
            index: 7,
            kind: "tun".to_owned(),
            bridge: Some(3),
            mtu: Some(1400),
            is_up: true,
        };
        assert_eq!(read, Some(expected));

        let answer = |error: i32| {
            let mut bytes = vec![0; HEADER_BYTES];
            bytes[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
            bytes.extend(error.to_ne_bytes());
            read_answer(&bytes)
        };
        assert_eq!(answer(0).unwrap(), None);
        let refused = answer(-1).unwrap_err();
        assert_eq!(Errno::from_io_error(&refused), Some(Errno::PERM));
    }

    #[test]
    fn an_answer_cut_anywhere_is_read_as_far_as_it_goes_or_refused() {
        let mut interface = Request::new(RTM_NEWLINK, 7, 0);
        interface.attribute(IFLA_LINKINFO, &[8, 0, 1, 0, b't', b'u', b'n', 0]);
        let bytes = interface.finished();
        for end in 0..bytes.len() {
            match read_answer(&bytes[..end]) {
                Ok(read) => assert_eq!(read.unwrap().index, 7),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::InvalidData),
            }
        }
    }
}
