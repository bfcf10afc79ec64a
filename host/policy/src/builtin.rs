//! The native policy of each hook: what decides when no plugin does.
//!
//! They are pure, can't fail, and are the least surprising thing: a VM is admitted, cleaned up,
//! restarted a few times, and not charged for what nobody priced.

use crate::bindings::{
    AdmissionDecision, AdmissionFacts, BillingFacts, Charge, CleanupDecision, CleanupFacts,
    RecoveryAction, RecoveryDecision, RecoveryFacts,
};
use crate::facts::ObserverFacts;

/// First delay of a retry, ms.
const BASE_MS: u64 = 200;
/// Longest delay of a retry, ms.
const CAP_MS: u64 = 60_000;
/// Cleanup attempts before a person is asked: about half a day.
const MAX_CLEANUP_ATTEMPTS: u32 = 720;
/// Restarts before a VM is marked failed.
const MAX_RESTARTS: u32 = 5;

/// Allows: the host's own limits hold without a policy.
#[must_use]
pub const fn admission(_facts: &AdmissionFacts) -> AdmissionDecision {
    AdmissionDecision::Allow
}

/// Exponential backoff with full jitter; gives up after half a day.
#[must_use]
pub fn cleanup(facts: &CleanupFacts) -> CleanupDecision {
    if facts.attempts >= MAX_CLEANUP_ATTEMPTS {
        return CleanupDecision::GiveUp(format!(
            "remove the {} of {} by hand; the last error was: {}",
            facts.resource, facts.vm_id, facts.error
        ));
    }
    CleanupDecision::RetryAfter(backoff(facts.attempts, facts.context.seed))
}

/// Restarts with backoff, five times; then marks the VM failed. A VM that its user wants stopped
/// stays stopped.
#[must_use]
pub fn recovery(facts: &RecoveryFacts) -> RecoveryDecision {
    if matches!(facts.vm.desired.as_str(), "stopped" | "deleted") {
        return RecoveryDecision {
            action: RecoveryAction::LeaveStopped,
            reason: format!("its user wants it {}", facts.vm.desired),
        };
    }
    if facts.attempts >= MAX_RESTARTS {
        return RecoveryDecision {
            action: RecoveryAction::MarkFailed,
            reason: format!("restarted {} times without success", facts.attempts),
        };
    }
    let delay = backoff(facts.attempts + 1, facts.context.seed);
    RecoveryDecision {
        action: RecoveryAction::RestartAfter(delay),
        reason: format!("restart {} of {MAX_RESTARTS}", facts.attempts + 1),
    }
}

/// Charges nothing: a price is an operator's word.
#[must_use]
pub const fn billing(_facts: &BillingFacts) -> Vec<Charge> {
    Vec::new()
}

/// Does nothing.
pub const fn observer(_facts: &ObserverFacts) {}

/// A random delay between 0 and the doubled one, ms; `attempt` counts from 1.
fn backoff(attempt: u32, seed: u64) -> u64 {
    let doublings = attempt.saturating_sub(1).min(16);
    let bound = (BASE_MS << doublings).min(CAP_MS);
    seed % (bound + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_doubles_is_capped_and_is_jittered_by_the_seed() {
        for (attempt, bound) in [
            (1, 200),
            (2, 400),
            (9, 51_200),
            (10, 60_000),
            (u32::MAX, 60_000),
        ] {
            assert!((0..1000).all(|n| backoff(attempt, n * 0x9e37_79b9) <= bound));
            assert_eq!(backoff(attempt, bound), bound);
            assert_ne!(backoff(attempt, 1), backoff(attempt, 2));
        }
    }
}
