//! COM1: a 16550 whose output is kept in a bounded ring and whose input waits in a bounded queue.
//!
//! A storm of output costs the guest, not the host. A vCPU never waits for anybody who reads: the
//! ring keeps the last bytes. What exceeds the output's rate limit goes nowhere: it does not reach
//! the ring, wakes nobody, takes no position, and is counted. It is the newest that is dropped
//! then, so that what was printed before the storm stays readable.

use std::collections::VecDeque;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

use super::output::{OutputRing, SerialChunk, Signal};
use super::virtio::{Clock, Monotonic, RateLimit, TokenBucket};

/// Input that waits for the guest, bytes: a large paste.
const INPUT_QUEUE_BYTES: usize = 64 << 10;
/// The output limit of a new port, a console's too, bytes: ten times what a vCPU writes byte by
/// byte, and the whole log of a kernel's boot at once.
pub(crate) const OUTPUT_LIMIT: RateLimit = RateLimit {
    per_second: NonZeroU64::new(1 << 20).unwrap(),
    burst: 1 << 20,
};

/// The serial port of one VM.
pub struct SerialPort {
    port: Mutex<Port>,
    output: Signal,
}

struct Port {
    uart: Serial<Interrupt, NoEvents, Limited>,
    /// Bytes that did not fit into the UART's FIFO yet.
    input: VecDeque<u8>,
    received: u64,
}

/// Raises IRQ 4 through an irqfd.
struct Interrupt(EventFd);

impl Trigger for Interrupt {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// The output, as far as the limit lets it in.
struct Limited {
    ring: OutputRing,
    /// Bytes that did not get in.
    dropped: u64,
    limit: Option<TokenBucket>,
    clock: Box<dyn Clock>,
}

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(limit) = &mut self.limit {
            if !limit.is_open(self.clock.now_ns()) {
                self.dropped += bytes.len() as u64;
                return Ok(bytes.len());
            }
            limit.charge(bytes.len() as u64);
        }
        self.ring.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SerialPort {
    /// A port that raises its interrupt through `interrupt`.
    pub(crate) fn new(interrupt: EventFd) -> io::Result<Self> {
        Self::with_clock(interrupt, Box::new(Monotonic::default()))
    }

    fn with_clock(interrupt: EventFd, clock: Box<dyn Clock>) -> io::Result<Self> {
        let output = Limited {
            ring: OutputRing::default(),
            dropped: 0,
            limit: Some(TokenBucket::full(OUTPUT_LIMIT, clock.now_ns())),
            clock,
        };
        Ok(Self {
            port: Mutex::new(Port {
                uart: Serial::new(Interrupt(interrupt), output),
                input: VecDeque::new(),
                received: 0,
            }),
            output: Signal::new()?,
        })
    }

    fn port(&self) -> MutexGuard<'_, Port> {
        self.port.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Output from position `from` on, at most `max` bytes. What is no longer kept is skipped.
    #[must_use]
    pub fn read(&self, from: u64, max: usize) -> SerialChunk {
        self.port().uart.writer().ring.read(from, max)
    }

    /// Changes the limit of output, bytes; `None` takes it away. A new port has one of 1 MiB a
    /// second.
    pub fn set_output_limit(&self, limit: Option<RateLimit>) {
        let mut port = self.port();
        let output = port.uart.writer_mut();
        let now = output.clock.now_ns();
        match (&mut output.limit, limit) {
            (Some(bucket), Some(limit)) => bucket.set_limit(limit, now),
            (bucket, limit) => *bucket = limit.map(|limit| TokenBucket::full(limit, now)),
        }
    }

    /// Bytes of output that went nowhere so far, because the guest exceeded the limit. They are in
    /// no position and not in [`Self::end`].
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.port().uart.writer().dropped
    }

