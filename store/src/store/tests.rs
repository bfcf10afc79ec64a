//! Group commit, and what a failing disk does to the store.

use std::future::Future;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::AtomicU8;
use std::task::{Context, Poll, Waker};

use redb::BackendError;
use roost_model::{Operation, OperationState};

use super::*;
use crate::change::{Conflict, Expect};
use crate::records::*;

type Pending<'a> = Pin<Box<dyn Future<Output = Result<Committed, CommitError>> + 'a>>;

/// Begins commits; each is in the queue, or waits for a place in it, when this returns. Or it is
/// answered already, where nothing holds the writer.
fn begin(store: &Store, commits: impl Iterator<Item = Vec<Change>>) -> Vec<Pending<'_>> {
    let mut context = Context::from_waker(Waker::noop());
    commits
        .map(|changes| {
            let mut commit: Pending<'_> = Box::pin(store.commit(changes));
            match commit.as_mut().poll(&mut context) {
                Poll::Pending => commit,
                Poll::Ready(answer) => Box::pin(std::future::ready(answer)),
            }
        })
        .collect()
}

fn create(n: u128) -> Vec<Change> {
    let record = vm(n, &format!("vm-{n}"));
    let expect = Expect::Absent;
    vec![
        Change::PutVm { record, expect },
        Change::AppendEvent(event(1)),
    ]
}

#[tokio::test]
async fn commits_that_wait_together_share_a_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    // redb has one write transaction at a time: while this one lives, the writer stands still.
    let hold = store.database().begin_write().unwrap();
    let commits = begin(&store, (1..=64).map(create));
    assert_eq!(store.transactions(), 0);
    drop(hold);
    for commit in commits {
        commit.await.unwrap();
    }
    // What it had taken before it stood still, and the rest.
    assert!(store.transactions() <= 2, "{}", store.transactions());
    assert_eq!(store.vms().unwrap().len(), 64);
    assert_eq!(store.last_event().unwrap(), 64);
}

#[tokio::test]
async fn reads_do_not_wait_for_a_write() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.commit(create(1)).await.unwrap();
    let hold = store.database().begin_write().unwrap();
    let commits = begin(&store, (2..=3).map(create));
    assert_eq!(store.vms().unwrap().len(), 1);
    drop(hold);
    for commit in commits {
        commit.await.unwrap();
    }
    assert_eq!(store.vms().unwrap().len(), 3);
}

#[tokio::test]
async fn a_crowd_beyond_the_queue_waits_in_its_callers_and_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let hold = store.database().begin_write().unwrap();
    let crowd = (writer::MAX_WAITING + writer::MAX_BATCH + 20) as u128;
    let commits = begin(&store, (1..=crowd).map(create));
    // However many the writer has taken, callers wait for each place.
    assert_eq!(store.inner.requests.as_ref().unwrap().capacity(), 0);
    drop(hold);
    for commit in commits {
        commit.await.unwrap();
    }
    assert_eq!(store.vms().unwrap().len() as u128, crowd);
}

#[tokio::test]
async fn dropping_the_store_writes_what_waits_even_if_nobody_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let hold = store.database().begin_write().unwrap();
    drop(begin(&store, (1..=5).map(create)));
    drop(hold);
    drop(store);
    assert_eq!(Store::open(dir.path()).unwrap().vms().unwrap().len(), 5);
}

#[tokio::test]
async fn old_finished_operations_are_forgotten_and_unfinished_ones_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        keep_operations: 3,
        ..Limits::default()
    };
    let store = Store::open_with(dir.path(), limits, FileBackend::new).unwrap();
    let running = operation(1, 1, OperationState::Running);
    store
        .commit(vec![Change::PutOperation(running.clone())])
        .await
        .unwrap();
    let done = |n| operation(n, 2, OperationState::Succeeded);
    for n in 2..=9 {
        store
            .commit(vec![Change::PutOperation(done(n))])
            .await
            .unwrap();
    }
    let kept: [Operation; 3] = [done(9), done(8), done(7)];
    assert_eq!(store.operations(Some(vm_id(2)), 99).unwrap(), kept);
    assert_eq!(
        store.operations(Some(vm_id(1)), 99).unwrap(),
        std::slice::from_ref(&running)
    );
    assert_eq!(store.operations(None, 99).unwrap().len(), 4);
    assert_eq!(store.unfinished_operations().unwrap(), [running]);
}

/// `asm-generic/errno-base.h`.
const ENOSPC: i32 = 28;

/// What the disk does.
const FINE: u8 = 0;
const SYNC_FAILS: u8 = 1;
const FULL: u8 = 2;
const PANICS: u8 = 3;

/// A file on a disk that can fail.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    mood: Arc<AtomicU8>,
}

impl Disk {
    fn is(&self, mood: u8) -> bool {
        self.mood.load(Ordering::SeqCst) == mood
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.is(SYNC_FAILS) {
            return Err(io::Error::other("the disk is on fire"));
        }
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.is(FULL) {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        assert!(!self.is(PANICS), "a panic in the middle of a write");
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(from, to)
    }

    fn unlock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(from, to)
    }
}

