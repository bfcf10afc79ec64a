//! The registers that only the driver changes, and what it may do to them when.

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_mmio::*;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::status::{Progress, Status};
use crate::devices::virtio::{DeviceKind, QueueLimits, QueueState};

/// "virt", little-endian.
const MAGIC: u32 = 0x7472_6976;
/// The current interface.
const VERSION: u32 = 2;
/// "RSTv": what the transport says about who made it. Drivers do not look at it.
const VENDOR: u32 = u32::from_le_bytes(*b"RSTv");
/// What the transport itself offers for every device.
pub(super) const TRANSPORT_FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_INDIRECT_DESC | 1 << VIRTIO_RING_F_EVENT_IDX;

/// What a write asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing else.
    Done,
    /// The driver may not do that, or not now. Nothing changed.
    Refused,
    /// The device starts anew.
    Reset,
    /// This queue was configured and enabled: it is to be checked.
    Enabled(u16),
    /// The driver is ready.
    Activate,
}

/// The register file.
pub(super) struct Registers {
    kind: DeviceKind,
    pub(super) offered: u64,
    pub(super) limits: Vec<QueueLimits>,
    pub(super) status: Status,
    pub(super) device_features_select: u32,
    pub(super) driver_features_select: u32,
    pub(super) driver_features: u64,
    pub(super) queue_select: u32,
    pub(super) queues: Vec<QueueState>,
}

impl Registers {
    pub(super) fn new(kind: DeviceKind, features: u64, limits: &[QueueLimits]) -> Self {
        Self {
            kind,
            offered: features | TRANSPORT_FEATURES,
            limits: limits.to_vec(),
            status: Status::default(),
            device_features_select: 0,
            driver_features_select: 0,
            driver_features: 0,
            queue_select: 0,
            queues: vec![QueueState::default(); limits.len()],
        }
    }

    /// As after power-on.
    pub(super) fn reset(&mut self) {
        *self = Self {
            offered: self.offered,
            ..Self::new(self.kind, 0, &self.limits)
        };
    }

    /// Whether the driver took no more than what is offered, and what it must take.
    pub(super) fn features_are_acceptable(&self) -> bool {
        self.driver_features & !self.offered == 0
            && self.driver_features >> VIRTIO_F_VERSION_1 & 1 != 0
    }

    pub(super) fn read(&self, register: u32) -> u32 {
        match register {
            VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            VIRTIO_MMIO_VERSION => VERSION,
            VIRTIO_MMIO_DEVICE_ID => self.kind.id(),
            VIRTIO_MMIO_VENDOR_ID => VENDOR,
            VIRTIO_MMIO_DEVICE_FEATURES => match self.device_features_select {
                0 => self.offered as u32,
                1 => (self.offered >> 32) as u32,
                _ => 0,
            },
            VIRTIO_MMIO_QUEUE_NUM_MAX => {
                let limits = self.limits.get(self.queue_select as usize);
                limits.map_or(0, |limits| limits.max_size.into())
            }
            VIRTIO_MMIO_QUEUE_READY => {
                let queue = self.queues.get(self.queue_select as usize);
                queue.is_some_and(|queue| queue.ready).into()
            }
            VIRTIO_MMIO_STATUS => self.status.bits(),
            // There is no shared memory: its length reads as all ones (section 4.2.2).
            VIRTIO_MMIO_SHM_LEN_LOW
            | VIRTIO_MMIO_SHM_LEN_HIGH
            | VIRTIO_MMIO_SHM_BASE_LOW
            | VIRTIO_MMIO_SHM_BASE_HIGH => u32::MAX,
            _ => 0,
        }
    }

    pub(super) fn write(&mut self, register: u32, value: u32) -> Effect {
        match register {
            VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.device_features_select = value,
            VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.driver_features_select = value,
            VIRTIO_MMIO_QUEUE_SEL => self.queue_select = value,
            VIRTIO_MMIO_SHM_SEL => {}
            VIRTIO_MMIO_DRIVER_FEATURES => return self.write_features(value),
            VIRTIO_MMIO_STATUS if value == 0 => return Effect::Reset,
            VIRTIO_MMIO_STATUS => {
                let acceptable = self.features_are_acceptable();
                return match self.status.write(value, acceptable) {
                    Progress::Done => Effect::Done,
                    Progress::Refused => Effect::Refused,
                    Progress::DriverOk => Effect::Activate,
                };
            }
            VIRTIO_MMIO_QUEUE_NUM
            | VIRTIO_MMIO_QUEUE_READY
            | VIRTIO_MMIO_QUEUE_DESC_LOW
            | VIRTIO_MMIO_QUEUE_DESC_HIGH
            | VIRTIO_MMIO_QUEUE_AVAIL_LOW
            | VIRTIO_MMIO_QUEUE_AVAIL_HIGH
            | VIRTIO_MMIO_QUEUE_USED_LOW
            | VIRTIO_MMIO_QUEUE_USED_HIGH => return self.write_queue(register, value),
            _ => return Effect::Refused,
        }
        Effect::Done
    }

    fn write_features(&mut self, value: u32) -> Effect {
        if !self.status.takes_features() {
            return Effect::Refused;
        }
        match self.driver_features_select {
            0 => set_low(&mut self.driver_features, value),
            1 => set_high(&mut self.driver_features, value),
            // Linux writes no more than these. Of what is not offered, none may be taken.
            _ if value == 0 => {}
            _ => return Effect::Refused,
        }
        Effect::Done
    }

    fn write_queue(&mut self, register: u32, value: u32) -> Effect {
        let index = self.queue_select;
        let limits = self.limits.get(index as usize);
        let queue = self.queues.get_mut(index as usize);
        let (Some(limits), Some(queue), true) = (limits, queue, self.status.takes_queues()) else {
            return Effect::Refused;
        };
        // What is enabled is not changed; it can be disabled.
        if queue.ready && !(register == VIRTIO_MMIO_QUEUE_READY && value == 0) {
            return Effect::Refused;
        }
        match register {
            VIRTIO_MMIO_QUEUE_NUM => match u16::try_from(value) {
                Ok(size) if size.is_power_of_two() && size <= limits.max_size => queue.size = size,
                _ => return Effect::Refused,
            },
            VIRTIO_MMIO_QUEUE_READY => match value {
                0 => queue.ready = false,
                1 if queue.size > 0 => {
                    queue.ready = true;
                    return Effect::Enabled(index as u16);
                }
                _ => return Effect::Refused,
            },
            VIRTIO_MMIO_QUEUE_DESC_LOW => set_low(&mut queue.descriptors, value),
            VIRTIO_MMIO_QUEUE_DESC_HIGH => set_high(&mut queue.descriptors, value),
            VIRTIO_MMIO_QUEUE_AVAIL_LOW => set_low(&mut queue.available, value),
            VIRTIO_MMIO_QUEUE_AVAIL_HIGH => set_high(&mut queue.available, value),
            VIRTIO_MMIO_QUEUE_USED_LOW => set_low(&mut queue.used, value),
            VIRTIO_MMIO_QUEUE_USED_HIGH => set_high(&mut queue.used, value),
            _ => return Effect::Refused,
        }
        Effect::Done
    }
}

fn set_low(number: &mut u64, half: u32) {
    *number = *number & !u64::from(u32::MAX) | u64::from(half);
}

fn set_high(number: &mut u64, half: u32) {
    *number = *number & u64::from(u32::MAX) | u64::from(half) << 32;
}
