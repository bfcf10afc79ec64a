//! A call that a busy machine does not let run is told apart from one that takes too long.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use roost_model::{DecidedBy, Grant, Hook};
use roost_policy::{
    ActivePlugin, CallLimits, CallOutcome, Caller, CleanupDecision, Decided, FailureKind,
    HostEvent, HostServices, HostView, KvUsage, PolicyHost, PolicyRuntime, RuntimeConfig,
    StrikeLimits, Vm, VmFilter,
};

use crate::component::cleanup_importing;
use crate::{binding, facts, subject};

const LIMITS: CallLimits = CallLimits {
    deadline: Duration::from_millis(100),
    load_deadline: Duration::from_secs(5),
    slack: Duration::from_millis(200),
    memory_bytes: 16 << 20,
    answer_bytes: 1 << 20,
};
/// As long as a plugin's thread is kept from running: longer than deadline and slack.
const BUSY: Duration = Duration::from_secs(1);
/// Asks the host, which takes so long, and then answers.
const ASK: &str = "(call $get (i32.const 1024) (i32.const 1) (i32.const 2048))";

/// A machine that has other things to do whenever a plugin asks for something: to the plugin's
/// thread it is the same as not being scheduled.
struct Busy;

struct Empty;

impl HostServices for Busy {
    fn open(&self, _: &Caller) -> Result<Box<dyn HostView>, String> {
        thread::sleep(BUSY);
        Ok(Box::new(Empty))
    }
}

impl HostView for Empty {
    fn vm(&self, _: &str) -> Result<Option<Vm>, String> {
        Ok(None)
    }
    fn vms(&self, _: &VmFilter, _: usize) -> Result<Vec<Vm>, String> {
        Ok(Vec::new())
    }
    fn history(&self, _: &str, _: usize) -> Result<Vec<HostEvent>, String> {
        Ok(Vec::new())
    }
    fn kv_get(&self, _: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(None)
    }
    fn kv_list(&self, _: &str, _: Option<&str>, _: usize) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }
    fn kv_usage(&self) -> Result<KvUsage, String> {
        Err("it is not asked".to_owned())
    }
}

/// A host of that machine on which a plugin asks it and then does `more`. One failure is enough for
/// a quarantine.
fn host(limits: CallLimits, more: &str) -> PolicyHost {
    let runtime = PolicyRuntime::with(RuntimeConfig {
        limits,
        services: Some(Arc::new(Busy)),
        ..RuntimeConfig::default()
    });
    let strikes = StrikeLimits {
        failures: 1,
        ..StrikeLimits::default()
    };
    let host = PolicyHost::with_strikes(runtime.unwrap(), strikes);
    let component = cleanup_importing(
        r#"(import "roost:policy/host@0.1.0" "kv-get" (func $get (param i32 i32 i32)))"#,
        &format!("{ASK} {more}"),
        "",
    );
    let plugin = host
        .runtime()
        .load_with(&component, &BTreeSet::from([Grant::Kv]));
    host.set_active(vec![ActivePlugin {
        name: "slow".to_owned(),
        revision: 7,
        settings: "{}".to_owned(),
        plugin: plugin.unwrap(),
        bindings: vec![binding(Hook::Cleanup, "slow", 9)],
    }]);
    host
}

fn ask(host: &PolicyHost) -> Decided<CleanupDecision> {
    host.cleanup(facts::cleanup(1, 1), subject("acme", &[]))
}

fn kind(decided: &Decided<CleanupDecision>) -> FailureKind {
    match &decided.calls[0].outcome {
        CallOutcome::Error(failure) => failure.kind,
        CallOutcome::Decision(decision) => panic!("{decision:?}"),
    }
}

#[test]
fn want_of_cpu_time_is_counted_apart_and_is_no_reason_for_a_quarantine() {
    let host = host(LIMITS, "(loop $again br $again) unreachable");
    let decided = ask(&host);
    assert_eq!(decided.by, DecidedBy::Builtin);
    assert_eq!(kind(&decided), FailureKind::Starved);
    assert_eq!(decided.quarantine, []);
    assert_eq!(host.quarantine("slow", 7), None);
    assert_eq!(host.statistics()[0].failures[&FailureKind::Starved], 1);
    let said = &decided.failures[0].error;
    assert!(said.contains("this machine is too busy"), "{said}");
}

#[test]
fn a_plugin_that_took_its_cpu_time_is_late_on_a_busy_machine_too() {
    let limits = CallLimits {
        slack: Duration::from_secs(60),
        ..LIMITS
    };
    let host = host(limits, "(loop $again br $again) unreachable");
    let decided = ask(&host);
    assert_eq!(kind(&decided), FailureKind::Deadline);
    assert!(host.quarantine("slow", 7).is_some());
}

#[test]
fn a_plugin_that_is_held_up_decides_when_it_gets_its_time() {
    let limits = CallLimits {
        slack: Duration::from_secs(60),
        ..LIMITS
    };
    // It goes on through a loop, where it would be ended.
    let host = host(
        limits,
        "(loop $again (br_if $again (i32.lt_u (local.tee 2
             (i32.add (local.get 2) (i32.const 1))) (i32.const 1000000))))
         (i64.store (i32.const 520) (i64.const 4)) i32.const 512",
    );
    let decided = ask(&host);
    assert_eq!(decided.decision, CleanupDecision::RetryAfter(4));
    assert_eq!(decided.failures, []);
}
