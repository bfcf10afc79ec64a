//! Plugins as callers of the engine see them.

use std::fs::File;

use roost_model::{Binding, DecisionRecord, Hook, Name, Plugin, PluginRevision};
use roost_store::BlobError;

use crate::engine::Engine;
use crate::error::EngineError;
use crate::images::blocking;
use crate::plugins::{PluginLogLine, PluginReport, Push, Replay, ReplayReport};

impl Engine {
    /// Stores a component as the next revision of a plugin, compiles and inspects it and asks
    /// whether it takes its settings. Pushing the newest revision again changes nothing.
    ///
    /// # Errors
    /// The component or its settings are refused; then the revision is kept with the reason.
    pub async fn push_plugin(&self, push: Push) -> Result<PluginRevision, EngineError> {
        self.context.push_plugin(push).await
    }

    /// Makes `revision`, or the newest usable one, the one that decides wherever the plugin is
    /// bound.
    ///
    /// # Errors
    /// There is no such plugin or revision, or the revision can't be used.
    pub async fn activate_plugin(
        &self,
        name: &Name,
        revision: Option<u64>,
    ) -> Result<Plugin, EngineError> {
        self.context.activate_plugin(name, revision).await
    }

    /// Makes the revision that was active before decide again. Repeated, it changes nothing, until
    /// another revision is activated.
    ///
    /// # Errors
    /// There is no such plugin, or none of its revisions was active before.
    pub async fn roll_back_plugin(&self, name: &Name) -> Result<Plugin, EngineError> {
        self.context.roll_back_plugin(name).await
    }

    /// Has `revision`, or the newest usable one, asked beside the active one. Its decisions are
    /// recorded and not used.
    ///
    /// # Errors
    /// There is no such plugin or revision, it can't be used, or it is the active one.
    pub async fn shadow_plugin(
        &self,
        name: &Name,
        revision: Option<u64>,
    ) -> Result<Plugin, EngineError> {
        self.context.shadow_plugin(name, revision).await
    }

    /// Has no revision asked beside the active one.
    ///
    /// # Errors
    /// There is no such plugin.
    pub async fn unshadow_plugin(&self, name: &Name) -> Result<(), EngineError> {
        self.context.unshadow_plugin(name).await
    }

    /// Ends the quarantines of a plugin's active revision and of the one in its shadow. None there:
    /// fine.
    ///
    /// # Errors
    /// There is no such plugin.
    pub fn readmit_plugin(&self, name: &Name) -> Result<Plugin, EngineError> {
        self.context.readmit_plugin(name)
    }

    /// Every plugin, by name.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn plugins(&self) -> Result<Vec<Plugin>, EngineError> {
        let mut plugins = self.context.store.plugins()?;
        for plugin in &mut plugins {
            self.context.show_quarantines(plugin);
        }
        Ok(plugins)
    }

    /// Gives a plugin a say in a hook, or changes the say that it has.
    ///
    /// # Errors
    /// The plugin is not there, not active, or does not export the hook.
    pub async fn bind(&self, binding: Binding) -> Result<Binding, EngineError> {
        self.context.bind(binding).await
    }

    /// Takes a plugin's say in a hook away.
    ///
    /// # Errors
    /// It had none.
    pub async fn unbind(&self, hook: Hook, plugin: &Name) -> Result<(), EngineError> {
        self.context.unbind(hook, plugin).await
    }

    /// A plugin with all that is known of it.
    ///
    /// # Errors
    /// There is no such plugin.
    pub fn show_plugin(&self, name: &Name) -> Result<PluginReport, EngineError> {
        self.context.show_plugin(name)
    }

    /// What a plugin logged and how it failed, after line `after`, oldest first.
    ///
    /// # Errors
    /// There is no such plugin.
    pub fn plugin_logs(
        &self,
        name: &Name,
        after: u64,
        limit: usize,
    ) -> Result<Vec<PluginLogLine>, EngineError> {
        self.context.plugin(name)?;
        Ok(self.context.plugin_logs.read(name.as_str(), after, limit))
    }

    /// The component of a revision, as it was pushed.
    ///
    /// # Errors
    /// There is no such plugin or revision, or its component is not kept.
    pub fn component(&self, name: &Name, revision: u64) -> Result<File, EngineError> {
        let plugin = self.context.plugin(name)?;
        let (plugin, found) = (name.clone(), plugin.revision(revision));
        let digest = match found {
            Some(found) => found.digest,
            None => return Err(EngineError::RevisionNotFound { plugin, revision }),
        };
        match self.context.blobs.get(&digest) {
            Err(BlobError::Missing(_)) => Err(EngineError::ComponentNotKept { plugin, revision }),
            file => Ok(file?),
        }
    }

    /// Asks a candidate about recorded facts. Nothing is stored and nothing is done.
    ///
    /// # Errors
    /// The candidate is refused, or another replay runs.
    pub async fn replay(&self, replay: Replay) -> Result<ReplayReport, EngineError> {
        self.context.replay(replay).await
    }

    /// A decision of the journal.
    ///
    /// # Errors
    /// There is none, or it is forgotten.
    pub fn decision(&self, number: u64) -> Result<DecisionRecord, EngineError> {
        let found = self.context.store.decision(number)?;
        found.ok_or(EngineError::DecisionNotFound(number))
    }

    /// All metrics of the host, in the text format of Prometheus.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn metrics(&self) -> Result<String, EngineError> {
        let context = std::sync::Arc::clone(&self.context);
        blocking(move || context.metrics_text()).await?
    }

    /// The names of all metrics.
    #[must_use]
    pub fn metric_names() -> &'static [&'static str] {
        crate::metrics::NAMES
    }
}
