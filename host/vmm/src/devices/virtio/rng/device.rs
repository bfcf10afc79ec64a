//! The device and how the transport sees it.

use std::sync::Arc;

use super::counters::RngCounters;
use super::state::RngState;
use crate::devices::virtio::{
    Active, CounterSet, DeviceError, DeviceKind, DeviceState, QueueLimits, RestoreError,
    VirtioDevice,
};

/// Its one queue, `requestq`.
pub(super) const REQUESTS: u16 = 0;

/// Linux asks for at most 64 bytes at a time; a driver that wants more gets more, within bounds.
const QUEUES: [QueueLimits; 1] = [QueueLimits {
    max_size: 64,
    max_chain_bytes: 64 << 10,
}];

/// The entropy device.
#[derive(Default)]
pub(crate) struct Rng {
    pub(super) counters: Arc<RngCounters>,
}

impl VirtioDevice for Rng {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Rng
    }

    fn queues(&self) -> &[QueueLimits] {
        &QUEUES
    }

    fn notify(&mut self, queue: u16, active: &mut Active) -> Result<(), DeviceError> {
        match queue {
            REQUESTS => self.serve_requests(active),
            _ => Ok(()),
        }
    }

    // It holds nothing between two calls.
    fn reset(&mut self) {}

    fn counters(&self) -> Arc<dyn CounterSet> {
        self.counters.clone()
    }

    fn save(&self) -> DeviceState {
        DeviceState::Rng(RngState {})
    }

    fn restore(
        &mut self,
        state: DeviceState,
        _active: Option<&mut Active>,
    ) -> Result<(), RestoreError> {
        match state {
            DeviceState::Rng(RngState {}) => Ok(()),
            #[allow(unreachable_patterns, reason = "it is the first kind")]
            _ => Err(RestoreError::Kind(DeviceKind::Rng.name())),
        }
    }
}
