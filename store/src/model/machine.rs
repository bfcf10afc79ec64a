//! A store whose machine can lose its power, beside the model of what it should hold.

use std::path::Path;
use std::sync::Arc;

use tokio::runtime::Runtime;

use super::contents::Contents;
use super::disk::{Disk, Fate, Plugged};
use super::reference::Model;
use crate::open::{FILE, Limits, open_file};
use crate::{Change, CommitError, Committed, Conflict, OpenError, Store, writer};

/// A store on a disk whose power can fail, and what it should hold.
pub(crate) struct Machine {
    dir: tempfile::TempDir,
    runtime: Runtime,
    pub(crate) disk: Arc<Disk>,
    /// None only while the machine is off.
    pub(crate) store: Option<Store>,
    pub(crate) model: Model,
}

/// Opens the store in `dir` on a disk that may lose its power.
fn open(dir: &Path) -> (Arc<Disk>, Result<Store, OpenError>) {
    let disk = Arc::new(Disk::new(open_file(&dir.join(FILE)).unwrap()).unwrap());
    let plugged = Plugged(Arc::clone(&disk));
    let store = Store::open_with(dir, Limits::default(), |_| Ok(plugged));
    (disk, store)
}

impl Machine {
    /// A machine with an empty store.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        drop(Store::open(dir.path()).unwrap());
        Self::on(dir, Model::default())
    }

    /// A machine with the store in `dir`, which holds what `model` does.
    pub(crate) fn on(dir: tempfile::TempDir, model: Model) -> Self {
        let (disk, store) = open(dir.path());
        Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap(),
            dir,
            disk,
            store: Some(store.unwrap()),
            model,
        }
    }

    pub(crate) fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// What the store holds is what the model holds.
    pub(crate) fn compare(&self) {
        let found = Contents::of_store(self.store());
        assert_eq!(found, Contents::of_model(&self.model));
    }

    /// Commits over the writer's thread.
    pub(crate) fn commit(&mut self, changes: &[Change]) {
        let before = self.model.events.len();
        let answer = self.runtime.block_on(self.store().commit(changes.to_vec()));
        let is_on = self.settle(vec![answer], &[changes.to_vec()]);
        let last = self.model.events.len();
        if is_on && last > before {
            assert_eq!(*self.store().watch_events().borrow(), last as u64);
        }
    }

    /// Commits that share a transaction.
    pub(crate) fn commit_together(&mut self, commits: &[Vec<Change>]) {
        let answers = writer::results(self.store().state(), commits.to_vec(), commits.len());
        self.settle(answers, commits);
    }

    /// Compares the answers of one transaction with the model's and moves the model on; false if
    /// the power went. Then the store goes on being read, and answers what was acknowledged, or
    /// that and the whole transaction.
    fn settle(
        &mut self,
        answers: Vec<Result<Committed, CommitError>>,
        commits: &[Vec<Change>],
    ) -> bool {
        let mut after = self.model.clone();
        let expected: Vec<_> = (commits.iter())
            .map(|changes| after.commit(changes.clone()))
            .collect();
        if answers
            .iter()
            .any(|answer| matches!(answer, Err(CommitError::ReadOnly { .. })))
        {
            assert!(self.disk.is_off(), "{answers:?}");
            assert!(self.store().read_only().is_some());
            self.model_is_either(after);
            return false;
        }
        let answers: Vec<Result<_, Conflict>> = (answers.into_iter())
            .map(|answer| match answer {
                Ok(committed) => Ok(committed.events),
                Err(CommitError::Conflict(conflict)) => Err(conflict),
                Err(error) => panic!("{error}"),
            })
            .collect();
        assert_eq!(answers, expected);
        self.model = after;
        true
    }

    /// The store holds what the model does, or what `after` does, which is then the model.
    pub(crate) fn model_is_either(&mut self, after: Model) {
        let found = Contents::of_store(self.store());
        if found != Contents::of_model(&self.model) {
            assert_eq!(found, Contents::of_model(&after));
            self.model = after;
        }
    }

    /// Starts on what is on the disk once what was not synced met its `fate`.
    pub(crate) fn start(&mut self, fate: Fate) {
        self.disk.settle(fate).unwrap();
        let (disk, store) = open(self.dir.path());
        (self.disk, self.store) = (disk, Some(store.unwrap()));
    }

    /// Starts, and loses the power again after so many operations; then starts for good.
    pub(crate) fn start_twice(&mut self, fate: Fate, operations: u64) {
        self.disk.settle(fate).unwrap();
        let file = open_file(&self.dir.path().join(FILE)).unwrap();
        self.disk = Arc::new(Disk::new(file).unwrap());
        self.disk.cut_after(operations);
        let plugged = Plugged(Arc::clone(&self.disk));
        match Store::open_with(self.dir.path(), Limits::default(), |_| Ok(plugged)) {
            Ok(store) => drop(store),
            Err(error) => assert!(matches!(error, OpenError::Io { .. }), "{error}"),
        }
        self.start(fate);
    }
}
