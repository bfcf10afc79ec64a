//! Stores that older versions wrote are read, for good.
//!
//! `golden/schema-N.redb` is a store as the first version with that schema left it when it was
//! closed, `golden/schema-N-killed.redb` as it left it when it was killed. So what reads them is
//! both our schema and the format of redb's files. `golden/schema-N.jsonl` has the rows that the first version with that schema wrote: table, key,
//! and value as hexadecimal digits or as text. A row is never changed; when values gain a field, a
//! further file with rows that have it is added beside these.

mod records;
mod rows;
mod values;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use records::*;
use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableHandle as _,
};
use roost_model::*;
use roost_store::{
    Change, DecisionFilter, DecisionPage, Expect, KvUsage, Order, SCHEMA_VERSION, Store, check_file,
};
use rows::{Row, SCHEMA_1, SCHEMA_2, SCHEMA_3, golden, hex};
use values::kv;

/// The first schema of which there are whole files.
const FIRST_FILES: u32 = 2;

/// What the golden file was written from.
fn changes() -> Vec<Change> {
    let w = key(1, 1, 1);
    vec![
        Change::PutVm {
            record: vm(1, "a"),
            expect: Expect::Absent,
        },
        Change::PutOperation(operation(1, 1, OperationState::Running)),
        Change::PutOperation(operation(
            2,
            1,
            OperationState::Failed {
                error: "no".to_owned(),
            },
        )),
        Change::AppendEvent(event(1)),
        Change::PutIncident(incident(1, 1, false)),
        Change::PutCleanup(task(1, 1)),
        Change::PutAction(action(1)),
        Change::PutPlugin(plugin("p")),
        Change::PutBinding(binding(Hook::Billing, "p", 1)),
        Change::PutImage(image(1, Some("i:1"))),
        Change::PutOpenWindow(open_window(1, 1)),
        Change::CloseWindow(window(w)),
        Change::Bill {
            window: w,
            charges: vec![charge(w, "cpu")],
        },
        Change::CloseWindow(window(key(1, 1, 2))),
    ]
}

/// What schema 2 has beyond it, tables and fields.
fn changes_2() -> Vec<Change> {
    let mut plugin = plugin("q");
    plugin.previous = Some(2);
    plugin.rolled_back = Some(3);
    plugin.shadow = Some(4);
    let like = plugin.revisions[0].clone();
    let states = [
        RevisionState::Uploaded,
        RevisionState::Compiled,
        RevisionState::Validated,
        RevisionState::Shadow,
        RevisionState::Retired,
        RevisionState::Failed {
            reason: "no".to_owned(),
        },
    ];
    for (revision, state) in (2..).zip(states) {
        plugin.revisions.push(PluginRevision {
            revision,
            state,
            grants: Grant::ALL.into(),
            ..like.clone()
        });
    }
    let binding = Binding {
        instance: InstanceMode::Warm,
        ..binding(Hook::Admission, "q", 2)
    };
    vec![
        Change::PutPlugin(plugin),
        Change::PutBinding(binding),
        Change::AppendDecision(decision(1, 1, "q", true)),
        Change::WriteKv(kv("k", Some(b"value"))),
        Change::PutQuarantine(quarantine("q", 9)),
    ]
}

/// What schema 3 has beyond it.
fn changes_3() -> Vec<Change> {
    let gone = vm(3, "gone");
    vec![
        Change::PutVm {
            record: gone.clone(),
            expect: Expect::Absent,
        },
        Change::CloseWindow(window(key(3, 1, 1))),
        Change::RemoveVm {
            id: gone.id,
            revision: gone.revision,
        },
    ]
}

#[tokio::test]
async fn a_store_of_schema_1_is_migrated_read_in_full_and_goes_on() {
    let dir = golden(SCHEMA_1, 21);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.schema_version().unwrap(), SCHEMA_VERSION);
    assert_is_schema_1(&store);
    // What there was not comes to be.
    let empty = DecisionPage::default();
    let all = DecisionFilter::default();
    let order = Order::Oldest { after: 0 };
    assert_eq!(store.decisions(&all, order, 9).unwrap(), empty);
    let events = store.snapshot().unwrap().events_of(vm_id(1), 9).unwrap();
    assert_eq!(events, store.events(0, 9).unwrap());
    store.commit(changes_2()).await.unwrap();
    goes_on(&store).await;
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_is_schema_2(&store);
}

