//! A driver of the device for fuzz targets, and the other end of its link.

use std::fs::File;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;

use arbitrary::{Arbitrary, Result, Unstructured};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};

use super::device::NetControl;
use super::{MAX_PACKET_BYTES, Net, NetConfig, NetLimits, RECEIVE, TRANSMIT};
use crate::devices::virtio::fuzz::{Length, Padded, Part, Shape, Subject};
use crate::devices::virtio::test_driver::{Buffer, Driver};
use crate::devices::virtio::{RateLimit, RateLimits};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

/// The device's link and the network.
pub(crate) struct Bench {
    link: File,
    network: Option<OwnedFd>,
    config: Config,
    control: Option<NetControl>,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
pub(crate) struct Config {
    offloads: bool,
    anti_spoofing: bool,
    mtu: Option<u8>,
}

#[derive(Debug)]
pub(crate) enum Request {
    /// A packet with its header, readable.
    Packet {
        header: [u8; 12],
        from: [u8; 6],
        payload: Vec<u8>,
    },
    /// Buffers to receive into.
    Receive(Vec<Length>),
    /// Anything.
    Other {
        queue: bool,
        readable: Padded,
        writable: Length,
    },
}

impl<'a> Arbitrary<'a> for Request {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match u.int_in_range(0..=15)? {
            0..=6 => Self::Packet {
                header: match u.ratio(1, 2)? {
                    true => [0; 12],
                    false => header(u)?,
                },
                from: match u.ratio(7, 8)? {
                    true => MAC,
                    false => u.arbitrary()?,
                },
                payload: u.arbitrary::<Padded>()?.0,
            },
            7..=14 => Self::Receive(u.arbitrary()?),
            _ => Self::Other {
                queue: u.arbitrary()?,
                readable: u.arbitrary()?,
                writable: u.arbitrary()?,
            },
        })
    }
}

/// A virtio header whose fields are of the size that they have in packets.
fn header(u: &mut Unstructured<'_>) -> Result<[u8; 12]> {
    let [flags, gso, length, size, start, offset]: [u8; 6] = u.arbitrary()?;
    let gso = [0, 1, 3, 4, 5, 0x81, 0x80, gso][usize::from(gso % 8)];
    Ok([
        flags % 4,
        gso,
        length,
        0,
        size,
        5,
        start,
        0,
        offset,
        0,
        0,
        0,
    ])
}

#[derive(Debug, Arbitrary)]
pub(crate) enum Host {
    /// A packet comes, with its header.
    Send { header: [u8; 12], packet: Padded },
    /// A packet comes behind a header that asks for nothing.
    Plain(Padded),
    /// The network takes what came from the guest.
    Take,
    Limit {
        receive: bool,
        per_second: Option<NonZeroU64>,
        burst: u32,
    },
    /// The network goes away.
    Close(u8),
}

impl Subject for Bench {
    type Config = Config;
    type Request = Request;
    type Host = Host;
    type Device = Net;

    fn new(config: &Config) -> Self {
        let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        let (link, network) = socketpair(AddressFamily::UNIX, kind, flags, None).unwrap();
        Self {
            link: link.into(),
            network: Some(network),
            config: *config,
            control: None,
        }
    }

    fn device(&mut self) -> Net {
        let mut config = NetConfig::new(self.link.try_clone().unwrap(), MAC);
        config.offloads = self.config.offloads;
        config.anti_spoofing = self.config.anti_spoofing;
        config.mtu = self.config.mtu.map(|mtu| 68 + 256 * u16::from(mtu));
        let net = Net::new(config).unwrap();
        self.control = Some(net.control());
        net
    }

    fn shape(&self, request: &Request) -> Shape {
        match request {
            Request::Packet {
                header,
                from,
                payload,
            } => {
                let ethernet = [&[0xff; 6][..], from, &[8, 0]].concat();
                let mut parts = vec![Part::Read([&header[..], &ethernet].concat())];
                if !payload.is_empty() {
                    parts.push(Part::Read(payload.clone()));
                }
                Shape {
                    queue: TRANSMIT,
                    parts,
                }
            }
            Request::Receive(buffers) => {
                let buffers = buffers.iter().take(4);
                let parts = buffers.map(|bytes| Part::Write(bytes.0)).collect();
                Shape {
                    queue: RECEIVE,
                    parts,
                }
            }
            Request::Other {
                queue,
                readable,
                writable,
            } => Shape {
                queue: (*queue).into(),
                parts: vec![Part::Read(readable.0.clone()), Part::Write(writable.0)],
            },
        }
    }

    fn host(&mut self, action: &Host) {
        let transmit = |bytes: &[u8]| {
            if let Some(network) = &self.network {
                // A full queue drops it, as a network does.
                let _ = send(network, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
            }
        };
        match action {
            Host::Send { header, packet } => transmit(&[&header[..], &packet.0].concat()),
            Host::Plain(packet) => transmit(&[&[0; 12][..], &[0xff; 14], &packet.0].concat()),
            Host::Take => while take(self.network.as_ref()).is_some() {},
            Host::Limit {
                receive,
                per_second,
                burst,
            } => {
                let bytes = per_second.map(|per_second| RateLimit {
                    per_second,
                    burst: (*burst).into(),
                });
                let limits = RateLimits {
                    bytes,
                    operations: None,
                };
                let mut both = NetLimits::default();
                match receive {
                    true => both.receive = limits,
                    false => both.transmit = limits,
                }
                self.set_limits(both);
            }
            Host::Close(0) => self.network = None,
            Host::Close(_) => {}
        }
    }

    fn works(&mut self, driver: &mut Driver) {
        self.set_limits(NetLimits::default());
        while take(self.network.as_ref()).is_some() {}
        let packet = [&[0; 12][..], &[0xff; 6], &MAC, &[8, 0], b"works"].concat();
        let request = driver.send(TRANSMIT, &[Buffer::Read(&packet)]);
        assert_eq!(driver.used(TRANSMIT), [(request.head, 0)]);
        let Some(network) = &self.network else {
            return;
        };
        assert_eq!(take(Some(network)), Some(packet.clone()));
        driver.add(RECEIVE, &[Buffer::Write(2048)]);
        driver.notify(RECEIVE);
        driver.run();
        send(network, &packet, SendFlags::DONTWAIT).unwrap();
        driver.run();
        assert_eq!(driver.used(RECEIVE).len(), 1, "a packet is received");
    }
}

impl Bench {
    fn set_limits(&self, limits: NetLimits) {
        for control in self.control.iter() {
            control.set_limits(limits);
        }
    }
}

/// The next packet from the guest.
fn take(network: Option<&OwnedFd>) -> Option<Vec<u8>> {
    let mut bytes = vec![0; MAX_PACKET_BYTES];
    let received = recv(network?, &mut bytes[..], RecvFlags::DONTWAIT).ok()?.0;
    bytes.truncate(received);
    Some(bytes)
}
