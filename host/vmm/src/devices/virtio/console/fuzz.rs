//! A driver of the device for fuzz targets, and the host's ends of its ports.

use std::num::NonZeroU64;
use std::sync::Arc;

use arbitrary::{Arbitrary, Result, Unstructured};

use super::control::{FROM_DRIVER, TO_DRIVER};
use super::device::{receive_queue, transmit_queue};
use super::{Console, ConsoleConfig, ConsolePort, ConsoleSize, MAX_PORTS};
use crate::devices::virtio::RateLimit;
use crate::devices::virtio::fuzz::{Length, Padded, Part, Shape, Subject};
use crate::devices::virtio::test_driver::{Buffer, Driver};

/// The host's ends.
pub(crate) struct Bench {
    names: usize,
    ports: Vec<Arc<ConsolePort>>,
}

#[derive(Debug)]
pub(crate) enum Request {
    Output {
        port: usize,
        bytes: Vec<u8>,
    },
    Input {
        port: usize,
        room: Length,
    },
    /// A control message.
    Tell {
        port: u32,
        event: u16,
        value: u16,
        more: Vec<u8>,
    },
    Listen(Length),
    Other {
        queue: u8,
        readable: Padded,
        writable: Length,
    },
}

impl<'a> Arbitrary<'a> for Request {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let port = usize::from(u.arbitrary::<u8>()?) % MAX_PORTS;
        Ok(match u.int_in_range(0..=15)? {
            0..=4 => Self::Output {
                port,
                bytes: u.arbitrary::<Padded>()?.0,
            },
            5..=7 => Self::Input {
                port,
                room: u.arbitrary()?,
            },
            8..=12 => Self::Tell {
                port: match u.ratio(1, 16)? {
                    true => u.arbitrary()?,
                    false => port as u32,
                },
                event: u16::from(u.arbitrary::<u8>()? % 9),
                value: u16::from(u.ratio(3, 4)?),
                more: match u.ratio(1, 8)? {
                    true => u.arbitrary::<Padded>()?.0,
                    false => Vec::new(),
                },
            },
            13 | 14 => Self::Listen(u.arbitrary()?),
            _ => Self::Other {
                queue: u.arbitrary()?,
                readable: u.arbitrary()?,
                writable: u.arbitrary()?,
            },
        })
    }
}

#[derive(Debug, Arbitrary)]
pub(crate) enum Host {
    Type {
        port: u8,
        bytes: Padded,
    },
    Resize {
        columns: u16,
        rows: u16,
    },
    Limit {
        port: u8,
        per_second: Option<NonZeroU64>,
        burst: u32,
    },
    Read {
        port: u8,
        from: u32,
        most: u16,
    },
}

impl Bench {
    fn port(&self, port: u8) -> &ConsolePort {
        &self.ports[usize::from(port) % self.ports.len()]
    }
}

impl Subject for Bench {
    type Config = u8;
    type Request = Request;
    type Host = Host;
    type Device = Console;

    fn new(names: &u8) -> Self {
        Self {
            names: usize::from(*names) % MAX_PORTS,
            ports: Vec::new(),
        }
    }

    fn device(&mut self) -> Console {
        let names = ["agent", "log", "third"].into_iter().take(self.names);
        let console = Console::new(ConsoleConfig {
            size: ConsoleSize::default(),
            ports: names.map(str::to_owned).collect(),
        });
        let console = console.unwrap();
        self.ports = console.ports();
        console
    }

    fn shape(&self, request: &Request) -> Shape {
        let (queue, parts) = match request {
            Request::Output { port, bytes } => {
                (transmit_queue(*port), vec![Part::Read(bytes.clone())])
            }
            Request::Input { port, room } => (receive_queue(*port), vec![Part::Write(room.0)]),
            Request::Tell {
                port,
                event,
                value,
                more,
            } => {
                let [event, value] = [event, value].map(|number| number.to_le_bytes());
                let message = [&port.to_le_bytes()[..], &event, &value, more].concat();
                (FROM_DRIVER, vec![Part::Read(message)])
            }
            Request::Listen(room) => (TO_DRIVER, vec![Part::Write(room.0)]),
            Request::Other {
                queue,
                readable,
                writable,
            } => (
                u16::from(*queue) % 12,
                vec![Part::Read(readable.0.clone()), Part::Write(writable.0)],
            ),
        };
        Shape { queue, parts }
    }

    fn host(&mut self, action: &Host) {
        match action {
            Host::Type { port, bytes } => {
                assert!(self.port(*port).write_input(&bytes.0) <= bytes.0.len());
            }
            Host::Resize { columns, rows } => {
                let (columns, rows) = (*columns, *rows);
                self.port(0).resize(ConsoleSize { columns, rows }).unwrap();
            }
            Host::Limit {
                port,
                per_second,
                burst,
            } => {
                let limit = per_second.map(|per_second| RateLimit {
                    per_second,
                    burst: (*burst).into(),
                });
                self.port(*port).set_output_limit(limit);
            }
            Host::Read { port, from, most } => {
                let chunk = self.port(*port).read((*from).into(), (*most).into());
                assert!(chunk.bytes.len() <= usize::from(*most));
            }
        }
    }

    fn works(&mut self, driver: &mut Driver) {
        let terminal = self.port(0);
        terminal.set_output_limit(None);
        let before = terminal.end();
        let request = driver.send(transmit_queue(0), &[Buffer::Read(b"works")]);
        assert_eq!(driver.used(transmit_queue(0)), [(request.head, 0)]);
        assert_eq!(terminal.end(), before + 5);
        assert_eq!(terminal.read(before, 5).bytes, b"works");
    }
}
