//! A driver of the device for fuzz targets, and programs of the host.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};

use arbitrary::{Arbitrary, Result, Unstructured};
use tempfile::TempDir;

use super::device::{EVENTS, RECEIVE, TRANSMIT};
use super::packet::{HEADER_BYTES, HOST_CID, Header, Op, TYPE_STREAM};
use super::{Vsock, VsockConfig, VsockLimits};
use crate::devices::virtio::fuzz::{Length, Padded, Part, Shape, Subject};
use crate::devices::virtio::test_driver::{Buffer, Driver};

const GUEST_CID: u32 = 52;
/// Ports at which programs of the host listen.
const LISTENING: [u32; 2] = [1, 2];
/// Most sockets that the host's programs have at a time.
const MAX_STREAMS: usize = 16;

thread_local! {
    /// The VM's directory: making one takes longer than a script.
    static PLACE: Place = Place::new();
}

struct Place {
    directory: TempDir,
    /// Where programs of the host connect.
    listener: UnixListener,
    /// Programs of the host that the guest can reach.
    programs: Vec<UnixListener>,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listen = |name: &str| {
            let listener = UnixListener::bind(directory.path().join(name)).unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        };
        let programs = LISTENING.map(|port| listen(&format!("v_{port}")));
        Self {
            listener: listen("v"),
            programs: programs.into(),
            directory,
        }
    }

    /// Nobody waits any more.
    fn clear(&self) {
        for listener in self.programs.iter().chain([&self.listener]) {
            while listener.accept().is_ok() {}
        }
    }
}

/// Programs of the host, and what the guest knows of them.
pub(crate) struct Bench {
    buffer_bytes: u32,
    streams: Vec<UnixStream>,
    /// Headers of the last packets that the guest received.
    received: VecDeque<Header>,
}

#[derive(Debug)]
pub(crate) enum Request {
    Packet(Packet),
    Receive(Length),
    Event(Length),
    Other {
        queue: u8,
        readable: Padded,
        writable: Length,
    },
}

/// A packet that the guest sends.
#[derive(Debug)]
pub(crate) struct Packet {
    /// It is about the connection of one of the last packets that came, rather than of these ports.
    answers: Option<u8>,
    guest_port: u32,
    host_port: u32,
    op: u16,
    flags: u32,
    room: u32,
    passed: u32,
    payload: Vec<u8>,
    /// What makes no sense about it, if anything does not.
    wrong: Option<Wrong>,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Wrong {
    Kind(u16),
    From(u64),
    To(u64),
    Length(u32),
    Short(u8),
}

impl<'a> Arbitrary<'a> for Request {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match u.int_in_range(0..=15)? {
            0..=8 => Self::Packet(u.arbitrary()?),
            9..=13 => Self::Receive(u.arbitrary()?),
            14 => Self::Event(u.arbitrary()?),
            _ => Self::Other {
                queue: u.arbitrary()?,
                readable: u.arbitrary()?,
                writable: u.arbitrary()?,
            },
        })
    }
}

impl<'a> Arbitrary<'a> for Packet {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Self {
            answers: u.arbitrary()?,
            guest_port: u32::from(u.arbitrary::<u8>()? % 4),
            host_port: match u.int_in_range(0..=7)? {
                0 => u.arbitrary()?,
                1 => 1 << 30,
                other => other % 3,
            },
            op: match u.int_in_range(0..=15)? {
                0 => u.arbitrary()?,
                op => [1, 1, 2, 2, 3, 4, 4, 5, 5, 5, 5, 5, 6, 7, 7][usize::from(op as u8) - 1],
            },
            flags: match u.ratio(7, 8)? {
                true => u32::from(u.arbitrary::<u8>()? % 4),
                false => u.arbitrary()?,
            },
            room: match u.ratio(3, 4)? {
                true => 64 << 10,
                false => u.arbitrary()?,
            },
            passed: match u.ratio(3, 4)? {
                true => u32::from(u.arbitrary::<u8>()?),
                false => u.arbitrary()?,
            },
            payload: match u.ratio(1, 2)? {
                true => u.arbitrary::<Padded>()?.0,
                false => Vec::new(),
            },
            wrong: match u.ratio(1, 16)? {
                true => Some(u.arbitrary()?),
                false => None,
            },
        })
    }
}

