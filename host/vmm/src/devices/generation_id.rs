//! The VM's generation id: 16 bytes in guest memory that are others whenever the guest goes on from
//! a state that it may have been in before ("Virtual Machine Generation ID", Microsoft, 2012). A
//! guest reseeds its random number generators when they change.

use vm_memory::{Bytes as _, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use crate::boot::layout;

/// Writes the id to where the guest's ACPI tables say it is.
pub(crate) fn write(memory: &GuestMemoryMmap, id: [u8; 16]) -> Result<(), GuestMemoryError> {
    memory.write_slice(&id, GuestAddress(layout::GENERATION_ID))
}
