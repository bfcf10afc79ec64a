//! What is saved of a device with its transport.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::inner::Inner;
use super::status::Status;
use crate::devices::virtio::{
    DeviceKind, DeviceState, Interrupt, QueueState, RestoreError, Virtqueue,
};

/// Registers, queues and the device's own state. Untrusted when it comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VirtioState {
    /// What kind of device it is.
    pub(crate) kind: DeviceKind,
    /// The device status field.
    pub(crate) status: u32,
    /// `DeviceFeaturesSel`.
    pub(crate) device_features_select: u32,
    /// `DriverFeaturesSel`.
    pub(crate) driver_features_select: u32,
    /// What the driver took of the features, or is about to.
    pub(crate) driver_features: u64,
    /// `QueueSel`.
    pub(crate) queue_select: u32,
    /// `InterruptStatus`.
    pub(crate) interrupt_status: u32,
    /// `ConfigGeneration`.
    pub(crate) config_generation: u32,
    /// Every queue, enabled or not.
    pub(crate) queues: Vec<QueueState>,
    /// Why it is broken, if it is.
    pub(crate) broken: Option<String>,
    /// What the device itself knows.
    pub(crate) device: DeviceState,
}

/// Why a device can't be saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SaveError {
    /// It is not quiesced.
    #[error("{0} chains are under way")]
    Busy(u16),
}

impl VirtioState {
    pub(super) fn of(
        inner: &Inner,
        interrupt: &Interrupt,
        broken: Option<String>,
    ) -> Result<Self, SaveError> {
        let registers = &inner.registers;
        let mut queues = registers.queues.clone();
        if let Some(active) = &inner.active {
            for (state, queue) in queues.iter_mut().zip(active.queues()) {
                match queue.map_or(0, Virtqueue::in_flight) {
                    0 => {}
                    busy => return Err(SaveError::Busy(busy)),
                }
                if let Some(queue) = queue {
                    *state = queue.state();
                }
            }
        }
        Ok(Self {
            kind: inner.kind,
            status: registers.status.bits(),
            device_features_select: registers.device_features_select,
            driver_features_select: registers.driver_features_select,
            driver_features: registers.driver_features,
            queue_select: registers.queue_select,
            interrupt_status: interrupt.status(),
            config_generation: interrupt.generation(),
            queues,
            broken,
            device: inner.device.save(),
        })
    }

    pub(super) fn restore(
        self,
        inner: &mut Inner,
        interrupt: &Arc<Interrupt>,
    ) -> Result<(), RestoreError> {
        let invalid = |what: &str| RestoreError::Invalid(what.to_owned());
        if self.kind != inner.kind {
            return Err(RestoreError::Kind(inner.kind.name()));
        }
        let status = Status::from_bits(self.status).ok_or_else(|| invalid("the status"))?;
        let registers = &mut inner.registers;
        if self.queues.len() != registers.queues.len() {
            return Err(invalid("the number of queues"));
        }
        registers.queues = self.queues;
        registers.status = status;
        registers.device_features_select = self.device_features_select;
        registers.driver_features_select = self.driver_features_select;
        registers.driver_features = self.driver_features;
        registers.queue_select = self.queue_select;
        if status.has_features() && !registers.features_are_acceptable() {
            registers.reset();
            return Err(invalid("features that are not offered"));
        }
        let active = match status.is_active() {
            true => inner.make_active(interrupt).map(Some),
            false => Ok(None),
        };
        let restored = active
            .map_err(|error| RestoreError::Invalid(error.to_string()))
            .and_then(|mut active| {
                inner.device.restore(self.device, active.as_mut())?;
                Ok(active)
            });
        inner.active = restored.inspect_err(|_| {
            inner.registers.reset();
            inner.device.reset();
        })?;
        Ok(())
    }
}
