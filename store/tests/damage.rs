//! Values that were damaged in place: typed errors for what needs them, and the rest goes on.

mod damaging;
mod records;
mod values;

use damaging::{Damage, damage, filled};
use records::*;
use roost_model::*;
use roost_store::{Change, CommitError, DecisionFilter, Expect, Order, ReadError, Store};

/// Every way to read a table.
fn reads(store: &Store, table: &str) -> Vec<Result<(), ReadError>> {
    fn done<T>(read: Result<T, ReadError>) -> Result<(), ReadError> {
        read.map(drop)
    }
    let id = vm_id(1);
    let tenant = Tenant::default();
    match table {
        "vms" => vec![
            done(store.vm(id)),
            done(store.vms()),
            done(store.vm_by_name(&tenant, &name("a"))),
        ],
        "vm_names" => vec![done(store.vm_by_name(&tenant, &name("a")))],
        "operations" => vec![
            done(store.operation(operation_id(1))),
            done(store.operations(None, 9)),
            done(store.operations(Some(id), 9)),
            done(store.unfinished_operations()),
        ],
        "events" => vec![done(store.events(0, 9))],
        "incidents" => vec![
            done(store.incidents(None, 9)),
            done(store.incidents(Some(id), 9)),
            done(store.open_incidents()),
        ],
        "cleanup_tasks" => vec![done(store.cleanup_tasks())],
        "actions_required" => vec![done(store.actions_required())],
        "plugins" => vec![done(store.plugins()), done(store.plugin(&name("p")))],
        "bindings" => vec![done(store.bindings())],
        "images" => vec![
            done(store.images()),
            done(store.image(&digest(1))),
            done(store.image_by_tag("i:1")),
        ],
        "image_tags" => vec![done(store.image_by_tag("i:1"))],
        "open_windows" => vec![done(store.open_windows()), done(store.open_window(id))],
        "usage_windows" => vec![
            done(store.windows(None, 9)),
            done(store.windows(Some(id), 9)),
            done(store.last_window(id, 1)),
            done(store.outbox(9)),
            done(store.outbox_of(id, 9)),
        ],
        "billing_outbox_queue" => vec![done(store.outbox(9))],
        "charges" => vec![
            done(store.charges(None, 9)),
            done(store.charges(Some(id), 9)),
        ],
        "decisions" => vec![
            done(store.decision(1)),
            done(store.decisions(&DecisionFilter::default(), Order::Oldest { after: 0 }, 9)),
        ],
        "plugin_kv_usage" => vec![done(store.snapshot().unwrap().kv_usage(&name("p")))],
        "quarantines" => vec![
            done(store.quarantines()),
            done(store.quarantine(&name("p"), 1)),
        ],
        other => panic!("{other}"),
    }
}

const TABLES: [&str; 18] = [
    "vms",
    "vm_names",
    "operations",
    "events",
    "incidents",
    "cleanup_tasks",
    "actions_required",
    "plugins",
    "bindings",
    "images",
    "image_tags",
    "open_windows",
    "usage_windows",
    "billing_outbox_queue",
    "charges",
    "decisions",
    "plugin_kv_usage",
    "quarantines",
];

#[tokio::test]
async fn a_damaged_value_of_any_table_is_a_read_error_that_names_the_table() {
    let damages: [Damage; 5] = [
        |_| vec![],
        |value| value[..value.len() / 2].to_vec(),
        |value| [&[9], &value[1..]].concat(),
        |value| [value, b"}"].concat(),
        |_| b"\x01{\"id\":3}".to_vec(),
    ];
    let template = tempfile::tempdir().unwrap();
    filled(template.path()).await;
    for table in TABLES {
        for (number, change) in damages.into_iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            let file = "roost.redb";
            std::fs::copy(template.path().join(file), dir.path().join(file)).unwrap();
            damage(dir.path(), table, change);
            let store = Store::open(dir.path()).unwrap();
            for read in reads(&store, table) {
                match read {
                    Err(ReadError::Value {
                        table: named,
                        reason,
                    }) => {
                        assert_eq!(named, table, "damage {number}");
                        assert!(!reason.is_empty());
                    }
                    other => panic!("{table}, damage {number}: {other:?}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn a_commit_that_needs_a_damaged_value_is_refused_and_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    damage(dir.path(), "vms", |_| b"\x01{".to_vec());
    damage(dir.path(), "vm_names", |_| vec![1, 2, 3]);
    let store = Store::open(dir.path()).unwrap();
    let update = Change::PutVm {
        record: at_revision(&vm(1, "a"), 2),
        expect: Expect::Revision(1),
    };
    let same_name = Change::PutVm {
        record: vm(2, "a"),
        expect: Expect::Absent,
    };
    for (change, named) in [(update, "vms"), (same_name, "vm_names")] {
        match store
            .commit(vec![Change::AppendEvent(event(2)), change])
            .await
        {
            Err(CommitError::Damaged { table, .. }) => assert_eq!(table, named),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(store.last_event().unwrap(), 1);
    assert_eq!(store.read_only(), None);
    let committed = store
        .commit(vec![Change::AppendEvent(event(3))])
        .await
        .unwrap();
    assert_eq!(committed.events[0].number, 2);
}
