//! Copying a kernel into guest memory, and what its boot protocol wants to find there.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

use super::bzimage::HEADER_OFFSET;
use super::initrd::{self, InitrdError};
use super::kernel::{Kernel, KernelFormat};
use super::layout;

/// How the first vCPU enters the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Long mode, `rsi` at the zero page (Documentation/arch/x86/boot.rst, 64-bit boot protocol).
    Linux64,
    /// 32-bit protected mode, `rbx` at `hvm_start_info` (Xen's docs/misc/pvh.pandoc).
    Pvh,
}

/// Where the first vCPU starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) protocol: Protocol,
    pub(crate) address: u64,
}

/// Why a guest could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// An image can't be read.
    #[error("an image could not be read: {0}")]
    Read(#[from] io::Error),
    /// Something does not fit into guest memory.
    #[error("guest memory could not be written: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
    /// The kernel does not fit.
    #[error("the kernel ends at {end:#x}, the memory at {memory:#x}")]
    KernelTooLarge {
        /// End of the kernel, guest-physical.
        end: u64,
        /// End of low memory, guest-physical.
        memory: u64,
    },
    /// The initrd does not fit.
    #[error("the initrd: {0}")]
    Initrd(#[from] InitrdError),
    /// The command line is too long.
    #[error("the command line has {bytes} bytes; this kernel takes at most {max}")]
    Cmdline {
        /// Its length.
        bytes: usize,
        /// What the kernel takes.
        max: usize,
    },
}

/// What is loaded beside the kernel: address and size of the initrd, size of all memory.
struct Loaded {
    initrd: Option<(u64, u64)>,
    memory_bytes: u64,
}

pub(crate) fn load(
    memory: &GuestMemoryMmap,
    memory_bytes: u64,
    kernel: &Kernel,
    kernel_file: &File,
    initrd_file: Option<&File>,
    cmdline: &str,
) -> Result<Entry, LoadError> {
    let low_end = memory_bytes.min(layout::HOLE_START);
    if kernel.end() > low_end {
        return Err(LoadError::KernelTooLarge {
            end: kernel.end(),
            memory: low_end,
        });
    }
    for segment in &kernel.segments {
        copy(
            memory,
            segment.address,
            kernel_file,
            segment.file_offset,
            segment.file_bytes,
        )?;
    }
    let initrd = match initrd_file {
        Some(file) => {
            let bytes = file.metadata()?.len();
            let address = initrd::place(kernel, bytes, memory_bytes)?;
            copy(memory, address, file, 0, bytes)?;
            Some((address, bytes))
        }
        None => None,
    };
    if cmdline.len() > kernel.cmdline_max {
        return Err(LoadError::Cmdline {
            bytes: cmdline.len(),
            max: kernel.cmdline_max,
        });
    }
    memory.write_slice(cmdline.as_bytes(), GuestAddress(layout::CMDLINE))?;

    let loaded = Loaded {
        initrd,
        memory_bytes,
    };
    let protocol = match kernel.info.format {
        KernelFormat::Pvh => {
            write_start_info(memory, &loaded)?;
            Protocol::Pvh
        }
        KernelFormat::Elf64 | KernelFormat::BzImage => {
            let header = kernel.setup_header.as_deref();
            write_zero_page(memory, &loaded, header, cmdline.len())?;
            Protocol::Linux64
        }
    };
    Ok(Entry {
        protocol,
        address: kernel.info.entry,
    })
}

/// Copies by position: another VM may be reading the same open file.
fn copy(
    memory: &GuestMemoryMmap,
    address: u64,
    file: &File,
    offset: u64,
    bytes: u64,
) -> Result<(), LoadError> {
    let mut buffer = vec![0; bytes.min(COPY_BYTES) as usize];
    let mut done = 0;
    while done < bytes {
        let step = (bytes - done).min(COPY_BYTES) as usize;
        let part = buffer.get_mut(..step).unwrap_or_default();
        file.read_exact_at(part, offset + done)?;
        memory.write_slice(part, GuestAddress(address + done))?;
        done += step as u64;
    }
    Ok(())
}

/// Size of the steps in which images are copied: what a core's own cache holds.
const COPY_BYTES: u64 = 256 << 10;

/// Offsets in `boot_params` (arch/x86/include/uapi/asm/bootparam.h).
mod zero_page {
    pub(super) const BYTES: usize = 4096;
    pub(super) const ACPI_RSDP: usize = 0x070;
    pub(super) const E820_ENTRIES: usize = 0x1e8;
    pub(super) const E820_TABLE: usize = 0x2d0;
    pub(super) const E820_ENTRY_BYTES: usize = 20;
    pub(super) const BOOT_FLAG: usize = 0x1fe;
    pub(super) const HEADER: usize = 0x202;
    pub(super) const VERSION: usize = 0x206;
    pub(super) const TYPE_OF_LOADER: usize = 0x210;
    pub(super) const LOADFLAGS: usize = 0x211;
    pub(super) const RAMDISK_IMAGE: usize = 0x218;
    pub(super) const RAMDISK_SIZE: usize = 0x21c;
    pub(super) const CMD_LINE_PTR: usize = 0x228;
    pub(super) const KERNEL_ALIGNMENT: usize = 0x230;
    pub(super) const CMDLINE_SIZE: usize = 0x238;
    /// A boot loader without a number of its own.
    pub(super) const UNDEFINED_LOADER: u8 = 0xff;
    /// `LOADED_HIGH`: the protected-mode code is at or above 1 MiB.
    pub(super) const LOADED_HIGH: u8 = 1;
}

fn write_zero_page(
    memory: &GuestMemoryMmap,
    loaded: &Loaded,
    header: Option<&[u8]>,
    cmdline_bytes: usize,
) -> Result<(), LoadError> {
    use zero_page as at;
    let mut page = [0_u8; at::BYTES];
    let mut put = |offset: usize, bytes: &[u8]| {
        if let Some(field) = page.get_mut(offset..offset + bytes.len()) {
            field.copy_from_slice(bytes);
        }
    };
    match header {
        Some(header) => put(HEADER_OFFSET, header),
        None => {
            put(at::BOOT_FLAG, &0xaa55_u16.to_le_bytes());
            put(at::HEADER, b"HdrS");
            put(at::VERSION, &0x20f_u16.to_le_bytes());
            put(at::LOADFLAGS, &[at::LOADED_HIGH]);
            put(at::KERNEL_ALIGNMENT, &0x0100_0000_u32.to_le_bytes());
        }
    }
    put(at::TYPE_OF_LOADER, &[at::UNDEFINED_LOADER]);
    put(at::CMD_LINE_PTR, &(layout::CMDLINE as u32).to_le_bytes());
    put(at::CMDLINE_SIZE, &(cmdline_bytes as u32).to_le_bytes());
    if let Some((address, bytes)) = loaded.initrd {
        // Both are below the hole, so they fit.
        put(at::RAMDISK_IMAGE, &(address as u32).to_le_bytes());
        put(at::RAMDISK_SIZE, &(bytes as u32).to_le_bytes());
    }
    put(at::ACPI_RSDP, &layout::ACPI.to_le_bytes());
    let map = layout::memory_map(loaded.memory_bytes);
    put(at::E820_ENTRIES, &[map.len() as u8]);
    for (index, (start, bytes, kind)) in map.iter().enumerate() {
        let entry = at::E820_TABLE + index * at::E820_ENTRY_BYTES;
        put(entry, &start.to_le_bytes());
        put(entry + 8, &bytes.to_le_bytes());
        put(entry + 16, &(*kind as u32).to_le_bytes());
    }
    Ok(memory.write_slice(&page, GuestAddress(layout::ZERO_PAGE))?)
}

/// `XEN_HVM_START_MAGIC_VALUE` (xen/include/public/arch-x86/hvm/start_info.h).
const START_MAGIC: u32 = 0x336e_c578;

fn write_start_info(memory: &GuestMemoryMmap, loaded: &Loaded) -> Result<(), LoadError> {
    let mut memmap = Vec::new();
    let map = layout::memory_map(loaded.memory_bytes);
    for (start, bytes, kind) in &map {
        memmap.extend_from_slice(&start.to_le_bytes());
        memmap.extend_from_slice(&bytes.to_le_bytes());
        memmap.extend_from_slice(&(*kind as u32).to_le_bytes());
        memmap.extend_from_slice(&0_u32.to_le_bytes());
    }
    memory.write_slice(&memmap, GuestAddress(layout::PVH_MEMMAP))?;

    if let Some((address, bytes)) = loaded.initrd {
        let mut module = Vec::new();
        for field in [address, bytes, 0, 0] {
            module.extend_from_slice(&field.to_le_bytes());
        }
        memory.write_slice(&module, GuestAddress(layout::PVH_MODULES))?;
    }

    // hvm_start_info, version 1: magic, version, flags, modules, module list, command line,
    // RSDP, memory map, entries of it, reserved.
    let mut info = Vec::new();
    for field in [START_MAGIC, 1, 0, u32::from(loaded.initrd.is_some())] {
        info.extend_from_slice(&field.to_le_bytes());
    }
    for field in [
        layout::PVH_MODULES,
        layout::CMDLINE,
        layout::ACPI,
        layout::PVH_MEMMAP,
    ] {
        info.extend_from_slice(&field.to_le_bytes());
    }
    for field in [map.len() as u32, 0] {
        info.extend_from_slice(&field.to_le_bytes());
    }
    Ok(memory.write_slice(&info, GuestAddress(layout::PVH_INFO))?)
}
