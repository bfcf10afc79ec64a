//! The store against a model of it in memory: over generated commits, reopenings and power
//! failures, and over a power failure at each single operation of the disk.
//!
//! After a power failure the store must hold every commit that was acknowledged, no part of one
//! that was refused with a conflict, and of a transaction that was under way all or nothing.

mod changes;
mod contents;
mod disk;
mod machine;
mod reference;

use std::path::Path;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use roost_model::{Hook, OperationState};

use self::changes::change;
use self::contents::Contents;
use self::disk::{Disk, Fate, Plugged};
use self::machine::Machine;
use self::reference::Model;
use crate::open::{FILE, Limits, open_file};
use crate::records::*;
use crate::rows::{SCHEMA_1, golden};
use crate::values::kv;
use crate::{Change, Expect, SCHEMA_VERSION, Store, check, compact};

/// Disk operations within which a generated power failure comes. A commit takes some 10 to 40 of
/// them, a start after a crash as many.
const MAX_OPERATIONS: u64 = 120;

#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<Change>),
    CommitTogether(Vec<Vec<Change>>),
    Reopen,
    /// The power fails after so many operations.
    Cut(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let commit = || vec(change(), 1..4);
    prop_oneof![
        9 => commit().prop_map(Step::Commit),
        3 => vec(commit(), 1..6).prop_map(Step::CommitTogether),
        1 => Just(Step::Reopen),
        2 => (0..MAX_OPERATIONS).prop_map(Step::Cut),
    ]
}

/// What becomes of what was not synced, and whether the power fails again while the store starts.
fn fate() -> impl Strategy<Value = (Fate, Option<u64>)> {
    let fate = prop_oneof![
        1 => Just(Fate::Lost),
        1 => Just(Fate::Kept),
        6 => any::<u64>().prop_map(Fate::Torn),
    ];
    (fate, proptest::option::of(0..MAX_OPERATIONS))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_store_is_what_a_map_in_memory_would_be_whenever_the_power_fails(
        steps in vec(step(), 1..40),
        fates in vec(fate(), 40),
    ) {
        let mut machine = Machine::new();
        let mut fates = fates.into_iter();
        for step in steps {
            // What the model may turn out to be, should the power have failed.
            let mut after = machine.model.clone();
            match step {
                Step::Commit(changes) => {
                    let _ = after.commit(changes.clone());
                    machine.commit(&changes);
                }
                Step::CommitTogether(commits) => {
                    for changes in &commits {
                        let _ = after.commit(changes.clone());
                    }
                    machine.commit_together(&commits);
                }
                Step::Reopen => {
                    drop(machine.store.take());
                    if !machine.disk.is_off() {
                        machine.start(Fate::Lost);
                    }
                }
                Step::Cut(operations) => machine.disk.cut_after(operations),
            }
            if machine.disk.is_off() {
                drop(machine.store.take());
                match fates.next().unwrap() {
                    (fate, None) => machine.start(fate),
                    (fate, Some(operations)) => machine.start_twice(fate, operations),
                }
                machine.model_is_either(after);
            }
            machine.compare();
        }
    }
}

/// Commits that change every table, and some of them a second time.
fn every_change() -> Vec<Vec<Change>> {
    let w = key(1, 1, 1);
    let created = vec![
        Change::PutVm {
            record: vm(1, "a"),
            expect: Expect::Absent,
        },
        Change::PutOperation(operation(1, 1, OperationState::Running)),
        Change::AppendEvent(event(1)),
        Change::PutIncident(incident(1, 1, false)),
        Change::PutCleanup(task(1, 1)),
        Change::PutAction(action(1)),
        Change::PutOpenWindow(open_window(1, 1)),
        Change::CloseWindow(window(w)),
    ];
    let configured = vec![
        Change::PutPlugin(plugin("p")),
        Change::PutBinding(binding(Hook::Billing, "p", 1)),
        Change::PutImage(image(1, Some("a"))),
        Change::AppendDecision(decision(1, 1, "p", true)),
        Change::WriteKv(kv("a", Some(b"value"))),
        Change::PutQuarantine(quarantine("p", 9)),
        Change::PutDrain(drain(1)),
    ];
    let settled = vec![
        Change::PutVm {
            record: at_revision(&vm(1, "b"), 2),
            expect: Expect::Revision(1),
        },
        Change::PutOperation(operation(1, 1, OperationState::Succeeded)),
        Change::AppendEvent(event(2)),
        Change::PutIncident(incident(1, 1, true)),
        Change::RemoveCleanup(task(1, 1).id),
        Change::RemoveOpenWindow(vm_id(1)),
        Change::RemoveDrain,
        Change::Bill {
            window: w,
            charges: vec![charge(w, "cpu")],
        },
    ];
    vec![created, configured, settled]
}

