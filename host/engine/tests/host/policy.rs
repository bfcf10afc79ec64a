//! Having a component decide.

use roost_engine::Push;
use roost_model::{
    Binding, BindingMode, Hook, InstanceMode, Name, OnFailure, Plugin, PluginRevision, Selector,
};

use super::Host;

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
