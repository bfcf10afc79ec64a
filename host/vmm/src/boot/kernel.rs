//! Looking into a kernel image: what it is, where it goes, where it starts.
//!
//! Nothing here believes the image: every offset, size and address is checked before it is used,
//! and no more than a few pages of it are read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::layout;
use super::{bzimage, elf};

/// Largest kernel image, bytes: several times what any distribution ships uncompressed.
pub const MAX_KERNEL_BYTES: u64 = 1 << 30;

/// How a kernel will be entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelFormat {
    /// ELF without a PVH note: in long mode at `e_entry`, by the 64-bit Linux boot protocol.
    Elf64,
    /// ELF with a PVH note (`XEN_ELFNOTE_PHYS32_ENTRY`): in 32-bit protected mode.
    Pvh,
    /// bzImage: in long mode, 0x200 bytes into its protected-mode part.
    BzImage,
}

/// What a kernel image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelInfo {
    /// How it will be entered.
    pub format: KernelFormat,
    /// Guest-physical address of its first instruction.
    pub entry: u64,
    /// Size of the image, bytes.
    pub size_bytes: u64,
}

/// Why an image is not a kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The file can't be read.
    #[error("it could not be read: {0}")]
    Read(#[from] io::Error),
    /// The file is empty.
    #[error("it is empty; expected an ELF vmlinux or a bzImage")]
    Empty,
    /// The file is larger than any kernel.
    #[error("it has {0} bytes; a kernel has at most {MAX_KERNEL_BYTES}")]
    TooLarge(u64),
    /// The first bytes are those of neither format.
    #[error("it begins with {}; expected an ELF vmlinux or a bzImage", .0.escape_ascii())]
    UnknownFormat(Vec<u8>),
    /// The file ends before what its headers speak of.
    #[error("it is truncated: {what} ends at byte {end}, the file at byte {size}")]
    Truncated {
        /// What was to be read.
        what: &'static str,
        /// Where that ends.
        end: u64,
        /// Where the file ends.
        size: u64,
    },
    /// An ELF file, but for something else.
    #[error("it is an ELF file, but {0}; expected a statically linked x86-64 kernel")]
    NotAKernel(&'static str),
    /// A segment would be loaded where no kernel may be.
    #[error(
        "its segment at {start:#x} ends at {end:#x}; a kernel is loaded between \
         {:#x} and {:#x}",
        layout::HIGH_MEMORY,
        layout::KERNEL_END
    )]
    Segment {
        /// Guest-physical start.
        start: u64,
        /// Guest-physical end.
        end: u64,
    },
    /// The entry point is outside of everything that is loaded.
    #[error("its entry point {0:#x} is in no segment that is loaded")]
    Entry(u64),
    /// A bzImage that can't be entered in long mode.
    #[error("it is a bzImage, but {0}")]
    BzImage(&'static str),
}

/// A part of the image and where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) file_offset: u64,
    pub(crate) file_bytes: u64,
    pub(crate) address: u64,
    /// At least `file_bytes`; the rest is zero.
    pub(crate) memory_bytes: u64,
}

/// A kernel image that was looked into.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    pub(crate) info: KernelInfo,
    pub(crate) segments: Vec<Segment>,
    /// The setup header as it stands in a bzImage, from [`bzimage::HEADER_OFFSET`] on.
    pub(crate) setup_header: Option<Vec<u8>>,
    /// First address that an initrd may not have.
    pub(crate) initrd_max: u64,
    /// Longest command line that it takes, bytes, without the zero.
    pub(crate) cmdline_max: usize,
}

impl Kernel {
    /// First address behind everything that is loaded.
    pub(crate) fn end(&self) -> u64 {
        self.segments
            .iter()
            .map(|s| s.address + s.memory_bytes)
            .max()
            .unwrap_or(0)
    }
}

/// Validates a kernel image without allocating guest memory.
///
/// # Errors
/// [`KernelError`] says what was read and what was expected.
pub fn inspect_kernel(file: &mut File) -> Result<KernelInfo, KernelError> {
    read_kernel(file).map(|kernel| kernel.info)
}

pub(crate) fn read_kernel(file: &File) -> Result<Kernel, KernelError> {
    let image = Image::new(file)?;
    let mut magic = vec![0; image.size.min(4) as usize];
    image.read(&mut magic, 0, "its first bytes")?;
    if magic == elf::MAGIC {
        return elf::read(&image);
    }
    if bzimage::is_bzimage(&image) {
        return bzimage::read(&image);
    }
    Err(KernelError::UnknownFormat(magic))
}

/// A file that is read by position, within its size.
pub(crate) struct Image<'a> {
    file: &'a File,
    pub(crate) size: u64,
}

impl<'a> Image<'a> {
    fn new(file: &'a File) -> Result<Self, KernelError> {
        let size = file.metadata()?.len();
        match size {
            0 => Err(KernelError::Empty),
            size if size > MAX_KERNEL_BYTES => Err(KernelError::TooLarge(size)),
            size => Ok(Self { file, size }),
        }
    }

    /// Fails where `bytes` from `offset` on are not all in the file.
    pub(crate) fn check(
        &self,
        offset: u64,
        bytes: u64,
        what: &'static str,
    ) -> Result<(), KernelError> {
        let end = offset.saturating_add(bytes);
        if end > self.size {
            return Err(KernelError::Truncated {
                what,
                end,
                size: self.size,
            });
        }
        Ok(())
    }

    pub(crate) fn read(
        &self,
        buffer: &mut [u8],
        offset: u64,
        what: &'static str,
    ) -> Result<(), KernelError> {
        self.check(offset, buffer.len() as u64, what)?;
        Ok(self.file.read_exact_at(buffer, offset)?)
    }
}

/// Fails where a segment would lie outside of where kernels are loaded.
pub(crate) fn check_segment(address: u64, bytes: u64) -> Result<(), KernelError> {
    let end = address.saturating_add(bytes);
    if address < layout::HIGH_MEMORY || end > layout::KERNEL_END {
        return Err(KernelError::Segment {
            start: address,
            end,
        });
    }
    Ok(())
}

/// The little-endian number at `offset` of `bytes`; 0 where `bytes` is too short.
pub(crate) fn number<const N: usize>(bytes: &[u8], offset: usize) -> u64 {
    let mut wide = [0; 8];
    if let Some(field) = bytes.get(offset..offset + N) {
        wide[..N].copy_from_slice(field);
    }
    u64::from_le_bytes(wide)
}
