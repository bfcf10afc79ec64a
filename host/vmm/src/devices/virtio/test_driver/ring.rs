//! The driver's half of a split virtqueue (virtio 1.2, section 2.7).

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes as _, GuestAddress};

use super::GuestMemory;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// A buffer of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Buffer<'a> {
    /// The device reads this.
    Read(&'a [u8]),
    /// The device may write so many bytes.
    Write(u32),
}

/// A request that was made available.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// By which it comes back.
    pub(crate) head: u16,
    /// Address and bytes of each buffer that the device writes.
    pub(crate) writable: Vec<(u64, u32)>,
}

/// Where the parts are, and how far the driver is. Descriptors are used in rotation.
#[derive(Debug)]
pub(crate) struct Ring {
    pub(crate) descriptors: u64,
    pub(crate) available: u64,
    pub(crate) used: u64,
    pub(crate) size: u16,
    next_descriptor: u16,
    next_available: u16,
    next_used: u16,
}

impl Ring {
    pub(super) fn new(base: u64, size: u16) -> Self {
        // 16 bytes for each descriptor, then 2 for each available and 8 for each used one, with
        // some around them.
        let available = base + 16 * u64::from(size);
        let used = (available + 6 + 2 * u64::from(size)).next_multiple_of(4);
        Self {
            descriptors: base,
            available,
            used,
            size,
            next_descriptor: 0,
            next_available: 0,
            next_used: 0,
        }
    }

    pub(super) fn clear(&self, memory: &GuestMemory) {
        let end = self.used + 6 + 8 * u64::from(self.size);
        let zeroes = vec![0; (end - self.descriptors) as usize];
        memory
            .write_slice(&zeroes, GuestAddress(self.descriptors))
            .unwrap();
    }

    /// Address, bytes and writability of each buffer.
    pub(crate) fn add(&mut self, memory: &GuestMemory, buffers: &[(u64, u32, bool)]) -> Request {
        let head = self.next_descriptor;
        for (n, (address, bytes, writable)) in (1..).zip(buffers) {
            let at = self.next_descriptor;
            self.next_descriptor = (at + 1) % self.size;
            let next = if n < buffers.len() { NEXT } else { 0 };
            let write = if *writable { WRITE } else { 0 };
            let descriptor = Descriptor::new(*address, *bytes, next | write, self.next_descriptor);
            self.set_descriptor(memory, at, descriptor);
        }
        self.make_available(memory, head);
        let writable = buffers.iter().filter(|(_, _, writable)| *writable);
        Request {
            head,
            writable: writable.map(|(a, b, _)| (*a, *b)).collect(),
        }
    }

    /// Writes one descriptor.
    pub(crate) fn set_descriptor(&self, memory: &GuestMemory, at: u16, descriptor: Descriptor) {
        let address = self.descriptors + 16 * u64::from(at);
        memory.write_obj(descriptor, GuestAddress(address)).unwrap();
    }

    /// Makes the chain that begins at `head` available.
    pub(crate) fn make_available(&mut self, memory: &GuestMemory, head: u16) {
        let entry = self.available + 4 + 2 * u64::from(self.next_available % self.size);
        memory.write_obj(head, GuestAddress(entry)).unwrap();
        self.set_available_index(memory, self.next_available.wrapping_add(1));
    }

    /// Says up to where entries of the available ring are valid.
    pub(crate) fn set_available_index(&mut self, memory: &GuestMemory, index: u16) {
        self.next_available = index;
        let address = GuestAddress(self.available + 2);
        memory.write_obj(index, address).unwrap();
    }

    /// Asks for no interrupts, where event indices are not used.
    pub(crate) fn set_no_interrupt(&self, memory: &GuestMemory, off: bool) {
        let flags = u16::from(off);
        memory
            .write_obj(flags, GuestAddress(self.available))
            .unwrap();
    }

    /// With event indices: the next interrupt is for the used entry after `index`.
    pub(crate) fn set_used_event(&self, memory: &GuestMemory, index: u16) {
        let address = self.available + 4 + 2 * u64::from(self.size);
        memory.write_obj(index, GuestAddress(address)).unwrap();
    }

    /// With event indices: up to which available entry the device has seen the ring.
    pub(crate) fn available_event(&self, memory: &GuestMemory) -> u16 {
        let address = self.used + 4 + 8 * u64::from(self.size);
        memory.read_obj(GuestAddress(address)).unwrap()
    }

    pub(super) fn take_used(&mut self, memory: &GuestMemory) -> Vec<(u16, u32)> {
        let end: u16 = memory.read_obj(GuestAddress(self.used + 2)).unwrap();
        let mut taken = Vec::new();
        while self.next_used != end {
            let entry = self.used + 4 + 8 * u64::from(self.next_used % self.size);
            let head: u32 = memory.read_obj(GuestAddress(entry)).unwrap();
            let length = memory.read_obj(GuestAddress(entry + 4)).unwrap();
            taken.push((head as u16, length));
            self.next_used = self.next_used.wrapping_add(1);
        }
        self.set_used_event(memory, self.next_used);
        taken
    }
}
