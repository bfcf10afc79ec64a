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
pub(crate) use host::policy::{binding, name, push};
use roost_engine::{DecisionFilter, Order};
use roost_model::*;

impl Host {
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
