//! A database file whose changes stay in memory.
//!
//! Opening a redb file writes to it: recovery, and a mark that it is in use. Through an overlay a
//! file can be opened and checked, and refused without a changed byte. And since redb stops
//! reading for good after a failed write, an overlay also serves reads from what is on the disk.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// Bytes that are copied when one of them is written: a page of redb.
const BLOCK_BYTES: usize = 4096;

/// Reads come from the file until they were written over.
#[derive(Debug)]
pub(crate) struct Overlay {
    file: File,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Length as redb sees it, bytes.
    len: u64,
    /// Bytes at the start that the file has and that were not cut off since.
    from_file: u64,
    /// Written blocks by their number.
    blocks: BTreeMap<u64, Vec<u8>>,
}

impl Overlay {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        let state = Mutex::new(State {
            len,
            from_file: len,
            blocks: BTreeMap::new(),
        });
        Ok(Self { file, state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is complete before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file's bytes from `offset`; zeros where it has none.
    fn read_file(&self, state: &State, offset: u64, out: &mut [u8]) -> io::Result<()> {
        out.fill(0);
        let there = usize::try_from(state.from_file.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = out.len().min(there);
        out.get_mut(..wanted)
            .map_or(Ok(()), |out| self.file.read_exact_at(out, offset))
    }
}

/// The parts of `length` bytes from `offset`: block number, first byte in the block, bytes.
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let block_bytes = BLOCK_BYTES as u64;
    let end = offset.saturating_add(length as u64);
    let mut at = offset;
    std::iter::from_fn(move || {
        let (block, start) = (at / block_bytes, at % block_bytes);
        let bytes = (block_bytes - start).min(end - at);
        at += bytes;
        // Both are at most BLOCK_BYTES.
        (bytes > 0).then_some((block, start as usize, bytes as usize))
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        if offset.saturating_add(out.len() as u64) > state.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut rest = out;
        for (block, start, bytes) in parts(offset, rest.len()) {
            let (part, after) = rest.split_at_mut(bytes);
            rest = after;
            let written = state
                .blocks
                .get(&block)
                .and_then(|block| block.get(start..start + bytes));
            match written {
                Some(written) => part.copy_from_slice(written),
                None => {
                    let at = block * BLOCK_BYTES as u64 + start as u64;
                    self.read_file(&state, at, part)?;
                }
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        let block_bytes = BLOCK_BYTES as u64;
        state.blocks.retain(|block, _| block * block_bytes < len);
        if let Some(last) = state.blocks.get_mut(&(len / block_bytes)) {
            // Less than BLOCK_BYTES.
            let kept = (len % block_bytes) as usize;
            last.iter_mut().skip(kept).for_each(|byte| *byte = 0);
        }
        state.from_file = state.from_file.min(len);
        state.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        if offset.saturating_add(data.len() as u64) > state.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut rest = data;
        for (number, start, bytes) in parts(offset, rest.len()) {
            let (part, after) = rest.split_at(bytes);
            rest = after;
            let mut block = match state.blocks.remove(&number) {
                Some(block) => block,
                None => {
                    let mut block = vec![0; BLOCK_BYTES];
                    self.read_file(&state, number * BLOCK_BYTES as u64, &mut block)?;
                    block
                }
            };
            if let Some(into) = block.get_mut(start..start + bytes) {
                into.copy_from_slice(part);
            }
            state.blocks.insert(number, block);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Write(u64, Vec<u8>),
        SetLen(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (
                0_u64..20_000,
                proptest::collection::vec(any::<u8>(), 0..9000)
            )
                .prop_map(|(at, data)| Step::Write(at, data)),
            (0_u64..30_000).prop_map(Step::SetLen),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]
        #[test]
        fn an_overlay_reads_like_a_file_and_leaves_the_real_one_alone(
            first in proptest::collection::vec(any::<u8>(), 0..20_000),
            steps in proptest::collection::vec(step(), 0..12),
        ) {
            let mut file = tempfile::tempfile().unwrap();
            io::Write::write_all(&mut file, &first).unwrap();
            let overlay = Overlay::new(file.try_clone().unwrap()).unwrap();
            let mut model = first.clone();
            for step in steps {
                match step {
                    Step::Write(at, data) => {
                        let end = at as usize + data.len();
                        let fits = end <= model.len();
                        prop_assert_eq!(overlay.write(at, &data).is_ok(), fits);
                        if fits {
                            model[at as usize..end].copy_from_slice(&data);
                        }
                    }
                    Step::SetLen(len) => {
                        overlay.set_len(len).unwrap();
                        model.resize(len as usize, 0);
                    }
                }
                let mut seen = vec![0xee; model.len()];
                overlay.read(0, &mut seen).unwrap();
                prop_assert_eq!(&seen, &model);
                prop_assert_eq!(overlay.len().unwrap(), model.len() as u64);
                prop_assert!(overlay.read(1, &mut seen).is_err() || seen.is_empty());
            }
            let mut untouched = vec![0; first.len()];
            file.read_exact_at(&mut untouched, 0).unwrap();
            prop_assert_eq!(untouched, first);
        }
    }
}
