//! Which plugin decides for whom, and who decides when it does not.

use std::collections::BTreeMap;

use roost_model::{Binding, BindingMode, DecidedBy, Hook, OnFailure, Selector};
use roost_policy::{
    ActivePlugin, AdmissionDecision, AdmissionRequest, CleanupDecision, Decided, PolicyHost,
    RecoveryAction, Subject, builtin,
};

use crate::component::{billing, cleanup, cleanup_after, trapping};
use crate::{active, binding, delay, facts, load_bundled, runtime, subject};

fn ask(host: &PolicyHost, subject: &Subject) -> Decided<CleanupDecision> {
    host.cleanup(facts::cleanup(1, 1), subject)
}

#[test]
fn without_plugins_the_native_policies_decide() {
    let host = PolicyHost::new(runtime());
    let decided = ask(&host, &Subject::default());
    assert_eq!(decided.by, DecidedBy::Builtin);
    assert_eq!(decided.decision, builtin::cleanup(&facts::cleanup(1, 1)));
    let admitted = host.admission(facts::admission(AdmissionRequest::Create));
    assert_eq!(admitted.decision, AdmissionDecision::Allow);
}

#[test]
fn the_highest_priority_that_selects_the_vm_decides() {
    let host = PolicyHost::new(runtime());
    let gold = Binding {
        selector: Selector {
            tenant: None,
            labels: BTreeMap::from([("tier".to_owned(), "gold".to_owned())]),
        },
        ..binding(Hook::Cleanup, "gold", 300)
    };
    let acme = Binding {
        selector: Selector {
            tenant: Some("acme".parse().unwrap()),
            labels: BTreeMap::new(),
        },
        ..binding(Hook::Cleanup, "acme", 200)
    };
    host.set_active(vec![
        active(&host, &cleanup_after(1), binding(Hook::Cleanup, "all", 0)),
        active(&host, &cleanup_after(3), gold),
        active(&host, &cleanup_after(2), acme),
    ]);
    let by = |name: &str| DecidedBy::Plugin {
        plugin: name.to_owned(),
        revision: 7,
    };
    for (subject, ms, name) in [
        (subject("acme", &[("tier", "gold")]), 3, "gold"),
        (subject("acme", &[("tier", "iron")]), 2, "acme"),
        (subject("other", &[("tier", "gold")]), 3, "gold"),
        (subject("other", &[]), 1, "all"),
    ] {
        let decided = ask(&host, &subject);
        assert_eq!((delay(&decided), decided.by), (ms, by(name)), "{subject:?}");
    }
}

#[test]
fn another_tenants_binding_is_never_asked() {
    let host = PolicyHost::new(runtime());
    let other = Binding {
        selector: Selector {
            tenant: Some("other".parse().unwrap()),
            labels: BTreeMap::new(),
        },
        ..binding(Hook::Cleanup, "other", 900)
    };
    host.set_active(vec![active(&host, &trapping(), other)]);
    assert_eq!(ask(&host, &subject("acme", &[])).failures, []);
}

#[test]
fn a_plugin_that_fails_is_named_and_the_native_policy_decides() {
    let host = PolicyHost::new(runtime());
    host.set_active(vec![
        active(&host, &trapping(), binding(Hook::Cleanup, "broken", 100)),
        active(&host, &cleanup_after(2), binding(Hook::Cleanup, "good", 0)),
    ]);
    let decided = ask(&host, &Subject::default());
    assert_eq!(decided.by, DecidedBy::Builtin);
    assert_eq!(decided.failures.len(), 1);
    let failure = &decided.failures[0];
    assert_eq!((failure.plugin.as_str(), failure.revision), ("broken", 7));
    assert!(failure.error.contains("unreachable"), "{}", failure.error);
}

