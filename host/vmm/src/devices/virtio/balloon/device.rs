//! The device and how the transport sees it.

use std::io;
use std::sync::Arc;

use vmm_sys_util::epoll::EventSet;

use super::config::BalloonConfig;
use super::control::BalloonControl;
use super::counters::BalloonCounters;
use super::feature;
use super::state::BalloonState;
use crate::devices::virtio::{
    Active, Chain, CounterSet, DeviceError, DeviceKind, DeviceState, EventSources, QueueLimits,
    RestoreError, VirtioDevice, read_config,
};

/// Pages to put into the balloon.
pub(super) const INFLATE: u16 = 0;
/// Pages to take out of it.
pub(super) const DEFLATE: u16 = 1;
/// Statistics, if they were negotiated.
pub(super) const STATISTICS: u16 = 2;

/// 4096 page numbers. Linux sends 256 at once, others 1024.
const PAGES: QueueLimits = QueueLimits {
    max_size: 128,
    max_chain_bytes: 16 << 10,
};
/// Inflate, deflate, statistics, free page hints (which are not offered), free page reports. Which
/// of the last three a driver uses for what, [`super::events`] tells.
const QUEUES: [QueueLimits; 5] = {
    /// Linux reports up to 32 ranges of at most 4 MiB at once; others may do it in larger ones.
    const REPORTS: QueueLimits = QueueLimits {
        max_size: 128,
        max_chain_bytes: 1 << 30,
    };
    [PAGES, PAGES, REPORTS, REPORTS, REPORTS]
};

/// Where `actual` is in the configuration space, the only field that a driver writes.
const ACTUAL: u64 = 4;

/// The balloon.
pub(crate) struct Balloon {
    pub(super) control: Arc<BalloonControl>,
    features: u64,
    /// The target when the driver last had reason to look.
    pub(super) told_pages: u32,
    /// The driver's buffer for statistics, which goes back when the host wants new ones.
    pub(super) statistics: Option<Chain>,
    /// That buffer was given back for a pause: when it comes again, it says nothing new.
    pub(super) is_known: bool,
    pub(super) counters: Arc<BalloonCounters>,
}

impl Balloon {
    /// # Errors
    /// No more descriptors, or an interval for ever.
    pub(crate) fn new(config: BalloonConfig) -> io::Result<Self> {
        let offer = |wanted: bool, bit: u32| u64::from(wanted) << bit;
        Ok(Self {
            control: Arc::new(BalloonControl::new(config.statistics_interval)?),
            // Always: the host may want statistics later.
            features: offer(true, feature::STATISTICS)
                | offer(config.deflate_on_oom, feature::DEFLATE_ON_OOM)
                | offer(config.free_page_reporting, feature::REPORTING),
            told_pages: 0,
            statistics: None,
            is_known: false,
            counters: Arc::default(),
        })
    }

    /// The host's end.
    pub(crate) fn control(&self) -> Arc<BalloonControl> {
        Arc::clone(&self.control)
    }
}

impl VirtioDevice for Balloon {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Balloon
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queues(&self) -> &[QueueLimits] {
        &QUEUES
    }

    /// `num_pages` and `actual` (section 5.5.4). The rest is for features that are not offered.
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let numbers = [self.control.target_pages(), self.control.actual_pages()];
        let [n0, n1, n2, n3] = numbers[0].to_le_bytes();
        let [a0, a1, a2, a3] = numbers[1].to_le_bytes();
        read_config(&[n0, n1, n2, n3, a0, a1, a2, a3], offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        match (offset, <[u8; 4]>::try_from(data)) {
            (ACTUAL, Ok(bytes)) => self.control.set_actual_pages(u32::from_le_bytes(bytes)),
            _ => self.counters.refused.add(1),
        }
    }

    fn attach(&mut self, sources: EventSources) -> io::Result<()> {
        self.watch(&sources)
    }

    fn activate(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        // The driver may have looked before it was ready to be told.
        self.tell_target(active);
        Ok(())
    }

    fn notify(&mut self, queue: u16, active: &mut Active) -> Result<(), DeviceError> {
        self.on_queue(queue, active)
    }

    fn event(
        &mut self,
        token: u32,
        _events: EventSet,
        active: Option<&mut Active>,
    ) -> Result<(), DeviceError> {
        self.on_descriptor(token, active)
    }

    fn reset(&mut self) {
        self.statistics = None;
        self.is_known = false;
        self.told_pages = self.control.target_pages();
        self.control.clear_guest();
    }

    fn quiesce(&mut self, active: Option<&mut Active>) -> Result<(), DeviceError> {
        if let Some(buffer) = self.statistics.take()
            && let Some(queue) = active.and_then(|active| active.queue(STATISTICS))
        {
            queue.unpop(buffer);
            self.is_known = true;
        }
        Ok(())
    }

    fn counters(&self) -> Arc<dyn CounterSet> {
        self.counters.clone()
    }

    fn save(&self) -> DeviceState {
        DeviceState::Balloon(BalloonState {
            target_pages: self.control.target_pages(),
            told_pages: self.told_pages,
            actual_pages: self.control.actual_pages(),
        })
    }

    fn restore(
        &mut self,
        state: DeviceState,
        _active: Option<&mut Active>,
    ) -> Result<(), RestoreError> {
        let DeviceState::Balloon(state) = state else {
            return Err(RestoreError::Kind(DeviceKind::Balloon.name()));
        };
        self.control.set_target_pages(state.target_pages);
        self.control.set_actual_pages(state.actual_pages);
        self.told_pages = state.told_pages;
        // What it was not told yet it is told when the VM goes on.
        self.control.wake.raise();
        Ok(())
    }
}
