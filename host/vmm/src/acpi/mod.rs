//! What the guest's firmware would say about the machine: ACPI 6.5, hardware-reduced.
//!
//! [`tables`] lays the tables out as one block of bytes for [`layout::ACPI`]; [`dsdt`] describes
//! the devices in AML. Hardware-reduced means that there is neither a fixed power-management block
//! nor a system control interrupt: events come from a Generic Event Device, and the machine is
//! powered off by the sleep control register.
//!
//! There are no interrupt source overrides in the MADT: KVM connects each line to the I/O APIC pin
//! of the same number, and the devices that use one say so, with its trigger, in the DSDT.

#[cfg(test)]
mod aml_reader;
mod dsdt;
mod tables;

use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

use crate::boot::layout;
use crate::devices::mmio::MmioNode;

/// Why a machine can't be described.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AcpiError {
    /// A device's registers are not in the first 4 GiB, where a fixed memory range can name them.
    #[error("a device at {base:#x} with {size} bytes is not below 4 GiB")]
    Node {
        /// Guest-physical start.
        base: u64,
        /// Bytes.
        size: u64,
    },
    /// There are more devices than the room for the tables can describe.
    #[error("the ACPI tables have {bytes} bytes; there is room for {room}")]
    TooLarge {
        /// What they have.
        bytes: usize,
        /// What there is room for.
        room: usize,
    },
    /// Guest memory could not be written.
    #[error("guest memory could not be written")]
    Memory,
}

/// Writes the tables of a machine with `vcpus` processors and the virtio devices `nodes`.
pub(crate) fn write(
    memory: &GuestMemoryMmap,
    vcpus: u8,
    nodes: &[MmioNode],
) -> Result<(), AcpiError> {
    let block = tables::build(vcpus, nodes)?;
    let room = layout::ACPI_BYTES as usize;
    if block.len() > room {
        let bytes = block.len();
        return Err(AcpiError::TooLarge { bytes, room });
    }
    memory
        .write_slice(&block, GuestAddress(layout::ACPI))
        .map_err(|_| AcpiError::Memory)
}