#[derive(Debug)]
pub(crate) enum Host {
    /// A program connects, and says this.
    Connect(Vec<u8>),
    /// A program accepts the guest's connection.
    Accept(bool),
    Write {
        stream: u8,
        bytes: Padded,
    },
    Read {
        stream: u8,
        most: u16,
    },
    Shutdown {
        stream: u8,
        writing: bool,
    },
    Close(u8),
}

impl<'a> Arbitrary<'a> for Host {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let stream = u.arbitrary()?;
        Ok(match u.int_in_range(0..=15)? {
            0..=3 => Self::Connect(format!("CONNECT {}\n", stream % 4).into_bytes()),
            4 => Self::Connect(u.arbitrary::<Padded>()?.0),
            5..=7 => Self::Accept(u.arbitrary()?),
            8..=10 => Self::Write {
                stream,
                bytes: u.arbitrary()?,
            },
            11 | 12 => Self::Read {
                stream,
                most: u.arbitrary()?,
            },
            13 | 14 => Self::Shutdown {
                stream,
                writing: u.arbitrary()?,
            },
            _ => Self::Close(stream),
        })
    }
}

impl Packet {
    fn bytes(&self, received: &VecDeque<Header>) -> Vec<u8> {
        let (guest, host) = (self.guest_port, self.host_port);
        let at = self
            .answers
            .map(|at| usize::from(at) % received.len().max(1));
        let (src_port, dst_port) = match at.and_then(|at| received.get(at)) {
            Some(header) => (header.dst_port, header.src_port),
            None => (guest, host),
        };
        let mut header = Header {
            src_cid: GUEST_CID.into(),
            dst_cid: HOST_CID,
            src_port,
            dst_port,
            len: self.payload.len() as u32,
            kind: TYPE_STREAM,
            op: self.op,
            flags: self.flags,
            buf_alloc: self.room,
            fwd_cnt: self.passed,
        };
        let mut bytes = HEADER_BYTES;
        match self.wrong {
            Some(Wrong::Kind(kind)) => header.kind = kind,
            Some(Wrong::From(cid)) => header.src_cid = cid,
            Some(Wrong::To(cid)) => header.dst_cid = cid,
            Some(Wrong::Length(bytes)) => header.len = bytes,
            Some(Wrong::Short(some)) => bytes = usize::from(some) % HEADER_BYTES,
            None => {}
        }
        let mut packet = header.encode()[..bytes].to_vec();
        packet.extend(&self.payload);
        packet
    }
}

impl Subject for Bench {
    type Config = u8;
    type Request = Request;
    type Host = Host;
    type Device = Vsock;

    fn new(buffer: &u8) -> Self {
        PLACE.with(Place::clear);
        Self {
            buffer_bytes: 4096 << (buffer % 5),
            streams: Vec::new(),
            received: VecDeque::new(),
        }
    }

    fn device(&mut self) -> Vsock {
        let config = PLACE.with(|place| VsockConfig {
            guest_cid: GUEST_CID,
            listener: place.listener.try_clone().unwrap(),
            directory: File::open(place.directory.path()).unwrap().into(),
            prefix: "v".to_owned(),
            limits: VsockLimits {
                connections: 8,
                buffer_bytes: self.buffer_bytes,
            },
        });
        Vsock::new(config).unwrap()
    }

