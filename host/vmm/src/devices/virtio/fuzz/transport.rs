//! The transport and the queues, in front of a device that does as little as a device can.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arbitrary::Arbitrary;
use vmm_sys_util::eventfd::EventFd;

use super::value::{Length, Padded};
use super::{Part, Shape, Subject};
use crate::devices::virtio::test_driver::{Buffer, Driver, Manner, Probe, Seen};

/// See [`Probe`].
pub(crate) struct Transport {
    manner: Manner,
    seen: Arc<Seen>,
    call: Option<Arc<EventFd>>,
}

/// What the device does with requests.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub(crate) enum Kind {
    Answer,
    Keep,
}

/// Any buffers.
#[derive(Debug, Arbitrary)]
pub(crate) struct Request {
    second_queue: bool,
    readable: Vec<Padded>,
    writable: Vec<Length>,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
pub(crate) enum Host {
    /// The descriptor that the device watches is ready.
    Call,
    /// From now on that changes the configuration space, or does not.
    Changes(bool),
}

impl Subject for Transport {
    type Config = Kind;
    type Request = Request;
    type Host = Host;
    type Device = Probe;

    fn new(config: &Kind) -> Self {
        Self {
            manner: match config {
                Kind::Answer => Manner::Answer,
                Kind::Keep => Manner::Keep,
            },
            seen: Arc::default(),
            call: None,
        }
    }

    fn device(&mut self) -> Probe {
        let probe = Probe::new(self.manner);
        self.seen = Arc::clone(&probe.seen);
        self.call = Some(Arc::clone(&probe.call));
        probe
    }

    fn shape(&self, request: &Request) -> Shape {
        let readable = request.readable.iter().take(4);
        let writable = request.writable.iter().take(4);
        let readable = readable.map(|bytes| Part::Read(bytes.0.clone()));
        Shape {
            queue: request.second_queue.into(),
            parts: readable
                .chain(writable.map(|bytes| Part::Write(bytes.0)))
                .collect(),
        }
    }

    fn host(&mut self, action: &Host) {
        match action {
            Host::Call => {
                for call in self.call.iter() {
                    call.write(1).unwrap();
                }
            }
            Host::Changes(changes) => self.seen.changes.store(*changes, Ordering::SeqCst),
        }
    }

    fn works(&mut self, driver: &mut Driver) {
        let request = driver.send(1, &[Buffer::Read(b"what"), Buffer::Write(7)]);
        if self.manner == Manner::Keep {
            assert_eq!(driver.used(1), []);
            driver.device.quiesce();
            return driver.device.save().map(drop).unwrap();
        }
        assert_eq!(driver.used(1), [(request.head, 7)]);
    }
}
