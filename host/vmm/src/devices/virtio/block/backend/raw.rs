//! A raw file by blocking system calls.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

use rustix::fs::{FallocateFlags, fallocate};
use vm_memory::VolatileSlice;

use super::segments::Segments;
use super::{ByteRange, Image};

/// How the kernel is asked to free a range of a file; it reads as zeroes then.
pub(super) const FREE: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);
/// How it is asked to make a range read as zeroes and keep it allocated.
pub(super) const ZERO: FallocateFlags = FallocateFlags::ZERO_RANGE.union(FallocateFlags::KEEP_SIZE);

#[derive(Clone, Copy)]
enum Direction {
    /// From the file.
    Read,
    /// To the file.
    Write,
}

/// A raw file.
pub(crate) struct RawImage {
    file: File,
}

impl RawImage {
    pub(crate) fn new(file: File) -> Self {
        Self { file }
    }

    /// Reads or writes until all of `range` is done.
    fn transfer(
        &self,
        buffers: &[VolatileSlice<'_>],
        range: ByteRange,
        direction: Direction,
    ) -> io::Result<()> {
        let mut segments = Segments::new(buffers);
        let mut offset = range.offset;
        while !segments.is_done() {
            let left = segments.left();
            let at = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
            let count = left.len().min(super::MAX_RANGES) as i32;
            let (fd, ranges) = (self.file.as_raw_fd(), left.as_ptr());
            let done = match direction {
                // SAFETY: the ranges lie in the slices, whose memory stays mapped during the call
                // and which nobody takes for Rust values.
                Direction::Read => unsafe { libc::preadv(fd, ranges, count, at) },
                // SAFETY: as above.
                Direction::Write => unsafe { libc::pwritev(fd, ranges, count, at) },
            };
            match usize::try_from(done) {
                // The file became shorter under our hands.
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(done) => {
                    segments.advance(done)?;
                    offset += done as u64;
                }
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Image for RawImage {
    fn read(&mut self, buffers: &[VolatileSlice<'_>], range: ByteRange) -> io::Result<()> {
        self.transfer(buffers, range, Direction::Read)
    }

    fn write(&mut self, buffers: &[VolatileSlice<'_>], range: ByteRange) -> io::Result<()> {
        self.transfer(buffers, range, Direction::Write)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn discard(&mut self, range: ByteRange) -> io::Result<()> {
        Ok(fallocate(&self.file, FREE, range.offset, range.bytes)?)
    }

    fn write_zeroes(&mut self, range: ByteRange, unmap: bool) -> io::Result<()> {
        let how = if unmap { FREE } else { ZERO };
        Ok(fallocate(&self.file, how, range.offset, range.bytes)?)
    }

    fn settle(&mut self) -> io::Result<()> {
        Ok(())
    }
}