    fn shape(&self, request: &Request) -> Shape {
        let (queue, parts) = match request {
            Request::Packet(packet) => (TRANSMIT, vec![Part::Read(packet.bytes(&self.received))]),
            Request::Receive(room) => (RECEIVE, vec![Part::Write(room.0)]),
            Request::Event(room) => (EVENTS, vec![Part::Write(room.0)]),
            Request::Other {
                queue,
                readable,
                writable,
            } => (
                u16::from(*queue) % 4,
                vec![Part::Read(readable.0.clone()), Part::Write(writable.0)],
            ),
        };
        Shape { queue, parts }
    }

    fn host(&mut self, action: &Host) {
        match action {
            Host::Connect(line) if self.streams.len() < MAX_STREAMS => {
                let path = PLACE.with(|place| place.directory.path().join("v"));
                let mut stream = UnixStream::connect(path).unwrap();
                stream.set_nonblocking(true).unwrap();
                let _ = stream.write(line);
                self.streams.push(stream);
            }
            Host::Accept(second) if self.streams.len() < MAX_STREAMS => {
                let accepted = PLACE.with(|place| place.programs[usize::from(*second)].accept());
                if let Ok((stream, _)) = accepted {
                    stream.set_nonblocking(true).unwrap();
                    self.streams.push(stream);
                }
            }
            Host::Close(stream) if !self.streams.is_empty() => {
                let at = usize::from(*stream) % self.streams.len();
                self.streams.remove(at);
            }
            Host::Write { stream, bytes } => {
                // What it has no room for is written later, or never.
                let _ = self.stream(*stream).map(|stream| stream.write(&bytes.0));
            }
            Host::Read { stream, most } => {
                let mut bytes = vec![0; usize::from(*most)];
                let _ = self.stream(*stream).map(|stream| stream.read(&mut bytes));
            }
            Host::Shutdown { stream, writing } => {
                let how = if *writing {
                    Shutdown::Write
                } else {
                    Shutdown::Read
                };
                let _ = self.stream(*stream).map(|stream| stream.shutdown(how));
            }
            Host::Connect(_) | Host::Accept(_) | Host::Close(_) => {}
        }
    }

    fn took(&mut self, queue: u16, bytes: &[u8], keeps_rules: bool) {
        let Some(header) = bytes.first_chunk().filter(|_| queue == RECEIVE) else {
            return;
        };
        let header = Header::decode(header);
        if keeps_rules {
            assert_eq!(header.len as usize, bytes.len() - HEADER_BYTES);
            assert!(Op::from_number(header.op).is_some());
        }
        self.received.push_front(header);
        self.received.truncate(4);
    }

    /// A program at port 1 is reached, and what the guest sends arrives.
    fn works(&mut self, driver: &mut Driver) {
        self.streams.clear();
        PLACE.with(Place::clear);
        let send = |driver: &mut Driver, op: Op, payload: &[u8]| {
            let header = Header {
                src_cid: GUEST_CID.into(),
                dst_cid: HOST_CID,
                src_port: 77,
                dst_port: LISTENING[0],
                len: payload.len() as u32,
                kind: TYPE_STREAM,
                op: op as u16,
                buf_alloc: 4096,
                ..Header::default()
            };
            driver.send(
                TRANSMIT,
                &[Buffer::Read(&header.encode()), Buffer::Read(payload)],
            );
        };
        // Enough for what programs of before asked for as well.
        for _ in 0..2 * MAX_STREAMS {
            driver.add(RECEIVE, &[Buffer::Write(4096)]);
        }
        driver.notify(RECEIVE);
        send(driver, Op::Request, &[]);
        let (mut program, _) = PLACE.with(|place| place.programs[0].accept()).unwrap();
        send(driver, Op::Data, b"works");
        let mut bytes = [0; 5];
        program.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"works");
        driver.reset();
    }
}

impl Bench {
    fn stream(&mut self, number: u8) -> Option<&mut UnixStream> {
        let count = self.streams.len();
        self.streams.get_mut(usize::from(number) % count.max(1))
    }
}
