//! The policies that come with the binary, and loading what is active when a host starts.

use roost_model::{
    Binding, BindingMode, Digest, EventKind, Hook, InstanceMode, Name, OnFailure, PluginRevision,
    RevisionState, Selector,
};
use roost_policy::{Bundled, bundled};
use roost_store::Change;

use crate::context::Context;
use crate::error::EngineError;
use crate::plugins::Push;
use crate::plugins::activate::make_active;

impl Context {
    /// Puts the bundled policies into the store, where this binary brings newer ones than it
    /// has, and loads everything that is active.
    pub(crate) async fn load_policies(&self) -> Result<(), EngineError> {
        for policy in bundled() {
            match self.load_bundled(policy).await {
                // The native policy decides; a host must not fail for want of another one.
                Err(error @ EngineError::Refused { .. }) => {
                    tracing::error!(policy = policy.name, %error, "a bundled policy is not used");
                }
                result => result?,
            }
        }
        self.restore_quarantines()?;
        let _guard = self.plugins.lock().await;
        let loaded = self.load_active(None, &self.store.bindings()?).await?;
        self.use_loaded(loaded);
        Ok(())
    }

    /// Stores, activates and binds a bundled policy, where that was not done before.
    async fn load_bundled(&self, policy: &Bundled) -> Result<(), EngineError> {
        let name: Name = policy.name.parse()?;
        let digest = Digest::new(roost_policy::digest(policy.bytes));
        let known = self.store.plugin(&name)?;
        let revisions = known.iter().flat_map(|plugin| plugin.revisions.iter());
        let mut of_digest = revisions.filter(|r| r.digest == digest);
        // What was retired is not brought back: an operator wanted another one.
        if of_digest.any(|r| r.state.is_usable() && r.state != RevisionState::Validated) {
            return Ok(());
        }
        let pushed: PluginRevision = self
            .push_plugin(Push {
                name: name.clone(),
                component: policy.bytes.to_vec(),
                settings: String::new(),
                grants: None,
            })
            .await?;
        // Together: a host that is killed in between would not know whether it had bound it.
        let _guard = self.plugins.lock().await;
        let mut plugin = self.plugin(&name)?;
        let is_first = plugin.active.is_none();
        plugin.previous = plugin.active;
        plugin.rolled_back = None;
        make_active(&mut plugin, pushed.revision);
        let activated = EventKind::PluginActivated {
            plugin: name.to_string(),
            revision: pushed.revision,
        };
        let mut changes = vec![
            Change::PutPlugin(plugin),
            Change::AppendEvent(self.host_event(activated)),
        ];
        // One that an operator unbound stays so.
        if is_first {
            let bound = EventKind::PluginBound {
                hook: policy.hook,
                plugin: name.to_string(),
            };
            changes.push(Change::PutBinding(binding(policy.hook, name)));
            changes.push(Change::AppendEvent(self.host_event(bound)));
        }
        self.store.commit(changes).await?;
        Ok(())
    }
}

/// Whether a component came with this binary.
pub(crate) fn is_bundled(digest: &Digest) -> bool {
    let is_it = |policy: &Bundled| roost_policy::digest(policy.bytes) == *digest.as_bytes();
    bundled().iter().any(is_it)
}

/// The binding of a bundled policy: below everything that an operator binds.
fn binding(hook: Hook, plugin: Name) -> Binding {
    Binding {
        hook,
        plugin,
        selector: Selector::default(),
        priority: 0,
        mode: BindingMode::Enforce,
        on_failure: OnFailure::Builtin,
        instance: InstanceMode::Fresh,
    }
}
