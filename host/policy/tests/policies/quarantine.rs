//! A revision that keeps failing is left alone, tried again, and trusted again.

use roost_model::{Binding, BindingMode, DecidedBy, Hook, OnFailure};
use roost_policy::{
    ActivePlugin, CallOutcome, CleanupDecision, Decided, FailureKind, PolicyHost, Quarantine,
    StrikeLimits,
};

use crate::component::{cleanup, cleanup_after, trapping};
use crate::{active, binding, facts, runtime, subject};

const LIMITS: StrikeLimits = StrikeLimits {
    failures: 3,
    cool_down_ms: 1000,
    longest_ms: 4000,
};

fn host() -> PolicyHost {
    PolicyHost::with_strikes(runtime(), LIMITS)
}

fn at(host: &PolicyHost, now_ms: u64) -> Decided<CleanupDecision> {
    let mut facts = facts::cleanup(1, 1);
    facts.context.now_ms = now_ms;
    host.cleanup(facts, subject("acme", &[]))
}

/// Traps unless the seed is even.
const MOODY: &str = "(if (i64.ne (i64.and (local.get 1) (i64.const 1)) (i64.const 0))
    (then unreachable)) (i64.store (i32.const 520) (i64.const 4)) i32.const 512";

#[test]
fn a_revision_that_fails_again_and_again_is_not_asked_any_more() {
    let host = host();
    host.set_active(vec![active(
        &host,
        &trapping(),
        binding(Hook::Cleanup, "bad", 9),
    )]);
    assert_eq!(at(&host, 0).quarantine, []);
    assert_eq!(at(&host, 0).quarantine, []);
    let third = at(&host, 0);
    assert_eq!(third.quarantine.len(), 1);
    let change = &third.quarantine[0];
    assert_eq!((change.plugin.as_str(), change.revision), ("bad", 7));
    let quarantine = change.now.clone().unwrap();
    assert_eq!((quarantine.until_ms, quarantine.round), (1000, 1));
    assert!(quarantine.reason.contains("unreachable"), "{quarantine:?}");
    assert_eq!(host.quarantine("bad", 7), Some(quarantine));

    let after = at(&host, 999);
    assert_eq!(after.by, DecidedBy::Builtin);
    assert_eq!(after.failures, []);
    assert!(
        matches!(&after.calls[0].outcome, CallOutcome::Error(failure)
            if failure.kind == FailureKind::Quarantined),
        "{:?}",
        after.calls
    );
}

#[test]
fn the_rule_for_failures_holds_for_a_quarantined_revision_too() {
    let host = host();
    let next = Binding {
        on_failure: OnFailure::Next,
        ..binding(Hook::Cleanup, "bad", 9)
    };
    let good = active(&host, &cleanup_after(2), binding(Hook::Cleanup, "good", 0));
    host.set_active(vec![active(&host, &trapping(), next), good]);
    for _ in 0..9 {
        assert_eq!(at(&host, 0).decision, CleanupDecision::RetryAfter(2));
    }
    assert!(host.quarantine("bad", 7).is_some());
}

#[test]
fn one_call_tries_it_again_and_failing_costs_twice_the_time() {
    let host = host();
    host.set_active(vec![active(
        &host,
        &trapping(),
        binding(Hook::Cleanup, "bad", 9),
    )]);
    for _ in 0..3 {
        at(&host, 0);
    }
    for (now, until) in [(1000, 3000), (3000, 7000), (7000, 11_000)] {
        let tried = at(&host, now);
        assert_eq!(tried.failures.len(), 1, "it is asked");
        let quarantine = tried.quarantine[0].now.clone().unwrap();
        assert_eq!(quarantine.until_ms, until);
        assert_eq!(at(&host, now).failures, [], "it is not asked");
    }
}

