//! The status register of the Generic Event Device: what the host has to tell the guest.
//!
//! The device's AML (`acpi::dsdt`) reads the register when the interrupt comes, which clears it,
//! and notifies the drivers of what happened. Events that come twice before they are read are one,
//! as a button that is pressed twice before anybody looks.

use std::sync::atomic::{AtomicU8, Ordering};

use vmm_sys_util::eventfd::EventFd;

/// The power button was pressed.
pub(crate) const POWER_BUTTON: u8 = 1 << 0;
/// The generation id has changed.
pub(crate) const GENERATION_ID: u8 = 1 << 1;

pub(crate) struct Events {
    status: AtomicU8,
    interrupt: EventFd,
}

impl Events {
    pub(crate) fn new(interrupt: EventFd) -> Self {
        Self {
            status: AtomicU8::new(0),
            interrupt,
        }
    }

    /// Tells the guest that `event` happened.
    pub(crate) fn raise(&self, event: u8) {
        self.status.fetch_or(event, Ordering::SeqCst);
        // It can fail only when the counter is full, and then the interrupt is on its way.
        let _ = self.interrupt.write(1);
    }

    /// What happened since the last call.
    pub(super) fn take(&self) -> u8 {
        self.status.swap(0, Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;

    #[test]
    fn events_are_told_once_and_each_raises_the_interrupt() {
        let interrupt = EventFd::new(EFD_NONBLOCK).unwrap();
        let events = Events::new(interrupt.try_clone().unwrap());
        assert_eq!(events.take(), 0);
        events.raise(POWER_BUTTON);
        events.raise(GENERATION_ID);
        events.raise(POWER_BUTTON);
        assert_eq!(interrupt.read().unwrap(), 3);
        assert_eq!(events.take(), POWER_BUTTON | GENERATION_ID);
        assert_eq!(events.take(), 0);
    }
}
