//! What opening a store promises: it is private, there is one at a time, and what can't be used
//! is refused without a changed byte.

mod records;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use records::*;
use redb::{Database, TableDefinition};
use roost_store::{Change, Expect, OpenError, SCHEMA_VERSION, Store};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// A directory with a store that has some records, closed; and the store's file.
async fn filled() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for n in 0..40 {
        let changes = vec![
            Change::PutVm {
                record: vm(n, &format!("vm-{n}")),
                expect: Expect::Absent,
            },
            Change::AppendEvent(event(1)),
            Change::CloseWindow(window(key(n, 1, 1))),
        ];
        store.commit(changes).await.unwrap();
    }
    drop(store);
    let file = dir.path().join("roost.redb");
    (dir, file)
}

#[test]
fn directory_and_file_are_for_their_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (outer, inner) = (dir.path().join("outer"), dir.path().join("outer/inner"));
    let store = Store::open(&inner).unwrap();
    assert_eq!(store.schema_version().unwrap(), SCHEMA_VERSION);
    assert_eq!([mode(&outer), mode(&inner)], [0o700; 2]);
    let files: Vec<_> = fs::read_dir(&inner)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert_eq!(files, [inner.join("roost.redb")]);
    assert_eq!(mode(&files[0]), 0o600);
}

#[test]
fn a_directory_or_file_of_the_store_that_others_can_enter_is_tightened() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    drop(Store::open(dir.path()).unwrap());
    assert_eq!(mode(dir.path()), 0o700);
    let file = dir.path().join("roost.redb");
    fs::set_permissions(dir.path(), Permissions::from_mode(0o770)).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    drop(Store::open(dir.path()).unwrap());
    assert_eq!([mode(dir.path()), mode(&file)], [0o700, 0o600]);
}

#[test]
fn a_shared_directory_with_other_files_is_refused_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("somebody's"), "").unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o1777)).unwrap();
    let error = Store::open(dir.path()).err().unwrap();
    assert!(
        matches!(error, OpenError::SharedDirectory { mode: 0o1777, .. }),
        "{error}"
    );
    assert_eq!(mode(dir.path()), 0o1777);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_second_open_is_refused_until_the_first_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let clone = store.clone();
    drop(store);
    let error = Store::open(dir.path()).err().unwrap();
    assert!(matches!(error, OpenError::Locked(_)), "{error}");
    drop(clone);
    Store::open(dir.path()).unwrap();
}

#[tokio::test]
async fn a_file_that_another_program_has_open_is_refused() {
    let (dir, file) = filled().await;
    let database = Database::open(&file).unwrap();
    let error = Store::open(dir.path()).err().unwrap();
    assert!(matches!(error, OpenError::Locked(_)), "{error}");
    drop(database);
    Store::open(dir.path()).unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_refused_by_its_number_and_the_file_is_not_changed() {
    let (dir, file) = filled().await;
    {
        let meta: TableDefinition<&[u8], &[u8]> = TableDefinition::new("meta");
        let database = Database::open(&file).unwrap();
        let transaction = database.begin_write().unwrap();
        let newer = (SCHEMA_VERSION + 6).to_be_bytes();
        transaction
            .open_table(meta)
            .unwrap()
            .insert(b"schema".as_slice(), newer.as_slice())
            .unwrap();
        // A newer roost may have dropped tables that this one needs.
        let vms: TableDefinition<&[u8], &[u8]> = TableDefinition::new("vms");
        transaction.delete_table(vms).unwrap();
        transaction.commit().unwrap();
    }
    fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    let before = fs::read(&file).unwrap();
    let error = Store::open(dir.path()).err().unwrap();
    let OpenError::NewerSchema { found, known, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!((*found, *known), (SCHEMA_VERSION + 6, SCHEMA_VERSION));
    let named = format!("schema {}", SCHEMA_VERSION + 6);
    assert!(error.to_string().contains(&named), "{error}");
    assert_eq!(fs::read(&file).unwrap(), before);
    assert_eq!(mode(&file), 0o640);
}

fn refused_as_corrupt(dir: &Path, file: &Path, content: &[u8], what: &str) {
    fs::write(file, content).unwrap();
    match Store::open(dir) {
        Err(OpenError::Corrupt { path, reason }) => {
            assert_eq!(path, file);
            assert!(!reason.is_empty());
        }
        Err(other) => panic!("{what}: {other}"),
        Ok(_) => panic!("{what}: it opened"),
    }
    assert!(
        fs::read(file).unwrap() == content,
        "{what}: the file was changed"
    );
}

#[tokio::test]
async fn what_is_not_a_store_is_refused_and_not_changed() {
    let (dir, file) = filled().await;
    let whole = fs::read(&file).unwrap();
    refused_as_corrupt(dir.path(), &file, b"", "an empty file");
    refused_as_corrupt(dir.path(), &file, b"not a database\n", "a text");
    refused_as_corrupt(dir.path(), &file, &[0; 8192], "zeros");
    for length in [
        1,
        9,
        300,
        4095,
        4096,
        8192,
        whole.len() / 2,
        whole.len() - 1,
    ] {
        let what = format!("the first {length} bytes");
        refused_as_corrupt(dir.path(), &file, &whole[..length], &what);
    }
    fs::write(&file, whole).unwrap();
    Store::open(dir.path()).unwrap();
}

#[tokio::test]
async fn another_programs_database_is_refused_and_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("roost.redb");
    let numbers: TableDefinition<u64, u64> = TableDefinition::new("meta");
    let database = Database::create(&file).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(numbers)
        .unwrap()
        .insert(1, 1)
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    let content = fs::read(&file).unwrap();
    refused_as_corrupt(dir.path(), &file, &content, "another database");
}

#[tokio::test]
async fn a_flipped_byte_is_refused_or_harmless_and_the_refused_file_is_not_changed() {
    let (dir, file) = filled().await;
    let whole = fs::read(&file).unwrap();
    let reads = |store: &Store| {
        (
            store.vms().unwrap(),
            store.events(0, 999).unwrap(),
            store.outbox(999).unwrap(),
            store
                .vm_by_name(&roost_model::Tenant::default(), &name("vm-7"))
                .unwrap(),
        )
    };
    let expected = reads(&Store::open(dir.path()).unwrap());
    // A quarter of the first pages' header bytes, and a spread over everything that is not zero.
    let used: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
    let step = (used.len() / 150).max(1);
    let offsets = (0..320).step_by(4).chain(used.into_iter().step_by(step));
    let mut refused = 0;
    for at in offsets {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        fs::write(&file, &damaged).unwrap();
        match Store::open(dir.path()) {
            Ok(store) => assert_eq!(reads(&store), expected, "byte {at}"),
            Err(OpenError::Corrupt { .. }) => {
                refused += 1;
                assert!(
                    fs::read(&file).unwrap() == damaged,
                    "byte {at}: the file was changed"
                );
            }
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
    assert!(refused > 80, "{refused} were refused");
}

#[test]
fn what_a_host_killed_while_it_made_the_store_left_does_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
    fs::write(dir.path().join("roost.redb.new"), "half a store").unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.vms().unwrap(), []);
    assert!(!dir.path().join("roost.redb.new").exists());
}

#[test]
fn a_path_that_can_not_be_a_directory_is_named_in_the_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let link = dir.path().join("link");
    symlink(dir.path().join("nowhere"), &link).unwrap();
    for path in [&file, &link] {
        let error = Store::open(path).err().unwrap();
        assert!(matches!(error, OpenError::Io { .. }), "{error}");
        assert!(
            error.to_string().contains(&path.display().to_string()),
            "{error}"
        );
    }
}
