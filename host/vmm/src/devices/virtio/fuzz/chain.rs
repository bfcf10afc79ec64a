//! Requests as descriptor chains, and what a hostile driver makes of them.

use arbitrary::{Arbitrary, Result, Unstructured};
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes as _, GuestAddress};

use super::value::{Address, Length};
use super::{Part, Shape};
use crate::devices::virtio::test_driver::{Buffer, Driver, INDIRECT, NEXT, WRITE};

/// Most descriptors of a request that is cut into pieces.
const MAX_PIECES: usize = 12;

/// How a request is laid out.
#[derive(Debug)]
pub(super) struct Layout {
    /// Buffers are cut into pieces of so many bytes; zero: not at all.
    cut: u8,
    /// The descriptors are in a table of their own.
    indirect: bool,
    pub(super) twist: Option<Twist>,
}

impl<'a> Arbitrary<'a> for Layout {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Self {
            cut: if u.ratio(1, 4)? { u.arbitrary()? } else { 0 },
            indirect: u.ratio(1, 4)?,
            twist: match u.ratio(1, 8)? {
                true => Some(u.arbitrary()?),
                false => None,
            },
        })
    }
}

/// What is wrong with a chain. Descriptors are counted from its first.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub(super) enum Twist {
    /// One goes on at one before.
    Loop {
        from: u8,
        to: u8,
    },
    /// One goes on at whatever is there.
    Next {
        at: u8,
        next: u16,
    },
    Address {
        at: u8,
        address: Address,
    },
    Bytes {
        at: u8,
        bytes: u32,
    },
    Flags {
        at: u8,
        flags: u16,
    },
    /// The chain begins at another descriptor.
    Head(u16),
    /// The table is in itself.
    Nested,
    TableBytes(u32),
    TableAddress(Address),
    /// It is made available more than once.
    Repeat(u8),
    /// Two descriptors are the same memory.
    Overlap {
        at: u8,
        with: u8,
    },
}

/// A request that was made available.
pub(super) struct Sent {
    pub(super) descriptors: Vec<u16>,
    /// What the device may write; of a chain with a twist nobody knows.
    pub(super) writable: Option<Vec<(u64, u32)>>,
}

/// One link of a chain.
struct Link {
    address: u64,
    bytes: u32,
    flags: u16,
    next: Next,
}

/// Where a chain goes on.
enum Next {
    At(usize),
    Raw(u16),
}

/// Makes a request available; returns the number of its first descriptor. `None`: there were not
/// enough of `free`.
pub(super) fn send(
    driver: &mut Driver,
    free: &mut Vec<u16>,
    shape: &Shape,
    layout: &Layout,
) -> Option<(u16, Sent)> {
    let pieces = pieces(driver, shape, layout.cut);
    let writable = pieces.iter().filter(|(_, _, writable)| *writable);
    let writable: Vec<_> = writable.map(|(at, bytes, _)| (*at, *bytes)).collect();
    let mut links = link(&pieces);
    let is_indirect = layout.indirect && !links.is_empty();
    let table = if is_indirect {
        let room = 16 * links.len() as u32;
        let (address, bytes, _) = driver.place(&Buffer::Write(room));
        Some((address, bytes))
    } else {
        None
    };
    let needed = if is_indirect { 1 } else { links.len().max(1) };
    if needed > free.len() {
        return None;
    }
    let descriptors = free.split_off(free.len() - needed);
    if let Some(twist) = layout.twist {
        distort(&mut links, twist);
    }
    if let Some((address, bytes)) = table {
        for (n, link) in (0..).zip(&links) {
            let next = match link.next {
                Next::At(at) => at as u16,
                Next::Raw(next) => next,
            };
            let entry = Descriptor::new(link.address, link.bytes, link.flags, next);
            let at = GuestAddress(address + 16 * n);
            driver.memory.write_obj(entry, at).unwrap();
        }
        let (address, bytes) = match layout.twist {
            Some(Twist::TableBytes(bytes)) => (address, bytes),
            Some(Twist::TableAddress(Address(address))) => (address, bytes),
            Some(Twist::Nested) => {
                let entry = Descriptor::new(address, 16, INDIRECT, 0);
                let at = GuestAddress(address);
                driver.memory.write_obj(entry, at).unwrap();
                (address, bytes)
            }
            _ => (address, bytes),
        };
        links = vec![Link {
            address,
            bytes,
            flags: INDIRECT,
            next: Next::Raw(0),
        }];
    }
    let (memory, ring) = driver.ring(shape.queue);
    for (at, link) in descriptors.iter().zip(&links) {
        let next = match link.next {
            Next::At(next) => *descriptors.get(next).unwrap_or(at),
            Next::Raw(next) => next,
        };
        let entry = Descriptor::new(link.address, link.bytes, link.flags, next);
        ring.set_descriptor(memory, *at, entry);
    }
    let head = *descriptors.first()?;
    if links.is_empty() {
        ring.set_descriptor(memory, head, Descriptor::new(0, 0, 0, 0));
    }
    let (begin, times) = match layout.twist {
        Some(Twist::Head(other)) => (other, 1),
        Some(Twist::Repeat(times)) => (head, times),
        _ => (head, 1),
    };
    for _ in 0..times {
        ring.make_available(memory, begin);
    }
    let writable = layout.twist.is_none().then_some(writable);
    let sent = Sent {
        descriptors,
        writable,
    };
    Some((head, sent))
}

