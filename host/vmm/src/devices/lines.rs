//! Interrupt lines of the platform: pins of the I/O APIC, edge-triggered. Virtio devices have
//! others.

/// The keyboard's, as on every PC.
pub(crate) const KEYBOARD: u32 = 1;
/// COM1's, as on every PC.
pub(crate) const SERIAL: u32 = 4;
/// The Generic Event Device's: where a PC has its ACPI interrupt.
pub(crate) const EVENTS: u32 = 9;
