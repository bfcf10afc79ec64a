//! The store, and handing commits to its writer.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use redb::backends::FileBackend;
use redb::{Database, DatabaseError, StorageBackend};
use tokio::sync::{mpsc, oneshot, watch};

use crate::change::{Change, Committed};
use crate::error::{CommitError, OpenError, ReadError};
use crate::open::{self, Limits, Opened};
use crate::retention::Retention;
use crate::state::State;
use crate::writer::{self, Request};

/// The state of a host. Clones share one.
///
/// Dropping the last one writes what waits and releases the directory before it returns.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    /// None only while it is dropped.
    requests: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
    last_event: watch::Receiver<u64>,
    state: Arc<State>,
    /// Where it is.
    dir: PathBuf,
    /// Whether a backup is under way.
    backing_up: Arc<AtomicBool>,
    /// Locked. The last field: it is released after the database is closed.
    _directory: File,
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has nothing more to write.
            let _ = writer.join();
        }
    }
}

impl Store {
    /// Opens the store in `dir`, or makes it. Directory and file are for their owner alone.
    ///
    /// # Errors
    /// [`OpenError`]: in use, newer, damaged, or refused by the file system.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        Self::open_with(dir, Limits::default(), FileBackend::new)
    }

    /// [`Store::open`], keeping another number of decisions.
    ///
    /// # Errors
    /// As with [`Store::open`].
    pub fn open_keeping(dir: &Path, retention: Retention) -> Result<Self, OpenError> {
        let limits = Limits {
            retention,
            ..Limits::default()
        };
        Self::open_with(dir, limits, FileBackend::new)
    }

    /// [`Store::open`] with other limits and another way to the file.
    pub(crate) fn open_with<B: StorageBackend>(
        dir: &Path,
        limits: Limits,
        backend: impl FnOnce(File) -> Result<B, DatabaseError>,
    ) -> Result<Self, OpenError> {
        let Opened {
            database,
            file,
            last_event,
            directory,
        } = open::open(dir, limits, backend)?;
        let (sender, last_event) = watch::channel(last_event);
        let state = Arc::new(State::new(database, file, limits));
        let (requests, writer) =
            writer::start(Arc::clone(&state), sender).map_err(|source| OpenError::Io {
                path: dir.to_owned(),
                source,
            })?;
        Ok(Self {
            inner: Arc::new(Inner {
                requests: Some(requests),
                writer: Some(writer),
                last_event,
                state,
                dir: dir.to_owned(),
                backing_up: Arc::default(),
                _directory: directory,
            }),
        })
    }

    /// Applies `changes`, in their order, together or not at all; they are on disk when this
    /// returns. A caller that stops waiting may or may not have made its commit.
    ///
    /// # Errors
    /// [`CommitError`]: a conflict, or a store that takes no more writes.
    pub async fn commit(&self, changes: Vec<Change>) -> Result<Committed, CommitError> {
        let requests = self.inner.requests.as_ref().ok_or(CommitError::Closed)?;
        let (reply, answer) = oneshot::channel();
        requests
            .send(Request { changes, reply })
            .await
            .map_err(|_| CommitError::Closed)?;
        answer.await.map_err(|_| CommitError::Closed)?
    }

    /// Returns when the writer has got through what it was at: never, if it hangs. A store that
    /// takes no more writes answers, too.
    pub async fn answers(&self) {
        // A writer that is gone refuses everything at once, which is an answer.
        let _ = self.commit(Vec::new()).await;
    }

    /// What the writer works on.
    #[cfg(test)]
    pub(crate) fn state(&self) -> &State {
        &self.inner.state
    }

    /// Where it is.
    pub(crate) fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Whether a backup is under way.
    pub(crate) fn backing_up(&self) -> &Arc<AtomicBool> {
        &self.inner.backing_up
    }

    /// The database to read from.
    pub(crate) fn database(&self) -> Arc<Database> {
        self.inner.state.database()
    }

    /// The number of the last event that is on disk; it changes with each commit of events.
    #[must_use]
    pub fn watch_events(&self) -> watch::Receiver<u64> {
        self.inner.last_event.clone()
    }

    /// Why the store takes no more writes, if it does not.
    #[must_use]
    pub fn read_only(&self) -> Option<String> {
        self.inner.state.failure()
    }

    /// [`Store::read_only`], as it changes: once, if ever.
    #[must_use]
    pub fn watch_read_only(&self) -> watch::Receiver<Option<String>> {
        self.inner.state.watch_failure()
    }

    /// Transactions since it was opened: what group commit saves shows here.
    #[must_use]
    pub fn transactions(&self) -> u64 {
        self.inner.state.transactions.load(Ordering::Relaxed)
    }

    /// The schema of the file.
    ///
    /// # Errors
    /// It can't be read.
    pub fn schema_version(&self) -> Result<u32, ReadError> {
        open::schema(&self.database())
    }
}

#[cfg(test)]
mod tests;
