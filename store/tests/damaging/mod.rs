//! A store that is damaged behind its back.

use std::path::Path;

use redb::{Database, ReadableTable as _, TableDefinition};
use roost_model::*;
use roost_store::{Change, Expect, Store};

use crate::records::*;
use crate::values::kv;

/// Makes a store that has a row of every table.
pub(crate) async fn filled(dir: &Path) {
    let store = Store::open(dir).unwrap();
    let w = key(1, 1, 1);
    let changes = vec![
        Change::PutVm {
            record: vm(1, "a"),
            expect: Expect::Absent,
        },
        Change::PutOperation(operation(1, 1, OperationState::Running)),
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
        Change::AppendDecision(decision(1, 1, "p", true)),
        Change::WriteKv(kv("k", Some(b"v"))),
        Change::PutQuarantine(quarantine("p", 9)),
        Change::PutVm {
            record: vm(2, "gone"),
            expect: Expect::Absent,
        },
        Change::CloseWindow(window(key(2, 1, 1))),
        Change::RemoveVm {
            id: vm_id(2),
            revision: 1,
        },
    ];
    store.commit(changes).await.unwrap();
}

/// What becomes of a value.
pub(crate) type Damage = fn(&[u8]) -> Vec<u8>;

/// Changes every value of a table behind the store's back.
pub(crate) fn damage(dir: &Path, table: &str, change: Damage) {
    let definition: TableDefinition<&[u8], &[u8]> = TableDefinition::new(table);
    let database = Database::open(dir.join("roost.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut rows = transaction.open_table(definition).unwrap();
        let all: Vec<_> = rows
            .iter()
            .unwrap()
            .map(|row| row.unwrap())
            .map(|(key, value)| (key.value().to_vec(), change(value.value())))
            .collect();
        assert!(!all.is_empty(), "{table}");
        for (key, value) in all {
            rows.insert(key.as_slice(), value.as_slice()).unwrap();
        }
    }
    transaction.commit().unwrap();
}
