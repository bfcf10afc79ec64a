//! What a driver set up, from `DRIVER_OK` to a reset.

use std::sync::Arc;

use super::{GuestMemory, Interrupt, QueueError, Virtqueue};

/// Memory, features and queues of a device that a driver uses.
pub(crate) struct Active {
    /// Guest memory.
    pub(crate) memory: GuestMemory,
    features: u64,
    queues: Vec<Option<Virtqueue>>,
    interrupt: Arc<Interrupt>,
}

impl Active {
    pub(super) fn new(
        memory: GuestMemory,
        features: u64,
        queues: Vec<Option<Virtqueue>>,
        interrupt: Arc<Interrupt>,
    ) -> Self {
        Self {
            memory,
            features,
            queues,
            interrupt,
        }
    }

    /// Whether feature `bit` was negotiated.
    pub(crate) fn has(&self, bit: u32) -> bool {
        self.features.checked_shr(bit).unwrap_or(0) & 1 != 0
    }

    /// Queue `index`, if the driver enabled it: it need not enable all.
    pub(crate) fn queue(&mut self, index: u16) -> Option<&mut Virtqueue> {
        self.queues.get_mut(usize::from(index))?.as_mut()
    }

    /// Whether the driver enabled queue `index`.
    pub(crate) fn has_queue(&self, index: u16) -> bool {
        matches!(self.queues.get(usize::from(index)), Some(Some(_)))
    }

    /// Tells the driver that the configuration space changed.
    pub(crate) fn config_changed(&self) {
        self.interrupt.config_changed();
    }

    /// Raises the interrupt now if the driver wants one for what was completed. It happens after
    /// each call anyway; a device that completes a lot in one may do it earlier.
    pub(crate) fn signal(&mut self) -> Result<(), QueueError> {
        let mut wanted = false;
        for queue in self.queues.iter_mut().flatten() {
            wanted |= queue.wants_interrupt()?;
        }
        if wanted {
            self.interrupt.used_buffers();
        }
        Ok(())
    }

    pub(super) fn features(&self) -> u64 {
        self.features
    }

    pub(super) fn queues(&self) -> impl Iterator<Item = Option<&Virtqueue>> {
        self.queues.iter().map(Option::as_ref)
    }

    /// Begins a turn: each queue may be popped from so often.
    pub(super) fn begin_turn(&mut self) {
        self.queues
            .iter_mut()
            .flatten()
            .for_each(Virtqueue::begin_turn);
    }

    /// The queues on which the turn ended before they were empty.
    pub(super) fn unfinished(&self) -> impl Iterator<Item = u16> {
        self.queues
            .iter()
            .flatten()
            .filter(|queue| queue.is_unfinished())
            .map(Virtqueue::index)
    }
}
