//! The decisions of the bundled policies in native Rust, with their default settings. That they are
//! the same is checked before anything is measured.

use roost_policy::{
    AdmissionDecision, Charge, CleanupDecision, Decision, Facts, RecoveryAction, RecoveryDecision,
};

/// `admission-limits` without limits.
pub(crate) fn admission(facts: &Facts) -> Decision {
    assert!(matches!(facts, Facts::Admission(_)));
    Decision::Admission(AdmissionDecision::Allow)
}

/// `cleanup-backoff`.
pub(crate) fn cleanup(facts: &Facts) -> Decision {
    let Facts::Cleanup(facts) = facts else {
        unreachable!("it is asked about cleanups")
    };
    let bound = (200_u64 << facts.attempts.saturating_sub(1).min(32)).min(60_000);
    Decision::Cleanup(CleanupDecision::RetryAfter(
        facts.context.seed % (bound + 1),
    ))
}

/// `recovery-restart`.
pub(crate) fn recovery(facts: &Facts) -> Decision {
    let Facts::Recovery(facts) = facts else {
        unreachable!("it is asked about incidents")
    };
    let bound = (100_u64 << facts.attempts.min(32)).min(30_000);
    let delay = bound / 2 + facts.context.seed % (bound / 2 + 1);
    Decision::Recovery(RecoveryDecision {
        action: RecoveryAction::RestartAfter(delay),
        reason: format!(
            "restart {} of 5 after {}",
            facts.attempts + 1,
            facts.incident.kind
        ),
    })
}

/// The example `night-watch`.
pub(crate) fn night_watch(facts: &Facts) -> Decision {
    let Facts::Recovery(facts) = facts else {
        unreachable!("it is asked about incidents")
    };
    let delay = (1000 << facts.attempts) + facts.context.seed % 1000;
    Decision::Recovery(RecoveryDecision {
        action: RecoveryAction::RestartAfter(delay),
        reason: format!("restart {} of 3", facts.attempts + 1),
    })
}

/// `billing-meter`.
pub(crate) fn billing(facts: &Facts) -> Decision {
    let Facts::Billing(facts) = facts else {
        unreachable!("it is asked about windows")
    };
    let mut charges = Vec::new();
    for window in &facts.windows {
        let mut charge = |item: &str, quantity, unit: &str, unit_price_nanos| {
            charges.push(Charge {
                incarnation: window.incarnation,
                sequence: window.sequence,
                item: item.to_owned(),
                quantity,
                unit: unit.to_owned(),
                unit_price_nanos,
                currency: "USD".to_owned(),
            });
        };
        let mib_s = (window.memory_bytes >> 20) * (window.end_ms - window.start_ms) / 1000;
        charge("vcpu-time", window.vcpu_cpu_ns / 1_000_000, "ms", 6);
        charge("memory-time", mib_s, "mib-s", 1);
    }
    Decision::Billing(charges)
}
