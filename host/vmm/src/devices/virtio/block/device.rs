//! The device and how the transport sees it.

use std::io;
use std::sync::Arc;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH,
    VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_F_TOPOLOGY,
    VIRTIO_BLK_F_WRITE_ZEROES,
};
use vmm_sys_util::epoll::EventSet;

use super::backend::Backend;
use super::config::{DiskConfig, DiskError};
use super::counters::BlockCounters;
use super::open;
use super::request::{Disk, ID_BYTES};
use super::space::{MAX_DATA_BYTES, WRITEBACK, space};
use super::state::BlockState;
use crate::devices::virtio::{
    Active, Clock, CounterSet, DeviceError, DeviceKind, DeviceState, EventSources, LimitControl,
    Monotonic, QueueLimits, RateLimiter, RestoreError, VirtioDevice, read_config,
};

/// Its one queue, `requestq1`.
pub(super) const REQUESTS: u16 = 0;
/// Jobs are done.
const DONE: u32 = 0;
/// The rate limit may let something pass.
const LIMITS: u32 = 1;

const QUEUES: [QueueLimits; 1] = [QueueLimits {
    max_size: 256,
    // The largest request, with room for header and status.
    max_chain_bytes: MAX_DATA_BYTES + 4096,
}];

/// A disk.
pub(crate) struct Block {
    pub(super) disk: Disk,
    /// Padded with zeroes.
    pub(super) id: [u8; ID_BYTES],
    pub(super) backend: Box<dyn Backend>,
    pub(super) limiter: RateLimiter,
    pub(super) counters: Arc<BlockCounters>,
    /// What the driver may switch off, if it negotiated to.
    pub(super) writeback: bool,
    /// Bytes of data that are being read and written.
    pub(super) in_flight_bytes: u64,
}

impl Block {
    /// # Errors
    /// The files can't be used, see [`DiskError`].
    pub(crate) fn new(config: DiskConfig) -> Result<Self, DiskError> {
        Self::with_clock(config, Box::new(Monotonic::default()))
    }

    pub(super) fn with_clock(config: DiskConfig, clock: Box<dyn Clock>) -> Result<Self, DiskError> {
        let id = padded(&config.id).ok_or_else(|| DiskError::Id(config.id.clone()))?;
        let limits = LimitControl::new(config.limits).map_err(DiskError::host("make a timer"))?;
        let (disk, backend) = open::open(config)?;
        let limiter = RateLimiter::new(Arc::new(limits), clock);
        Ok(Self::with_backend(disk, id, backend, limiter))
    }

    pub(super) fn with_backend(
        disk: Disk,
        id: [u8; ID_BYTES],
        backend: Box<dyn Backend>,
        limiter: RateLimiter,
    ) -> Self {
        Self {
            disk,
            id,
            backend,
            counters: Arc::new(BlockCounters::new(Arc::clone(limiter.control()))),
            limiter,
            writeback: true,
            in_flight_bytes: 0,
        }
    }

    /// By which the host changes the limits.
    pub(crate) fn limits(&self) -> Arc<LimitControl> {
        Arc::clone(self.limiter.control())
    }
}

fn padded(id: &str) -> Option<[u8; ID_BYTES]> {
    let mut padded = [0; ID_BYTES];
    let is_printable = id.bytes().all(|byte| byte.is_ascii_graphic());
    padded.get_mut(..id.len())?.copy_from_slice(id.as_bytes());
    (is_printable && !id.is_empty()).then_some(padded)
}

impl VirtioDevice for Block {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Block
    }

    fn features(&self) -> u64 {
        let both = [
            VIRTIO_BLK_F_SIZE_MAX,
            VIRTIO_BLK_F_SEG_MAX,
            VIRTIO_BLK_F_BLK_SIZE,
            VIRTIO_BLK_F_TOPOLOGY,
        ];
        let writable = [
            VIRTIO_BLK_F_FLUSH,
            VIRTIO_BLK_F_CONFIG_WCE,
            VIRTIO_BLK_F_DISCARD,
            VIRTIO_BLK_F_WRITE_ZEROES,
        ];
        let more: &[_] = match self.disk.read_only {
            true => &[VIRTIO_BLK_F_RO],
            false => &writable,
        };
        both.iter().chain(more).fold(0, |bits, bit| bits | 1 << bit)
    }

    fn queues(&self) -> &[QueueLimits] {
        &QUEUES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let space = space(self.disk.capacity_bytes, self.writeback);
        read_config(&space, offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let at = WRITEBACK.checked_sub(offset).map(usize::try_from);
        if let Some(Ok(at)) = at
            && let Some(writeback) = data.get(at)
        {
            self.writeback = writeback & 1 != 0;
        }
    }

    fn attach(&mut self, sources: EventSources) -> io::Result<()> {
        // Without a driver nothing is under way, so that it is not readable for long.
        sources.add(&self.backend.wake(), DONE, EventSet::IN)?;
        sources.add(&self.limiter, LIMITS, EventSet::IN)
    }

    fn activate(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        if active.has(VIRTIO_BLK_F_CONFIG_WCE) && !active.has(VIRTIO_BLK_F_FLUSH) {
            self.writeback = false;
        }
        Ok(())
    }

    fn notify(&mut self, queue: u16, active: &mut Active) -> Result<(), DeviceError> {
        match queue {
            REQUESTS => self.serve(active),
            _ => Ok(()),
        }
    }

    fn event(
        &mut self,
        token: u32,
        _events: EventSet,
        active: Option<&mut Active>,
    ) -> Result<(), DeviceError> {
        if token == LIMITS {
            self.limiter.on_timer();
        }
        match (token, active) {
            (DONE | LIMITS, Some(active)) => self.serve(active),
            (DONE, None) => self.take_done().map(drop),
            _ => Ok(()),
        }
    }

    fn reset(&mut self) {
        self.backend.cancel();
        self.in_flight_bytes = 0;
        self.writeback = true;
    }

    fn quiesce(&mut self, active: Option<&mut Active>) -> Result<(), DeviceError> {
        self.finish_all(active)
    }

    fn counters(&self) -> Arc<dyn CounterSet> {
        self.counters.clone()
    }

    fn save(&self) -> DeviceState {
        DeviceState::Block(BlockState {
            capacity_bytes: self.disk.capacity_bytes,
            writeback: self.writeback,
        })
    }

    fn restore(
        &mut self,
        state: DeviceState,
        _active: Option<&mut Active>,
    ) -> Result<(), RestoreError> {
        let DeviceState::Block(state) = state else {
            return Err(RestoreError::Kind(DeviceKind::Block.name()));
        };
        if state.capacity_bytes != self.disk.capacity_bytes {
            return Err(RestoreError::Invalid(format!(
                "it is of a disk of {} bytes, and this one has {}",
                state.capacity_bytes, self.disk.capacity_bytes
            )));
        }
        self.writeback = state.writeback;
        Ok(())
    }
}
