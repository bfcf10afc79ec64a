//! What commits promise: all or nothing, compare-and-set, exactly once, gapless numbers.

mod records;

use records::*;
use roost_model::*;
use roost_store::{Change, CommitError, Conflict, Expect, Store};

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    (dir, store)
}

fn create(record: &VmRecord) -> Change {
    Change::PutVm {
        record: record.clone(),
        expect: Expect::Absent,
    }
}

fn update(record: &VmRecord, revision: u64) -> Change {
    Change::PutVm {
        record: at_revision(record, revision + 1),
        expect: Expect::Revision(revision),
    }
}

async fn conflict(store: &Store, changes: Vec<Change>) -> Conflict {
    match store.commit(changes).await {
        Err(CommitError::Conflict(conflict)) => conflict,
        other => panic!("a conflict was expected, not {other:?}"),
    }
}

#[tokio::test]
async fn a_commit_that_conflicts_at_its_end_leaves_no_trace_of_its_beginning() {
    let (_dir, store) = store();
    store.commit(vec![create(&vm(1, "a"))]).await.unwrap();
    let found = conflict(
        &store,
        vec![
            create(&vm(2, "b")),
            Change::AppendEvent(event(1)),
            Change::PutCleanup(task(1, 2)),
            Change::CloseWindow(window(key(2, 1, 1))),
            update(&vm(1, "a"), 9),
        ],
    )
    .await;
    let expected = Conflict::StaleRevision {
        id: vm_id(1),
        expected: 9,
        found: 1,
    };
    assert_eq!(found, expected);
    assert_eq!(store.vms().unwrap(), [vm(1, "a")]);
    assert_eq!(
        store.vm_by_name(&Tenant::default(), &name("b")).unwrap(),
        None
    );
    assert_eq!(store.last_event().unwrap(), 0);
    assert_eq!(*store.watch_events().borrow(), 0);
    assert_eq!(store.cleanup_tasks().unwrap(), []);
    assert_eq!(store.outbox(9).unwrap(), []);
    assert_eq!(store.windows(None, 9).unwrap(), []);
}

#[tokio::test]
async fn each_expectation_about_a_vm_is_checked() {
    let (_dir, store) = store();
    let (a, b) = (vm(1, "a"), vm(2, "b"));
    store.commit(vec![create(&a), create(&b)]).await.unwrap();
    let stale = |expected| Conflict::StaleRevision {
        id: a.id,
        expected,
        found: 1,
    };
    let taken = |by: &VmRecord| Conflict::NameTaken {
        tenant: by.spec.tenant.clone(),
        name: by.spec.name.clone(),
        by: by.id,
    };
    let remove = |id, revision| Change::RemoveVm { id, revision };
    let unnumbered = Change::PutVm {
        record: at_revision(&a, 1),
        expect: Expect::Revision(1),
    };
    let cases = [
        (create(&vm(1, "c")), Conflict::VmExists(a.id)),
        (create(&vm(3, "a")), taken(&a)),
        (update(&vm(3, "c"), 1), Conflict::VmMissing(vm_id(3))),
        (update(&a, 2), stale(2)),
        (unnumbered, stale(0)),
        (update(&vm(1, "b"), 1), taken(&b)),
        (remove(vm_id(3), 1), Conflict::VmMissing(vm_id(3))),
        (remove(a.id, 2), stale(2)),
    ];
    for (change, expected) in cases {
        assert_eq!(conflict(&store, vec![change]).await, expected);
    }
    assert_eq!(store.vms().unwrap(), [a, b]);
}

#[tokio::test]
async fn a_name_is_free_again_after_remove_and_after_a_new_name() {
    let (_dir, store) = store();
    let by_name = |text| store.vm_by_name(&Tenant::default(), &name(text)).unwrap();
    let other_tenant = {
        let mut record = vm(9, "a");
        record.spec.tenant = "other".parse().unwrap();
        record
    };
    store
        .commit(vec![create(&vm(1, "a")), create(&other_tenant)])
        .await
        .unwrap();
    store.commit(vec![update(&vm(1, "b"), 1)]).await.unwrap();
    assert_eq!(by_name("a"), None);
    assert_eq!(by_name("b"), Some(at_revision(&vm(1, "b"), 2)));
    store.commit(vec![create(&vm(2, "a"))]).await.unwrap();
    let id = vm_id(2);
    store
        .commit(vec![Change::RemoveVm { id, revision: 1 }])
        .await
        .unwrap();
    assert_eq!(store.vm(id).unwrap(), None);
    store.commit(vec![create(&vm(3, "a"))]).await.unwrap();
    assert_eq!(by_name("a"), Some(vm(3, "a")));
    assert_eq!(
        store
            .vm_by_name(&other_tenant.spec.tenant, &name("a"))
            .unwrap(),
        Some(other_tenant)
    );
}

