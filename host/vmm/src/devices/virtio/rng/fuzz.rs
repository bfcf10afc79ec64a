//! A driver of the device for fuzz targets.

use arbitrary::Arbitrary;

use super::Rng;
use crate::devices::virtio::fuzz::{Length, Padded, Part, Shape, Subject};
use crate::devices::virtio::test_driver::{Buffer, Driver};

/// The device, which has no surroundings.
pub(crate) struct Bench;

/// Room for random bytes, and what does not belong into a request.
#[derive(Debug, Arbitrary)]
pub(crate) struct Request {
    readable: Option<Padded>,
    writable: Vec<Length>,
}

impl Subject for Bench {
    type Config = ();
    type Request = Request;
    type Host = ();
    type Device = Rng;

    fn new((): &()) -> Self {
        Self
    }

    fn device(&mut self) -> Rng {
        Rng::default()
    }

    fn shape(&self, request: &Request) -> Shape {
        let readable = request.readable.iter();
        let writable = request.writable.iter().take(6);
        let readable = readable.map(|bytes| Part::Read(bytes.0.clone()));
        Shape {
            queue: 0,
            parts: readable
                .chain(writable.map(|bytes| Part::Write(bytes.0)))
                .collect(),
        }
    }

    fn host(&mut self, (): &()) {}

    fn works(&mut self, driver: &mut Driver) {
        let request = driver.send(0, &[Buffer::Write(16)]);
        assert_eq!(driver.used(0), [(request.head, 16)]);
    }
}
