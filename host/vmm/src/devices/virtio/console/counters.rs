//! What the device counts, of all ports together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::devices::virtio::{Counter, CounterSet, LimitControl};

/// Written by the device thread, read by anybody.
#[derive(Debug)]
pub(crate) struct ConsoleCounters {
    /// Bytes that the guest wrote.
    pub(super) output: Tally,
    /// Requests in which it did.
    pub(super) requests: Tally,
    /// Bytes that the guest was given.
    pub(super) input: Tally,
    /// Buffers without room for what they were to be filled with.
    pub(super) bad_buffers: Tally,
    /// Control messages that the driver got.
    pub(super) sent: Tally,
    /// Control messages that it sent and that were followed.
    pub(super) received: Tally,
    /// Control messages that are too short, unknown, of no port, or that come too early.
    pub(super) refused: Tally,
    /// Times that the driver could not use a port.
    pub(super) failures: Tally,
    /// Writes to the configuration space, where nothing can be written.
    pub(super) refused_writes: Tally,
    limits: Vec<Arc<LimitControl>>,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Tally(AtomicU64);

impl Tally {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}

impl ConsoleCounters {
    /// With the limits of all ports.
    pub(super) fn new(limits: Vec<Arc<LimitControl>>) -> Self {
        Self {
            output: Tally::default(),
            requests: Tally::default(),
            input: Tally::default(),
            bad_buffers: Tally::default(),
            sent: Tally::default(),
            received: Tally::default(),
            refused: Tally::default(),
            failures: Tally::default(),
            refused_writes: Tally::default(),
            limits,
        }
    }
}

impl CounterSet for ConsoleCounters {
    fn read(&self) -> Vec<Counter> {
        let read = |name, tally: &Tally| Counter {
            name,
            value: tally.0.load(Ordering::Relaxed),
        };
        vec![
            read("output_bytes", &self.output),
            read("output_requests", &self.requests),
            Counter {
                name: "output_throttled",
                value: self.limits.iter().map(|limit| limit.throttled()).sum(),
            },
            read("input_bytes", &self.input),
            read("bad_buffers", &self.bad_buffers),
            read("control_sent", &self.sent),
            read("control_received", &self.received),
            read("control_refused", &self.refused),
            read("port_failures", &self.failures),
            read("refused_config_writes", &self.refused_writes),
        ]
    }
}