#[test]
fn where_the_binding_says_so_the_next_one_decides() {
    let host = PolicyHost::new(runtime());
    let next = Binding {
        on_failure: OnFailure::Next,
        ..binding(Hook::Cleanup, "broken", 100)
    };
    let good = active(&host, &cleanup_after(2), binding(Hook::Cleanup, "good", 0));
    host.set_active(vec![active(&host, &trapping(), next.clone()), good]);
    let decided = ask(&host, &Subject::default());
    assert_eq!(delay(&decided), 2);
    assert_eq!(decided.failures.len(), 1);

    host.set_active(vec![active(&host, &trapping(), next)]);
    assert_eq!(ask(&host, &Subject::default()).by, DecidedBy::Builtin);
}

#[test]
fn deny_refuses_admission_and_can_not_keep_a_vm_from_being_cleaned_up() {
    let host = PolicyHost::new(runtime());
    let deny = |hook| Binding {
        on_failure: OnFailure::Deny,
        ..binding(hook, "broken", 100)
    };
    let mut broken = active(&host, &trapping(), deny(Hook::Admission));
    broken
        .bindings
        .extend([Hook::Cleanup, Hook::Recovery, Hook::Billing].map(deny));
    host.set_active(vec![broken]);

    let admitted = host.admission(facts::admission(AdmissionRequest::Boot));
    assert!(matches!(admitted.decision, AdmissionDecision::Deny(_)));
    assert_eq!(admitted.failures.len(), 1);

    assert_eq!(
        ask(&host, &Subject::default()).decision,
        builtin::cleanup(&facts::cleanup(1, 1))
    );
    let recovered = host.recovery(facts::recovery(0, 1));
    assert_eq!(
        recovered.decision,
        builtin::recovery(&facts::recovery(0, 1))
    );
    let billed = host.billing(facts::billing(vec![facts::window(1)]));
    assert_eq!(
        (billed.decision, billed.by),
        (Vec::new(), DecidedBy::Builtin)
    );
}

#[test]
fn a_monitor_is_asked_whatever_its_priority_and_decides_nothing() {
    for priority in [-1, 900] {
        let host = PolicyHost::new(runtime());
        let monitor = Binding {
            mode: BindingMode::Monitor,
            ..binding(Hook::Cleanup, "monitor", priority)
        };
        host.set_active(vec![
            active(&host, &trapping(), monitor),
            active(&host, &cleanup_after(2), binding(Hook::Cleanup, "good", 0)),
        ]);
        let decided = ask(&host, &Subject::default());
        assert_eq!(delay(&decided), 2);
        // That it was asked shows in its failure.
        assert_eq!(decided.failures.len(), 1);
        assert_eq!(decided.failures[0].plugin, "monitor");
    }
}

#[test]
fn an_answer_without_sense_counts_as_a_failure() {
    let host = PolicyHost::new(runtime());
    let other = "(i32.store8 (i32.const 512) (i32.const 2)) i32.const 512";
    for (component, said) in [
        (
            cleanup_after(u64::MAX),
            "a delay of 18446744073709551615 ms",
        ),
        (cleanup_after(86_400_001), "a delay of 86400001 ms"),
        (cleanup(other), "the decision \"\""),
    ] {
        host.set_active(vec![active(
            &host,
            &component,
            binding(Hook::Cleanup, "odd", 100),
        )]);
        let decided = ask(&host, &Subject::default());
        assert_eq!(decided.by, DecidedBy::Builtin);
        assert!(
            decided.failures[0].error.contains(said),
            "{:?}",
            decided.failures
        );
    }
    host.set_active(vec![active(
        &host,
        &cleanup_after(86_400_000),
        binding(Hook::Cleanup, "slow", 100),
    )]);
    assert_eq!(delay(&ask(&host, &Subject::default())), 86_400_000);
}

#[test]
fn a_charge_for_a_window_that_was_not_asked_about_counts_as_a_failure() {
    let host = PolicyHost::new(runtime());
    // One charge of zeros: incarnation 0 and sequence 0 are nobody's.
    let one = "(i32.store (i32.const 512) (i32.const 1024)) (i32.store (i32.const 516)
        (i32.const 1)) i32.const 512";
    host.set_active(vec![active(
        &host,
        &billing(one),
        binding(Hook::Billing, "odd", 100),
    )]);
    let decided = host.billing(facts::billing(vec![facts::window(1)]));
    assert_eq!(decided.decision, []);
    assert_eq!(decided.by, DecidedBy::Builtin);
    assert_eq!(decided.failures.len(), 1);
}

