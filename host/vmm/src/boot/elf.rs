//! ELF kernels: the System V ABI's ELF-64, and Xen's PVH note.

use super::kernel::{
    Image, Kernel, KernelError, KernelFormat, KernelInfo, Segment, check_segment, number,
};
use super::layout;

pub(crate) const MAGIC: &[u8] = b"\x7fELF";

/// `Elf64_Ehdr`, bytes.
const HEADER_BYTES: usize = 64;
/// `Elf64_Phdr`, bytes.
const PROGRAM_HEADER_BYTES: u64 = 56;
/// Most program headers: a Linux kernel has 5.
const MAX_PROGRAM_HEADERS: u64 = 64;
/// Longest note segment that is searched, bytes: a Linux kernel's has about 500.
const MAX_NOTE_BYTES: u64 = 64 << 10;

const ELFCLASS64: u8 = 2;
const ELFDATA2LSB: u8 = 1;
const ET_EXEC: u64 = 2;
const EM_X86_64: u64 = 62;
const PT_LOAD: u64 = 1;
const PT_DYNAMIC: u64 = 2;
const PT_INTERP: u64 = 3;
const PT_NOTE: u64 = 4;
/// `XEN_ELFNOTE_PHYS32_ENTRY` (xen/include/public/elfnote.h).
const PVH_NOTE: u64 = 18;

pub(crate) fn read(image: &Image<'_>) -> Result<Kernel, KernelError> {
    let mut header = [0; HEADER_BYTES];
    image.read(&mut header, 0, "its ELF header")?;
    if header[4] != ELFCLASS64 || header[5] != ELFDATA2LSB {
        return Err(KernelError::NotAKernel("it is not 64-bit little-endian"));
    }
    if number::<2>(&header, 18) != EM_X86_64 {
        return Err(KernelError::NotAKernel("it is for another processor"));
    }
    if number::<2>(&header, 16) != ET_EXEC {
        return Err(KernelError::NotAKernel(
            "it is a shared object or position-independent",
        ));
    }
    let (offset, size) = (number::<8>(&header, 32), number::<2>(&header, 54));
    let count = number::<2>(&header, 56);
    if size != PROGRAM_HEADER_BYTES || count == 0 || count > MAX_PROGRAM_HEADERS {
        return Err(KernelError::NotAKernel(
            "its program headers are not those of a kernel",
        ));
    }
    let mut table = vec![0; (count * PROGRAM_HEADER_BYTES) as usize];
    image.read(&mut table, offset, "its program header table")?;

    let mut segments = Vec::new();
    let mut pvh_entry = None;
    for row in table.chunks_exact(PROGRAM_HEADER_BYTES as usize) {
        let (file_offset, file_bytes) = (number::<8>(row, 8), number::<8>(row, 32));
        match number::<4>(row, 0) {
            PT_INTERP | PT_DYNAMIC => {
                return Err(KernelError::NotAKernel("it is linked dynamically"));
            }
            PT_LOAD => {
                let segment = Segment {
                    file_offset,
                    file_bytes,
                    address: number::<8>(row, 24),
                    memory_bytes: number::<8>(row, 40),
                };
                if segment.memory_bytes == 0 {
                    continue;
                }
                if segment.file_bytes > segment.memory_bytes {
                    return Err(KernelError::NotAKernel(
                        "a segment is larger in the file than in memory",
                    ));
                }
                image.check(file_offset, file_bytes, "a segment")?;
                check_segment(segment.address, segment.memory_bytes)?;
                segments.push(segment);
            }
            PT_NOTE => {
                let mut notes = vec![0; file_bytes.min(MAX_NOTE_BYTES) as usize];
                image.read(&mut notes, file_offset, "its notes")?;
                pvh_entry = pvh_entry.or_else(|| find_pvh_entry(&notes));
            }
            _ => {}
        }
    }
    if segments.is_empty() {
        return Err(KernelError::NotAKernel("nothing of it is to be loaded"));
    }
    let (format, entry) = match pvh_entry {
        Some(entry) => (KernelFormat::Pvh, entry),
        None => (KernelFormat::Elf64, number::<8>(&header, 24)),
    };
    let inside = |s: &Segment| {
        entry
            .checked_sub(s.address)
            .is_some_and(|o| o < s.memory_bytes)
    };
    if !segments.iter().any(inside) {
        return Err(KernelError::Entry(entry));
    }
    Ok(Kernel {
        info: KernelInfo {
            format,
            entry,
            size_bytes: image.size,
        },
        segments,
        setup_header: None,
        initrd_max: layout::HOLE_START,
        cmdline_max: layout::CMDLINE_BYTES - 1,
    })
}

/// Walks `Elf64_Nhdr` entries: sizes of name and descriptor, type, then both padded to 4 bytes.
fn find_pvh_entry(notes: &[u8]) -> Option<u64> {
    let padded = |bytes: u64| bytes.next_multiple_of(4) as usize;
    let mut at = 0_usize;
    while let Some(note) = notes.get(at..).filter(|rest| rest.len() >= 12) {
        let (name_bytes, value_bytes) = (number::<4>(note, 0), number::<4>(note, 4));
        let value_at = 12_usize.checked_add(padded(name_bytes))?;
        let end = value_at.checked_add(padded(value_bytes))?;
        if number::<4>(note, 8) == PVH_NOTE && note.get(12..16) == Some(b"Xen\0") {
            return match value_bytes {
                4 if note.len() >= value_at + 4 => Some(number::<4>(note, value_at)),
                8 if note.len() >= value_at + 8 => Some(number::<8>(note, value_at)),
                _ => None,
            };
        }
        at = at.checked_add(end)?;
    }
    None
}
