//! The sleep control and status registers of hardware-reduced ACPI (ACPI 6.5, 4.8.3.7).

/// What a guest writes as the type of sleep to power the machine off. ACPI leaves the number to
/// the machine, which tells it in `\_S5`.
pub(crate) const SLEEP_TYPE_S5: u8 = 5;
/// `SLP_EN`: go to sleep now.
const SLEEP_ENABLE: u8 = 1 << 5;
/// `SLP_TYP`, bits 4-2.
const SLEEP_TYPE_SHIFT: u8 = 2;
/// See [`SLEEP_TYPE_SHIFT`].
const SLEEP_TYPE_MASK: u8 = 7;

/// Whether writing `value` to the sleep control register powers the machine off. There is no other
/// sleep.
pub(super) fn is_power_off(value: u8) -> bool {
    value & SLEEP_ENABLE != 0 && value >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK == SLEEP_TYPE_S5
}

/// The status register: the machine never woke from a sleep.
pub(super) const AWAKE: u8 = 0;
