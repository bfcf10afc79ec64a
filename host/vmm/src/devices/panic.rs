//! The panic device of QEMU (docs/specs/pvpanic.rst): a port on which a kernel says that it gave
//! up.

use std::sync::atomic::{AtomicBool, Ordering};

/// The kernel panicked and does nothing more.
const PANICKED: u8 = 1 << 0;
/// The kernel panicked and starts its crash kernel.
const CRASH_LOADED: u8 = 1 << 1;

#[derive(Default)]
pub(super) struct PanicDevice {
    crash_loaded: AtomicBool,
}

impl PanicDevice {
    /// The events that the device takes.
    pub(super) fn capabilities() -> u8 {
        PANICKED | CRASH_LOADED
    }

    /// Whether the guest is at its end. One that starts a crash kernel is not: that kernel has a
    /// dump to write first.
    pub(super) fn tell(&self, event: u8) -> bool {
        if event & CRASH_LOADED != 0 {
            self.crash_loaded.store(true, Ordering::Relaxed);
        }
        event & PANICKED != 0
    }

    /// Whether a crash kernel was started.
    pub(super) fn crash_loaded(&self) -> bool {
        self.crash_loaded.load(Ordering::Relaxed)
    }
}
