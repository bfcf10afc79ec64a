//! The journal of decisions, and the values of plugins.

mod records;
mod values;

use std::collections::BTreeMap;

use records::*;
use roost_model::*;
use roost_store::*;
use values::kv;

const ALL: Order = Order::Oldest { after: 0 };

fn numbers(page: &DecisionPage) -> Vec<u64> {
    page.items.iter().map(|decision| decision.number).collect()
}

fn keeping(dir: &std::path::Path, decisions: u64, decision_bytes: u64) -> Store {
    let retention = Retention {
        decisions,
        decision_bytes,
    };
    Store::open_keeping(dir, retention).unwrap()
}

#[tokio::test]
async fn the_newest_decisions_are_kept_and_numbers_are_not_given_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = keeping(dir.path(), 3, u64::MAX);
    for at in 1..=5 {
        let decision = decision(at, 1, "p", false);
        store
            .commit(vec![Change::AppendDecision(decision)])
            .await
            .unwrap();
    }
    let all = DecisionFilter::default();
    let page = store.decisions(&all, ALL, 99).unwrap();
    assert_eq!(numbers(&page), [3, 4, 5]);
    drop(store);

    // A host with a smaller journal forgets at its next decision.
    let store = keeping(dir.path(), 1, u64::MAX);
    let next = Change::AppendDecision(decision(6, 1, "p", false));
    store.commit(vec![next]).await.unwrap();
    assert_eq!(numbers(&store.decisions(&all, ALL, 99).unwrap()), [6]);
}

#[tokio::test]
async fn decisions_are_kept_by_size_too_and_the_newest_always_is() {
    let dir = tempfile::tempdir().unwrap();
    let large = |at| {
        let mut decision = decision(at, 1, "p", false);
        decision.facts = serde_json::Value::String("x".repeat(1000));
        Change::AppendDecision(decision)
    };
    let all = DecisionFilter::default();
    let store = keeping(dir.path(), u64::MAX, 5_000);
    for batch in [vec![large(1)], vec![large(2), large(3)], vec![large(4)]] {
        store.commit(batch).await.unwrap();
    }
    assert_eq!(numbers(&store.decisions(&all, ALL, 99).unwrap()), [2, 3, 4]);
    drop(store);
    // The size is counted on, over a restart.
    let store = keeping(dir.path(), u64::MAX, 5_000);
    store.commit(vec![large(5)]).await.unwrap();
    assert_eq!(numbers(&store.decisions(&all, ALL, 99).unwrap()), [3, 4, 5]);
    drop(store);
    let store = keeping(dir.path(), u64::MAX, 10);
    store.commit(vec![large(6)]).await.unwrap();
    assert_eq!(numbers(&store.decisions(&all, ALL, 99).unwrap()), [6]);
}

#[tokio::test]
async fn pages_go_both_ways_and_filters_choose() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut changes = Vec::new();
    for at in 1..=6 {
        let plugin = if at % 2 == 0 { "even" } else { "odd" };
        changes.push(Change::AppendDecision(decision(
            at,
            u128::from(at % 3),
            plugin,
            at > 4,
        )));
    }
    store.commit(changes).await.unwrap();
    let all = DecisionFilter::default();

    let page = store.decisions(&all, ALL, 4).unwrap();
    assert_eq!((numbers(&page), page.next), (vec![1, 2, 3, 4], Some(4)));
    let page = store
        .decisions(&all, Order::Oldest { after: 4 }, 4)
        .unwrap();
    assert_eq!((numbers(&page), page.next), (vec![5, 6], None));
    let newest = Order::Newest { before: None };
    let page = store.decisions(&all, newest, 4).unwrap();
    assert_eq!((numbers(&page), page.next), (vec![6, 5, 4, 3], Some(3)));
    let older = Order::Newest { before: Some(3) };
    let page = store.decisions(&all, older, 4).unwrap();
    assert_eq!((numbers(&page), page.next), (vec![2, 1], None));

    let filters = [
        (
            DecisionFilter {
                plugin: Some(name("even")),
                ..all.clone()
            },
            vec![2, 4, 6],
        ),
        (
            DecisionFilter {
                vm: Some(vm_id(1)),
                ..all.clone()
            },
            vec![1, 4],
        ),
        (
            DecisionFilter {
                differs: Some(true),
                ..all.clone()
            },
            vec![5, 6],
        ),
        (
            DecisionFilter {
                hook: Some(Hook::Billing),
                ..all.clone()
            },
            vec![],
        ),
        (
            DecisionFilter {
                tenant: Some("other".parse().unwrap()),
                ..all
            },
            vec![],
        ),
    ];
    for (filter, expected) in filters {
        let page = store.decisions(&filter, ALL, 99).unwrap();
        assert_eq!(numbers(&page), expected, "{filter:?}");
    }
}

#[tokio::test]
async fn a_page_that_a_filter_leaves_empty_says_where_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let quiet = |_| Change::AppendDecision(decision(1, 1, "p", false));
    let mut changes: Vec<_> = (0..6000).map(quiet).collect();
    changes.push(Change::AppendDecision(decision(1, 1, "p", true)));
    store.commit(changes).await.unwrap();
    let filter = DecisionFilter {
        differs: Some(true),
        ..DecisionFilter::default()
    };
    let mut pages = 0;
    let mut after = 0;
    let found = loop {
        pages += 1;
        let page = store
            .decisions(&filter, Order::Oldest { after }, 9)
            .unwrap();
        if !page.items.is_empty() {
            break numbers(&page);
        }
        assert!(page.next.unwrap() > after);
        after = page.next.unwrap();
    };
    assert_eq!((found, pages), (vec![6001], 3));
}

