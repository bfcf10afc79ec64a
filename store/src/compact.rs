//! Giving the place of removed records back to the file system.

use std::fs::File;
use std::path::{Path, PathBuf};

use redb::StorageBackend;
use redb::backends::FileBackend;
use redb::{CompactionError, DatabaseError};
use serde::Serialize;

use crate::error::OpenError;
use crate::inspect::inspect;
use crate::open::{self, FILE, Limits, io_error, lock_directory, read_error};

/// What compaction did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CompactReport {
    /// The store's file.
    pub path: PathBuf,
    /// Its size before.
    pub before_bytes: u64,
    /// Its size now.
    pub after_bytes: u64,
}

/// Makes the store in `dir`, which no host has open, as small as redb can. It needs no room beside
/// the store. It may be interrupted at any time.
///
/// # Errors
/// [`OpenError`]: there is no store, a host has it, it is newer or damaged, or the disk failed.
pub fn compact(dir: &Path) -> Result<CompactReport, OpenError> {
    compact_on(dir, FileBackend::new)
}

/// [`compact`] with another way to the file.
pub(crate) fn compact_on<B: StorageBackend>(
    dir: &Path,
    backend: impl FnOnce(File) -> Result<B, DatabaseError>,
) -> Result<CompactReport, OpenError> {
    let _lock = lock_directory(dir)?;
    let path = dir.join(FILE);
    let size = || path.metadata().map_err(io_error(&path)).map(|m| m.len());
    let before_bytes = size()?;
    let file = open::open_file(&path)?;
    inspect(&path, &file, true, |_, _, _| Ok(()))?;
    let mut database = open::database(&path, &file, Limits::default(), backend)?;
    database.compact().map_err(|error| match error {
        CompactionError::Storage(error) => read_error(&path, error.into()),
        error => OpenError::Corrupt {
            path: path.clone(),
            reason: error.to_string(),
        },
    })?;
    database
        .close()
        .map_err(|error| read_error(&path, error.into()))?;
    file.sync_all().map_err(io_error(&path))?;
    Ok(CompactReport {
        before_bytes,
        after_bytes: size()?,
        path,
    })
}
