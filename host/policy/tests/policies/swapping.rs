//! Changing what decides while it decides.

use std::sync::atomic::{AtomicBool, Ordering};

use roost_model::{DecidedBy, Hook, InstanceMode};
use roost_policy::{ActivePlugin, PolicyHost};

use crate::component::cleanup_after;
use crate::{active, binding, delay, facts, runtime, subject};

#[test]
fn hundreds_of_activations_and_rollbacks_under_load_lose_and_double_no_decision() {
    for instance in [InstanceMode::Fresh, InstanceMode::Warm] {
        let host = PolicyHost::new(runtime());
        let revision = |number: u64| {
            let mut binding = binding(Hook::Cleanup, "swapped", 9);
            binding.instance = instance;
            let mut plugin = active(&host, &cleanup_after(number), binding);
            plugin.revision = number;
            plugin
        };
        let revisions: Vec<ActivePlugin> = (1..=3).map(revision).collect();
        host.set_active(vec![revisions[0].clone()]);
        let done = AtomicBool::new(false);
        let asked: u64 = std::thread::scope(|scope| {
            let ask = || {
                let mut asked = 0;
                // At least once after the last change.
                loop {
                    let last = done.load(Ordering::SeqCst);
                    let decided = host.cleanup(facts::cleanup(1, 1), subject("a", &[]));
                    asked += 1;
                    // One call, of one revision, whose answer is the one that is used.
                    let DecidedBy::Plugin { plugin, revision } = &decided.by else {
                        panic!("nobody decided: {decided:?}");
                    };
                    assert_eq!(plugin, "swapped");
                    assert_eq!(delay(&decided), *revision);
                    assert_eq!(decided.calls.len(), 1);
                    assert_eq!(decided.calls[0].revision, *revision);
                    assert_eq!(decided.failures, []);
                    if last {
                        assert_eq!(*revision, 3);
                        return asked;
                    }
                }
            };
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(ask)).collect();
            for change in 0..500 {
                host.set_active(vec![revisions[change % 3].clone()]);
                std::thread::yield_now();
            }
            host.set_active(vec![revisions[2].clone()]);
            done.store(true, Ordering::SeqCst);
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        let counted: u64 = host
            .statistics()
            .iter()
            .map(|statistics| statistics.calls)
            .sum();
        assert_eq!(counted, asked, "each was asked once");
        // What the revisions that lost their say had kept is gone.
        assert!(host.warm_instances() <= 3);
        host.set_active(Vec::new());
        assert_eq!(host.warm_instances(), 0);
    }
}
