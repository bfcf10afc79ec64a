//! What the device does when a queue or a descriptor calls.

use std::io;
use std::sync::Arc;

use vm_memory::GuestMemoryMmap;
use vmm_sys_util::epoll::EventSet;

use super::device::{Balloon, DEFLATE, INFLATE, STATISTICS};
use super::discard::{Discarded, discard};
use super::pages::{self, Pages};
use super::{PAGE_BYTES, feature, statistics};
use crate::devices::virtio::{Active, Chain, DeviceError, EventSources};

/// The host changed something, or a turn ended before all was done.
const WAKE: u32 = 0;
/// It is time to ask for statistics.
const TIMER: u32 = 1;

/// Queues from here on are for free pages, if they are for anything.
const REPORTING: std::ops::RangeInclusive<u16> = 2..=4;

/// What a queue is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Inflate,
    Deflate,
    Statistics,
    Reporting,
}

/// Section 5.5.2 numbers the queues 0 to 4, whatever was negotiated. Linux numbers those that it
/// uses without gaps: free pages are reported on queue 4 by the book, and on 3 or 2 by Linux.
/// Since hints are not offered nothing else is on those, and both are right.
fn role(queue: u16, active: &Active) -> Option<Role> {
    match queue {
        INFLATE => Some(Role::Inflate),
        DEFLATE => Some(Role::Deflate),
        STATISTICS if active.has(feature::STATISTICS) => Some(Role::Statistics),
        _ if REPORTING.contains(&queue) && active.has(feature::REPORTING) => Some(Role::Reporting),
        _ => None,
    }
}

/// What may still be done in a turn. Giving scattered pages to the host takes some microseconds for
/// each, of a large range some nanoseconds for each page; a turn should take some milliseconds.
struct Budget {
    pages: u64,
    bytes: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            pages: 4096,
            bytes: 256 << 20,
        }
    }
}

impl Budget {
    fn is_left(&self) -> bool {
        self.pages > 0 && self.bytes > 0
    }

    /// Takes what was done: numbers or ranges, and the bytes that they are.
    fn take(&mut self, pages: u64, bytes: u64) {
        self.pages = self.pages.saturating_sub(pages);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl Balloon {
    pub(super) fn watch(&self, sources: &EventSources) -> io::Result<()> {
        sources.add(&self.control.wake, WAKE, EventSet::IN)?;
        sources.add(&self.control.timer, TIMER, EventSet::IN)
    }

    pub(super) fn on_queue(&mut self, queue: u16, active: &mut Active) -> Result<(), DeviceError> {
        match role(queue, active) {
            Some(Role::Inflate) => self.inflate(active),
            Some(Role::Deflate) => self.deflate(active),
            Some(Role::Statistics) => self.take_statistics(active),
            Some(Role::Reporting) => self.take_reports(queue, active),
            None => Ok(()),
        }
    }

    pub(super) fn on_descriptor(
        &mut self,
        token: u32,
        active: Option<&mut Active>,
    ) -> Result<(), DeviceError> {
        match token {
            WAKE => drop(self.control.wake.take()),
            TIMER => self.control.take_timer(),
            _ => {}
        }
        match (token, active) {
            (WAKE, Some(active)) => {
                self.tell_target(active);
                self.inflate(active)?;
                for queue in REPORTING {
                    if role(queue, active) == Some(Role::Reporting) {
                        self.take_reports(queue, active)?;
                    }
                }
                Ok(())
            }
            (TIMER, Some(active)) => self.ask_for_statistics(active),
            _ => Ok(()),
        }
    }

    /// Tells the driver of a target that it does not know.
    pub(super) fn tell_target(&mut self, active: &Active) {
        let target = self.control.target_pages();
        if self.told_pages != target {
            self.told_pages = target;
            active.config_changed();
        }
    }

    fn inflate(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        self.take_memory(INFLATE, active, |counters, memory, chain, budget| {
            let pages = Pages::read(chain);
            counters.malformed.add(pages.is_malformed.into());
            counters.repeated.add(pages.repeated);
            budget.take(pages.count(), pages.count() * PAGE_BYTES);
            for range in pages.ranges() {
                let (bytes, done) = (range.end - range.start, discard(memory, range));
                counters.outside.add(done.outside / PAGE_BYTES);
                counters.inflated.add((bytes - done.outside) / PAGE_BYTES);
                count(counters, done);
            }
        })
    }

    fn take_reports(&mut self, queue: u16, active: &mut Active) -> Result<(), DeviceError> {
        self.take_memory(queue, active, |counters, memory, chain, budget| {
            for range in chain.writable_ranges() {
                let bytes = range.end - range.start;
                budget.take(1, bytes);
                counters.reported.add(bytes);
                count(counters, discard(memory, range));
            }
        })
    }

    /// Answers requests by `take` until there are none, or the budget is spent.
    fn take_memory(
        &mut self,
        queue: u16,
        active: &mut Active,
        take: impl Fn(&super::counters::BalloonCounters, &GuestMemoryMmap, &Chain, &mut Budget),
    ) -> Result<(), DeviceError> {
        let memory = Arc::clone(&active.memory);
        let Some(queue) = active.queue(queue) else {
            return Ok(());
        };
        let mut budget = Budget::default();
        while let Some(chain) = queue.pop()? {
            take(&self.counters, &memory, &chain, &mut budget);
            queue.complete(chain, 0)?;
            if !budget.is_left() {
                self.control.wake.raise();
                break;
            }
        }
        Ok(())
    }

    /// The guest uses pages again. It need not have waited, and nothing is to be done: memory is
    /// allocated when it is touched.
    fn deflate(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        let Some(queue) = active.queue(DEFLATE) else {
            return Ok(());
        };
        while let Some(chain) = queue.pop()? {
            self.counters.deflated.add(pages::count(&chain));
            queue.complete(chain, 0)?;
        }
        Ok(())
    }

    /// The driver sent statistics. Its buffer is kept until the host wants others.
    fn take_statistics(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        let Some(queue) = active.queue(STATISTICS) else {
            return Ok(());
        };
        while let Some(chain) = queue.pop()? {
            if !std::mem::take(&mut self.is_known) {
                let (statistics, unknown) = statistics::read(&chain);
                self.control.set_guest(statistics);
                self.counters.statistics.add(1);
                self.counters.unknown.add(unknown);
            }
            // There is to be one only.
            if let Some(older) = self.statistics.replace(chain) {
                queue.complete(older, 0)?;
            }
        }
        Ok(())
    }

    fn ask_for_statistics(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        // None: the driver was asked and has not answered.
        if let Some(buffer) = self.statistics.take()
            && let Some(queue) = active.queue(STATISTICS)
        {
            self.counters.asked.add(1);
            queue.complete(buffer, 0)?;
        }
        Ok(())
    }
}

fn count(counters: &super::counters::BalloonCounters, done: Discarded) {
    counters.discarded.add(done.discarded);
    counters.kept.add(done.kept);
    counters.failures.add(done.failures);
}