#[tokio::test]
async fn a_store_of_schema_2_is_migrated_read_in_full_and_goes_on() {
    let dir = golden(SCHEMA_2, 26);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.schema_version().unwrap(), SCHEMA_VERSION);
    assert_is_schema_1(&store);
    assert_is_schema_2(&store);
    assert_eq!(store.departed(vm_id(3)).unwrap(), None);
    store.commit(changes_3()).await.unwrap();
    assert_is_schema_3(&store);
    goes_on(&store).await;
}

#[tokio::test]
async fn a_store_of_schema_3_is_read_in_full_and_goes_on() {
    let dir = golden(SCHEMA_3, 27);
    let store = Store::open(dir.path()).unwrap();
    assert_is_schema_1(&store);
    assert_is_schema_2(&store);
    assert_is_schema_3(&store);
    goes_on(&store).await;
}

/// The golden files of a schema.
fn files(schema: u32) -> [PathBuf; 2] {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    ["", "-killed"].map(|how| golden.join(format!("schema-{schema}{how}.redb")))
}

#[tokio::test]
async fn a_database_file_of_each_schema_is_whole_opens_is_read_in_full_and_goes_on() {
    for schema in FIRST_FILES..=SCHEMA_VERSION {
        let [closed, killed] = files(schema);
        assert!(Database::builder().open_read_only(&closed).is_ok());
        assert!(
            Database::builder().open_read_only(&killed).is_err(),
            "redb recovers it only if it may write"
        );
        for file in [closed, killed] {
            let report = check_file(&file).unwrap();
            assert_eq!((report.schema, report.problems), (schema, vec![]));
            let dir = tempfile::tempdir().unwrap();
            fs::copy(&file, dir.path().join("roost.redb")).unwrap();
            let store = Store::open(dir.path()).unwrap();
            assert_eq!(store.schema_version().unwrap(), SCHEMA_VERSION);
            assert_is_schema_1(&store);
            assert_is_schema_2(&store);
            if schema >= 3 {
                assert_is_schema_3(&store);
            }
            goes_on(&store).await;
            drop(store);
            let report = check_file(&dir.path().join("roost.redb")).unwrap();
            assert_eq!((report.schema, report.problems), (SCHEMA_VERSION, vec![]));
        }
    }
}

async fn goes_on(store: &Store) {
    let next = vec![
        Change::AppendEvent(event(2)),
        Change::AppendDecision(decision(2, 1, "q", false)),
    ];
    let next = store.commit(next).await.unwrap();
    assert_eq!(next.events[0].number, 2);
    assert_eq!(store.decision(2).unwrap().unwrap().decision.at_ms, 2);
}

fn assert_is_schema_3(store: &Store) {
    assert_eq!(store.vm(vm_id(3)).unwrap(), None);
    assert_eq!(store.departed(vm_id(3)).unwrap(), Some(vm(3, "gone")));
}

fn assert_is_schema_2(store: &Store) {
    let all = changes_2();
    let (Change::PutPlugin(plugin), Change::PutBinding(binding)) = (&all[0], &all[1]) else {
        panic!("{all:?}");
    };
    assert_eq!(store.plugin(&name("q")).unwrap().as_ref(), Some(plugin));
    let bound = store.binding(Hook::Admission, &name("q")).unwrap();
    assert_eq!(bound.as_ref(), Some(binding));
    let first = store.decision(1).unwrap().unwrap();
    assert_eq!(first.decision, decision(1, 1, "q", true));
    assert_eq!(store.quarantines().unwrap(), [quarantine("q", 9)]);
    let snapshot = store.snapshot().unwrap();
    let value = snapshot.kv_get(&name("p"), "k").unwrap();
    assert_eq!(value.as_deref(), Some(b"value".as_slice()));
    let usage = snapshot.kv_usage(&name("p")).unwrap();
    assert_eq!(usage, KvUsage { keys: 1, bytes: 6 });
}

