//! The bundled policies decide as they say they do.

use roost_policy::{AdmissionDecision, AdmissionRequest, CleanupDecision, RecoveryAction, Window};

use crate::{facts, load_bundled, runtime};

#[test]
fn cleanup_backoff_doubles_up_to_a_cap_jitters_by_the_seed_and_gives_up() {
    let runtime = runtime();
    let plugin = load_bundled(&runtime, "cleanup-backoff");
    let ask = |attempts, seed| plugin.cleanup(&facts::cleanup(attempts, seed)).unwrap();
    for (attempts, bound) in [
        (1, 200),
        (2, 400),
        (3, 800),
        (9, 51_200),
        (10, 60_000),
        (99, 60_000),
    ] {
        assert_eq!(ask(attempts, bound), CleanupDecision::RetryAfter(bound));
        assert_eq!(ask(attempts, bound + 1), CleanupDecision::RetryAfter(0));
        assert_eq!(ask(attempts, 7), CleanupDecision::RetryAfter(7));
    }
    for attempts in [100, u32::MAX] {
        let CleanupDecision::GiveUp(what) = ask(attempts, 1) else {
            panic!("it goes on")
        };
        for part in [
            "run-directory",
            facts::vm().id.as_str(),
            "Device or resource busy",
        ] {
            assert!(what.contains(part), "{what}");
        }
    }
}

#[test]
fn cleanup_backoff_keeps_to_its_settings() {
    let runtime = runtime();
    let plugin = load_bundled(&runtime, "cleanup-backoff");
    let mut asked = facts::cleanup(2, 39);
    asked.context.settings = r#"{"base_ms": 10, "cap_ms": 15, "max_attempts": 3}"#.to_owned();
    assert_eq!(
        plugin.cleanup(&asked).unwrap(),
        CleanupDecision::RetryAfter(39 % 16)
    );
    asked.attempts = 3;
    assert!(matches!(
        plugin.cleanup(&asked).unwrap(),
        CleanupDecision::GiveUp(_)
    ));
}

#[test]
fn recovery_restart_waits_longer_each_time_and_marks_failed_in_the_end() {
    let runtime = runtime();
    let plugin = load_bundled(&runtime, "recovery-restart");
    let ask = |attempts, seed| plugin.recovery(&facts::recovery(attempts, seed)).unwrap();
    for (attempts, bound) in [(0, 100), (1, 200), (2, 400), (3, 800), (4, 1600)] {
        let half = bound / 2;
        assert_eq!(ask(attempts, 0).action, RecoveryAction::RestartAfter(half));
        assert_eq!(
            ask(attempts, half).action,
            RecoveryAction::RestartAfter(bound)
        );
        assert_eq!(
            ask(attempts, half + 1).action,
            RecoveryAction::RestartAfter(half)
        );
    }
    assert_eq!(ask(1, 0).reason, "restart 2 of 5 after worker-exit");
    for attempts in [5, u32::MAX] {
        let given_up = ask(attempts, 0);
        assert_eq!(given_up.action, RecoveryAction::MarkFailed);
        assert!(given_up.reason.contains(&attempts.to_string()));
    }
}

#[test]
fn recovery_restart_leaves_a_vm_that_its_user_wants_stopped() {
    let runtime = runtime();
    let plugin = load_bundled(&runtime, "recovery-restart");
    let mut asked = facts::recovery(0, 0);
    asked.vm.desired = "stopped".to_owned();
    assert_eq!(
        plugin.recovery(&asked).unwrap().action,
        RecoveryAction::LeaveStopped
    );
}

#[test]
fn billing_meter_charges_what_was_used_at_the_prices_of_its_settings() {
    let runtime = runtime();
    let plugin = load_bundled(&runtime, "billing-meter");
    let mut asked = facts::billing(vec![facts::window(1), facts::window(2)]);
    asked.context.settings =
        r#"{"currency": "EUR", "vcpu_ms_nanos": 3, "mib_s_nanos": 2}"#.to_owned();
    let charges = plugin.billing(&asked).unwrap();
    let mut found: Vec<_> = charges
        .iter()
        .map(|c| {
            (
                c.sequence,
                c.item.as_str(),
                c.quantity,
                c.unit.as_str(),
                c.unit_price_nanos,
            )
        })
        .collect();
    found.sort_unstable();
    assert_eq!(
        found,
        [
            (1, "memory-time", 512 * 60, "mib-s", 2),
            (1, "vcpu-time", 30_000, "ms", 3),
            (2, "memory-time", 512 * 60, "mib-s", 2),
            (2, "vcpu-time", 30_000, "ms", 3),
        ]
    );
    assert!(
        charges
            .iter()
            .all(|c| c.currency == "EUR" && c.incarnation == 3)
    );
}

#[test]
fn billing_meter_charges_for_parts_of_a_second() {
    let runtime = runtime();
    let plugin = load_bundled(&runtime, "billing-meter");
    let short = Window {
        end_ms: facts::window(1).start_ms + 250,
        ..facts::window(1)
    };
    let charges = plugin.billing(&facts::billing(vec![short])).unwrap();
    let memory = charges.iter().find(|c| c.item == "memory-time").unwrap();
    assert_eq!(memory.quantity, 512 / 4);
}

#[test]
fn admission_limits_denies_what_would_pass_a_limit_and_names_it() {
    let runtime = runtime();
    let plugin = load_bundled(&runtime, "admission-limits");
    let ask = |settings: &str| {
        plugin.validate_settings(settings).unwrap();
        let mut asked = facts::admission(AdmissionRequest::Create);
        asked.context.settings = settings.to_owned();
        plugin.admission(&asked).unwrap()
    };
    // The tenant has 3 VMs, 6 vCPUs and 1024 MiB; the VM wants 2 vCPUs and 512 MiB.
    for settings in [
        "{}",
        r#"{"tenant": {"vms": 4, "vcpus": 8, "memory_mib": 1536}}"#,
        r#"{"node": {"vms": 11, "vcpus": 22, "memory_mib": 4608}}"#,
    ] {
        assert_eq!(ask(settings), AdmissionDecision::Allow, "{settings}");
    }
    for (settings, said) in [
        (r#"{"tenant": {"vms": 3}}"#, "tenant acme may have 3 VMs"),
        (
            r#"{"tenant": {"vcpus": 7}}"#,
            "tenant acme may have 7 vCPUs",
        ),
        (
            r#"{"tenant": {"memory_mib": 1535}}"#,
            "tenant acme may have 1535 MiB",
        ),
        (r#"{"node": {"vms": 10}}"#, "this node may have 10 VMs"),
    ] {
        let AdmissionDecision::Deny(reason) = ask(settings) else {
            panic!("{settings} allows")
        };
        assert!(reason.starts_with(said), "{reason}");
    }
}
