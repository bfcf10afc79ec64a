//! A disk whose power can fail: what was written and not synced may then be there, in part, or not
//! at all, and each write apart from the others.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proptest::prelude::Rng as _;
use proptest::test_runner::{RngAlgorithm, TestRng};
use redb::StorageBackend;

use crate::overlay::Overlay;

/// Bytes that a disk writes as a whole. Yet half of the torn writes are torn inside of one, as on
/// media that promise nothing.
const SECTOR_BYTES: u64 = 512;

/// What becomes of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// All of it is lost.
    Lost,
    /// All of it is there, although nobody was told so.
    Kept,
    /// Each write is there, in part, or not at all, as this seed says.
    Torn(u64),
}

/// The disk. Its file holds what is durable, and nothing else.
#[derive(Debug)]
pub(crate) struct Disk {
    file: File,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What readers see: the file and what was written over it.
    seen: Overlay,
    /// What was done since the last sync, in order.
    unsynced: Vec<Unsynced>,
    /// Writes, changes of length and syncs until the power fails, if it will.
    left: Option<u64>,
    is_off: bool,
}

#[derive(Debug)]
enum Unsynced {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

impl Unsynced {
    fn apply(&self, file: &File) -> io::Result<()> {
        match self {
            Self::Write(offset, data) => file.write_all_at(data, *offset),
            Self::SetLen(len) => file.set_len(*len),
        }
    }
}

/// The disk as redb gets at it.
#[derive(Debug)]
pub(crate) struct Plugged(pub(crate) Arc<Disk>);

impl Disk {
    /// A disk whose durable content is that of `file`.
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let seen = Overlay::new(file.try_clone()?)?;
        let state = Mutex::new(State {
            seen,
            unsynced: Vec::new(),
            left: None,
            is_off: false,
        });
        Ok(Self { file, state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts the power after `operations` more writes, changes of length and syncs.
    pub(crate) fn cut_after(&self, operations: u64) {
        self.state().left = Some(operations);
    }

    /// Whether the power is off.
    pub(crate) fn is_off(&self) -> bool {
        self.state().is_off
    }

    /// Lets what was not synced meet its `fate`. After that the file is what a machine that comes
    /// back finds.
    pub(crate) fn settle(&self, fate: Fate) -> io::Result<()> {
        let unsynced = std::mem::take(&mut self.state().unsynced);
        match fate {
            Fate::Lost => Ok(()),
            Fate::Kept => unsynced.iter().try_for_each(|one| one.apply(&self.file)),
            Fate::Torn(seed) => {
                let mut random = random(seed);
                (unsynced.iter()).try_for_each(|one| one.tear(&mut random, &self.file))
            }
        }
    }

    /// Does something that changes the disk, if there is power.
    fn change(&self, change: impl FnOnce(&mut State, &File) -> io::Result<()>) -> io::Result<()> {
        let mut state = self.state();
        if state.left == Some(0) {
            state.is_off = true;
        }
        if state.is_off {
            return Err(io::Error::other("the power is off"));
        }
        state.left = state.left.map(|left| left - 1);
        change(&mut state, &self.file)
    }
}

/// A generator of its own for each seed.
fn random(seed: u64) -> TestRng {
    let bytes: Vec<u8> = seed.to_le_bytes().into_iter().cycle().take(32).collect();
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

impl Unsynced {
    /// Applies some of it.
    fn tear(&self, random: &mut TestRng, file: &File) -> io::Result<()> {
        let (offset, data) = match (self, random.next_u32() % 4) {
            (_, 0) => return Ok(()),
            (Self::SetLen(_), _) | (_, 1) => return self.apply(file),
            (Self::Write(offset, data), _) => (*offset, data),
        };
        if random.next_u32().is_multiple_of(2) {
            // The power went in the middle: the first bytes are there, or the last ones.
            let cut = random.next_u64() as usize % (data.len() + 1);
            return if random.next_u32().is_multiple_of(2) {
                file.write_all_at(&data[..cut], offset)
            } else {
                file.write_all_at(&data[cut..], offset + cut as u64)
            };
        }
        let mut at = 0;
        while at < data.len() {
            let sector = SECTOR_BYTES - (offset + at as u64) % SECTOR_BYTES;
            let end = data.len().min(at + sector as usize);
            if random.next_u32().is_multiple_of(2) {
                file.write_all_at(&data[at..end], offset + at as u64)?;
            }
            at = end;
        }
        Ok(())
    }
}

impl StorageBackend for Plugged {
    fn len(&self) -> io::Result<u64> {
        self.0.state().seen.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.state();
        if state.is_off {
            return Err(io::Error::other("the power is off"));
        }
        state.seen.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.change(|state, _| {
            state.unsynced.push(Unsynced::SetLen(len));
            state.seen.set_len(len)
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.change(|state, file| {
            for unsynced in state.unsynced.drain(..) {
                unsynced.apply(file)?;
            }
            state.seen = Overlay::new(file.try_clone()?)?;
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.change(|state, _| {
            state.unsynced.push(Unsynced::Write(offset, data.to_vec()));
            state.seen.write(offset, data)
        })
    }
}