fn assert_is_schema_1(store: &Store) {
    let (id, w) = (vm_id(1), key(1, 1, 1));
    assert_eq!(
        store.vm_by_name(&Tenant::default(), &name("a")).unwrap(),
        Some(vm(1, "a"))
    );
    let running = operation(1, 1, OperationState::Running);
    let failed = operation(
        2,
        1,
        OperationState::Failed {
            error: "no".to_owned(),
        },
    );
    assert_eq!(
        store.operations(Some(id), 9).unwrap(),
        [failed, running.clone()]
    );
    assert_eq!(store.unfinished_operations().unwrap(), [running]);
    assert_eq!(
        store.events(0, 9).unwrap(),
        [Event {
            number: 1,
            event: event(1)
        }]
    );
    assert_eq!(
        store.incidents(Some(id), 9).unwrap(),
        [incident(1, 1, false)]
    );
    assert_eq!(store.open_incidents().unwrap(), [incident(1, 1, false)]);
    assert_eq!(store.cleanup_tasks().unwrap(), [task(1, 1)]);
    assert_eq!(store.actions_required().unwrap(), [action(1)]);
    assert_eq!(store.plugin(&name("p")).unwrap(), Some(plugin("p")));
    let bound = store.binding(Hook::Billing, &name("p")).unwrap();
    assert_eq!(bound, Some(binding(Hook::Billing, "p", 1)));
    assert_eq!(
        store.image_by_tag("i:1").unwrap(),
        Some(image(1, Some("i:1")))
    );
    assert_eq!(store.open_window(id).unwrap(), Some(open_window(1, 1)));
    assert_eq!(
        store.windows(Some(id), 9).unwrap(),
        [window(w), window(key(1, 1, 2))]
    );
    assert_eq!(store.outbox(1).unwrap(), [window(key(1, 1, 2))]);
    assert_eq!(store.outbox_of(id, 9).unwrap(), [window(key(1, 1, 2))]);
    assert_eq!(store.charges(None, 9).unwrap(), [charge(w, "cpu")]);
}

/// Writes the golden files of this schema, if they are not there:
/// `cargo test -p roost-store --test golden -- --ignored write_files`.
#[tokio::test]
#[ignore = "it makes golden files and checks nothing"]
async fn write_files() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("roost.redb");
    let [closed, killed] = files(SCHEMA_VERSION);
    let keep = |to: &Path| {
        if !to.exists() {
            fs::copy(&file, to).unwrap();
            fs::set_permissions(to, Permissions::from_mode(0o644)).unwrap();
        }
    };
    let store = Store::open(dir.path()).unwrap();
    store.commit(changes()).await.unwrap();
    store.commit(changes_2()).await.unwrap();
    store.commit(changes_3()).await.unwrap();
    keep(&killed);
    drop(store);
    keep(&closed);
}

/// Prints the rows of a store as this version writes them, for the golden file of a new schema:
/// `cargo test -p roost-store --test golden -- --ignored --nocapture print_rows`.
#[tokio::test]
#[ignore = "it makes a golden file and checks nothing"]
async fn print_rows() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.commit(changes()).await.unwrap();
    store.commit(changes_2()).await.unwrap();
    store.commit(changes_3()).await.unwrap();
    drop(store);
    let database = Database::open(dir.path().join("roost.redb")).unwrap();
    let transaction = database.begin_read().unwrap();
    for table in transaction.list_tables().unwrap() {
        let definition: TableDefinition<&[u8], &[u8]> = TableDefinition::new(table.name());
        for row in transaction.open_table(definition).unwrap().iter().unwrap() {
            let (key, value) = row.unwrap();
            let value = match value.value() {
                [1, json @ ..] if json.first() == Some(&b'{') => {
                    format!("1:{}", std::str::from_utf8(json).unwrap())
                }
                bytes => hex(bytes),
            };
            let row = Row {
                table: table.name().to_owned(),
                key: hex(key.value()),
                value,
            };
            println!("{}", serde_json::to_string(&row).unwrap());
        }
    }
}
