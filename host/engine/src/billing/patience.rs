//! When a billing policy that failed is asked again, by VM.

use std::collections::HashMap;
use std::time::Duration;

use roost_model::VmId;
use tokio::time::{Instant, sleep_until};

/// How long after the first failure.
const FIRST: Duration = Duration::from_millis(500);
/// How long at most: about this long after a policy was mended, all is charged for.
const LONGEST: Duration = Duration::from_secs(30);

/// VMs whose policy failed.
#[derive(Debug, Default)]
pub(super) struct Patience(HashMap<VmId, Wait>);

#[derive(Debug, Clone, Copy)]
struct Wait {
    until: Instant,
    /// How long the next one is.
    next: Duration,
}

impl Patience {
    /// Forgets all VMs but those, which have something to be charged for.
    pub(super) fn only(&mut self, vms: &[VmId]) {
        self.0.retain(|vm, _| vms.binary_search(vm).is_ok());
    }

    /// Whether the policy is to be asked now.
    pub(super) fn is_due(&self, vm: VmId) -> bool {
        self.0
            .get(&vm)
            .is_none_or(|wait| wait.until <= Instant::now())
    }

    /// The policy decided.
    pub(super) fn forget(&mut self, vm: VmId) {
        self.0.remove(&vm);
    }

    /// The policy failed.
    pub(super) fn failed(&mut self, vm: VmId) {
        let now = Instant::now();
        let next = self.0.get(&vm).map_or(FIRST, |wait| wait.next);
        let wait = Wait {
            until: now + next,
            next: (next * 2).min(LONGEST),
        };
        self.0.insert(vm, wait);
    }

    /// Resolves when the first VM is due; never if none waits.
    pub(super) async fn over(&self) {
        match self.0.values().map(|wait| wait.until).min() {
            Some(until) => sleep_until(until).await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_policy_that_fails_is_asked_again_at_growing_intervals_up_to_a_limit() {
        let vm = VmId::from_uuid(uuid::Uuid::from_u128(1));
        let mut patience = Patience::default();
        assert!(patience.is_due(vm));
        let mut waits = Vec::new();
        for _ in 0..9 {
            let begun = Instant::now();
            patience.failed(vm);
            assert!(!patience.is_due(vm));
            patience.over().await;
            assert!(patience.is_due(vm));
            waits.push(begun.elapsed());
        }
        assert_eq!(waits[0], FIRST);
        assert_eq!(waits[1], FIRST * 2);
        assert_eq!(waits[8], LONGEST);
        patience.forget(vm);
        let begun = Instant::now();
        patience.failed(vm);
        patience.over().await;
        assert_eq!(begun.elapsed(), FIRST, "after a success it begins anew");
        patience.only(&[]);
        assert!(patience.is_due(vm));
    }
}
