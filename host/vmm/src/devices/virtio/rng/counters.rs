//! What the device counts.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::devices::virtio::{Counter, CounterSet};

/// Written by the device thread, read by anybody.
#[derive(Debug, Default)]
pub(crate) struct RngCounters {
    requests: AtomicU64,
    bytes: AtomicU64,
    failures: AtomicU64,
}

impl RngCounters {
    /// A request was answered with `bytes`.
    pub(super) fn count(&self, bytes: u32, filled: bool) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes.into(), Ordering::Relaxed);
        self.failures.fetch_add((!filled).into(), Ordering::Relaxed);
    }
}

impl CounterSet for RngCounters {
    fn read(&self) -> Vec<Counter> {
        let read = |name, counter: &AtomicU64| Counter {
            name,
            value: counter.load(Ordering::Relaxed),
        };
        vec![
            read("requests", &self.requests),
            read("entropy_bytes", &self.bytes),
            read("entropy_failures", &self.failures),
        ]
    }
}
