//! What fuzz targets do to a device: a script of what a driver and the host may do, valid for the
//! most part and hostile now and then, played through the device's registers and rings.
//!
//! ```text
//!   bytes ──arbitrary──▶ Script ── Step ──▶ Driver ── registers, rings, memory ──▶ VirtioMmio
//!                          │                                                          │
//!                          └── Subject: what this device's driver asks for, ──────────┘
//!                              what the host does, and that it works in the end
//! ```
//!
//! Beside that nothing panics or spins, a script checks what must hold whatever a driver did: a
//! device that pauses holds no chain; what it saves is what it saves after it was restored; a state
//! that is refused changes nothing; after a reset the device works ([`Subject::works`]); and to a
//! driver that kept to the rules since its reset nothing comes back that it did not send, nor more
//! bytes than there was room for.

mod chain;
mod script;
mod state;
mod transport;
mod value;

use arbitrary::Arbitrary;

pub(crate) use self::script::Script;
pub(crate) use self::transport::Transport;
pub(crate) use self::value::{Length, Padded};
use super::VirtioDevice;
use super::test_driver::Driver;

/// A device in its surroundings.
pub(crate) trait Subject: Sized {
    /// How it is made.
    type Config: for<'a> Arbitrary<'a> + std::fmt::Debug;
    /// What a driver asks it for.
    type Request: for<'a> Arbitrary<'a> + std::fmt::Debug;
    /// What happens on the host.
    type Host: for<'a> Arbitrary<'a> + std::fmt::Debug;
    /// The device itself.
    type Device: VirtioDevice + 'static;

    /// Whether guest memory is what was last written into it.
    const KEEPS_MEMORY: bool = true;

    fn new(config: &Self::Config) -> Self;

    /// Makes the device. When it is called again, the one before is gone.
    fn device(&mut self) -> Self::Device;

    /// The queue and the buffers of a request.
    fn shape(&self, request: &Self::Request) -> Shape;

    /// Something happens on the host.
    fn host(&mut self, action: &Self::Host);

    /// The device gave back a chain of `queue` with these bytes written; whether they are still
    /// what the device wrote is known only of a driver that keeps to the rules.
    fn took(&mut self, queue: u16, bytes: &[u8], keeps_rules: bool) {
        let _ = (queue, bytes, keeps_rules);
    }

    /// Uses the device, which has just been negotiated without any feature, as it should be used.
    /// Panics if it does not do what it should.
    fn works(&mut self, driver: &mut Driver);
}

/// A request as it is in a queue.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) queue: u16,
    pub(crate) parts: Vec<Part>,
}

/// A buffer of it.
#[derive(Debug)]
pub(crate) enum Part {
    /// The device reads this.
    Read(Vec<u8>),
    /// The device may write so many bytes.
    Write(u32),
}