#[tokio::test]
async fn a_decision_made_from_a_value_that_changed_is_not_stored_with_what_it_came_with() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let counted = |from: Option<&[u8]>, to: &[u8]| KvWrite {
        expected: BTreeMap::from([("count".to_owned(), from.map(<[u8]>::to_vec))]),
        ..kv("count", Some(to))
    };
    let first = Change::WriteKv(counted(None, b"1"));
    store.commit(vec![first.clone()]).await.unwrap();
    let beside = Change::AppendDecision(decision(1, 1, "p", false));
    match store.commit(vec![beside, first]).await {
        Err(CommitError::Conflict(Conflict::KvChanged { key, .. })) => assert_eq!(key, "count"),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.decision(1).unwrap(), None);
    let next = Change::WriteKv(counted(Some(b"1"), b"2"));
    store.commit(vec![next]).await.unwrap();
    let value = store.snapshot().unwrap().kv_get(&name("p"), "count");
    assert_eq!(value.unwrap(), Some(b"2".to_vec()));
}

#[tokio::test]
async fn a_plugin_over_its_quota_can_only_shrink() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let write = |key: &str, bytes: Option<usize>, quota: u64| {
        let value = bytes.map(|bytes| vec![0; bytes]);
        let quota = KvUsage {
            keys: 9,
            bytes: quota,
        };
        vec![Change::WriteKv(KvWrite {
            quota,
            ..kv(key, value.as_deref())
        })]
    };
    store.commit(write("a", Some(49), 50)).await.unwrap();
    match store.commit(write("b", Some(1), 50)).await {
        Err(CommitError::Conflict(Conflict::KvQuota { wanted, .. })) => {
            assert_eq!(wanted, KvUsage { keys: 2, bytes: 52 });
        }
        other => panic!("{other:?}"),
    }
    // An operator lowered the quota: nothing is lost, and what shrinks is taken.
    store.commit(write("a", Some(40), 10)).await.unwrap();
    store.commit(write("a", None, 10)).await.unwrap();
    let usage = store.snapshot().unwrap().kv_usage(&name("p")).unwrap();
    assert_eq!(usage, KvUsage::default());
}

#[tokio::test]
async fn keys_are_listed_by_prefix_and_of_one_plugin() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut changes = Vec::new();
    for (plugin, key) in [
        ("p", "a"),
        ("p", "b/1"),
        ("p", "b/2"),
        ("p", "b\u{10ffff}"),
        ("p", "c"),
        ("p2", "b/3"),
    ] {
        let plugin = name(plugin);
        let quota = KvUsage {
            keys: 9,
            bytes: 999,
        };
        changes.push(Change::WriteKv(KvWrite {
            plugin,
            quota,
            ..kv(key, Some(b""))
        }));
    }
    store.commit(changes).await.unwrap();
    let snapshot = store.snapshot().unwrap();
    let list = |prefix, after, limit| {
        let keys = snapshot.kv_list(&name("p"), prefix, after, limit);
        keys.unwrap()
    };
    assert_eq!(list("", None, 9), ["a", "b/1", "b/2", "b\u{10ffff}", "c"]);
    assert_eq!(list("b", None, 9), ["b/1", "b/2", "b\u{10ffff}"]);
    assert_eq!(list("b/", None, 9), ["b/1", "b/2"]);
    assert_eq!(list("b/", Some("b/1"), 9), ["b/2"]);
    assert_eq!(list("b/", Some("a"), 1), ["b/1"]);
    assert_eq!(list("b/", Some("z"), 9), <[&str; 0]>::default());
}

#[tokio::test]
async fn a_snapshot_stays_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for n in 1..=3 {
        let record = vm(n, &format!("vm-{n}"));
        let expect = Expect::Absent;
        store
            .commit(vec![Change::PutVm { record, expect }])
            .await
            .unwrap();
    }
    let before = store.snapshot().unwrap();
    store
        .commit(vec![
            Change::RemoveVm {
                id: vm_id(2),
                revision: 1,
            },
            Change::WriteKv(kv("k", Some(b"v"))),
        ])
        .await
        .unwrap();
    let ids = |snapshot: &Snapshot, after, limit| -> Vec<VmId> {
        let vms = snapshot.vms_of(&Tenant::default(), after, limit, |vm| vm.id != vm_id(1));
        vms.unwrap().into_iter().map(|vm| vm.id).collect()
    };
    assert_eq!(ids(&before, None, 9), [vm_id(2), vm_id(3)]);
    assert_eq!(ids(&before, None, 1), [vm_id(2)]);
    assert_eq!(before.kv_get(&name("p"), "k").unwrap(), None);
    let after = store.snapshot().unwrap();
    assert_eq!(ids(&after, Some(vm_id(2)), 9), [vm_id(3)]);
    assert_eq!(
        after
            .vms_of(&"other".parse().unwrap(), None, 9, |_| true)
            .unwrap(),
        []
    );
}