#[tokio::test]
async fn a_window_is_closed_once_and_billed_once() {
    let (_dir, store) = store();
    let w = key(1, 1, 1);
    let bill = |item| Change::Bill {
        window: w,
        charges: vec![charge(w, item), charge(w, "memory")],
    };
    let close = || Change::CloseWindow(window(w));
    assert_eq!(
        conflict(&store, vec![bill("early")]).await,
        Conflict::NotInOutbox(w)
    );
    // Not even twins in one commit get past it.
    assert_eq!(
        conflict(&store, vec![close(), close()]).await,
        Conflict::WindowExists(w)
    );
    store.commit(vec![close()]).await.unwrap();
    assert_eq!(
        conflict(&store, vec![close()]).await,
        Conflict::WindowExists(w)
    );
    assert_eq!(
        conflict(&store, vec![bill("a"), bill("b")]).await,
        Conflict::NotInOutbox(w)
    );
    assert_eq!(store.outbox(9).unwrap(), [window(w)]);
    assert_eq!(store.charges(None, 9).unwrap(), []);
    store.commit(vec![bill("cpu")]).await.unwrap();
    assert_eq!(
        conflict(&store, vec![bill("again")]).await,
        Conflict::NotInOutbox(w)
    );
    assert_eq!(
        conflict(&store, vec![close()]).await,
        Conflict::WindowExists(w)
    );
    assert_eq!(store.outbox(9).unwrap(), []);
    assert_eq!(store.windows(None, 9).unwrap(), [window(w)]);
    let charges = [charge(w, "cpu"), charge(w, "memory")];
    assert_eq!(store.charges(Some(vm_id(1)), 9).unwrap(), charges);
    assert_eq!(store.charges(Some(vm_id(2)), 9).unwrap(), []);
}

#[tokio::test]
async fn of_many_that_close_and_bill_the_same_window_one_succeeds() {
    let (_dir, store) = store();
    let w = key(1, 1, 1);
    let run = |change: Change| {
        let attempts: Vec<_> = (0..16)
            .map(|_| {
                let (store, change) = (store.clone(), change.clone());
                tokio::spawn(async move { store.commit(vec![change]).await.is_ok() })
            })
            .collect();
        async move {
            let mut succeeded = 0;
            for attempt in attempts {
                succeeded += u32::from(attempt.await.unwrap());
            }
            succeeded
        }
    };
    assert_eq!(run(Change::CloseWindow(window(w))).await, 1);
    let charges = vec![charge(w, "cpu")];
    assert_eq!(run(Change::Bill { window: w, charges }).await, 1);
    assert_eq!(store.charges(None, 99).unwrap().len(), 1);
}

#[tokio::test]
async fn the_outbox_gives_windows_in_the_order_of_their_closing() {
    let (dir, store) = store();
    // Against the order of the keys.
    let keys = [key(3, 1, 1), key(2, 1, 1), key(1, 2, 1), key(1, 1, 7)];
    for key in keys {
        store
            .commit(vec![Change::CloseWindow(window(key))])
            .await
            .unwrap();
    }
    let first = Change::Bill {
        window: keys[0],
        charges: vec![],
    };
    store.commit(vec![first]).await.unwrap();
    drop(store);
    let store = Store::open(&dir.path().join("store")).unwrap();
    store
        .commit(vec![Change::CloseWindow(window(key(1, 1, 1)))])
        .await
        .unwrap();
    let order = [keys[1], keys[2], keys[3], key(1, 1, 1)].map(window);
    assert_eq!(store.outbox(9).unwrap(), order);
    assert_eq!(store.outbox(2).unwrap(), order[..2]);
    let of_one = [key(1, 1, 1), key(1, 1, 7), key(1, 2, 1)].map(window);
    assert_eq!(store.outbox_of(vm_id(1), 9).unwrap(), of_one);
    assert_eq!(store.windows(Some(vm_id(1)), 9).unwrap(), of_one);
    assert_eq!(
        store.last_window(vm_id(1), 1).unwrap(),
        Some(window(key(1, 1, 7)))
    );
    assert_eq!(store.last_window(vm_id(1), 3).unwrap(), None);
}

