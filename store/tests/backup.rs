//! What backups promise: a moment of the store, whole and private, while writers go on.

mod records;

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use records::*;
use roost_store::{
    BackupError, Change, Expect, NewBackup, OpenError, RestoreError, Store, back_up, check_file,
    restore,
};

const WRITERS: u128 = 8;
const BACKUPS: usize = 5;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// A VM, an event that tells of it, and a closed window of it: together or not at all.
fn commit(n: u128) -> Vec<Change> {
    vec![
        Change::PutVm {
            record: vm(n, &format!("vm-{n}")),
            expect: Expect::Absent,
        },
        Change::AppendEvent(event(n as u64)),
        Change::CloseWindow(window(key(n, 1, 1))),
    ]
}

async fn filled(dir: &Path, vms: u128) {
    let store = Store::open(dir).unwrap();
    for n in 1..=vms {
        store.commit(commit(n)).await.unwrap();
    }
}

/// Makes a backup of a store that is open, as a client of the host does.
fn back_up_online(store: &Store, to: &Path) {
    let mut backup = store.back_up().unwrap();
    let mut file = NewBackup::create(to, false).unwrap();
    let copied = io::copy(backup.file(), file.file()).unwrap();
    assert_eq!(copied, backup.size_bytes());
    let report = file.finish().unwrap();
    assert_eq!((report.path.as_path(), report.size_bytes), (to, copied));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backups_while_eight_writers_write_are_each_a_moment_of_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (store, stop) = (store.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut committed: u128 = 0;
                while !stop.load(Ordering::SeqCst) {
                    let n = 1 + committed * WRITERS + writer;
                    store.commit(commit(n)).await.unwrap();
                    committed += 1;
                }
                committed
            })
        })
        .collect();
    let mut moments = Vec::new();
    for number in 0..BACKUPS {
        // Something was committed since the last one.
        let mut events = store.watch_events();
        events.borrow_and_update();
        events.changed().await.unwrap();
        let before = store.last_event().unwrap();
        let to = dir.path().join(format!("backup-{number}"));
        let (store, path) = (store.clone(), to.clone());
        let made = tokio::task::spawn_blocking(move || back_up_online(&store, &path));
        made.await.unwrap();
        moments.push((before, to));
    }
    stop.store(true, Ordering::SeqCst);
    let mut committed = 0;
    for writer in writers {
        committed += writer.await.unwrap();
    }
    let all = store.events(0, usize::MAX).unwrap();
    assert_eq!(all.len() as u128, committed);
    for (before, backup) in moments {
        let restored = dir
            .path()
            .join("restored")
            .join(backup.file_name().unwrap());
        restore(&backup, &restored, false).unwrap();
        let copy = Store::open(&restored).unwrap();
        let events = copy.events(0, usize::MAX).unwrap();
        // It has all that was acknowledged before it began, and is a beginning of what was then
        // written; and of each commit it has all.
        assert!(events.len() as u64 >= before, "{} {before}", events.len());
        assert!(events == all[..events.len()]);
        let told: BTreeSet<_> = events.iter().map(|event| event.event.at_ms).collect();
        let vms = copy.vms().unwrap();
        let ids: BTreeSet<_> = vms.iter().map(|vm| vm.id).collect();
        assert_eq!(ids, told.iter().map(|n| vm_id(u128::from(*n))).collect());
        let windows = copy.outbox(usize::MAX).unwrap();
        assert_eq!(ids, windows.iter().map(|window| window.key.vm).collect());
        // It is a store like any other.
        copy.commit(commit(u128::MAX)).await.unwrap();
    }
}

#[tokio::test]
async fn a_backup_is_for_its_owner_alone_and_has_its_name_only_when_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store_dir = dir.path().join("store");
    filled(&store_dir, 3).await;
    let backups = dir.path().join("backups");
    fs::create_dir(&backups).unwrap();
    let to = backups.join("b");
    let half = NewBackup::create(&to, false).unwrap();
    assert!(!to.exists());
    assert!(
        names(&backups)
            .iter()
            .all(|name| mode(&backups.join(name)) == 0o600)
    );
    drop(half);
    assert_eq!(names(&backups), BTreeSet::new());
    let mut nonsense = NewBackup::create(&to, false).unwrap();
    io::Write::write_all(nonsense.file(), b"no store").unwrap();
    let error = nonsense.finish().unwrap_err();
    assert!(
        matches!(error, BackupError::Open(OpenError::Corrupt { .. })),
        "{error}"
    );
    assert_eq!(names(&backups), BTreeSet::new());

    let report = back_up(&store_dir, &to, false).unwrap();
    assert_eq!((report.last_event, report.problem_count), (3, 0));
    assert_eq!(mode(&to), 0o600);
    assert_eq!(names(&backups), BTreeSet::from(["b".to_owned()]));
    assert_eq!(names(&store_dir), BTreeSet::from(["roost.redb".to_owned()]));
}

