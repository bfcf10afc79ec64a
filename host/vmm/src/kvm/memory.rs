//! Guest memory: where it comes from, and how KVM is given it. It is allocated when it is first
//! touched, except for huge pages, which are set aside at once.

use std::fs::File;
use std::io;

use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use roost_model::MemoryBacking;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use vm_memory::mmap::{FromRangesError, MmapRegionError};
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap, GuestMemoryRegion as _,
    GuestRegionCollectionError, GuestRegionMmap, MmapRegion,
};

use super::{KvmError, Request as _};
use crate::boot::layout;

/// Size of a page.
const PAGE_BYTES: u64 = 4 << 10;
/// Size of a huge page.
const HUGE_PAGE_BYTES: u64 = 2 << 20;

/// Why there is no guest memory.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The host has not that much memory to map.
    #[error("guest memory could not be mapped: {0}")]
    Map(#[from] FromRangesError),
    /// The host has not that much memory, or not as many huge pages, to map.
    #[error("{bytes} bytes of guest memory could not be mapped: {source}")]
    Region {
        /// How much.
        bytes: u64,
        /// What the kernel said.
        source: MmapRegionError,
    },
    /// The regions don't make a memory.
    #[error("guest memory could not be put together: {0}")]
    Collection(#[from] GuestRegionCollectionError),
    /// The file could not be made.
    #[error("{request} for guest memory: {source}")]
    File {
        /// Which request, by its name in the kernel.
        request: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Memory of huge pages is whole pages.
    #[error("{0} bytes of memory are not whole huge pages of 2 MiB")]
    NotWholePages(u64),
}

impl MemoryError {
    /// What the kernel said, if it was asked.
    #[must_use]
    pub fn io_error(&self) -> Option<&io::Error> {
        match self {
            Self::File { source, .. }
            | Self::Map(FromRangesError::MmapRegion(MmapRegionError::Mmap(source)))
            | Self::Region {
                source: MmapRegionError::Mmap(source),
                ..
            } => Some(source),
            _ => None,
        }
    }
}

/// Maps `memory_bytes` of guest memory, with the hole below 4 GiB left out.
pub(crate) fn map(
    memory_bytes: u64,
    backing: MemoryBacking,
) -> Result<GuestMemoryMmap, MemoryError> {
    let ranges = layout::ranges(memory_bytes);
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match backing {
        MemoryBacking::Anonymous => {
            let ranges: Vec<_> = ranges
                .into_iter()
                .map(|(start, bytes)| (GuestAddress(start), bytes as usize))
                .collect();
            Ok(GuestMemoryMmap::from_ranges(&ranges)?)
        }
        MemoryBacking::Memfd => {
            let file = file(memory_bytes, flags)?;
            map_file(&ranges, file, libc::MAP_SHARED | libc::MAP_NORESERVE)
        }
        MemoryBacking::Hugetlbfs => {
            if !memory_bytes.is_multiple_of(HUGE_PAGE_BYTES) {
                return Err(MemoryError::NotWholePages(memory_bytes));
            }
            let size = MemfdFlags::HUGE_2MB;
            let file = file(memory_bytes, flags | MemfdFlags::HUGETLB | size)?;
            // Reserved: without, a page that the pool doesn't have would be a SIGBUS later.
            map_file(&ranges, file, libc::MAP_SHARED)
        }
    }
}

/// A file of `bytes` that nobody can make shorter or longer under the guest.
fn file(bytes: u64, flags: MemfdFlags) -> Result<File, MemoryError> {
    let named = |request| {
        move |error: rustix::io::Errno| MemoryError::File {
            request,
            source: error.into(),
        }
    };
    let file = memfd_create("guest-memory", flags).map_err(named("memfd_create"))?;
    ftruncate(&file, bytes).map_err(named("ftruncate"))?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&file, seals).map_err(named("F_ADD_SEALS"))?;
    Ok(file.into())
}

/// Maps `file`, from its start to its end, over the ranges.
fn map_file(ranges: &[(u64, u64)], file: File, flags: i32) -> Result<GuestMemoryMmap, MemoryError> {
    let file = std::sync::Arc::new(file);
    let mut offset = 0;
    let mut regions = Vec::new();
    for &(start, bytes) in ranges {
        let part = FileOffset::from_arc(std::sync::Arc::clone(&file), offset);
        offset += bytes;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let region = MmapRegion::build(Some(part), bytes as usize, protection, flags)
            .map_err(|source| MemoryError::Region { bytes, source })?;
        let region = GuestRegionMmap::new(region, GuestAddress(start));
        regions.push(region.ok_or(FromRangesError::InvalidGuestRegion)?);
    }
    Ok(GuestMemoryMmap::from_regions(regions)?)
}

/// Gives `memory` to the VM, one slot for each region; KVM logs which pages vCPUs write, or not.
pub(crate) fn register(
    vm: &VmFd,
    memory: &GuestMemoryMmap,
    log_dirty_pages: bool,
) -> Result<(), KvmError> {
    let flags = if log_dirty_pages {
        KVM_MEM_LOG_DIRTY_PAGES
    } else {
        0
    };
    for (slot, region) in memory.iter().enumerate() {
        let slot = kvm_userspace_memory_region {
            slot: slot as u32,
            flags,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the region is mapped for as long as the VM exists: `Vm` owns both and drops
        // the vCPU threads first; and no two regions overlap.
        unsafe { vm.set_user_memory_region(slot) }.request("KVM_SET_USER_MEMORY_REGION")?;
    }
    Ok(())
}

/// Guest-physical addresses of the pages that vCPUs have written since the last call, in order.
/// From here on they count as not written.
pub(crate) fn take_dirty_pages(vm: &VmFd, memory: &GuestMemoryMmap) -> Result<Vec<u64>, KvmError> {
    let mut pages = Vec::new();
    for (slot, region) in memory.iter().enumerate() {
        let log = vm
            .get_dirty_log(slot as u32, region.len() as usize)
            .request("KVM_GET_DIRTY_LOG")?;
        for (word, mut bits) in (0_u64..).zip(log) {
            while bits != 0 {
                let page = word * 64 + u64::from(bits.trailing_zeros());
                pages.push(region.start_addr().0 + page * PAGE_BYTES);
                bits &= bits - 1;
            }
        }
    }
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use vm_memory::Bytes as _;

    use super::*;

    #[test]
    fn shared_memory_is_one_file_in_the_order_of_the_guest() {
        let bytes = layout::HOLE_START + (4 << 20);
        let memory = map(bytes, MemoryBacking::Memfd).unwrap();
        memory
            .write_obj(0xabcd_u16, GuestAddress(layout::HOLE_END + 8))
            .unwrap();
        let region = memory.iter().next().unwrap();
        let file = region.file_offset().unwrap().file();
        assert_eq!(file.metadata().unwrap().len(), bytes);
        let mut read = [0; 2];
        file.read_exact_at(&mut read, layout::HOLE_START + 8)
            .unwrap();
        assert_eq!(read, 0xabcd_u16.to_le_bytes());
        assert!(file.set_len(4096).is_err(), "it is sealed");
    }

    #[test]
    fn a_part_of_a_huge_page_is_refused() {
        let error = map((64 << 20) + 4096, MemoryBacking::Hugetlbfs).unwrap_err();
        assert!(matches!(error, MemoryError::NotWholePages(_)), "{error}");
    }

    #[test]
    fn huge_pages_are_mapped_or_refused_with_a_reason_and_never_promised() {
        // Whether there are any is the machine's business.
        match map(64 << 20, MemoryBacking::Hugetlbfs) {
            Ok(memory) => {
                memory
                    .write_obj(1_u8, GuestAddress((64 << 20) - 1))
                    .unwrap();
            }
            Err(error) => assert!(
                matches!(error, MemoryError::Region { .. } | MemoryError::File { .. }),
                "{error}"
            ),
        }
    }
}