#[tokio::test]
async fn event_numbers_have_no_gaps_across_batches_conflicts_and_reopening() {
    let (dir, mut store) = store();
    let mut seen = Vec::new();
    for round in 0..3_u64 {
        let commits: Vec<_> = (0..20)
            .map(|i| {
                let store = store.clone();
                let mut changes =
                    vec![Change::AppendEvent(event(i)), Change::AppendEvent(event(i))];
                // Every third one conflicts after its events.
                if i % 3 == 0 {
                    changes.push(update(&vm(77, "nobody"), 1));
                }
                tokio::spawn(async move { store.commit(changes).await })
            })
            .collect();
        for commit in commits {
            match commit.await.unwrap() {
                Ok(committed) => {
                    let numbers: Vec<_> = committed.events.iter().map(|e| e.number).collect();
                    // Whoever has the answer sees its events.
                    assert!(*store.watch_events().borrow() >= numbers[1]);
                    assert_eq!(store.events(numbers[0] - 1, 2).unwrap(), committed.events);
                    seen.extend(numbers);
                }
                Err(CommitError::Conflict(Conflict::VmMissing(_))) => {}
                Err(error) => panic!("{error}"),
            }
        }
        seen.sort_unstable();
        let expected: Vec<u64> = (1..=26 * (round + 1)).collect();
        assert_eq!(seen, expected);
        drop(store);
        store = Store::open(&dir.path().join("store")).unwrap();
        assert_eq!(store.last_event().unwrap(), 26 * (round + 1));
        assert_eq!(*store.watch_events().borrow(), 26 * (round + 1));
    }
    let logged: Vec<u64> = store
        .events(0, 999)
        .unwrap()
        .iter()
        .map(|e| e.number)
        .collect();
    assert_eq!(logged, seen);
    assert_eq!(store.events(70, 3).unwrap().len(), 3);
    assert_eq!(store.events(u64::MAX, 3).unwrap(), []);
}

#[tokio::test]
async fn operations_and_incidents_are_found_newest_first_by_vm_and_while_open() {
    let (_dir, store) = store();
    let running = |n, vm| operation(n, vm, OperationState::Running);
    let done = |n, vm| operation(n, vm, OperationState::Succeeded);
    let changes = [running(1, 1), done(2, 2), running(3, 2), done(4, 1)]
        .map(Change::PutOperation)
        .into_iter()
        .chain([incident(1, 1, false), incident(2, 1, true)].map(Change::PutIncident))
        .collect();
    store.commit(changes).await.unwrap();
    let all = [done(4, 1), running(3, 2), done(2, 2), running(1, 1)];
    assert_eq!(store.operations(None, 9).unwrap(), all);
    assert_eq!(store.operations(None, 2).unwrap(), all[..2]);
    assert_eq!(
        store.operations(Some(vm_id(1)), 9).unwrap(),
        [done(4, 1), running(1, 1)]
    );
    assert_eq!(store.operations(Some(vm_id(1)), 1).unwrap(), [done(4, 1)]);
    assert_eq!(
        store.unfinished_operations().unwrap(),
        [running(1, 1), running(3, 2)]
    );
    assert_eq!(store.open_incidents().unwrap(), [incident(1, 1, false)]);
    let changes = vec![
        Change::PutOperation(done(1, 1)),
        Change::PutIncident(incident(1, 1, true)),
    ];
    store.commit(changes).await.unwrap();
    assert_eq!(store.unfinished_operations().unwrap(), [running(3, 2)]);
    assert_eq!(store.operation(operation_id(1)).unwrap(), Some(done(1, 1)));
    assert_eq!(store.open_incidents().unwrap(), []);
    let incidents = [incident(2, 1, true), incident(1, 1, true)];
    assert_eq!(store.incidents(Some(vm_id(1)), 9).unwrap(), incidents);
    assert_eq!(store.incidents(None, 9).unwrap(), incidents);
    assert_eq!(store.incidents(Some(vm_id(2)), 9).unwrap(), []);
}

#[tokio::test]
async fn a_tag_moves_to_the_image_that_was_given_it_last() {
    let (_dir, store) = store();
    let put = |n, tag| store.commit(vec![Change::PutImage(image(n, tag))]);
    put(1, Some("hello:1")).await.unwrap();
    put(2, Some("hello:1")).await.unwrap();
    assert_eq!(
        store.image_by_tag("hello:1").unwrap(),
        Some(image(2, Some("hello:1")))
    );
    let images = [image(1, None), image(2, Some("hello:1"))];
    assert_eq!(store.images().unwrap(), images);
    assert_eq!(store.image(&digest(1)).unwrap(), Some(image(1, None)));
    assert_eq!(store.image_by_tag("hello:2").unwrap(), None);
}

#[tokio::test]
async fn there_is_one_binding_for_each_hook_and_plugin() {
    let (_dir, store) = store();
    let put = |hook, plugin, priority| Change::PutBinding(binding(hook, plugin, priority));
    let changes = vec![
        put(Hook::Cleanup, "a", 1),
        put(Hook::Admission, "a", 1),
        put(Hook::Admission, "b", 1),
        put(Hook::Admission, "a", 2),
    ];
    store.commit(changes).await.unwrap();
    let admission_a = binding(Hook::Admission, "a", 2);
    let cleanup_a = binding(Hook::Cleanup, "a", 1);
    let expected = [
        admission_a.clone(),
        binding(Hook::Admission, "b", 1),
        cleanup_a.clone(),
    ];
    assert_eq!(store.bindings().unwrap(), expected);
    let remove = |plugin| Change::RemoveBinding {
        hook: Hook::Admission,
        plugin: name(plugin),
    };
    store
        .commit(vec![remove("b"), remove("none")])
        .await
        .unwrap();
    assert_eq!(store.bindings().unwrap(), [admission_a, cleanup_a]);
}
