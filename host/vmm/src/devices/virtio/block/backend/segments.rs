//! Guest buffers as the kernel wants them, and how far it is with them.

use std::io;

use vm_memory::VolatileSlice;

/// Ranges of memory that somebody else keeps mapped.
pub(super) struct Segments {
    ranges: Box<[libc::iovec]>,
    /// The first range that is not all done; its beginning moves along.
    first: usize,
}

// SAFETY: they are addresses and lengths; whoever has the kernel use them sees to it that the
// memory is there, from whatever thread.
unsafe impl Send for Segments {}

impl Segments {
    pub(super) fn new(slices: &[VolatileSlice<'_>]) -> Self {
        let range = |slice: &VolatileSlice<'_>| libc::iovec {
            iov_base: slice.ptr_guard_mut().as_ptr().cast(),
            iov_len: slice.len(),
        };
        Self {
            ranges: slices.iter().map(range).collect(),
            first: 0,
        }
    }

    /// What is left. The place of the slice does not change while this lives.
    pub(super) fn left(&self) -> &[libc::iovec] {
        self.ranges.get(self.first..).unwrap_or_default()
    }

    pub(super) fn is_done(&self) -> bool {
        self.left().is_empty()
    }

    /// `bytes` of it are done. More than there are is an error.
    pub(super) fn advance(&mut self, mut bytes: usize) -> io::Result<()> {
        while let Some(range) = self.ranges.get_mut(self.first) {
            if bytes < range.iov_len {
                range.iov_base = range.iov_base.wrapping_byte_add(bytes);
                range.iov_len -= bytes;
                return Ok(());
            }
            bytes -= range.iov_len;
            self.first += 1;
        }
        match bytes {
            0 => Ok(()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_begins_where_the_kernel_stopped() {
        let mut memory = [0_u8; 12];
        let base = memory.as_mut_ptr() as usize;
        let slice = VolatileSlice::from(&mut memory[..]);
        let slices = [
            slice.subslice(0, 4).unwrap(),
            slice.subslice(4, 0).unwrap(),
            slice.subslice(4, 8).unwrap(),
        ];
        let mut segments = Segments::new(&slices);
        let left = |segments: &Segments| -> Vec<_> {
            let range = |range: &libc::iovec| (range.iov_base as usize - base, range.iov_len);
            segments.left().iter().map(range).collect()
        };
        assert_eq!(left(&segments), [(0, 4), (4, 0), (4, 8)]);
        segments.advance(3).unwrap();
        assert_eq!(left(&segments), [(3, 1), (4, 0), (4, 8)]);
        segments.advance(1).unwrap();
        assert_eq!(left(&segments), [(4, 8)]);
        segments.advance(7).unwrap();
        assert_eq!(left(&segments), [(11, 1)]);
        assert!(!segments.is_done());
        segments.advance(1).unwrap();
        assert!(segments.is_done());
        assert!(segments.advance(1).is_err());
    }
}
