//! A backup: the records of one moment, copied into a database of their own.
//!
//! It is a store like any other, of the schema of its origin, and as small as it can be. Writers
//! do not wait for it: it reads a snapshot.

use std::fs::File;
use std::io::{self, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, ReadTransaction, ReadableDatabase as _, ReadableTable as _,
    TableDefinition, TableHandle as _,
};

use crate::check::CheckReport;
use crate::error::{OpenError, ReadError};
use crate::inspect::inspect;
use crate::open::{FILE, io_error, lock_directory};
use crate::place::NewBackup;
use crate::store::Store;

/// Pages of a backup that redb keeps in memory while it is written, bytes.
const CACHE_BYTES: usize = 4 << 20;
/// What an online backup leaves free on the store's file system, bytes: what a busy host writes in
/// minutes.
const RESERVE_BYTES: u64 = 64 << 20;

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// One at a time.
    #[error("another backup is under way; try again when it is done")]
    Busy,
    /// An online backup is made beside the store, and must not fill its disk.
    #[error(
        "a backup needs up to {needed} bytes beside the store, and {available} are free: make \
         room, or stop the host and back up its directory to another disk"
    )]
    NoSpace {
        /// The size of the store and a reserve, bytes.
        needed: u64,
        /// Free on its file system, bytes.
        available: u64,
    },
    /// The store could not be opened; or the backup, to be checked.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store could not be read.
    #[error("the store: {0}")]
    Read(ReadError),
    /// The backup could not be written.
    #[error("the backup: {0}")]
    Write(ReadError),
    /// There is a file of that name.
    #[error("{0} is there already, and is not replaced")]
    Exists(PathBuf),
    /// What was written is not a whole store.
    #[error("{} is not a whole store: {}", .0.path.display(), .0.verdict())]
    Damaged(Box<CheckReport>),
    /// The file system said no.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A backup in a file without a name, which is gone when this is dropped.
#[derive(Debug)]
pub struct Backup {
    file: File,
    size_bytes: u64,
    _turn: Turn,
}

/// The right to make a backup. One at a time has it.
#[derive(Debug)]
struct Turn(Arc<AtomicBool>);

impl Turn {
    fn take(taken: &Arc<AtomicBool>) -> Option<Self> {
        let was_taken = taken.swap(true, Ordering::AcqRel);
        (!was_taken).then(|| Self(Arc::clone(taken)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Backup {
    /// The file, at its beginning.
    #[must_use]
    pub const fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Its size.
    #[must_use]
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}

impl Store {
    /// Copies what the store holds now; commits go on meanwhile. The copy takes place on the
    /// store's disk until it is dropped, and no other is made until then. It takes as long as
    /// reading the store does: call it where that may block.
    ///
    /// # Errors
    /// [`BackupError`]: another one is under way, there is no room, or the disk failed.
    pub fn back_up(&self) -> Result<Backup, BackupError> {
        let turn = Turn::take(self.backing_up()).ok_or(BackupError::Busy)?;
        let dir = self.dir();
        let io = |source| BackupError::Io {
            path: dir.to_owned(),
            source,
        };
        let needed = (dir.join(FILE).metadata().map_err(io)?.len()).saturating_add(RESERVE_BYTES);
        let free = rustix::fs::statvfs(dir).map_err(|error| io(error.into()))?;
        let available = free.f_bavail.saturating_mul(free.f_frsize);
        if available < needed {
            return Err(BackupError::NoSpace { needed, available });
        }
        let mut file = tempfile::tempfile_in(dir).map_err(io)?;
        copy(&read(self.database().begin_read())?, &file)?;
        file.rewind().map_err(io)?;
        Ok(Backup {
            size_bytes: file.metadata().map_err(io)?.len(),
            file,
            _turn: turn,
        })
    }
}

/// Copies the store in `dir`, which no host has open, to a new file at `to`; one that is there is
/// replaced only if that is wanted. Nothing in `dir` is changed, and it may be on a full disk.
///
/// # Errors
/// [`BackupError`]: a host has the store open, it is damaged, or the file can't be written.
pub fn back_up(dir: &Path, to: &Path, replace: bool) -> Result<CheckReport, BackupError> {
    let _lock = lock_directory(dir)?;
    let path = dir.join(FILE);
    let file = File::open(&path).map_err(io_error(&path))?;
    let mut backup = NewBackup::create(to, replace)?;
    let copied = inspect(&path, &file, true, |database, _, _| {
        Ok(copy(&database.begin_read()?, backup.file()))
    })?;
    copied?;
    backup.finish()
}

/// Copies every row of every table to a new database in `to`.
fn copy(from: &ReadTransaction, to: &File) -> Result<(), BackupError> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    let database = (to.try_clone().map_err(DatabaseError::from))
        .and_then(FileBackend::new)
        .and_then(|backend| builder.create_with_backend(backend));
    let database = written(database)?;
    let transaction = written(database.begin_write())?;
    for table in read(from.list_tables())? {
        let definition: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(table.name());
        let rows = read(from.open_table(definition))?;
        let mut copied = written(transaction.open_table(definition))?;
        for row in read(rows.iter())? {
            let (key, value) = read(row)?;
            written(copied.insert(key.value(), value.value()))?;
        }
    }
    written(transaction.commit())?;
    written(database.close())
}

fn read<T>(result: Result<T, impl Into<ReadError>>) -> Result<T, BackupError> {
    result.map_err(|error| BackupError::Read(error.into()))
}

fn written<T>(result: Result<T, impl Into<ReadError>>) -> Result<T, BackupError> {
    result.map_err(|error| BackupError::Write(error.into()))
}
