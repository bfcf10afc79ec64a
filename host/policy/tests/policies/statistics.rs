//! What is counted of calls.

use roost_model::{Hook, OnFailure};
use roost_policy::{FailureKind, PluginStatistics, PolicyHost, StrikeLimits};

use crate::component::{cleanup, cleanup_after, trapping};
use crate::{active, binding, facts, runtime, subject};

fn of<'a>(all: &'a [PluginStatistics], name: &str) -> &'a PluginStatistics {
    all.iter()
        .find(|statistics| statistics.plugin == name)
        .unwrap()
}

#[test]
fn calls_failures_fallbacks_and_memory_are_counted_by_plugin_and_hook() {
    let limits = StrikeLimits {
        failures: 4,
        ..StrikeLimits::default()
    };
    let host = PolicyHost::with_strikes(runtime(), limits);
    assert_eq!(host.statistics(), []);
    let mut bad = active(&host, &trapping(), binding(Hook::Cleanup, "bad", 9));
    bad.bindings[0].on_failure = OnFailure::Next;
    let good = active(&host, &cleanup_after(2), binding(Hook::Cleanup, "good", 0));
    host.set_active(vec![bad, good]);
    for _ in 0..10 {
        let _ = host.cleanup(facts::cleanup(1, 1), subject("a", &[]));
    }
    let all = host.statistics();
    assert_eq!(all.len(), 2);
    let good = of(&all, "good");
    assert_eq!(
        (good.revision, good.hook, good.calls, good.fallbacks),
        (7, Hook::Cleanup, 10, 0)
    );
    assert!(good.failures.is_empty());
    assert_eq!(good.memory_high_water_bytes, 65_536);
    assert!(0.0 < good.p50_us && good.p50_us <= good.p99_us);
    assert!(good.p99_us <= good.max_us * 1.02, "{good:?}");
    assert!(
        good.cpu_us > 0.0 && good.total_us >= good.max_us * 0.98,
        "{good:?}"
    );
    let bad = of(&all, "bad");
    assert_eq!((bad.calls, bad.fallbacks), (4, 10));
    assert_eq!(bad.failures[&FailureKind::Trap], 4);
    assert_eq!(bad.failures[&FailureKind::Quarantined], 6);
    assert_eq!(bad.traps["unreachable-code-reached"], 4);
    assert_eq!(bad.quarantine.as_ref().unwrap().round, 1);
    let json = serde_json::to_value(bad).unwrap();
    assert_eq!(json["failures"]["trap"], 4);
}

#[test]
fn statistics_outlive_a_revisions_say_and_are_bounded() {
    let host = PolicyHost::new(runtime());
    let plugin = active(
        &host,
        &cleanup("i32.const 512"),
        binding(Hook::Cleanup, "one", 0),
    );
    for revision in 1..=400 {
        let mut plugin = plugin.clone();
        plugin.revision = revision;
        host.set_active(vec![plugin]);
        let _ = host.cleanup(facts::cleanup(1, 1), subject("a", &[]));
    }
    let kept = host.statistics();
    assert!((2..=257).contains(&kept.len()), "{}", kept.len());
    assert!(kept.iter().any(|statistics| statistics.revision == 400));
    assert!(kept.iter().any(|statistics| statistics.revision == 399));
}
