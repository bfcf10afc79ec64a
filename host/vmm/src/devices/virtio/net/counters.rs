//! What the device counts. Bytes are those of Ethernet packets, without the virtio header.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::devices::virtio::{Counter, CounterSet, LimitControl};

/// Written by the device thread, read by anybody.
#[derive(Debug)]
pub(crate) struct NetCounters {
    /// Packets that the guest received.
    pub(super) rx_packets: Tally,
    pub(super) rx_bytes: Tally,
    /// Longer than the buffers that the driver gave.
    pub(super) rx_too_long: Tally,
    /// Shorter than the headers of a packet.
    pub(super) rx_malformed: Tally,
    /// From before the driver was ready.
    pub(super) rx_stale: Tally,
    /// Buffers that were given back unused: they are not writable, or too short for the header.
    pub(super) rx_bad_buffers: Tally,
    /// Times that there were no buffers, and the TAP was not looked at until there were.
    pub(super) rx_no_buffers: Tally,
    /// Packets that the guest sent.
    pub(super) tx_packets: Tally,
    pub(super) tx_bytes: Tally,
    /// Their buffers, their length, or what their header asks for.
    pub(super) tx_malformed: Tally,
    pub(super) tx_too_long: Tally,
    /// From an address that is not the guest's.
    pub(super) tx_spoofed: Tally,
    /// The host's network said that they make no sense.
    pub(super) tx_refused: Tally,
    /// The host had no room for them.
    pub(super) tx_full: Tally,
    /// The interface is down or gone.
    pub(super) tx_link_down: Tally,
    /// Times that the link went down for good: 0 or 1, and more only after restores.
    pub(super) link_lost: Tally,
    receive: Arc<LimitControl>,
    transmit: Arc<LimitControl>,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Tally(AtomicU64);

impl Tally {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}

impl NetCounters {
    pub(super) fn new(receive: Arc<LimitControl>, transmit: Arc<LimitControl>) -> Self {
        Self {
            rx_packets: Tally::default(),
            rx_bytes: Tally::default(),
            rx_too_long: Tally::default(),
            rx_malformed: Tally::default(),
            rx_stale: Tally::default(),
            rx_bad_buffers: Tally::default(),
            rx_no_buffers: Tally::default(),
            tx_packets: Tally::default(),
            tx_bytes: Tally::default(),
            tx_malformed: Tally::default(),
            tx_too_long: Tally::default(),
            tx_spoofed: Tally::default(),
            tx_refused: Tally::default(),
            tx_full: Tally::default(),
            tx_link_down: Tally::default(),
            link_lost: Tally::default(),
            receive,
            transmit,
        }
    }
}

impl CounterSet for NetCounters {
    fn read(&self) -> Vec<Counter> {
        let read = |name, tally: &Tally| Counter {
            name,
            value: tally.0.load(Ordering::Relaxed),
        };
        let throttled = |name, control: &LimitControl| Counter {
            name,
            value: control.throttled(),
        };
        vec![
            read("rx_packets", &self.rx_packets),
            read("rx_bytes", &self.rx_bytes),
            read("rx_dropped_too_long", &self.rx_too_long),
            read("rx_dropped_malformed", &self.rx_malformed),
            read("rx_dropped_stale", &self.rx_stale),
            read("rx_bad_buffers", &self.rx_bad_buffers),
            read("rx_no_buffers", &self.rx_no_buffers),
            throttled("rx_throttled", &self.receive),
            read("tx_packets", &self.tx_packets),
            read("tx_bytes", &self.tx_bytes),
            read("tx_dropped_malformed", &self.tx_malformed),
            read("tx_dropped_too_long", &self.tx_too_long),
            read("tx_dropped_spoofed", &self.tx_spoofed),
            read("tx_dropped_refused", &self.tx_refused),
            read("tx_dropped_full", &self.tx_full),
            read("tx_dropped_link_down", &self.tx_link_down),
            throttled("tx_throttled", &self.transmit),
            read("link_lost", &self.link_lost),
        ]
    }
}