#[test]
fn a_revision_that_does_well_in_its_trial_is_trusted_again() {
    let host = host();
    host.set_active(vec![active(
        &host,
        &cleanup(MOODY),
        binding(Hook::Cleanup, "moody", 9),
    )]);
    let ask = |seed, now_ms| {
        let mut facts = facts::cleanup(1, seed);
        facts.context.now_ms = now_ms;
        host.cleanup(facts, subject("acme", &[]))
    };
    for _ in 0..3 {
        ask(1, 0);
    }
    assert_eq!(ask(2, 500).by, DecidedBy::Builtin);
    let tried = ask(2, 1000);
    assert_eq!(tried.decision, CleanupDecision::RetryAfter(4));
    assert_eq!(tried.quarantine.len(), 1);
    assert_eq!(tried.quarantine[0].now, None);
    assert_eq!(host.quarantine("moody", 7), None);
    assert_eq!(ask(2, 1000).decision, CleanupDecision::RetryAfter(4));
}

#[test]
fn a_monitor_is_quarantined_too() {
    let host = host();
    let monitor = Binding {
        mode: BindingMode::Monitor,
        ..binding(Hook::Cleanup, "bad", 9)
    };
    host.set_active(vec![active(&host, &trapping(), monitor)]);
    for _ in 0..3 {
        at(&host, 0);
    }
    assert!(host.quarantine("bad", 7).is_some());
    assert_eq!(at(&host, 0).failures, []);
}

#[test]
fn another_revision_is_not_held_to_account_and_going_back_does_not_wash_it_clean() {
    let host = host();
    let bad = active(&host, &trapping(), binding(Hook::Cleanup, "one", 9));
    let good = ActivePlugin {
        revision: 8,
        ..active(&host, &cleanup_after(2), binding(Hook::Cleanup, "one", 9))
    };
    host.set_active(vec![bad.clone()]);
    for _ in 0..3 {
        at(&host, 0);
    }
    host.set_active(vec![good]);
    assert_eq!(at(&host, 0).decision, CleanupDecision::RetryAfter(2));
    host.set_active(vec![bad]);
    assert_eq!(at(&host, 0).failures, [], "it is not asked");
}

#[test]
fn a_quarantine_outlives_the_host() {
    let quarantine = Quarantine {
        until_ms: 500,
        round: 3,
        reason: "it trapped".to_owned(),
    };
    let host = host();
    host.restore_quarantine([("bad".to_owned(), 7, quarantine.clone())]);
    host.set_active(vec![active(
        &host,
        &trapping(),
        binding(Hook::Cleanup, "bad", 9),
    )]);
    assert_eq!(host.quarantine("bad", 7), Some(quarantine));
    assert_eq!(at(&host, 499).failures, []);
    let tried = at(&host, 500);
    assert_eq!(tried.quarantine[0].now.as_ref().unwrap().round, 4);
}

#[test]
fn an_operator_can_trust_it_again() {
    let host = host();
    host.set_active(vec![active(
        &host,
        &trapping(),
        binding(Hook::Cleanup, "bad", 9),
    )]);
    assert!(!host.readmit("bad", 7));
    for _ in 0..3 {
        at(&host, 0);
    }
    assert!(host.readmit("bad", 7));
    assert_eq!(at(&host, 0).failures.len(), 1);
    assert!(!host.readmit("nobody", 1));
}

#[test]
fn a_binding_to_a_hook_that_it_does_not_export_is_not_the_revisions_fault() {
    let host = host();
    let mut plugin = active(&host, &cleanup_after(2), binding(Hook::Recovery, "one", 9));
    plugin.bindings.push(binding(Hook::Cleanup, "one", 9));
    host.set_active(vec![plugin]);
    for _ in 0..9 {
        assert_eq!(host.recovery(facts::recovery(0, 1)).failures.len(), 1);
    }
    assert_eq!(host.quarantine("one", 7), None);
    assert_eq!(at(&host, 0).decision, CleanupDecision::RetryAfter(2));
}
