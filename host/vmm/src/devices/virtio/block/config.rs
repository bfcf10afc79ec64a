//! What a disk is made of, as the host gives it.

use std::fs::File;
use std::io;

use crate::devices::virtio::RateLimits;

/// A virtio disk. The files are open; the device opens nothing by itself.
#[derive(Debug)]
pub struct DiskConfig {
    /// The serial number that the guest sees: 1 to 20 printable ASCII characters.
    pub id: String,
    /// What the guest reads and, unless it is read-only, writes. Open for reading, and for writing
    /// if it is written; not for appending. It is locked while the VM has it.
    pub file: File,
    /// What is in `file`.
    pub format: DiskFormat,
    /// The image that a qcow2 overlay is over. It is never written, and may be shared.
    pub base: Option<BaseImage>,
    /// The guest can't write.
    pub read_only: bool,
    /// How a raw file is read and written.
    pub engine: IoEngine,
    /// How much the guest may read and write, and how often it may ask for anything.
    pub limits: RateLimits,
}

/// An image that a qcow2 overlay is over.
#[derive(Debug)]
pub struct BaseImage {
    /// Open for reading.
    pub file: File,
    /// What is in `file`.
    pub format: DiskFormat,
}

/// What is in an image file. It is always told and never guessed: a guest can write a qcow2 header
/// into its raw disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DiskFormat {
    /// The disk's bytes.
    #[default]
    Raw,
    /// QEMU's format, version 2 or 3, in a single file.
    Qcow2,
}

impl DiskFormat {
    /// What qcow2 headers and QEMU call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// How a raw file is read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IoEngine {
    /// By io_uring where this process may use it, else by a thread.
    #[default]
    Auto,
    /// By io_uring, or not at all.
    IoUring,
    /// By a thread that makes blocking calls.
    Thread,
}

/// Why a disk can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The serial number.
    #[error("the disk's id {0:?} is not 1 to 20 printable ASCII characters")]
    Id(String),
    /// Another VM has it.
    #[error("the file is in use: another VM writes it, or it is another VM's image")]
    InUse,
    /// An overlay over itself.
    #[error("a disk and its base are the same file")]
    SameFile,
    /// How it was opened.
    #[error("the file is not open for {0}")]
    Access(&'static str),
    /// A pipe, a directory, …
    #[error("it is neither a regular file nor a block device")]
    Kind,
    /// Half a sector.
    #[error("the disk has {0} bytes, which is not a whole number of 512-byte sectors, or none")]
    Size(u64),
    /// A raw file over a base.
    #[error("only a qcow2 file can be over a base")]
    BaseUnderRaw,
    /// The header names a base.
    #[error("it is an overlay, and its base is not given")]
    BaseMissing,
    /// The header names no base.
    #[error("it is no overlay, but has a base")]
    NotAnOverlay,
    /// What is in a qcow2 file.
    #[error("it is not a qcow2 file that can be used: {0}")]
    Qcow2(String),
    /// The host.
    #[error("{what}: {source}")]
    Host {
        /// What was asked for.
        what: &'static str,
        /// What the host said.
        source: io::Error,
    },
}

impl DiskError {
    pub(super) fn host(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Host { what, source }
    }
}
