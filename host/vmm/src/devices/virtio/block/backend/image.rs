//! A disk image whose operations block.

use std::io;

use vm_memory::VolatileSlice;

use super::ByteRange;

/// An image, used by one thread. Ranges are inside of it, and buffers are as long as their range.
/// What can't be done by this kind of image or file system is [`io::ErrorKind::Unsupported`].
pub(crate) trait Image: Send {
    fn read(&mut self, buffers: &[VolatileSlice<'_>], range: ByteRange) -> io::Result<()>;

    fn write(&mut self, buffers: &[VolatileSlice<'_>], range: ByteRange) -> io::Result<()>;

    /// All that was written is durable on return.
    fn flush(&mut self) -> io::Result<()>;

    /// Frees what the range takes, which may read as anything that was there or as zeroes.
    fn discard(&mut self, range: ByteRange) -> io::Result<()>;

    /// Makes the range read as zeroes. If `unmap` it may be freed, else it stays allocated where
    /// the image is.
    fn write_zeroes(&mut self, range: ByteRange, unmap: bool) -> io::Result<()>;

    /// Leaves nothing that was written in this process.
    fn settle(&mut self) -> io::Result<()>;
}