/// Address, bytes and writability of each buffer of a request, in memory.
fn pieces(driver: &mut Driver, shape: &Shape, cut: u8) -> Vec<(u64, u32, bool)> {
    let mut pieces = Vec::new();
    for part in &shape.parts {
        let buffer = match part {
            Part::Read(bytes) => Buffer::Read(bytes),
            Part::Write(bytes) => Buffer::Write(*bytes),
        };
        let (mut address, mut bytes, writable) = driver.place(&buffer);
        while cut > 0 && bytes > cut.into() && pieces.len() < MAX_PIECES {
            pieces.push((address, u32::from(cut), writable));
            address += u64::from(cut);
            bytes -= u32::from(cut);
        }
        pieces.push((address, bytes, writable));
    }
    pieces
}

fn link(pieces: &[(u64, u32, bool)]) -> Vec<Link> {
    let link = |(n, (address, bytes, writable)): (usize, &(u64, u32, bool))| {
        let write = if *writable { WRITE } else { 0 };
        let next = if n + 1 < pieces.len() { NEXT } else { 0 };
        Link {
            address: *address,
            bytes: *bytes,
            flags: write | next,
            next: Next::At(n + 1),
        }
    };
    pieces.iter().enumerate().map(link).collect()
}

fn distort(links: &mut [Link], twist: Twist) {
    let count = links.len();
    if count == 0 {
        return;
    }
    let index = |at: u8| usize::from(at) % count;
    match twist {
        Twist::Loop { from, to } => {
            let link = &mut links[index(from)];
            link.flags |= NEXT;
            link.next = Next::At(index(to));
        }
        Twist::Next { at, next } => {
            let link = &mut links[index(at)];
            link.flags |= NEXT;
            link.next = Next::Raw(next);
        }
        Twist::Address { at, address } => links[index(at)].address = address.0,
        Twist::Bytes { at, bytes } => links[index(at)].bytes = bytes,
        Twist::Flags { at, flags } => links[index(at)].flags = flags,
        Twist::Overlap { at, with } => links[index(at)].address = links[index(with)].address,
        Twist::Head(_)
        | Twist::Nested
        | Twist::TableBytes(_)
        | Twist::TableAddress(_)
        | Twist::Repeat(_) => {}
    }
}

/// A descriptor that means nothing in particular.
pub(super) fn descriptor(address: Address, bytes: Length, flags: u16, next: u16) -> Descriptor {
    Descriptor::new(address.0, bytes.0, flags, next)
}
