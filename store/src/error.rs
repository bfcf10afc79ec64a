//! What can go wrong with the store.

use std::io;
use std::path::PathBuf;

use crate::change::Conflict;

/// Why the store did not open. A file that is newer or damaged was not changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another [`Store`](crate::Store) of this one, has it open.
    #[error("{0} is in use by another process: one host at a time can have a data directory")]
    Locked(PathBuf),
    /// The directory is open to others and holds files that are not a store's.
    #[error(
        "{path} has mode {mode:04o} and holds other files than a store: give Roost a directory \
         of its own, or chmod this one to 0700"
    )]
    SharedDirectory {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It was written by a newer Roost.
    #[error(
        "{path} has schema {found}, and this binary knows {known}: use the newer roost that \
         wrote it, or restore a backup with `roost store restore`"
    )]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest that is known here.
        known: u32,
    },
    /// It is not a store, or it is damaged.
    #[error(
        "{path} is damaged or not a store ({reason}); it was left as it is: `roost store restore` \
         puts a backup in its place"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Which check failed, and how.
        reason: String,
    },
    /// The file system said no.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// redb could not read.
    #[error("it could not be read: {0}")]
    Database(Box<redb::Error>),
    /// A value is not what its table holds.
    #[error("a value in {table} is damaged: {reason}")]
    Value {
        /// The table.
        table: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl<E: Into<redb::Error>> From<E> for ReadError {
    fn from(error: E) -> Self {
        Self::Database(Box::new(error.into()))
    }
}

/// Why a commit was not made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// What it expected does not hold. Nothing of it was applied.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// A stored value that it depends on can't be understood. Nothing of it was applied.
    #[error("a value in {table} is damaged, so nothing was changed: {reason}")]
    Damaged {
        /// The table.
        table: &'static str,
        /// What is wrong with the value.
        reason: String,
    },
    /// A write failed, this one or an earlier one; the store takes no more until it is reopened.
    /// Whether the commit whose write failed is there then is not known; a later one is not.
    #[error("it takes no more writes: {reason}")]
    ReadOnly {
        /// The failure.
        reason: String,
    },
    /// The store is being closed.
    #[error("it is being closed")]
    Closed,
}
