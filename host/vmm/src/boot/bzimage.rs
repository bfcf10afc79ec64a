//! bzImage kernels: Documentation/arch/x86/boot.rst of Linux.

use super::kernel::{
    Image, Kernel, KernelError, KernelFormat, KernelInfo, Segment, check_segment, number,
};
use super::layout;

/// Where the setup header begins in the image, and in `boot_params`.
pub(crate) const HEADER_OFFSET: usize = 0x1f1;
/// Bytes read from the start of the image: the header ends before 0x290.
const PREFIX_BYTES: usize = 0x290;
/// Where the 64-bit entry is, from the start of the protected-mode part.
const ENTRY_64: u64 = 0x200;
/// First protocol version with `xloadflags` and so with a 64-bit entry.
const MIN_PROTOCOL: u64 = 0x20c;
/// `XLF_KERNEL_64` in `xloadflags`.
const XLF_KERNEL_64: u64 = 1;
/// `boot_params` ends the header's room here: the e820 table follows.
const MAX_HEADER_END: usize = 0x290;

pub(crate) fn is_bzimage(image: &Image<'_>) -> bool {
    let mut magic = [0; 6];
    // "HdrS" is at 0x202, the boot flag 0xAA55 at 0x1fe.
    image.read(&mut magic, 0x1fe, "its setup header").is_ok()
        && magic[..2] == [0x55, 0xaa]
        && image
            .read(&mut magic[..4], 0x202, "its setup header")
            .is_ok()
        && magic[..4] == *b"HdrS"
}

pub(crate) fn read(image: &Image<'_>) -> Result<Kernel, KernelError> {
    let mut prefix = [0; PREFIX_BYTES];
    image.read(&mut prefix, 0, "its setup header")?;
    if number::<2>(&prefix, 0x206) < MIN_PROTOCOL {
        return Err(KernelError::BzImage("its boot protocol is older than 2.12"));
    }
    if number::<2>(&prefix, 0x236) & XLF_KERNEL_64 == 0 {
        return Err(KernelError::BzImage("it has no 64-bit entry point"));
    }
    // 0 means 4, for ancient images.
    let setup_sectors = match number::<1>(&prefix, 0x1f1) {
        0 => 4,
        sectors => sectors,
    };
    let file_offset = (setup_sectors + 1) * 512;
    let file_bytes = number::<4>(&prefix, 0x1f4) * 16;
    image.check(file_offset, file_bytes, "its protected-mode part")?;
    let address = number::<8>(&prefix, 0x258);
    let memory_bytes = number::<4>(&prefix, 0x260).max(file_bytes);
    if file_bytes <= ENTRY_64 {
        return Err(KernelError::BzImage("its protected-mode part is empty"));
    }
    check_segment(address, memory_bytes)?;
    // The byte at 0x201 is the distance from 0x202 to the header's end.
    let end = (0x202 + number::<1>(&prefix, 0x201) as usize).min(MAX_HEADER_END);
    let header = prefix.get(HEADER_OFFSET..end).unwrap_or_default().to_vec();
    Ok(Kernel {
        info: KernelInfo {
            format: KernelFormat::BzImage,
            entry: address + ENTRY_64,
            size_bytes: image.size,
        },
        segments: vec![Segment {
            file_offset,
            file_bytes,
            address,
            memory_bytes,
        }],
        setup_header: Some(header),
        initrd_max: number::<4>(&prefix, 0x22c).saturating_add(1),
        cmdline_max: (number::<4>(&prefix, 0x238) as usize).min(layout::CMDLINE_BYTES - 1),
    })
}