fn open_on(dir: &Path, mood: &Arc<AtomicU8>) -> Store {
    let mood = Arc::clone(mood);
    let disk = |file| FileBackend::new(file).map(|file| Disk { file, mood });
    // Nothing is cached, so that every read needs the disk.
    let limits = Limits {
        cache_bytes: 0,
        ..Limits::default()
    };
    Store::open_with(dir, limits, disk).unwrap()
}

fn reason(result: Result<Committed, CommitError>) -> String {
    match result {
        Err(CommitError::ReadOnly { reason }) => reason,
        other => panic!("read-only was expected, not {other:?}"),
    }
}

#[tokio::test]
async fn after_a_failed_write_commits_are_refused_reads_go_on_and_nothing_committed_is_lost() {
    for (mood, said) in [
        (SYNC_FAILS, "on fire"),
        (FULL, "No space left"),
        (PANICS, "panic"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(AtomicU8::new(FINE));
        let store = open_on(dir.path(), &disk);
        for n in 1..=200 {
            let commits = begin(&store, std::iter::once(create(n)));
            if n % 20 == 0 {
                for commit in commits {
                    commit.await.unwrap();
                }
            }
        }
        store.commit(create(201)).await.unwrap();

        disk.store(mood, Ordering::SeqCst);
        let mut alarm = store.watch_read_only();
        let first = reason(store.commit(create(202)).await);
        assert!(alarm.has_changed().unwrap());
        assert_eq!(alarm.borrow_and_update().as_ref(), Some(&first));
        assert!(first.contains(said), "{first}");
        // The disk's recovery does not bring the writes back: what redb holds is not trusted.
        disk.store(FINE, Ordering::SeqCst);
        assert_eq!(reason(store.clone().commit(create(203)).await), first);
        assert_eq!(store.read_only(), Some(first));

        for n in 1..=201 {
            assert_eq!(store.vm(vm_id(n)).unwrap().unwrap().id, vm_id(n));
        }
        assert_eq!(store.events(0, 201).unwrap().len(), 201);
        assert_eq!(store.schema_version().unwrap(), crate::SCHEMA_VERSION);
        // What is there can be saved.
        let elsewhere = tempfile::tempdir().unwrap();
        let mut saved = crate::NewBackup::create(&elsewhere.path().join("b"), false).unwrap();
        io::copy(store.back_up().unwrap().file(), saved.file()).unwrap();
        let last = store.last_event().unwrap();
        assert_eq!(saved.finish().unwrap().last_event, last);
        // Nobody else gets the directory meanwhile.
        assert!(matches!(Store::open(dir.path()), Err(OpenError::Locked(_))));
        drop(store);

        // As another process would see it: after a panic this one keeps the file open.
        let later = tempfile::tempdir().unwrap();
        let file = crate::open::FILE;
        std::fs::copy(dir.path().join(file), later.path().join(file)).unwrap();
        let store = Store::open(later.path()).unwrap();
        let vms = store.vms().unwrap().len() as u64;
        // A commit whose fsync failed may be there. One that was refused is not.
        assert!(vms == 201 || (vms == 202 && mood == SYNC_FAILS), "{vms}");
        assert_eq!(store.last_event().unwrap(), vms);
        assert_eq!(store.vm(vm_id(203)).unwrap(), None);
        store.commit(create(204)).await.unwrap();
    }
}

#[tokio::test]
async fn everyone_in_a_batch_that_failed_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(AtomicU8::new(FINE));
    let store = open_on(dir.path(), &disk);
    let hold = store.database().begin_write().unwrap();
    let commits = begin(&store, (1..=40).map(create));
    disk.store(FULL, Ordering::SeqCst);
    drop(hold);
    for commit in commits {
        reason(commit.await);
    }
    assert_eq!(store.vms().unwrap(), []);
    assert_eq!(*store.watch_events().borrow(), 0);
}

#[tokio::test]
async fn a_conflict_in_a_batch_leaves_no_trace_while_its_batch_mates_land() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let update = Change::PutVm {
        record: at_revision(&vm(1, "vm-1"), 2),
        expect: Expect::Revision(1),
    };
    let late_conflict = [create(3), create(1)].concat();
    let batch = vec![
        create(1),
        late_conflict,
        vec![update.clone(), Change::AppendEvent(event(2))],
        vec![Change::AppendEvent(event(3)), update],
        create(2),
    ];
    let results = writer::commit(&store.database(), batch, Limits::default()).unwrap();
    let numbers: Vec<Result<u64, Conflict>> = results
        .into_iter()
        .map(|result| match result {
            Ok(committed) => Ok(committed.events[0].number),
            Err(CommitError::Conflict(conflict)) => Err(conflict),
            Err(error) => panic!("{error}"),
        })
        .collect();
    let stale = Conflict::StaleRevision {
        id: vm_id(1),
        expected: 1,
        found: 2,
    };
    let exists = Conflict::VmExists(vm_id(1));
    assert_eq!(numbers, [Ok(1), Err(exists), Ok(2), Err(stale), Ok(3)]);
    let expected = [at_revision(&vm(1, "vm-1"), 2), vm(2, "vm-2")];
    assert_eq!(store.vms().unwrap(), expected);
    assert_eq!(store.events(0, 9).unwrap().len(), 3);
}