/// Makes [`every_change`] and stops, with a power failure after `operations` of the disk and that
/// fate; whether the power failed.
fn every_change_with_a_cut(template: &Path, operations: u64, fate: Fate) -> bool {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(template, dir.path().join(FILE)).unwrap();
    let mut machine = Machine::on(dir, Model::default());
    machine.disk.cut_after(operations);
    let mut after = Model::default();
    for changes in every_change() {
        after = machine.model.clone();
        after.commit(changes.clone()).unwrap();
        machine.commit(&changes);
        if machine.disk.is_off() {
            break;
        }
    }
    drop(machine.store.take());
    let is_cut = machine.disk.is_off();
    machine.start(fate);
    machine.model_is_either(after);
    is_cut
}

#[test]
fn a_power_failure_at_any_operation_of_the_disk_leaves_whole_commits() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path()).unwrap());
    let template = dir.path().join(FILE);
    let mut operations = 0;
    loop {
        let torn = [Fate::Torn(2 * operations), Fate::Torn(2 * operations + 1)];
        let fates = [&[Fate::Lost, Fate::Kept], torn.as_slice()].concat();
        let is_cut = |fate| every_change_with_a_cut(&template, operations, fate);
        if !fates.into_iter().all(is_cut) {
            break;
        }
        operations += 1;
    }
    // Each of the commits has a sync and something to sync.
    assert!(operations > 6, "{operations}");
}

#[test]
fn a_power_failure_at_any_operation_of_a_migration_leaves_a_store_that_is_migrated_next_time() {
    let mut operations = 0;
    loop {
        let mut is_cut = false;
        for fate in [Fate::Lost, Fate::Kept, Fate::Torn(operations)] {
            let dir = golden(SCHEMA_1, 21);
            let before = check(dir.path()).unwrap();
            let disk = Arc::new(Disk::new(open_file(&dir.path().join(FILE)).unwrap()).unwrap());
            disk.cut_after(operations);
            let plugged = Plugged(Arc::clone(&disk));
            drop(Store::open_with(dir.path(), Limits::default(), |_| {
                Ok(plugged)
            }));
            is_cut |= disk.is_off();
            disk.settle(fate).unwrap();
            drop(Store::open(dir.path()).unwrap());
            let after = check(dir.path()).unwrap();
            assert_eq!(
                (after.schema, &after.problems),
                (SCHEMA_VERSION, &before.problems)
            );
            // Every row that was there is there.
            let rows = |table: &str| after.tables.iter().find(|found| found.name == table);
            for table in before.tables.iter().filter(|table| table.name != "meta") {
                assert_eq!(rows(&table.name), Some(table));
            }
        }
        if !is_cut {
            break;
        }
        operations += 1;
    }
    assert!(operations > 3, "{operations}");
}

/// A store of which most was removed, at `dir`; what it holds.
fn mostly_removed(dir: &Path) -> Contents {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let store = Store::open(dir).unwrap();
    for changes in every_change() {
        runtime.block_on(store.commit(changes)).unwrap();
    }
    let many = |n| [Change::PutCleanup(task(n, 1)), Change::PutAction(action(n))];
    let many: Vec<_> = (10..500).flat_map(many).collect();
    runtime.block_on(store.commit(many)).unwrap();
    let none = |n| {
        [
            Change::RemoveCleanup(task(n, 1).id),
            Change::RemoveAction(action(n).id),
        ]
    };
    let none: Vec<_> = (10..500).flat_map(none).collect();
    runtime.block_on(store.commit(none)).unwrap();
    Contents::of_store(&store)
}

#[test]
fn compaction_gives_back_what_is_free_and_loses_nothing_whenever_the_power_fails() {
    let dir = tempfile::tempdir().unwrap();
    let contents = mostly_removed(dir.path());
    let template = dir.path().join(FILE);
    let mut cuts = 0;
    for operations in (0..).step_by(7) {
        let mut is_cut = false;
        for fate in [Fate::Lost, Fate::Kept, Fate::Torn(operations)] {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join(FILE);
            std::fs::copy(&template, &file).unwrap();
            let disk = Arc::new(Disk::new(open_file(&file).unwrap()).unwrap());
            disk.cut_after(operations);
            let plugged = Plugged(Arc::clone(&disk));
            let report = compact::compact_on(dir.path(), |_| Ok(plugged));
            assert_eq!(report.is_err(), disk.is_off(), "{report:?}");
            is_cut |= disk.is_off();
            disk.settle(fate).unwrap();
            assert_eq!(check(dir.path()).unwrap().problems, []);
            let store = Store::open(dir.path()).unwrap();
            assert!(Contents::of_store(&store) == contents);
        }
        if !is_cut {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 2, "{cuts}");
    let report = compact(dir.path()).unwrap();
    assert!(2 * report.after_bytes < report.before_bytes, "{report:?}");
    assert_eq!(report.after_bytes, template.metadata().unwrap().len());
    assert!(Contents::of_store(&Store::open(dir.path()).unwrap()) == contents);
}
