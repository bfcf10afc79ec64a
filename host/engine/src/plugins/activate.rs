//! Which revision decides: activation, rollback, shadow. Each is one commit and one swap.

use roost_model::{EventKind, Hook, Name, Plugin, PluginRevision, RevisionState};
use roost_store::Change;

use crate::context::Context;
use crate::error::EngineError;

/// Makes `revision` the active one of `plugin`; the one before is retired.
pub(crate) fn make_active(plugin: &mut Plugin, revision: u64) {
    for candidate in &mut plugin.revisions {
        if candidate.revision == revision {
            candidate.state = RevisionState::Active;
        } else if Some(candidate.revision) == plugin.active {
            candidate.state = RevisionState::Retired;
        }
    }
    if plugin.shadow == Some(revision) {
        plugin.shadow = None;
    }
    plugin.active = Some(revision);
}

/// The state of a revision that is neither active nor in the shadow.
fn at_rest(plugin: &mut Plugin, revision: u64) {
    let found = plugin.revisions.iter_mut().find(|r| r.revision == revision);
    if let Some(found) = found {
        found.state = RevisionState::Validated;
    }
}

impl Context {
    /// Makes `revision`, or the newest usable one, the one that decides wherever the plugin is
    /// bound.
    pub(crate) async fn activate_plugin(
        &self,
        name: &Name,
        revision: Option<u64>,
    ) -> Result<Plugin, EngineError> {
        let plugin = {
            let _guard = self.plugins.lock().await;
            let mut plugin = self.plugin(name)?;
            let revision = usable(&plugin, revision)?.revision;
            if plugin.active == Some(revision) {
                return Ok(plugin);
            }
            self.demand_bound_hooks(&plugin, revision)?;
            plugin.previous = plugin.active;
            plugin.rolled_back = None;
            make_active(&mut plugin, revision);
            let activated = EventKind::PluginActivated {
                plugin: name.to_string(),
                revision,
            };
            self.swap(&plugin, activated).await?;
            plugin
        };
        self.collect(name).await;
        Ok(plugin)
    }

    /// Makes the revision that was active before decide again. Repeated, it changes nothing.
    pub(crate) async fn roll_back_plugin(&self, name: &Name) -> Result<Plugin, EngineError> {
        let _guard = self.plugins.lock().await;
        let mut plugin = self.plugin(name)?;
        let (from, to) = match (plugin.active, plugin.previous) {
            (Some(from), Some(to)) => (from, to),
            _ if plugin.rolled_back.is_some() => return Ok(plugin),
            _ => return Err(EngineError::NothingToRollBack(name.clone())),
        };
        usable(&plugin, Some(to))?;
        self.demand_bound_hooks(&plugin, to)?;
        make_active(&mut plugin, to);
        plugin.previous = None;
        plugin.rolled_back = Some(from);
        let rolled_back = EventKind::PluginRolledBack {
            plugin: name.to_string(),
            from,
            revision: to,
        };
        self.swap(&plugin, rolled_back).await?;
        Ok(plugin)
    }

    /// Has `revision`, or the newest usable one, asked beside the active one.
    pub(crate) async fn shadow_plugin(
        &self,
        name: &Name,
        revision: Option<u64>,
    ) -> Result<Plugin, EngineError> {
        let _guard = self.plugins.lock().await;
        let mut plugin = self.plugin(name)?;
        if plugin.active.is_none() {
            return Err(EngineError::NotActive(name.clone()));
        }
        let revision = usable(&plugin, revision)?.revision;
        if plugin.shadow == Some(revision) {
            return Ok(plugin);
        }
        if plugin.active == Some(revision) {
            return Err(EngineError::RevisionNotUsable {
                plugin: name.clone(),
                revision,
                state: RevisionState::Active.name(),
            });
        }
        if let Some(before) = plugin.shadow {
            at_rest(&mut plugin, before);
        }
        plugin.shadow = Some(revision);
        for candidate in &mut plugin.revisions {
            if candidate.revision == revision {
                candidate.state = RevisionState::Shadow;
            }
        }
        let shadowed = EventKind::PluginShadowed {
            plugin: name.to_string(),
            revision,
        };
        self.swap(&plugin, shadowed).await?;
        Ok(plugin)
    }

    /// Has no revision asked beside the active one.
    pub(crate) async fn unshadow_plugin(&self, name: &Name) -> Result<(), EngineError> {
        let _guard = self.plugins.lock().await;
        let mut plugin = self.plugin(name)?;
        let Some(revision) = plugin.shadow.take() else {
            return Ok(());
        };
        at_rest(&mut plugin, revision);
        let ended = EventKind::PluginShadowEnded {
            plugin: name.to_string(),
            revision,
        };
        self.swap(&plugin, ended).await
    }

    /// Loads what is to decide with `plugin` as it will be, commits it, swaps it in. The lock on
    /// plugins must be held.
    async fn swap(&self, plugin: &Plugin, event: EventKind) -> Result<(), EngineError> {
        let before = self.plugin(&plugin.name)?;
        let bindings = self.store.bindings()?;
        let loaded = self.load_active(Some(plugin), &bindings).await?;
        let changes = vec![
            Change::PutPlugin(plugin.clone()),
            Change::AppendEvent(self.host_event(event)),
        ];
        self.store.commit(changes).await?;
        self.readmit_changed(&before, plugin);
        self.use_loaded(loaded);
        Ok(())
    }

    /// A revision must export what the plugin is bound to: or its calls would all fail.
    fn demand_bound_hooks(&self, plugin: &Plugin, revision: u64) -> Result<(), EngineError> {
        let exported = |hook: Hook| {
            let revision = plugin.revision(revision);
            revision.is_some_and(|r| r.hooks.contains(&hook))
        };
        let bindings = self.store.bindings()?;
        let mut of_plugin = bindings.iter().filter(|b| b.plugin == plugin.name);
        match of_plugin.find(|b| !exported(b.hook)) {
            None => Ok(()),
            Some(binding) => Err(EngineError::HookBound {
                plugin: plugin.name.clone(),
                revision,
                hook: binding.hook,
            }),
        }
    }
}

/// The revision that is meant: by its number, or the newest that can be used.
pub(crate) fn usable(
    plugin: &Plugin,
    revision: Option<u64>,
) -> Result<&PluginRevision, EngineError> {
    let name = || plugin.name.clone();
    let Some(number) = revision else {
        let newest = plugin.revisions.iter().rev().find(|r| r.state.is_usable());
        return newest.ok_or_else(|| EngineError::NothingUsable(name()));
    };
    let found = plugin
        .revision(number)
        .ok_or_else(|| EngineError::RevisionNotFound {
            plugin: name(),
            revision: number,
        })?;
    if found.state.is_usable() {
        Ok(found)
    } else {
        Err(EngineError::RevisionNotUsable {
            plugin: name(),
            revision: number,
            state: found.state.name(),
        })
    }
}
