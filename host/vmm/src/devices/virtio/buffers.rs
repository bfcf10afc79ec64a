//! Reading and writing the buffers of a chain, in order, without copying where that is possible.

use vm_memory::{ByteValued, Bytes as _, VolatileSlice};

/// A chain's buffers are shorter than what a request must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a request has buffers of {has} bytes where {needs} are needed")]
pub(crate) struct ShortBuffer {
    /// Bytes that are left.
    pub(crate) has: usize,
    /// Bytes that are needed.
    pub(crate) needs: usize,
}

/// Buffers and a position in them. Guest memory may change at any time: what is read twice may
/// differ.
struct Cursor<'a> {
    slices: Vec<VolatileSlice<'a>>,
    /// The slice that the position is in.
    at: usize,
    /// Bytes of it that are behind.
    offset: usize,
    remaining: usize,
    consumed: usize,
}

impl<'a> Cursor<'a> {
    fn new(slices: Vec<VolatileSlice<'a>>) -> Self {
        let remaining = slices.iter().map(VolatileSlice::len).sum();
        Self {
            slices,
            at: 0,
            offset: 0,
            remaining,
            consumed: 0,
        }
    }

    /// The next piece, at most `max` bytes of one slice; none at the end.
    fn piece(&mut self, max: usize) -> Option<VolatileSlice<'a>> {
        if max == 0 {
            return None;
        }
        loop {
            let rest = self.slices.get(self.at)?.offset(self.offset).ok()?;
            if rest.is_empty() {
                (self.at, self.offset) = (self.at + 1, 0);
                continue;
            }
            let piece = rest.subslice(0, rest.len().min(max)).ok()?;
            self.offset += piece.len();
            self.remaining -= piece.len();
            self.consumed += piece.len();
            return Some(piece);
        }
    }

    fn take(&mut self, bytes: usize) -> Result<Vec<VolatileSlice<'a>>, ShortBuffer> {
        self.need(bytes)?;
        let mut taken = Vec::new();
        let mut left = bytes;
        while let Some(piece) = self.piece(left) {
            left -= piece.len();
            taken.push(piece);
        }
        Ok(taken)
    }

    fn need(&self, needs: usize) -> Result<(), ShortBuffer> {
        match self.remaining {
            has if has < needs => Err(ShortBuffer { has, needs }),
            _ => Ok(()),
        }
    }
}

/// The buffers that the driver filled.
pub(crate) struct Reader<'a>(Cursor<'a>);

impl<'a> Reader<'a> {
    pub(super) fn new(slices: Vec<VolatileSlice<'a>>) -> Self {
        Self(Cursor::new(slices))
    }

    /// Bytes that were not read yet.
    pub(crate) fn remaining(&self) -> usize {
        self.0.remaining
    }

    /// Reads as much as there is and fits; returns how much.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> usize {
        let mut done = 0;
        while let Some(rest) = into.get_mut(done..)
            && let Some(piece) = self.0.piece(rest.len())
        {
            done += piece.copy_to(rest);
        }
        done
    }

    /// Fills `into`, or reads nothing.
    pub(crate) fn read_exact(&mut self, into: &mut [u8]) -> Result<(), ShortBuffer> {
        self.0.need(into.len())?;
        self.read(into);
        Ok(())
    }

    /// Reads a structure of plain data, or nothing.
    pub(crate) fn read_obj<T: ByteValued>(&mut self) -> Result<T, ShortBuffer> {
        let mut value = T::zeroed();
        self.read_exact(value.as_mut_slice())?;
        Ok(value)
    }

    /// The next `bytes`, not copied.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<Vec<VolatileSlice<'a>>, ShortBuffer> {
        self.0.take(bytes)
    }
}

/// The buffers that the device fills. What it does not write keeps what the guest left there.
pub(crate) struct Writer<'a>(Cursor<'a>);

impl<'a> Writer<'a> {
    pub(super) fn new(slices: Vec<VolatileSlice<'a>>) -> Self {
        Self(Cursor::new(slices))
    }

    /// Room that is left, bytes.
    pub(crate) fn remaining(&self) -> usize {
        self.0.remaining
    }

    /// Bytes that were written or taken: what [`super::Virtqueue::complete`] is told.
    pub(crate) fn written(&self) -> usize {
        self.0.consumed
    }

    /// Writes as much as fits; returns how much.
    pub(crate) fn write(&mut self, from: &[u8]) -> usize {
        let mut done = 0;
        while let Some(rest) = from.get(done..)
            && let Some(piece) = self.0.piece(rest.len())
        {
            // The piece has at most as many bytes as the rest.
            done += piece.write(rest, 0).unwrap_or(0).min(piece.len());
        }
        done
    }

    /// Writes all of `from`, or nothing.
    pub(crate) fn write_all(&mut self, from: &[u8]) -> Result<(), ShortBuffer> {
        self.0.need(from.len())?;
        self.write(from);
        Ok(())
    }

    /// Room for the next `bytes`, to be filled without copying. It counts as written.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<Vec<VolatileSlice<'a>>, ShortBuffer> {
        self.0.take(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slices<'a>(buffers: &'a mut [Vec<u8>]) -> Vec<VolatileSlice<'a>> {
        buffers
            .iter_mut()
            .map(|buffer| VolatileSlice::from(&mut buffer[..]))
            .collect()
    }

    #[test]
    fn reading_crosses_buffers_and_never_goes_past_the_end() {
        let mut buffers = [b"abc".to_vec(), vec![], b"defgh".to_vec()];
        let mut reader = Reader::new(slices(&mut buffers));
        let mut four = [0; 4];
        reader.read_exact(&mut four).unwrap();
        assert_eq!(&four, b"abcd");
        assert_eq!(
            reader.read_obj::<u64>(),
            Err(ShortBuffer { has: 4, needs: 8 })
        );
        assert_eq!(reader.take(2).unwrap().len(), 1);
        let mut rest = [0; 10];
        assert_eq!(reader.read(&mut rest), 2);
        assert_eq!(&rest[..2], b"gh");
        assert_eq!((reader.read(&mut rest), reader.remaining()), (0, 0));
    }

    #[test]
    fn writing_crosses_buffers_and_a_value_that_does_not_fit_is_not_begun() {
        let mut buffers = [vec![0; 3], vec![0; 3]];
        let mut writer = Writer::new(slices(&mut buffers));
        writer.write_all(&[1, 2, 3, 4]).unwrap();
        assert!(writer.write_all(b"xyz").is_err());
        assert_eq!((writer.written(), writer.remaining()), (4, 2));
        assert_eq!(writer.write(b"xyz"), 2);
        assert_eq!(writer.written(), 6);
        assert_eq!(buffers, [vec![1, 2, 3], vec![4, b'x', b'y']]);
    }
}
