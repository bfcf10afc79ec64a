//! What a check promises: a whole store has no problem, whatever is damaged is named, and nothing
//! is changed.

mod damaging;
mod records;
mod values;

use std::fs;
use std::path::Path;

use damaging::{damage, filled};
use records::*;
use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableHandle as _,
};
use roost_store::{Change, CheckReport, OpenError, SCHEMA_VERSION, Store, check, check_file};

/// A directory with a store that has a row of every table.
async fn template() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    dir
}

fn copy_of(template: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let file = "roost.redb";
    fs::copy(template.join(file), dir.path().join(file)).unwrap();
    dir
}

/// Every table of the store in `dir`.
fn tables(dir: &Path) -> Vec<String> {
    let database = Database::open(dir.join("roost.redb")).unwrap();
    let transaction = database.begin_read().unwrap();
    let tables = transaction.list_tables().unwrap();
    tables.map(|table| table.name().to_owned()).collect()
}

/// Does something to the rows of a table, behind the store's back.
fn edit(
    dir: &Path,
    table: &str,
    edit: impl FnOnce(&mut redb::Table<'_, &'static [u8], &'static [u8]>),
) {
    let definition: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(table);
    let database = Database::open(dir.join("roost.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    edit(&mut transaction.open_table(definition).unwrap());
    transaction.commit().unwrap();
}

fn problems(report: &CheckReport) -> Vec<String> {
    assert_eq!(report.problem_count, report.problems.len() as u64);
    let problems = report.problems.iter();
    problems
        .map(|problem| format!("{}: {}", problem.table, problem.what))
        .collect()
}

#[tokio::test]
async fn a_whole_store_has_no_problem_and_the_check_changes_no_byte() {
    let dir = template().await;
    let file = dir.path().join("roost.redb");
    let before = fs::read(&file).unwrap();
    let report = check(dir.path()).unwrap();
    assert_eq!(problems(&report), [""; 0]);
    assert_eq!(report.path, file);
    assert_eq!(report.size_bytes, before.len() as u64);
    assert_eq!((report.schema, report.last_event), (SCHEMA_VERSION, 1));
    let names: Vec<_> = report.tables.iter().map(|table| &table.name).collect();
    // To open it changes it.
    let copy = copy_of(dir.path());
    assert_eq!(names, tables(copy.path()).iter().collect::<Vec<_>>());
    // The template has a row of each, so that the tests below damage each.
    assert!(
        report.tables.iter().all(|table| table.rows > 0),
        "{report:?}"
    );
    assert_eq!(check_file(&file).unwrap(), report);
    assert!(fs::read(&file).unwrap() == before);
}

#[tokio::test]
async fn a_damaged_value_of_any_table_is_named() {
    let template = template().await;
    for table in tables(template.path()) {
        let dir = copy_of(template.path());
        damage(dir.path(), &table, |value| [value, b"}"].concat());
        let found = match check(dir.path()) {
            Ok(report) => problems(&report).join("; "),
            // Without a schema there is nothing to compare with.
            Err(OpenError::Corrupt { reason, .. }) if table == "meta" => reason,
            Err(error) => panic!("{table}: {error}"),
        };
        assert!(found.contains(&table), "{table}: {found}");
    }
}

/// Tables whose rows nothing else tells of: a removed row can't be missed.
const INDEPENDENT: [&str; 9] = [
    "actions_required",
    "bindings",
    "charges",
    "cleanup_tasks",
    "departed_vms",
    "open_windows",
    "plugins",
    "quarantines",
    // Without a schema it is no store at all.
    "meta",
];

#[tokio::test]
async fn rows_that_are_missing_are_missed() {
    let template = template().await;
    for table in tables(template.path()) {
        let dir = copy_of(template.path());
        edit(dir.path(), &table, |rows| {
            rows.retain(|_, _| false).unwrap();
        });
        let Ok(report) = check(dir.path()) else {
            assert_eq!(table, "meta");
            continue;
        };
        let is_missed = report.problem_count > 0;
        assert_eq!(is_missed, !INDEPENDENT.contains(&table.as_str()), "{table}");
    }
}

#[tokio::test]
async fn rows_that_do_not_belong_there_are_named() {
    let template = template().await;
    for table in tables(template.path()) {
        // A row of the table itself, under another key.
        let dir = copy_of(template.path());
        edit(dir.path(), &table, |rows| {
            let (mut key, value) = {
                let (key, value) = rows.first().unwrap().unwrap();
                (key.value().to_vec(), value.value().to_vec())
            };
            *key.last_mut().unwrap() ^= 1;
            rows.insert(key.as_slice(), value.as_slice()).unwrap();
        });
        let report = check(dir.path()).unwrap();
        let found = problems(&report).join("; ");
        // A charge's key ends in its place, of which any will do; meta may say more than is known.
        let is_free = ["charges", "meta", "image_tags"].contains(&table.as_str());
        assert!(found.contains(&table) || is_free, "{table}: {found}");
    }
    let dir = copy_of(template.path());
    edit(dir.path(), "who_knows", |rows| {
        rows.insert(b"k".as_slice(), b"v".as_slice()).unwrap();
    });
    let found = problems(&check(dir.path()).unwrap());
    assert_eq!(
        found,
        [format!(
            "who_knows: schema {SCHEMA_VERSION} has no such table"
        )]
    );
}

#[tokio::test]
async fn sums_that_are_wrong_are_named() {
    let template = template().await;
    let dir = copy_of(template.path());
    edit(dir.path(), "plugin_kv", |rows| {
        rows.insert(b"p\0k".as_slice(), b"\x01longer".as_slice())
            .unwrap();
    });
    let found = problems(&check(dir.path()).unwrap());
    let expected = "it says 1 keys and 2 bytes, and the plugin keeps 1 and 7";
    assert_eq!(found, [format!("plugin_kv_usage: {expected}")]);
    let dir = copy_of(template.path());
    edit(dir.path(), "meta", |rows| {
        let wrong = 7_u64.to_be_bytes();
        rows.insert(b"decision_bytes".as_slice(), wrong.as_slice())
            .unwrap();
    });
    let found = problems(&check(dir.path()).unwrap()).join("; ");
    assert!(
        found.starts_with("meta: it says 7 bytes, and they have"),
        "{found}"
    );
}

#[tokio::test]
async fn problems_are_counted_and_only_the_first_hundred_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let many = (0..150).map(|n| Change::PutCleanup(task(n, 1)));
    store.commit(many.collect()).await.unwrap();
    drop(store);
    damage(dir.path(), "cleanup_tasks", |_| vec![9]);
    let report = check(dir.path()).unwrap();
    assert_eq!((report.problem_count, report.problems.len()), (150, 100));
    let first = &report.problems[0];
    assert_eq!(
        first.key.as_deref(),
        Some("00000000000000000000000000000000")
    );
    assert!(first.what.contains("version byte is 9"), "{}", first.what);
}

#[tokio::test]
async fn a_store_that_a_host_has_open_is_not_checked() {
    let dir = template().await;
    let store = Store::open(dir.path()).unwrap();
    let file = dir.path().join("roost.redb");
    for result in [check(dir.path()), check_file(&file)] {
        assert!(matches!(result, Err(OpenError::Locked(path)) if path == file));
    }
    drop(store);
    check(dir.path()).unwrap();
}

#[tokio::test]
async fn what_is_no_store_is_refused_by_name() {
    let dir = template().await;
    let file = dir.path().join("roost.redb");
    let whole = fs::read(&file).unwrap();
    for damaged in [&whole[..whole.len() / 2], b"a text\n", b""] {
        fs::write(&file, damaged).unwrap();
        match check_file(&file) {
            Err(OpenError::Corrupt { path, reason }) => {
                assert_eq!(path, file);
                assert!(!reason.is_empty());
            }
            other => panic!("{other:?}"),
        }
        assert!(fs::read(&file).unwrap() == damaged);
    }
    fs::write(&file, whole).unwrap();
    edit(dir.path(), "meta", |rows| {
        rows.insert(b"schema".as_slice(), 99_u32.to_be_bytes().as_slice())
            .unwrap();
    });
    let found = check(dir.path());
    assert!(
        matches!(found, Err(OpenError::NewerSchema { found: 99, .. })),
        "{found:?}"
    );
    let nothing = tempfile::tempdir().unwrap();
    assert!(matches!(check(nothing.path()), Err(OpenError::Io { .. })));
    assert_eq!(fs::read_dir(nothing.path()).unwrap().count(), 0);
}
