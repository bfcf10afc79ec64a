//! Instances that are kept between calls, and whom they serve.

use roost_model::{Binding, Hook, InstanceMode};
use roost_policy::{ActivePlugin, PolicyHost};

use crate::component::cleanup;
use crate::{active, binding, delay, facts, runtime, subject};

/// It waits for as many ms as its memory says that it was called.
const COUNTING: &str =
    "(i32.store (i32.const 600) (i32.add (i32.load (i32.const 600)) (i32.const 1)))
    (i64.store (i32.const 520) (i64.extend_i32_u (i32.load (i32.const 600)))) i32.const 512";

fn warm(name: &str) -> Binding {
    Binding {
        instance: InstanceMode::Warm,
        ..binding(Hook::Cleanup, name, 9)
    }
}

fn host_with(decide: &str) -> PolicyHost {
    let host = PolicyHost::new(runtime());
    host.set_active(vec![active(&host, &cleanup(decide), warm("warm"))]);
    host
}

fn ask(host: &PolicyHost, tenant: &str) -> u64 {
    delay(&host.cleanup(facts::cleanup(1, 1), subject(tenant, &[])))
}

#[test]
fn a_warm_instance_serves_one_tenant_and_no_other() {
    let host = host_with(COUNTING);
    assert_eq!(ask(&host, "a"), 1);
    assert_eq!(ask(&host, "a"), 2);
    assert_eq!(ask(&host, "b"), 1);
    assert_eq!(ask(&host, "a"), 3);
    assert_eq!(ask(&host, ""), 1);
    assert_eq!(ask(&host, "b"), 2);
    assert_eq!(host.warm_instances(), 3);
}

#[test]
fn a_warm_instance_serves_a_bounded_number_of_calls() {
    let host = host_with(COUNTING);
    let most = (0..2500).map(|_| ask(&host, "a")).max();
    assert_eq!(most, Some(1000));
}

#[test]
fn an_instance_that_trapped_or_talked_nonsense_is_dropped() {
    for failing in ["unreachable", "(i64.store (i32.const 520) (i64.const -1))"] {
        // It fails at every third call, as far as it can count.
        let host = host_with(&format!(
            "(i32.store (i32.const 600) (i32.add (i32.load (i32.const 600)) (i32.const 1)))
             (i64.store (i32.const 520) (i64.extend_i32_u (i32.load (i32.const 600))))
             (if (i32.eq (i32.load (i32.const 600)) (i32.const 3)) (then {failing}))
             i32.const 512"
        ));
        for _ in 0..3 {
            assert_eq!((ask(&host, "a"), ask(&host, "a")), (1, 2));
            let failed = host.cleanup(facts::cleanup(1, 1), subject("a", &[]));
            assert_eq!(failed.failures.len(), 1);
            assert_eq!(host.warm_instances(), 0);
        }
    }
}

#[test]
fn an_instance_that_ran_into_its_deadline_is_dropped() {
    let host = host_with(
        "(i32.store (i32.const 600) (i32.add (i32.load (i32.const 600)) (i32.const 1)))
         (if (i32.eq (i32.load (i32.const 600)) (i32.const 2)) (then (loop $again br $again)))
         (i64.store (i32.const 520) (i64.extend_i32_u (i32.load (i32.const 600)))) i32.const 512",
    );
    assert_eq!(ask(&host, "a"), 1);
    let late = host.cleanup(facts::cleanup(1, 1), subject("a", &[]));
    assert_eq!(late.failures.len(), 1);
    assert_eq!(ask(&host, "a"), 1);
}

#[test]
fn an_instance_that_has_grown_is_not_kept() {
    // 9 of 16 MiB.
    let host = host_with(&format!("(drop (memory.grow (i32.const 144))) {COUNTING}"));
    assert_eq!((ask(&host, "a"), ask(&host, "a")), (1, 1));
    assert_eq!(host.warm_instances(), 0);
}

#[test]
fn the_number_of_warm_instances_is_bounded_over_all_tenants() {
    let host = host_with(COUNTING);
    for n in 0..200 {
        assert_eq!(ask(&host, &format!("t{n}")), 1);
    }
    assert_eq!(host.warm_instances(), 64);
    // The one used last is among them, the first is not.
    assert_eq!(ask(&host, "t199"), 2);
    assert_eq!(ask(&host, "t0"), 1);
}

#[test]
fn another_revision_starts_anew_and_what_the_old_one_had_is_gone() {
    let host = host_with(COUNTING);
    ask(&host, "a");
    let next = ActivePlugin {
        revision: 8,
        ..active(&host, &cleanup(COUNTING), warm("warm"))
    };
    host.set_active(vec![next.clone()]);
    assert_eq!(host.warm_instances(), 0);
    assert_eq!(ask(&host, "a"), 1);
    // Somebody else's change is no reason.
    let other = active(&host, &cleanup(COUNTING), warm("other"));
    host.set_active(vec![next, other]);
    assert_eq!(
        ask(&host, "a"),
        1,
        "the other one has the same priority and comes first by name"
    );
    assert_eq!(host.warm_instances(), 2);
    host.set_active(Vec::new());
    assert_eq!(host.warm_instances(), 0);
}

#[test]
fn a_binding_that_does_not_ask_for_it_gets_a_fresh_instance() {
    let host = PolicyHost::new(runtime());
    let plugin = active(
        &host,
        &cleanup(COUNTING),
        binding(Hook::Cleanup, "fresh", 9),
    );
    host.set_active(vec![plugin]);
    assert_eq!((ask(&host, "a"), ask(&host, "a")), (1, 1));
    assert_eq!(host.warm_instances(), 0);
}

#[test]
fn many_threads_never_share_an_instance_and_none_is_counted_twice() {
    let host = host_with(COUNTING);
    let counts: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..100).map(|_| ask(&host, "a")).collect::<Vec<_>>()))
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    // Each instance counts its own calls, so as many begin at 1 as there were, and at most four.
    let begun = counts.iter().filter(|count| **count == 1).count();
    assert!((1..=4).contains(&begun), "{begun}");
    for count in 2..=counts.iter().copied().max().unwrap() {
        let of = |n| counts.iter().filter(|count| **count == n).count();
        assert!(of(count) <= of(count - 1), "{count}");
    }
}