#[test]
fn each_plugin_is_given_its_own_settings() {
    let host = PolicyHost::new(runtime());
    let with_cap = |name: &str, cap_ms: u64, tenant: &str| {
        let selector = Selector {
            tenant: Some(tenant.parse().unwrap()),
            labels: BTreeMap::new(),
        };
        ActivePlugin {
            name: name.to_owned(),
            revision: 1,
            settings: format!(r#"{{"base_ms": {cap_ms}, "cap_ms": {cap_ms}}}"#),
            plugin: load_bundled(host.runtime(), "cleanup-backoff"),
            bindings: vec![Binding {
                selector,
                ..binding(Hook::Cleanup, name, 100)
            }],
        }
    };
    host.set_active(vec![with_cap("low", 5, "a"), with_cap("high", 9, "b")]);
    let ask = |tenant: &str, seed: u64| {
        delay(&host.cleanup(facts::cleanup(1, seed), subject(tenant, &[])))
    };
    assert_eq!((ask("a", 5), ask("a", 6)), (5, 0));
    assert_eq!((ask("b", 9), ask("b", 10)), (9, 0));
}

#[test]
fn a_swap_takes_effect_for_the_next_call_and_frees_nothing_under_the_last() {
    let host = PolicyHost::new(runtime());
    let one = active(&host, &cleanup_after(1), binding(Hook::Cleanup, "one", 0));
    let two = active(&host, &cleanup_after(2), binding(Hook::Cleanup, "two", 0));
    host.set_active(vec![one.clone()]);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            (0..200)
                .map(|_| delay(&ask(&host, &Subject::default())))
                .collect::<Vec<_>>()
        });
        for _ in 0..50 {
            host.set_active(vec![two.clone()]);
            host.set_active(vec![one.clone()]);
        }
        let delays = asking.join().unwrap();
        assert!(delays.iter().all(|ms| [1, 2].contains(ms)), "{delays:?}");
    });
    host.set_active(vec![two]);
    assert_eq!(delay(&ask(&host, &Subject::default())), 2);
}

#[test]
fn observers_that_fail_are_named_and_nothing_else_happens() {
    let host = PolicyHost::new(runtime());
    host.set_active(vec![active(
        &host,
        &trapping(),
        binding(Hook::Observer, "broken", 0),
    )]);
    let failures = host
        .observe(facts::context(1), "{}", &Subject::default())
        .failures;
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].plugin, "broken");
}

#[test]
fn a_component_that_decides_already_is_found_by_its_digest() {
    let host = PolicyHost::new(runtime());
    let component = cleanup_after(1);
    let digest = roost_policy::digest(&component);
    assert!(host.loaded(&digest).is_none());
    host.set_active(vec![active(
        &host,
        &component,
        binding(Hook::Cleanup, "one", 0),
    )]);
    assert!(host.loaded(&digest).is_some());
}

#[test]
fn the_native_policies_end_too() {
    assert!(matches!(
        builtin::cleanup(&facts::cleanup(u32::MAX, 1)),
        CleanupDecision::GiveUp(_)
    ));
    let recovered = |attempts| builtin::recovery(&facts::recovery(attempts, u64::MAX)).action;
    assert!((0..5).all(|n| matches!(recovered(n), RecoveryAction::RestartAfter(1..=60_000))));
    assert_eq!(recovered(5), RecoveryAction::MarkFailed);
    assert_eq!(recovered(u32::MAX), RecoveryAction::MarkFailed);
}

#[test]
fn the_native_recovery_leaves_a_vm_that_its_user_wants_stopped() {
    let mut asked = facts::recovery(0, 1);
    asked.vm.desired = "stopped".to_owned();
    let decision = builtin::recovery(&asked);
    assert_eq!(decision.action, RecoveryAction::LeaveStopped);
}
