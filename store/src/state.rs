//! What the readers and the writer share.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock};

use redb::Database;
use tokio::sync::watch;

use crate::open::{Limits, builder};
use crate::overlay::Overlay;

/// The database and how it is doing.
pub(crate) struct State {
    /// Replaced once, when a write fails.
    database: RwLock<Arc<Database>>,
    /// The file below the database.
    file: File,
    failure: watch::Sender<Option<String>>,
    /// Transactions committed so far.
    pub(crate) transactions: AtomicU64,
    pub(crate) limits: Limits,
}

impl State {
    pub(crate) fn new(database: Database, file: File, limits: Limits) -> Self {
        Self {
            database: RwLock::new(Arc::new(database)),
            file,
            failure: watch::Sender::new(None),
            transactions: AtomicU64::new(0),
            limits,
        }
    }

    /// Where to read.
    pub(crate) fn database(&self) -> Arc<Database> {
        let database = self.database.read();
        Arc::clone(&database.unwrap_or_else(PoisonError::into_inner))
    }

    /// Why no more is written, once that is so.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.borrow().clone()
    }

    /// [`State::failure`], as it changes.
    pub(crate) fn watch_failure(&self) -> watch::Receiver<Option<String>> {
        self.failure.subscribe()
    }

    /// No more writes, because of `reason`. Reads go on with what is in the file: redb itself
    /// reads nothing any more once a write of it has failed. After a panic it can't even be
    /// closed, so it stays open until the process ends.
    pub(crate) fn fail(&self, reason: &str, has_panicked: bool) {
        if self.failure.borrow().is_some() {
            return;
        }
        if has_panicked {
            std::mem::forget(self.database());
        }
        // Without a copy, reads say what is wrong with the file.
        if let Ok(Some(copy)) = catch_unwind(AssertUnwindSafe(|| self.copy())) {
            let mut database = self
                .database
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            *database = Arc::new(copy);
        }
        // Last, so that whoever is told so can read.
        self.failure.send_replace(Some(reason.to_owned()));
    }

    /// What is in the file, to be read.
    fn copy(&self) -> Option<Database> {
        let overlay = Overlay::new(self.file.try_clone().ok()?).ok()?;
        builder(self.limits).create_with_backend(overlay).ok()
    }
}
