//! Descriptor chains, checked whole before any of it is used (virtio 1.2, section 2.7).
//!
//! Each descriptor is read exactly once, so a driver that changes it afterwards changes nothing.
//! What comes out is a list of ranges that are in guest memory, readable before writable, with a
//! bounded number and a bounded sum: descriptors that overlap count each time.

use std::ops::Range;

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Address as _, Bytes as _, GuestAddress, GuestMemoryBackend as _, VolatileSlice};

use super::{GuestMemory, Reader, Writer};

/// Most ranges of a chain: as many as one `readv` takes (Linux, `UIO_MAXIOV`). Also the most
/// descriptors of an indirect table.
pub(crate) const MAX_SEGMENTS: usize = 1024;
/// Bytes of a descriptor.
const DESCRIPTOR_BYTES: u64 = size_of::<Descriptor>() as u64;

/// What is wrong with a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChainError {
    /// A descriptor's number is past the end of its table.
    #[error("descriptor {index} in a table of {size}")]
    Index {
        /// The number.
        index: u16,
        /// Descriptors in the table.
        size: u16,
    },
    /// More descriptors than the table has.
    #[error("a chain longer than its table of {0} descriptors, which is a loop")]
    Loop(u16),
    /// More ranges than a device takes.
    #[error("more than {MAX_SEGMENTS} buffers in one chain")]
    Segments,
    /// An indirect table, which was not negotiated.
    #[error("an indirect table without the feature")]
    IndirectNotNegotiated,
    /// An indirect table in an indirect table.
    #[error("an indirect table inside of an indirect table")]
    NestedIndirect,
    /// An indirect table in the middle of a chain.
    #[error("an indirect table that is not the last of its chain")]
    IndirectWithNext,
    /// An indirect table of no or of too many descriptors, or a part of one.
    #[error("an indirect table of {0} bytes")]
    IndirectBytes(u32),
    /// Not, or not all, in guest memory.
    #[error("{bytes} bytes at {address:#x}, which is not all memory")]
    OutsideMemory {
        /// Guest-physical address.
        address: u64,
        /// How many.
        bytes: u32,
    },
    /// More bytes than a request of this queue may have.
    #[error("more than {0} bytes in one chain")]
    Bytes(u32),
    /// A buffer for the device to read behind one for it to write.
    #[error("a readable buffer behind a writable one")]
    Order,
}

/// A range of guest memory that lies in one region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    address: GuestAddress,
    bytes: usize,
}

/// A request: buffers to read, then buffers to write. It goes back to its queue by
/// [`super::Virtqueue::complete`] or `unpop`, and may be kept for as long as the driver does not
/// reset the device. It keeps guest memory mapped.
pub(crate) struct Chain {
    memory: GuestMemory,
    head: u16,
    segments: Vec<Segment>,
    /// How many of them are readable.
    readable: usize,
    readable_bytes: u32,
    writable_bytes: u32,
}

impl Chain {
    /// Number of the first descriptor, by which the driver knows the chain.
    pub(crate) fn head(&self) -> u16 {
        self.head
    }

    /// Bytes that the driver sent.
    pub(crate) fn readable_bytes(&self) -> u32 {
        self.readable_bytes
    }

    /// Bytes that there is room for.
    pub(crate) fn writable_bytes(&self) -> u32 {
        self.writable_bytes
    }

    /// From the first readable byte.
    pub(crate) fn reader(&self) -> Reader<'_> {
        let (readable, _) = self.segments.split_at(self.readable);
        Reader::new(self.slices(readable))
    }

    /// From the first writable byte.
    pub(crate) fn writer(&self) -> Writer<'_> {
        let (_, writable) = self.segments.split_at(self.readable);
        Writer::new(self.slices(writable))
    }

    /// Guest-physical ranges of the writable buffers, each in one region, for devices to which the
    /// memory itself matters. All of them are memory; they may overlap.
    pub(crate) fn writable_ranges(&self) -> impl Iterator<Item = Range<u64>> {
        let (_, writable) = self.segments.split_at(self.readable);
        writable.iter().map(|segment| {
            let start = segment.address.0;
            // Where it is all memory, this does not overflow.
            start..start.saturating_add(segment.bytes as u64)
        })
    }

    fn slices<'a>(&'a self, segments: &[Segment]) -> Vec<VolatileSlice<'a>> {
        let slice = |segment: &Segment| self.memory.get_slice(segment.address, segment.bytes).ok();
        // Memory does not shrink, so none is missing.
        segments.iter().filter_map(slice).collect()
    }
}

