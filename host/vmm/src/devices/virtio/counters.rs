//! What devices count, and how the rest of the host reads it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// One number of a device. Its name says its unit (`…_bytes`, `…_ns`), or it is a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter {
    /// What is counted.
    pub name: &'static str,
    /// How much, since the VM was built.
    pub value: u64,
}

/// What a device has counted so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceCounters {
    /// The device: its kind and its number among those of its kind, from 0.
    pub device: String,
    /// Why it is broken, while it is: it waits for its driver to reset it.
    pub broken: Option<String>,
    /// The transport's counters, then the device's own.
    pub counters: Vec<Counter>,
}

/// A device's own counters, read from any thread.
pub(crate) trait CounterSet: Send + Sync {
    /// All of them, always the same ones in the same order.
    fn read(&self) -> Vec<Counter>;
}

/// What the transport counts for every device, and why it is broken.
#[derive(Default)]
pub(crate) struct DeviceStatus {
    /// Turns that queues got.
    pub(super) notifications: AtomicU64,
    /// Accesses that the driver may not make, and that were ignored.
    pub(super) refused: AtomicU64,
    /// Times that it broke.
    pub(super) broke: AtomicU64,
    /// Times that the driver reset it.
    pub(super) resets: AtomicU64,
    broken: Mutex<Option<String>>,
}

impl DeviceStatus {
    pub(super) fn set_broken(&self, reason: Option<String>) {
        *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    pub(super) fn broken(&self) -> Option<String> {
        self.broken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn read(&self, interrupts: u64) -> Vec<Counter> {
        let read = |name, counter: &AtomicU64| Counter {
            name,
            value: counter.load(Ordering::Relaxed),
        };
        vec![
            read("notifications", &self.notifications),
            read("refused_accesses", &self.refused),
            read("broke", &self.broke),
            read("resets", &self.resets),
            Counter {
                name: "interrupts",
                value: interrupts,
            },
        ]
    }
}
