//! A policy on a policy host, as the engine asks it.

use std::sync::Arc;

use roost_model::{Binding, BindingMode, InstanceMode, OnFailure, Selector};
use roost_policy::{
    ActivePlugin, CallOutcome, CallRecord, Decision, Facts, PolicyHost, PolicyRuntime,
    RuntimeConfig, Subject,
};

use crate::cases::{Case, Size};
use crate::facts::Host;

pub(crate) struct Roost {
    host: PolicyHost,
    subject: Subject,
}

impl Roost {
    /// Has the policy of `case` decide, on a host of so many VMs.
    pub(crate) fn new(case: &Case, size: Size, instance: InstanceMode) -> Self {
        let runtime = PolicyRuntime::with(RuntimeConfig {
            services: Some(Arc::new(Host(size))),
            ..RuntimeConfig::default()
        });
        let host = PolicyHost::new(runtime.expect("an engine"));
        let plugin = host
            .runtime()
            .load_with(&case.component, &case.grants.iter().copied().collect());
        host.set_active(vec![ActivePlugin {
            name: "measured".to_owned(),
            revision: 1,
            settings: "{}".to_owned(),
            plugin: plugin.expect("a policy"),
            bindings: vec![Binding {
                hook: case.hook,
                plugin: "measured".parse().expect("a name"),
                selector: Selector::default(),
                priority: 0,
                mode: BindingMode::Enforce,
                on_failure: OnFailure::Builtin,
                instance,
            }],
        }]);
        let subject = Subject {
            tenant: "acme".to_owned(),
            ..Subject::default()
        };
        Self { host, subject }
    }

    /// Asks; returns what was written down.
    pub(crate) fn ask(&self, facts: Facts) -> Vec<CallRecord> {
        match facts {
            Facts::Admission(facts) => self.host.admission(facts).calls,
            Facts::Cleanup(facts) => self.host.cleanup(facts, &self.subject).calls,
            Facts::Recovery(facts) => self.host.recovery(facts).calls,
            Facts::Billing(facts) => self.host.billing(facts).calls,
            Facts::Observer(facts) => {
                let observed = self
                    .host
                    .observe(facts.context, &facts.event, &self.subject);
                observed.calls
            }
        }
    }

    /// Its decision.
    pub(crate) fn decide(&self, facts: Facts) -> Decision {
        match self.ask(facts).remove(0).outcome {
            CallOutcome::Decision(decision) => decision,
            CallOutcome::Error(failure) => panic!("{}", failure.message),
        }
    }
}