#[tokio::test]
async fn a_file_that_is_there_is_replaced_only_if_that_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let store_dir = dir.path().join("store");
    filled(&store_dir, 3).await;
    let to = dir.path().join("b");
    fs::write(&to, "precious").unwrap();
    let error = back_up(&store_dir, &to, false).unwrap_err();
    assert!(
        matches!(&error, BackupError::Exists(path) if *path == to),
        "{error}"
    );
    // One that came while the backup was written.
    fs::remove_file(&to).unwrap();
    let mut late = NewBackup::create(&to, false).unwrap();
    let whole = fs::read(store_dir.join("roost.redb")).unwrap();
    io::Write::write_all(late.file(), &whole).unwrap();
    fs::write(&to, "precious").unwrap();
    let error = late.finish().unwrap_err();
    assert!(
        matches!(&error, BackupError::Exists(path) if *path == to),
        "{error}"
    );
    assert_eq!(fs::read(&to).unwrap(), b"precious");
    back_up(&store_dir, &to, true).unwrap();
    assert_eq!(check_file(&to).unwrap().last_event, 3);
}

#[tokio::test]
async fn one_backup_at_a_time_and_a_host_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.commit(commit(1)).await.unwrap();
    let mut first = store.back_up().unwrap();
    assert!(matches!(store.clone().back_up(), Err(BackupError::Busy)));
    // It has no name that could be left behind, and is gone with its owner.
    assert_eq!(names(dir.path()), BTreeSet::from(["roost.redb".to_owned()]));
    let mut content = Vec::new();
    first.file().read_to_end(&mut content).unwrap();
    assert_eq!(content.len() as u64, first.size_bytes());
    drop(first);
    store.back_up().unwrap();
    let to = dir.path().join("b");
    let error = back_up(dir.path(), &to, false).unwrap_err();
    assert!(
        matches!(error, BackupError::Open(OpenError::Locked(_))),
        "{error}"
    );
    assert!(!to.exists());
}

#[tokio::test]
async fn a_restored_store_is_private_and_the_one_that_it_replaced_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (store_dir, to) = (dir.path().join("store"), dir.path().join("b"));
    filled(&store_dir, 3).await;
    back_up(&store_dir, &to, false).unwrap();
    fs::set_permissions(&to, Permissions::from_mode(0o644)).unwrap();
    let file = store_dir.join("roost.redb");
    for round in 1..=2 {
        let before = fs::read(&file).unwrap();
        let error = restore(&to, &store_dir, false).unwrap_err();
        assert!(
            matches!(&error, RestoreError::Exists(path) if *path == file),
            "{error}"
        );
        assert!(fs::read(&file).unwrap() == before);
        let report = restore(&to, &store_dir, true).unwrap();
        let kept = store_dir.join(format!("roost.redb.replaced-{round}"));
        assert_eq!(report.replaced.as_ref(), Some(&kept));
        assert!(fs::read(&kept).unwrap() == before);
        assert!(fs::read(&file).unwrap() == fs::read(&to).unwrap());
        assert_eq!(
            [mode(&file), mode(&kept), mode(&store_dir)],
            [0o600, 0o600, 0o700]
        );
        // So that the next round replaces something else.
        let store = Store::open(&store_dir).unwrap();
        assert_eq!(store.vms().unwrap().len(), 3);
        store.commit(commit(100)).await.unwrap();
    }
    let fresh = dir.path().join("fresh/store");
    let report = restore(&to, &fresh, false).unwrap();
    assert_eq!((report.replaced, report.last_event), (None, 3));
    assert_eq!(
        [mode(&fresh), mode(&fresh.join("roost.redb"))],
        [0o700, 0o600]
    );
}

#[tokio::test]
async fn nothing_is_restored_while_a_host_runs_or_from_what_is_not_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (store_dir, to) = (dir.path().join("store"), dir.path().join("b"));
    filled(&store_dir, 3).await;
    back_up(&store_dir, &to, false).unwrap();
    let host = Store::open(&store_dir).unwrap();
    let error = restore(&to, &store_dir, true).unwrap_err();
    assert!(
        matches!(error, RestoreError::Open(OpenError::Locked(_))),
        "{error}"
    );
    host.commit(commit(4)).await.unwrap();
    drop(host);
    let before = fs::read(store_dir.join("roost.redb")).unwrap();

    let whole = fs::read(&to).unwrap();
    let mut flipped = whole.clone();
    // Every page behind the header.
    flipped[4096..].iter_mut().for_each(|byte| *byte ^= 1);
    for damaged in [&whole[..whole.len() / 2], b"", &flipped] {
        fs::write(&to, damaged).unwrap();
        let error = restore(&to, &store_dir, true).unwrap_err();
        let RestoreError::Open(OpenError::Corrupt { path, .. }) = &error else {
            panic!("{error}");
        };
        assert_eq!(*path, to);
    }
    let nowhere = restore(&dir.path().join("none"), &store_dir, true);
    assert!(matches!(
        nowhere,
        Err(RestoreError::Open(OpenError::Io { .. }))
    ));
    // A row that is not what its table holds.
    fs::write(&to, whole).unwrap();
    {
        let rows: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("vms");
        let database = redb::Database::open(&to).unwrap();
        let transaction = database.begin_write().unwrap();
        let mut table = transaction.open_table(rows).unwrap();
        table
            .insert([0; 16].as_slice(), b"\x01{}".as_slice())
            .unwrap();
        drop(table);
        transaction.commit().unwrap();
    }
    let error = restore(&to, &store_dir, true).unwrap_err();
    assert!(error.to_string().contains("the first in vms"), "{error}");
    assert!(fs::read(store_dir.join("roost.redb")).unwrap() == before);
    assert_eq!(names(&store_dir), BTreeSet::from(["roost.redb".to_owned()]));
}
