//! Changing what decides on a running host, and what is known of decisions afterwards.

#[path = "../host/mod.rs"]
mod host;

mod billing;
mod changing;
mod deciding;
mod observing;
mod quarantine;
mod replay;
mod values;

use host::Host;
use roost_engine::{DecisionFilter, Order, Push};
use roost_model::*;

impl Host {
    pub(crate) async fn push(&self, plugin: &str, component: Vec<u8>) -> PluginRevision {
        let pushed = self.engine.push_plugin(push(plugin, component)).await;
        pushed.unwrap()
    }

    /// Pushes, activates and binds above the bundled policies.
    pub(crate) async fn install(&self, plugin: &str, hook: Hook, component: Vec<u8>) {
        self.push(plugin, component).await;
        self.activate(plugin, None).await;
        self.engine.bind(binding(plugin, hook)).await.unwrap();
    }

    pub(crate) async fn activate(&self, plugin: &str, revision: Option<u64>) -> Plugin {
        let activated = self.engine.activate_plugin(&name(plugin), revision).await;
        activated.unwrap()
    }

    pub(crate) fn plugin(&self, plugin: &str) -> Plugin {
        self.engine.show_plugin(&name(plugin)).unwrap().plugin
    }

    /// All decisions of a hook, oldest first.
    pub(crate) fn decisions(&self, hook: Hook) -> Vec<NewDecision> {
        let filter = DecisionFilter {
            hook: Some(hook),
            ..DecisionFilter::default()
        };
        let order = Order::Oldest { after: 0 };
        let page = self.engine.store().decisions(&filter, order, usize::MAX);
        let items = page.unwrap().items.into_iter();
        items.map(|record| record.decision).collect()
    }
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn push(plugin: &str, component: Vec<u8>) -> Push {
    Push {
        name: name(plugin),
        component,
        settings: String::new(),
        grants: None,
    }
}

pub(crate) fn binding(plugin: &str, hook: Hook) -> Binding {
    Binding {
        hook,
        plugin: name(plugin),
        selector: Selector::default(),
        priority: 100,
        mode: BindingMode::Enforce,
        on_failure: OnFailure::Builtin,
        instance: InstanceMode::Fresh,
    }
}

/// Who decided, as a short text.
pub(crate) fn by(decided_by: &DecidedBy) -> String {
    match decided_by {
        DecidedBy::Plugin { plugin, revision } => format!("{plugin} {revision}"),
        DecidedBy::Builtin => "builtin".to_owned(),
    }
}

pub(crate) fn state(plugin: &Plugin, revision: u64) -> &'static str {
    plugin.revision(revision).unwrap().state.name()
}