    /// Bytes written by the guest so far.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.port().uart.writer().ring.end()
    }

    /// Bytes that the guest was given so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.port().received
    }

    /// Queues input for the guest; returns how many bytes there was room for.
    pub fn write_input(&self, bytes: &[u8]) -> usize {
        let mut port = self.port();
        let room = INPUT_QUEUE_BYTES - port.input.len();
        let taken = bytes.len().min(room);
        port.input.extend(&bytes[..taken]);
        port.feed();
        taken
    }

    /// An eventfd that becomes readable when there is new output; the reader drains it.
    pub fn output_fd(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }

    /// Makes [`Self::output_fd`] readable: there is output, or there will be no more.
    pub(crate) fn notify(&self) {
        self.output.raise();
    }

    /// Reads a register of the UART, 0 to 7.
    pub(crate) fn register(&self, register: u16) -> u8 {
        let mut port = self.port();
        let value = port.uart.read(register as u8);
        port.feed();
        value
    }

    /// Writes a register of the UART, 0 to 7.
    pub(crate) fn set_register(&self, register: u16, value: u8) {
        let mut port = self.port();
        let before = port.uart.writer().ring.end();
        // Writing the ring can't fail; an interrupt that can't be raised is lost on the guest,
        // as on a machine whose line is not connected.
        let _ = port.uart.write(register as u8, value);
        let grown = port.uart.writer().ring.end() != before;
        drop(port);
        if grown {
            self.notify();
        }
    }
}

impl Port {
    /// Moves queued input into the UART's FIFO as far as it has room.
    fn feed(&mut self) {
        let count = self.uart.fifo_capacity().min(self.input.len());
        if count == 0 {
            return;
        }
        let bytes: Vec<u8> = self.input.iter().take(count).copied().collect();
        // In loopback mode the UART takes nothing; the bytes wait.
        if let Ok(taken) = self.uart.enqueue_raw_bytes(&bytes) {
            self.input.drain(..taken);
            self.received += taken as u64;
        }
    }
}

impl AsFd for SerialPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.output_fd()
    }
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;
    use crate::devices::output::OUTPUT_RING_BYTES;
    use crate::devices::virtio::rate_limiter::tests::{TestClock, limit};

    fn port() -> SerialPort {
        SerialPort::new(EventFd::new(EFD_NONBLOCK).unwrap()).unwrap()
    }

    #[test]
    fn a_storm_of_output_keeps_the_last_bytes_and_their_position() {
        let port = port();
        let storm = OUTPUT_RING_BYTES as u64 + 1000;
        for n in 0..storm {
            port.set_register(0, n as u8);
        }
        let chunk = port.read(0, usize::MAX);
        assert_eq!(chunk.offset, 1000);
        assert_eq!(chunk.bytes.len(), OUTPUT_RING_BYTES);
        assert_eq!(chunk.bytes[0], 1000_u64 as u8);
        assert_eq!(
            port.read(storm + 5, 10),
            SerialChunk {
                offset: storm,
                bytes: vec![]
            }
        );
    }

    #[test]
    fn output_over_the_limit_is_dropped_and_counted_and_wakes_nobody() {
        let clock = TestClock::default();
        let interrupt = EventFd::new(EFD_NONBLOCK).unwrap();
        let port = SerialPort::with_clock(interrupt, Box::new(clock.clone())).unwrap();
        port.set_output_limit(Some(limit(1000, 100)));
        for byte in 0..=255 {
            port.set_register(0, byte);
        }
        assert_eq!(port.output.take(), 100);
        assert_eq!((port.end(), port.dropped()), (100, 156));
        port.set_register(0, 1);
        assert_eq!(port.output.take(), 0, "somebody was woken for nothing");

        // Over a second it is what the limit says, and positions have no holes.
        for _ in 0..1000 {
            clock.advance(1_000_000);
            for byte in 0..10 {
                port.set_register(0, byte);
            }
        }
        assert_eq!((port.end(), port.dropped()), (1100, 157 + 9000));
        assert_eq!(port.read(95, 100).bytes.len(), 100);

        port.set_output_limit(None);
        for _ in 0..1000 {
            port.set_register(0, 0);
        }
        assert_eq!(port.end(), 2100);
    }

    #[test]
    fn input_waits_for_the_guest_in_a_bounded_queue_and_arrives_in_order() {
        let port = port();
        let sent: Vec<u8> = (0..=255).cycle().take(INPUT_QUEUE_BYTES * 2).collect();
        let taken = port.write_input(&sent);
        assert!(
            (INPUT_QUEUE_BYTES..INPUT_QUEUE_BYTES + 65).contains(&taken),
            "{taken}"
        );
        let got: Vec<u8> = (0..taken).map(|_| port.register(0)).collect();
        assert_eq!(got, sent[..taken]);
        assert_eq!(port.received(), taken as u64);
    }
}
