//! A driver of the device for fuzz targets, and the host's end.

use std::sync::Arc;
use std::time::Duration;

use arbitrary::{Arbitrary, Result, Unstructured};

use super::device::{DEFLATE, INFLATE, STATISTICS};
use super::{Balloon, BalloonConfig, BalloonControl};
use crate::devices::virtio::fuzz::{Length, Padded, Part, Shape, Subject};
use crate::devices::virtio::test_driver::{Buffer, Driver};

/// The first page of the driver's buffers.
const BUFFERS: u32 = 0x400;
/// How often statistics are asked for: seldom enough for a device to come to rest meanwhile.
const INTERVAL: Duration = Duration::from_millis(5);

/// The host's end.
pub(crate) struct Bench {
    config: Config,
    control: Option<Arc<BalloonControl>>,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
pub(crate) struct Config {
    deflate_on_oom: bool,
    free_page_reporting: bool,
}

#[derive(Debug)]
pub(crate) enum Request {
    /// Page numbers, and what does not belong behind them.
    Pages {
        deflate: bool,
        pages: Vec<u32>,
        more: u8,
    },
    Statistics {
        tags: Vec<(u8, u64)>,
        more: Padded,
    },
    /// Free memory, on one of the queues on which drivers report it.
    Report {
        queue: u16,
        ranges: Vec<Length>,
    },
    Other {
        queue: u8,
        readable: Padded,
        writable: Length,
    },
}

impl<'a> Arbitrary<'a> for Request {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match u.int_in_range(0..=15)? {
            0..=6 => {
                let deflate = u.ratio(1, 4)?;
                let count = u.arbitrary::<u8>()?;
                let mut pages = Vec::new();
                for _ in 0..count {
                    pages.push(match u.int_in_range(0..=15)? {
                        0 => u.arbitrary()?,
                        1 => u.arbitrary::<u16>()?.into(),
                        2 => (1 << 20) + u32::from(u.arbitrary::<u8>()?),
                        _ => BUFFERS + u32::from(u.arbitrary::<u8>()?),
                    });
                }
                Self::Pages {
                    deflate,
                    pages,
                    more: u.arbitrary::<u8>()? % 4,
                }
            }
            7..=10 => Self::Statistics {
                tags: u.arbitrary()?,
                more: u.arbitrary()?,
            },
            11..=14 => Self::Report {
                queue: u.int_in_range(2..=4)?,
                ranges: u.arbitrary()?,
            },
            _ => Self::Other {
                queue: u.arbitrary()?,
                readable: u.arbitrary()?,
                writable: u.arbitrary()?,
            },
        })
    }
}

#[derive(Debug, Clone, Copy, Arbitrary)]
pub(crate) enum Host {
    Target(u32),
    /// Statistics are asked for, or not.
    Ask(bool),
    Read,
}

impl Subject for Bench {
    type Config = Config;
    type Request = Request;
    type Host = Host;
    type Device = Balloon;

    // What a balloon takes is zero afterwards, a ring as well.
    const KEEPS_MEMORY: bool = false;

    fn new(config: &Config) -> Self {
        Self {
            config: *config,
            control: None,
        }
    }

    fn device(&mut self) -> Balloon {
        let balloon = Balloon::new(BalloonConfig {
            deflate_on_oom: self.config.deflate_on_oom,
            free_page_reporting: self.config.free_page_reporting,
            statistics_interval: None,
        });
        let balloon = balloon.unwrap();
        self.control = Some(balloon.control());
        balloon
    }

    fn shape(&self, request: &Request) -> Shape {
        let (queue, parts) = match request {
            Request::Pages {
                deflate,
                pages,
                more,
            } => {
                let mut bytes: Vec<_> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
                bytes.extend(std::iter::repeat_n(0xff, (*more).into()));
                let queue = if *deflate { DEFLATE } else { INFLATE };
                (queue, vec![Part::Read(bytes)])
            }
            Request::Statistics { tags, more } => {
                let mut bytes = Vec::new();
                for (tag, value) in tags {
                    bytes.extend(u16::from(*tag).to_le_bytes());
                    bytes.extend(value.to_le_bytes());
                }
                bytes.extend(&more.0);
                (STATISTICS, vec![Part::Read(bytes)])
            }
            Request::Report { queue, ranges } => {
                let ranges = ranges.iter().take(8);
                (*queue, ranges.map(|bytes| Part::Write(bytes.0)).collect())
            }
            Request::Other {
                queue,
                readable,
                writable,
            } => (
                u16::from(*queue) % 6,
                vec![Part::Read(readable.0.clone()), Part::Write(writable.0)],
            ),
        };
        Shape { queue, parts }
    }

    fn host(&mut self, action: &Host) {
        for control in self.control.iter() {
            match action {
                Host::Target(mib) => control.set_target_mib(*mib),
                Host::Ask(ask) => {
                    let interval = ask.then_some(INTERVAL);
                    control.set_statistics_interval(interval).unwrap();
                }
                Host::Read => drop(control.statistics()),
            }
        }
    }

    fn works(&mut self, driver: &mut Driver) {
        for control in self.control.iter() {
            control.set_statistics_interval(None).unwrap();
        }
        let page = BUFFERS + 512;
        let request = driver.send(INFLATE, &[Buffer::Read(&page.to_le_bytes())]);
        assert_eq!(driver.used(INFLATE), [(request.head, 0)]);
        let request = driver.send(DEFLATE, &[Buffer::Read(&page.to_le_bytes())]);
        assert_eq!(driver.used(DEFLATE), [(request.head, 0)]);
    }
}
