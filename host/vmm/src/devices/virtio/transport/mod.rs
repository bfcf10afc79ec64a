//! The MMIO transport (virtio 1.2, section 4.2): the register file in front of a device.
//!
//! [`registers::Registers`] decides: a plain structure with no device, no lock and no I/O, which says what a
//! write asks for or that the driver may not do that now. [`VirtioMmio`] carries out: it owns the
//! device, gives it its turns, and breaks it when it, or its driver, has gone wrong.
//!
//! ```text
//!             ACKNOWLEDGE       DRIVER         FEATURES_OK         DRIVER_OK
//!   (reset) ──────────────▶ ● ──────────▶ ● ──────────────────▶ ● ──────────▶ active
//!      ▲                                  features are written   queues are      │
//!      └──────── Status = 0 ◀──── DEVICE_NEEDS_RESET ◀────────── configured ─────┘
//! ```

mod carrier;
mod inner;
mod registers;
mod state;
mod status;
#[cfg(test)]
mod tests;

pub(crate) use carrier::VirtioMmio;
#[cfg(test)]
pub(crate) use state::SaveError;
#[cfg(any(test, fuzzing))]
pub(crate) use state::VirtioState;
