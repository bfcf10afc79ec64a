//! What the device counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::backend::Operation;
use crate::devices::virtio::{Counter, CounterSet, LimitControl};

/// Written by the device thread, read by anybody.
pub(crate) struct BlockCounters {
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    written_bytes: AtomicU64,
    flushes: AtomicU64,
    discards: AtomicU64,
    errors: AtomicU64,
    limits: Arc<LimitControl>,
}

impl BlockCounters {
    pub(super) fn new(limits: Arc<LimitControl>) -> Self {
        Self {
            reads: AtomicU64::new(0),
            read_bytes: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
            discards: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            limits,
        }
    }

    /// An operation succeeded.
    pub(super) fn done(&self, operation: Operation) {
        let add = |counter: &AtomicU64, number| {
            counter.fetch_add(number, Ordering::Relaxed);
        };
        match operation {
            Operation::Read(range) => {
                add(&self.reads, 1);
                add(&self.read_bytes, range.bytes);
            }
            Operation::Write(range) => {
                add(&self.writes, 1);
                add(&self.written_bytes, range.bytes);
            }
            Operation::Flush => add(&self.flushes, 1),
            Operation::Discard(_) | Operation::WriteZeroes { .. } => add(&self.discards, 1),
            Operation::Settle => {}
        }
    }

    /// A request was answered with an error.
    pub(super) fn failed(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }
}

impl CounterSet for BlockCounters {
    fn read(&self) -> Vec<Counter> {
        let read = |name, counter: &AtomicU64| Counter {
            name,
            value: counter.load(Ordering::Relaxed),
        };
        vec![
            read("reads", &self.reads),
            read("read_bytes", &self.read_bytes),
            read("writes", &self.writes),
            read("written_bytes", &self.written_bytes),
            read("flushes", &self.flushes),
            read("discards", &self.discards),
            read("errors", &self.errors),
            Counter {
                name: "throttled",
                value: self.limits.throttled(),
            },
        ]
    }
}
