//! The set that decides: loaded from the store's plugins and bindings, and swapped in at once.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use roost_model::{Binding, BindingMode, CallMode, Digest, Hook, Name, Plugin, PluginRevision};
use roost_policy::{ActivePlugin, CallRecord, LoadedPlugin};

use crate::context::Context;
use crate::error::EngineError;
use crate::images::blocking;

/// What is to decide.
pub(crate) struct Loaded {
    active: Vec<ActivePlugin>,
    /// By plugin: its revision that is asked beside the active one.
    shadows: BTreeMap<String, u64>,
    /// Whether anybody observes.
    observes: bool,
}

/// What the engine knows of the set that decides.
#[derive(Debug, Default)]
pub(crate) struct InUse {
    shadows: BTreeMap<String, u64>,
    observes: bool,
}

impl Context {
    /// Loads every plugin that is active and bound, taking `changed` for what the store has.
    pub(crate) async fn load_active(
        &self,
        changed: Option<&Plugin>,
        bindings: &[Binding],
    ) -> Result<Loaded, EngineError> {
        let bound: BTreeSet<&Name> = bindings.iter().map(|b| &b.plugin).collect();
        let mut loaded = Loaded {
            active: Vec::new(),
            shadows: BTreeMap::new(),
            observes: bindings.iter().any(|b| b.hook == Hook::Observer),
        };
        for name in bound {
            let is_changed = changed.is_some_and(|changed| changed.name == *name);
            let plugin = match changed {
                Some(plugin) if is_changed => plugin.clone(),
                _ => self.plugin(name)?,
            };
            let of_plugin: Vec<Binding> = (bindings.iter().filter(|b| b.plugin == *name))
                .cloned()
                .collect();
            if let Some(revision) = plugin.active_revision() {
                let active = self.load_revision(name, revision, of_plugin.clone()).await;
                loaded.active.extend(usable(name, active, is_changed)?);
            }
            if let Some(revision) = plugin.shadow_revision() {
                let watching = of_plugin
                    .into_iter()
                    .filter(|b| revision.hooks.contains(&b.hook));
                let watching = watching.map(|binding| Binding {
                    mode: BindingMode::Monitor,
                    ..binding
                });
                let shadow = self.load_revision(name, revision, watching.collect()).await;
                if let Some(shadow) = usable(name, shadow, is_changed)? {
                    loaded.shadows.insert(shadow.name.clone(), shadow.revision);
                    loaded.active.push(shadow);
                }
            }
        }
        Ok(loaded)
    }

    async fn load_revision(
        &self,
        name: &Name,
        revision: &PluginRevision,
        bindings: Vec<Binding>,
    ) -> Result<ActivePlugin, EngineError> {
        Ok(ActivePlugin {
            name: name.to_string(),
            revision: revision.revision,
            settings: revision.settings.clone(),
            plugin: self.load(revision).await?,
            bindings,
        })
    }

    /// Swaps in what was loaded. Calls in flight finish on what they started with.
    pub(crate) fn use_loaded(&self, loaded: Loaded) {
        let Loaded {
            active,
            shadows,
            observes,
        } = loaded;
        self.with_in_use(|in_use| *in_use = InUse { shadows, observes });
        self.policies.set_active(active);
    }

    /// Why `call` was made.
    pub(crate) fn call_mode(&self, call: &CallRecord) -> CallMode {
        match call.mode {
            BindingMode::Enforce => CallMode::Enforce,
            BindingMode::Monitor => self.with_in_use(|in_use| {
                if in_use.shadows.get(&call.plugin) == Some(&call.revision) {
                    CallMode::Shadow
                } else {
                    CallMode::Monitor
                }
            }),
        }
    }

    /// Whether anybody observes.
    pub(crate) fn has_observers(&self) -> bool {
        self.with_in_use(|in_use| in_use.observes)
    }

    /// The component of a revision, compiled. One that decides already is not compiled again.
    pub(crate) async fn load(
        &self,
        revision: &PluginRevision,
    ) -> Result<LoadedPlugin, EngineError> {
        if let Some(loaded) = self.policies.loaded(revision.digest.as_bytes()) {
            return Ok(loaded);
        }
        let component = self.read_component(&revision.digest).await?;
        self.compile(component.into(), revision.grants.clone())
            .await
    }

    pub(crate) async fn read_component(&self, digest: &Digest) -> Result<Vec<u8>, EngineError> {
        let mut file = self.blobs.get(digest)?;
        let digest = *digest;
        blocking(move || {
            let mut component = Vec::new();
            file.read_to_end(&mut component).map_err(|source| {
                EngineError::Blob(roost_store::BlobError::Unreadable { digest, source })
            })?;
            Ok(component)
        })
        .await?
    }

    pub(crate) fn plugin(&self, name: &Name) -> Result<Plugin, EngineError> {
        self.store
            .plugin(name)?
            .ok_or_else(|| EngineError::PluginNotFound(name.clone()))
    }
}

/// A plugin that can't be loaded any more must not keep the others from deciding; the one that is
/// being changed must load.
fn usable(
    name: &Name,
    loaded: Result<ActivePlugin, EngineError>,
    is_changed: bool,
) -> Result<Option<ActivePlugin>, EngineError> {
    match loaded {
        Err(error) if !is_changed => {
            tracing::error!(plugin = %name, %error, "an active plugin is not used");
            Ok(None)
        }
        loaded => loaded.map(Some),
    }
}
