//! Gives guest memory to the host.

use std::io;
use std::ops::Range;

use rustix::fs::{FallocateFlags, fallocate, fstat};
use rustix::mm::{Advice, madvise};
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap, GuestMemoryRegion as _,
    GuestRegionMmap, MemoryRegionAddress,
};

use super::PAGE_BYTES;

/// What became of a range, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Discarded {
    /// The host has it.
    pub(super) discarded: u64,
    /// It stays where it is: it is in huge pages, or not a whole page.
    pub(super) kept: u64,
    /// It is no memory.
    pub(super) outside: u64,
    /// Parts that the kernel refused to take.
    pub(super) failures: u64,
}

/// Gives the memory of a guest-physical range to the host: until the guest writes to it again it
/// takes up none. It then reads as zero, or, in a private mapping of a file, as the file.
pub(super) fn discard(memory: &GuestMemoryMmap, range: Range<u64>) -> Discarded {
    let mut all = Discarded::default();
    let mut at = range.start;
    while at < range.end {
        let left = range.end - at;
        let bytes = match memory.to_region_addr(GuestAddress(at)) {
            Some((region, offset)) => {
                let bytes = left.min(region.len().saturating_sub(offset.0));
                discard_within(region, offset.0..offset.0 + bytes, &mut all);
                bytes
            }
            None => {
                let bytes = left.min(PAGE_BYTES);
                all.outside += bytes;
                bytes
            }
        };
        // An address in a region has bytes behind it; if not, this must end all the same.
        at += bytes.max(1);
    }
    all
}

/// The same for a range of offsets into one region, which has them all.
fn discard_within(region: &GuestRegionMmap, range: Range<u64>, all: &mut Discarded) {
    let start = range.start.next_multiple_of(PAGE_BYTES);
    let end = range.end - range.end % PAGE_BYTES;
    let whole = end.saturating_sub(start);
    all.kept += range.end - range.start - whole;
    if whole == 0 {
        return;
    }
    let is_shared = region.flags() & libc::MAP_SHARED != 0;
    let done = match region.file_offset().filter(|_| is_shared) {
        Some(part) if is_huge(part) => {
            all.kept += whole;
            return;
        }
        Some(part) => punch(part, start, whole),
        None => drop_pages(region, start, whole),
    };
    match done {
        Ok(()) => all.discarded += whole,
        Err(_) => all.failures += 1,
    }
}

/// Whether the file is of huge pages, which its block size tells. One that can't be asked is not
/// touched either.
fn is_huge(part: &FileOffset) -> bool {
    fstat(part.file()).map_or(true, |stat| stat.st_blksize.cast_unsigned() > PAGE_BYTES)
}

/// Frees a part of a file in memory, and so of every mapping of it.
fn punch(part: &FileOffset, start: u64, bytes: u64) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(fallocate(part.file(), flags, part.start() + start, bytes)?)
}

/// Frees pages that belong to this mapping alone.
fn drop_pages(region: &GuestRegionMmap, start: u64, bytes: u64) -> io::Result<()> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    if start
        .checked_add(bytes)
        .is_none_or(|end| end > region.len())
    {
        return Err(invalid());
    }
    let address = region.get_host_address(MemoryRegionAddress(start));
    let address = address.map_err(|_| invalid())?;
    // SAFETY: the range was just checked to be in the region's mapping, which `region` keeps. It is
    // guest memory: nothing refers to it but by volatile accesses and system calls, which may find
    // any bytes there at any time, and zeroes (or a file's) are such.
    unsafe { madvise(address.cast(), bytes as usize, Advice::LinuxDontNeed) }?;
    Ok(())
}
