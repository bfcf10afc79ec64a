//! A device that does as a test says, to test the transport, the queues and the event loop.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use vm_memory::{Bytes as _, GuestAddress};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::devices::virtio::rng::RngState;
use crate::devices::virtio::{
    Active, Chain, Counter, CounterSet, DeviceError, DeviceKind, DeviceState, EventSources,
    QueueLimits, RestoreError, VirtioDevice, read_config,
};

/// Its feature bit.
pub(crate) const FEATURE: u32 = 3;
/// Most descriptors of either queue.
pub(crate) const QUEUE_SIZE: u16 = 16;
/// Most bytes of a chain of either queue.
pub(crate) const MAX_CHAIN_BYTES: u32 = 4096;
/// The token of its descriptor.
const TOKEN: u32 = 7;

/// What the device does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Completes each chain, with all the room it has.
    Answer,
    /// Keeps chains until it is quiesced, and gives them back then.
    Keep,
    /// Answers, and makes one more available each time, as a driver on a vCPU does meanwhile.
    Refill,
    /// Refuses to work for any driver.
    Fail,
    /// Panics when its descriptor calls.
    Panic,
}

/// What a test sees of the device.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) activated: AtomicU64,
    pub(crate) resets: AtomicU64,
    pub(crate) turns: AtomicU64,
    pub(crate) quiesced: AtomicU64,
    /// Times that its descriptor called, with a driver and without.
    pub(crate) calls: AtomicU64,
    /// [`Manner::Refill`]: where the index of the available ring is.
    pub(crate) refill: AtomicU64,
    /// Whether its configuration space changes when its descriptor calls.
    pub(crate) changes: AtomicBool,
}

/// The device: two queues, eight bytes of configuration, one descriptor.
pub(crate) struct Probe {
    pub(crate) seen: Arc<Seen>,
    /// Signalled by a test to make [`VirtioDevice::event`] come.
    pub(crate) call: Arc<EventFd>,
    manner: Manner,
    config: [u8; 8],
    kept: Vec<(u16, Chain)>,
}

impl Probe {
    pub(crate) fn new(manner: Manner) -> Self {
        Self {
            seen: Arc::default(),
            call: Arc::new(EventFd::new(EFD_NONBLOCK).unwrap()),
            manner,
            config: *b"probe\0\0\0",
            kept: Vec::new(),
        }
    }
}

impl VirtioDevice for Probe {
    // It passes for a kind that there is.
    fn kind(&self) -> DeviceKind {
        DeviceKind::Rng
    }

    fn features(&self) -> u64 {
        1 << FEATURE
    }

    fn queues(&self) -> &[QueueLimits] {
        const LIMITS: QueueLimits = QueueLimits {
            max_size: QUEUE_SIZE,
            max_chain_bytes: MAX_CHAIN_BYTES,
        };
        &[LIMITS; 2]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config(&self.config, offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if let (5, [byte]) = (offset, data) {
            self.config[5] = *byte;
        }
    }

    fn attach(&mut self, sources: EventSources) -> io::Result<()> {
        sources.add(&*self.call, TOKEN, EventSet::IN)
    }

    fn activate(&mut self, _active: &mut Active) -> Result<(), DeviceError> {
        self.seen.activated.fetch_add(1, Ordering::SeqCst);
        match self.manner {
            Manner::Fail => Err(DeviceError::Protocol("no driver is good enough")),
            _ => Ok(()),
        }
    }

    fn notify(&mut self, index: u16, active: &mut Active) -> Result<(), DeviceError> {
        self.seen.turns.fetch_add(1, Ordering::SeqCst);
        let memory = Arc::clone(&active.memory);
        let Some(queue) = active.queue(index) else {
            return Ok(());
        };
        while let Some(chain) = queue.pop()? {
            if self.manner == Manner::Keep {
                self.kept.push((index, chain));
                continue;
            }
            let mut writer = chain.writer();
            writer.write(&vec![0xee; writer.remaining()]);
            let written = writer.written() as u32;
            queue.complete(chain, written)?;
            if self.manner == Manner::Refill {
                let at = GuestAddress(self.seen.refill.load(Ordering::SeqCst));
                let index: u16 = memory.read_obj(at).unwrap();
                memory.write_obj(index.wrapping_add(1), at).unwrap();
            }
        }
        Ok(())
    }

    fn event(
        &mut self,
        token: u32,
        _events: EventSet,
        active: Option<&mut Active>,
    ) -> Result<(), DeviceError> {
        assert_ne!(self.manner, Manner::Panic, "as the test asked for");
        if token == TOKEN {
            self.call.read().unwrap();
            self.seen.calls.fetch_add(1, Ordering::SeqCst);
            if let Some(active) = active.filter(|_| self.seen.changes.load(Ordering::SeqCst)) {
                active.config_changed();
            }
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.seen.resets.fetch_add(1, Ordering::SeqCst);
        self.kept.clear();
    }

    fn quiesce(&mut self, active: Option<&mut Active>) -> Result<(), DeviceError> {
        self.seen.quiesced.fetch_add(1, Ordering::SeqCst);
        let Some(active) = active else {
            return Ok(());
        };
        while let Some((index, chain)) = self.kept.pop() {
            if let Some(queue) = active.queue(index) {
                queue.unpop(chain);
            }
        }
        Ok(())
    }

    fn counters(&self) -> Arc<dyn CounterSet> {
        Arc::new(NoCounters)
    }

    fn save(&self) -> DeviceState {
        DeviceState::Rng(RngState {})
    }

    fn restore(
        &mut self,
        _state: DeviceState,
        _active: Option<&mut Active>,
    ) -> Result<(), RestoreError> {
        Ok(())
    }
}

struct NoCounters;

impl CounterSet for NoCounters {
    fn read(&self) -> Vec<Counter> {
        Vec::new()
    }
}
