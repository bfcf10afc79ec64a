//! A device's interrupt: the status register, the configuration's generation, and the line.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};
use vmm_sys_util::eventfd::EventFd;

/// Raised from any thread. The line is an edge-triggered GSI that KVM pulses (irqfd).
pub(crate) struct Interrupt {
    line: EventFd,
    /// `InterruptStatus` (virtio 1.2, section 4.2.2).
    status: AtomicU32,
    /// `ConfigGeneration`.
    generation: AtomicU32,
    /// A device must not interrupt before `DRIVER_OK` (section 3.1.1).
    live: AtomicBool,
    raised: AtomicU64,
}

impl Interrupt {
    pub(super) fn new(line: EventFd) -> Self {
        Self {
            line,
            status: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            live: AtomicBool::new(false),
            raised: AtomicU64::new(0),
        }
    }

    /// The driver has used buffers to look at.
    pub(super) fn used_buffers(&self) {
        self.raise(VIRTIO_MMIO_INT_VRING);
    }

    /// The configuration space changed. Call it after the change.
    pub(crate) fn config_changed(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.raise(VIRTIO_MMIO_INT_CONFIG);
    }

    fn raise(&self, cause: u32) {
        if !self.live.load(Ordering::SeqCst) {
            return;
        }
        // First the cause, then the line: the driver reads it as soon as the line is up.
        self.status.fetch_or(cause, Ordering::SeqCst);
        self.raised.fetch_add(1, Ordering::Relaxed);
        // It can fail only when the counter is full, and then the line is about to be raised.
        let _ = self.line.write(1);
    }

    pub(super) fn status(&self) -> u32 {
        self.status.load(Ordering::SeqCst)
    }

    pub(super) fn acknowledge(&self, causes: u32) {
        self.status.fetch_and(!causes, Ordering::SeqCst);
    }

    pub(super) fn generation(&self) -> u32 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Interrupts that were raised since the VM was built.
    pub(super) fn raised(&self) -> u64 {
        self.raised.load(Ordering::Relaxed)
    }

    pub(super) fn set_live(&self, live: bool) {
        self.live.store(live, Ordering::SeqCst);
        if !live {
            self.status.store(0, Ordering::SeqCst);
        }
    }

    pub(super) fn restore(&self, status: u32, generation: u32, live: bool) {
        self.live.store(live, Ordering::SeqCst);
        self.generation.store(generation, Ordering::SeqCst);
        self.status.store(status, Ordering::SeqCst);
    }
}