/// Where descriptors are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table {
    pub(super) address: GuestAddress,
    pub(super) size: u16,
}

/// What a chain of a queue may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) indirect: bool,
    pub(super) max_bytes: u32,
}

/// Reads and checks the chain that begins at `head` of `table`.
pub(super) fn read(
    memory: &GuestMemory,
    table: Table,
    head: u16,
    rules: Rules,
) -> Result<Chain, ChainError> {
    let mut chain = Chain {
        memory: memory.clone(),
        head,
        segments: Vec::new(),
        readable: 0,
        readable_bytes: 0,
        writable_bytes: 0,
    };
    let mut walk = Walk::new(table, head);
    while let Some(descriptor) = walk.next(memory)? {
        if descriptor.refers_to_indirect_table() {
            if !rules.indirect {
                return Err(ChainError::IndirectNotNegotiated);
            }
            walk.enter(descriptor)?;
        } else {
            chain.push(descriptor, rules.max_bytes)?;
        }
    }
    Ok(chain)
}

impl Chain {
    fn push(&mut self, descriptor: Descriptor, max_bytes: u32) -> Result<(), ChainError> {
        let bytes = descriptor.len();
        let total = (self.readable_bytes + self.writable_bytes).checked_add(bytes);
        if total.is_none_or(|total| total > max_bytes) {
            return Err(ChainError::Bytes(max_bytes));
        }
        let has_writable = self.segments.len() > self.readable;
        match descriptor.is_write_only() {
            true => self.writable_bytes += bytes,
            false if has_writable => return Err(ChainError::Order),
            false => self.readable_bytes += bytes,
        }
        let outside = ChainError::OutsideMemory {
            address: descriptor.addr().0,
            bytes,
        };
        let mut address = descriptor.addr();
        for slice in self.memory.get_slices(address, bytes as usize) {
            let bytes = slice.map_err(|_| outside)?.len();
            if self.segments.len() == MAX_SEGMENTS {
                return Err(ChainError::Segments);
            }
            self.segments.push(Segment { address, bytes });
            // Past the last byte of the address space there is no memory to come.
            address = address.checked_add(bytes as u64).unwrap_or(address);
        }
        if !descriptor.is_write_only() {
            self.readable = self.segments.len();
        }
        Ok(())
    }
}

/// The way from descriptor to descriptor.
struct Walk {
    table: Table,
    next: Option<u16>,
    /// Descriptors of the table that may still come.
    left: u16,
    is_indirect: bool,
}

impl Walk {
    fn new(table: Table, head: u16) -> Self {
        Self {
            table,
            next: Some(head),
            left: table.size,
            is_indirect: false,
        }
    }

    fn next(&mut self, memory: &GuestMemory) -> Result<Option<Descriptor>, ChainError> {
        let Some(index) = self.next else {
            return Ok(None);
        };
        let size = self.table.size;
        if index >= size {
            return Err(ChainError::Index { index, size });
        }
        self.left = self.left.checked_sub(1).ok_or(ChainError::Loop(size))?;
        let outside = ChainError::OutsideMemory {
            address: self.table.address.0,
            bytes: u32::from(size) * DESCRIPTOR_BYTES as u32,
        };
        let address = u64::from(index) * DESCRIPTOR_BYTES;
        let address = self.table.address.checked_add(address).ok_or(outside)?;
        let descriptor: Descriptor = memory.read_obj(address).map_err(|_| outside)?;
        self.next = descriptor.has_next().then(|| descriptor.next());
        Ok(Some(descriptor))
    }

    /// Goes on in the table that `descriptor`, the last one, refers to. Whether it is writable is
    /// ignored (section 2.7.5.3.2).
    fn enter(&mut self, descriptor: Descriptor) -> Result<(), ChainError> {
        if self.is_indirect {
            return Err(ChainError::NestedIndirect);
        }
        if self.next.is_some() {
            return Err(ChainError::IndirectWithNext);
        }
        let bytes = u64::from(descriptor.len());
        let size = bytes / DESCRIPTOR_BYTES;
        if size == 0 || size > MAX_SEGMENTS as u64 || !bytes.is_multiple_of(DESCRIPTOR_BYTES) {
            return Err(ChainError::IndirectBytes(descriptor.len()));
        }
        *self = Self {
            table: Table {
                address: descriptor.addr(),
                size: size as u16,
            },
            next: Some(0),
            left: size as u16,
            is_indirect: true,
        };
        Ok(())
    }
}
