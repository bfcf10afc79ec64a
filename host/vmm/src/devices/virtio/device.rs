//! What a device is to the transport and the device thread.

use std::io;
use std::sync::Arc;

use vmm_sys_util::epoll::EventSet;

use super::{
    Active, ChainError, CounterSet, DeviceState, EventSources, QueueError, RestoreError,
    ShortBuffer,
};

/// Kinds of devices, by their virtio device id (virtio 1.2, section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u32)]
pub(crate) enum DeviceKind {
    Net = 1,
    Block = 2,
    Console = 3,
    Rng = 4,
    Balloon = 5,
    Vsock = 19,
}

impl DeviceKind {
    /// The device id.
    pub(crate) fn id(self) -> u32 {
        self as u32
    }

    /// A name for logs and counters.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Net => "net",
            Self::Block => "block",
            Self::Console => "console",
            Self::Rng => "rng",
            Self::Balloon => "balloon",
            Self::Vsock => "vsock",
        }
    }
}

/// What a driver may do with a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueLimits {
    /// Most descriptors in the ring (`QueueNumMax`), a power of two up to 32768.
    pub(crate) max_size: u16,
    /// Most bytes that all buffers of one chain have together. A chain with more breaks the device,
    /// so it must hold the largest request that the device's features allow.
    pub(crate) max_chain_bytes: u32,
}

/// Why a device is broken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    /// The driver's rings or descriptors make no sense.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// A request is shorter than what it must hold, and there is no way to answer it.
    #[error(transparent)]
    Short(#[from] ShortBuffer),
    /// A request makes no sense, and there is no way to answer it.
    #[error("the driver broke the protocol: {0}")]
    Protocol(&'static str),
    /// The host does not do its part, for good.
    #[error("{what}: {source}")]
    Host {
        /// What the device asked for.
        what: &'static str,
        /// What the host said.
        source: io::Error,
    },
}

impl From<ChainError> for DeviceError {
    fn from(error: ChainError) -> Self {
        Self::Queue(error.into())
    }
}

/// A device. Every call comes under the device's lock, from the device thread or a vCPU thread.
///
/// No call blocks for long: it holds up the other devices of the VM, and pausing it. Work is
/// bounded by [`super::Virtqueue::pop`] for queues; a device bounds by itself what it takes from a
/// host descriptor in one [`Self::event`]. An error breaks the device (see [`super`]); what concerns
/// one request only is answered in that request.
pub(crate) trait VirtioDevice: Send {
    fn kind(&self) -> DeviceKind;

    /// The device-specific feature bits that are offered (0 to 23 and 50 to 63). The transport adds
    /// `VIRTIO_F_VERSION_1`, `VIRTIO_F_INDIRECT_DESC` and `VIRTIO_F_EVENT_IDX`. Constant.
    fn features(&self) -> u64 {
        0
    }

    /// The queues, in their order. Constant.
    fn queues(&self) -> &[QueueLimits];

    /// Reads the configuration space from byte `offset` on; [`read_config`] does it from a slice.
    /// `data` is zero beforehand. Any offset and length may come, at any time.
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let _ = (offset, data);
    }

    /// Writes the configuration space. Any offset and length may come, at any time.
    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let _ = (offset, data);
    }

    /// Connects the device, once, before the VM runs. It registers the descriptors that the device
    /// thread watches for it in `sources`, for as long as it exists.
    ///
    /// # Errors
    /// A descriptor can't be watched; the VM is then not built.
    fn attach(&mut self, sources: EventSources) -> io::Result<()> {
        let _ = sources;
        Ok(())
    }

    /// The driver is ready (`DRIVER_OK`): `active` has what it negotiated. From here on the device
    /// may use the queues. Every queue is notified once afterwards.
    fn activate(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        let _ = active;
        Ok(())
    }

    /// The driver made buffers available on `queue`, or the last turn ended before the queue was
    /// empty, or the VM was resumed. May come with nothing to do.
    fn notify(&mut self, queue: u16, active: &mut Active) -> Result<(), DeviceError>;

    /// A descriptor that the device watches is ready. `active` is `None` while there is no driver:
    /// then the device drains the descriptor or stops watching it, or it would spin. May come for a
    /// descriptor that was removed a moment ago.
    fn event(
        &mut self,
        token: u32,
        events: EventSet,
        active: Option<&mut Active>,
    ) -> Result<(), DeviceError> {
        let _ = (token, events, active);
        Ok(())
    }

    /// Back to the state after [`Self::attach`]: no chain held, no access to guest memory under way,
    /// nothing watched that only a driver needs. The queues are gone. May come at any time.
    fn reset(&mut self);

    /// The VM pauses: finishes what is under way, so that no chain is held and guest memory does
    /// not change; a chain that can't be finished is given back ([`super::Virtqueue::unpop`]). Until
    /// the VM goes on nothing else is called but `save`, `counters`, and `reset`.
    fn quiesce(&mut self, active: Option<&mut Active>) -> Result<(), DeviceError> {
        let _ = active;
        Ok(())
    }

    /// What the device counts, readable without its lock.
    fn counters(&self) -> Arc<dyn CounterSet>;

    /// What the device knows beside its queues and features. Quiesced, if it is active.
    fn save(&self) -> DeviceState;

    /// Takes over what [`Self::save`] returned, after [`Self::attach`] and before the VM runs.
    /// `active` is what the driver had set up; `activate` is not called.
    ///
    /// # Errors
    /// The state is another device's or makes no sense. It is untrusted.
    fn restore(
        &mut self,
        state: DeviceState,
        active: Option<&mut Active>,
    ) -> Result<(), RestoreError>;
}

/// Reads `config` from `offset` on into `data`; past its end nothing is written.
pub(crate) fn read_config(config: &[u8], offset: u64, data: &mut [u8]) {
    let rest = usize::try_from(offset)
        .ok()
        .and_then(|offset| config.get(offset..))
        .unwrap_or_default();
    for (to, from) in data.iter_mut().zip(rest) {
        *to = *from;
    }
}
