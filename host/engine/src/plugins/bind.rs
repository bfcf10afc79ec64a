//! Which plugin has a say in what.

use roost_model::{Binding, EventKind, Hook, Name};
use roost_store::Change;

use crate::context::Context;
use crate::error::EngineError;

impl Context {
    /// Gives a plugin a say in a hook, or changes the say that it has.
    pub(crate) async fn bind(&self, binding: Binding) -> Result<Binding, EngineError> {
        let _guard = self.plugins.lock().await;
        let plugin = self.plugin(&binding.plugin)?;
        let active = plugin
            .active_revision()
            .ok_or_else(|| EngineError::NotActive(binding.plugin.clone()))?;
        if !active.hooks.contains(&binding.hook) {
            let (plugin, hook) = (binding.plugin.clone(), binding.hook);
            return Err(EngineError::NotExported { plugin, hook });
        }
        let mut bindings = self.store.bindings()?;
        if bindings.contains(&binding) {
            return Ok(binding);
        }
        bindings.retain(|b| (b.hook, &b.plugin) != (binding.hook, &binding.plugin));
        bindings.push(binding.clone());
        let bound = EventKind::PluginBound {
            hook: binding.hook,
            plugin: binding.plugin.to_string(),
        };
        self.swap_bindings(&bindings, Change::PutBinding(binding.clone()), bound)
            .await?;
        Ok(binding)
    }

    /// Takes a plugin's say in a hook away.
    pub(crate) async fn unbind(&self, hook: Hook, plugin: &Name) -> Result<(), EngineError> {
        let _guard = self.plugins.lock().await;
        let mut bindings = self.store.bindings()?;
        let before = bindings.len();
        bindings.retain(|b| (b.hook, &b.plugin) != (hook, plugin));
        if bindings.len() == before {
            return Err(EngineError::BindingNotFound {
                plugin: plugin.clone(),
                hook,
            });
        }
        let removed = Change::RemoveBinding {
            hook,
            plugin: plugin.clone(),
        };
        let unbound = EventKind::PluginUnbound {
            hook,
            plugin: plugin.to_string(),
        };
        self.swap_bindings(&bindings, removed, unbound).await
    }

    async fn swap_bindings(
        &self,
        bindings: &[Binding],
        change: Change,
        event: EventKind,
    ) -> Result<(), EngineError> {
        let loaded = self.load_active(None, bindings).await?;
        let event = Change::AppendEvent(self.host_event(event));
        self.store.commit(vec![change, event]).await?;
        self.use_loaded(loaded);
        Ok(())
    }
}
