//! What a host promises about policies, whoever wrote them. Hostile ones are written in
//! WebAssembly's text format, so that no toolchain stands between the test and the bytes.

mod bundled;
mod compiling;
mod component;
mod facts;
mod granted;
mod hostile;
mod loading;
mod panics;
mod quarantine;
mod routing;
mod starved;
mod statistics;
mod swapping;
mod warm;
mod wasi;

use std::time::Duration;

use roost_model::{Binding, BindingMode, Hook, InstanceMode, OnFailure, Selector};
use roost_policy::{
    ActivePlugin, Bundled, CallLimits, CleanupDecision, Decided, LoadedPlugin, PolicyHost,
    PolicyRuntime, Subject, bundled,
};

/// A runtime whose deadline is short enough to wait for, on a machine that may be as busy as it likes.
fn runtime() -> PolicyRuntime {
    let limits = CallLimits {
        deadline: Duration::from_secs(1),
        load_deadline: Duration::from_secs(1),
        slack: Duration::from_secs(60),
        ..CallLimits::default()
    };
    PolicyRuntime::new(limits).unwrap()
}

fn binding(hook: Hook, name: &str, priority: i32) -> Binding {
    Binding {
        hook,
        plugin: name.parse().unwrap(),
        selector: Selector::default(),
        priority,
        mode: BindingMode::Enforce,
        on_failure: OnFailure::Builtin,
        instance: InstanceMode::Fresh,
    }
}

/// A plugin with one binding.
fn active(host: &PolicyHost, component: &[u8], binding: Binding) -> ActivePlugin {
    ActivePlugin {
        name: binding.plugin.to_string(),
        revision: 7,
        settings: "{}".to_owned(),
        plugin: host.runtime().load(component).unwrap(),
        bindings: vec![binding],
    }
}

fn subject(tenant: &str, labels: &[(&str, &str)]) -> Subject {
    let labels = labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Subject {
        tenant: tenant.to_owned(),
        labels: labels.collect(),
    }
}

/// The delay that was decided, ms.
fn delay(decided: &Decided<CleanupDecision>) -> u64 {
    match decided.decision {
        CleanupDecision::RetryAfter(ms) => ms,
        ref other => panic!("{other:?}"),
    }
}

fn bundled_bytes(name: &str) -> &'static [u8] {
    let found = bundled().iter().find(|policy| policy.name == name);
    found.map(|Bundled { bytes, .. }| *bytes).unwrap()
}

fn load_bundled(runtime: &PolicyRuntime, name: &str) -> LoadedPlugin {
    runtime.load(bundled_bytes(name)).unwrap()
}
