//! What the device counts.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::devices::virtio::{Counter, CounterSet};

/// Written by the device thread, read by anybody.
#[derive(Debug, Default)]
pub(crate) struct BalloonCounters {
    /// Pages that the driver put into the balloon, as far as they are memory and not there twice.
    pub(super) inflated: Tally,
    /// Pages that it took out again.
    pub(super) deflated: Tally,
    /// Bytes that it told are free.
    pub(super) reported: Tally,
    /// Bytes of both that went to the host, whether they were in use or not.
    pub(super) discarded: Tally,
    /// Bytes that did not: huge pages, and parts of pages.
    pub(super) kept: Tally,
    /// Times that the host's kernel refused to take some.
    pub(super) failures: Tally,
    /// Page numbers that are no memory.
    pub(super) outside: Tally,
    /// Page numbers that came twice in one request.
    pub(super) repeated: Tally,
    /// Requests with a part of a page number at their end.
    pub(super) malformed: Tally,
    /// Times that the guest was asked for statistics.
    pub(super) asked: Tally,
    /// Times that it sent some.
    pub(super) statistics: Tally,
    /// Statistics that were not looked at because there are too many, or that are unknown.
    pub(super) unknown: Tally,
    /// Writes to the configuration space where nothing can be written.
    pub(super) refused: Tally,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Tally(AtomicU64);

impl Tally {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}

impl CounterSet for BalloonCounters {
    fn read(&self) -> Vec<Counter> {
        let read = |name, tally: &Tally| Counter {
            name,
            value: tally.0.load(Ordering::Relaxed),
        };
        vec![
            read("inflated_pages", &self.inflated),
            read("deflated_pages", &self.deflated),
            read("reported_bytes", &self.reported),
            read("discarded_bytes", &self.discarded),
            read("kept_bytes", &self.kept),
            read("discard_failures", &self.failures),
            read("pages_outside", &self.outside),
            read("pages_repeated", &self.repeated),
            read("malformed_requests", &self.malformed),
            read("statistics_asked", &self.asked),
            read("statistics_received", &self.statistics),
            read("statistics_unknown", &self.unknown),
            read("refused_config_writes", &self.refused),
        ]
    }
}
