//! What little firmware there is: the reset vector.
//!
//! Linux leaves a hardware-reduced machine without EFI by the reset vector of its BIOS, unless its
//! command line names another way (`reboot_init` and `efi_reboot_required` in arch/x86). So there
//! is one, and all that it does is to reset the machine.

use vm_memory::{Bytes as _, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use super::layout;
use crate::devices::ports;

/// 16-bit code: writes the reset control register, and halts if that were to return.
const RESET: [u8; 9] = [
    0xb0,
    ports::RESET_NOW, // mov $RESET_NOW, %al
    0xba,
    ports::RESET_CONTROL.to_le_bytes()[0],
    ports::RESET_CONTROL.to_le_bytes()[1], // mov $RESET_CONTROL, %dx
    0xee,                                  // out %al, %dx
    0xf4,                                  // hlt
    0xeb,
    0xfd, // jmp to the hlt
];

pub(crate) fn write(memory: &GuestMemoryMmap) -> Result<(), GuestMemoryError> {
    memory.write_slice(&RESET, GuestAddress(layout::RESET_VECTOR))
}
