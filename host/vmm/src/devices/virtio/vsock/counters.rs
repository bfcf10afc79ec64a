//! What the device counts.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::devices::virtio::{Counter, CounterSet};

/// Written under the device's lock, read by anybody. As everywhere in virtio, what the guest
/// transmits goes to the host, and what it receives comes from there.
#[derive(Debug, Default)]
pub(crate) struct VsockCounters {
    /// Connections that began, in both directions.
    pub(super) connections: AtomicU64,
    /// Connections that could not begin.
    pub(super) rejected: AtomicU64,
    pub(super) transmitted_packets: AtomicU64,
    pub(super) transmitted_bytes: AtomicU64,
    pub(super) received_packets: AtomicU64,
    pub(super) received_bytes: AtomicU64,
    /// What the guest transmitted and what is no packet, or has another's address.
    pub(super) dropped: AtomicU64,
    /// Packets that the guest may not send.
    pub(super) violations: AtomicU64,
    /// Packets of no connection that were not answered because too many were.
    pub(super) unanswered: AtomicU64,
}

impl VsockCounters {
    pub(super) fn add(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
    }
}

impl CounterSet for VsockCounters {
    fn read(&self) -> Vec<Counter> {
        let read = |name, counter: &AtomicU64| Counter {
            name,
            value: counter.load(Ordering::Relaxed),
        };
        vec![
            read("connections", &self.connections),
            read("rejected_connections", &self.rejected),
            read("transmitted_packets", &self.transmitted_packets),
            read("transmitted_bytes", &self.transmitted_bytes),
            read("received_packets", &self.received_packets),
            read("received_bytes", &self.received_bytes),
            read("dropped_packets", &self.dropped),
            read("violations", &self.violations),
            read("unanswered_packets", &self.unanswered),
        ]
    }
}
