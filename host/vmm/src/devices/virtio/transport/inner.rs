//! What a device's lock protects.

use std::sync::Arc;

use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::registers::Registers;
use crate::devices::virtio::queue::Negotiated;
use crate::devices::virtio::{
    Active, DeviceKind, GuestMemory, Interrupt, QueueError, VirtioDevice, Virtqueue,
};

/// The device, its registers and, while a driver uses it, its queues.
pub(super) struct Inner {
    pub(super) kind: DeviceKind,
    pub(super) device: Box<dyn VirtioDevice>,
    pub(super) memory: GuestMemory,
    pub(super) registers: Registers,
    pub(super) active: Option<Active>,
}

impl Inner {
    /// The queue as it is configured, checked.
    pub(super) fn make_queue(&self, index: u16) -> Result<Virtqueue, QueueError> {
        let at = usize::from(index);
        let (limits, state) = (self.registers.limits.get(at), self.registers.queues.get(at));
        let (Some(limits), Some(state)) = (limits, state) else {
            return Err(QueueError::Geometry {
                queue: index,
                reason: "there is no such queue",
            });
        };
        let has = |bit: u32| self.registers.driver_features >> bit & 1 != 0;
        let negotiated = Negotiated {
            indirect: has(VIRTIO_RING_F_INDIRECT_DESC),
            event_idx: has(VIRTIO_RING_F_EVENT_IDX),
        };
        Virtqueue::new(index, *limits, state, negotiated, Arc::clone(&self.memory))
    }

    /// What the driver has set up.
    pub(super) fn make_active(&self, interrupt: &Arc<Interrupt>) -> Result<Active, QueueError> {
        let enabled = self.registers.queues.iter().map(|queue| queue.ready);
        let queues = (0..).zip(enabled).map(|(index, enabled)| match enabled {
            true => self.make_queue(index).map(Some),
            false => Ok(None),
        });
        Ok(Active::new(
            Arc::clone(&self.memory),
            self.registers.driver_features,
            queues.collect::<Result<_, _>>()?,
            Arc::clone(interrupt),
        ))
    }
}
