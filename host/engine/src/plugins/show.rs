//! A plugin as an operator sees it.

use roost_model::{Binding, Name, Plugin, Quarantine};
use roost_policy::PluginStatistics;
use roost_store::KvUsage;
use serde::Serialize;

use crate::context::Context;
use crate::error::EngineError;

/// A plugin with all that is known of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PluginReport {
    /// The plugin and its revisions.
    #[serde(flatten)]
    pub plugin: Plugin,
    /// What it has a say in.
    pub bindings: Vec<Binding>,
    /// How its revisions do, by hook, since the host started.
    pub statistics: Vec<PluginStatistics>,
    /// Why the active revision is not asked, if so.
    pub quarantine: Option<Quarantine>,
    /// What it keeps.
    pub kv: KvReport,
}

/// What a plugin keeps, and may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct KvReport {
    /// Keys.
    pub keys: u64,
    /// Keys and values together, bytes.
    pub bytes: u64,
    /// Most keys.
    pub max_keys: u64,
    /// Most bytes.
    pub max_bytes: u64,
}

impl Context {
    /// All that is known of a plugin.
    pub(crate) fn show_plugin(&self, name: &Name) -> Result<PluginReport, EngineError> {
        let mut plugin = self.plugin(name)?;
        self.show_quarantines(&mut plugin);
        let mut bindings = self.store.bindings()?;
        bindings.retain(|binding| binding.plugin == *name);
        let mut statistics = self.policies.statistics();
        statistics.retain(|of_plugin| of_plugin.plugin == name.as_str());
        let KvUsage { keys, bytes } = self.store.snapshot()?.kv_usage(name)?;
        let quota = self.config.kv_quota;
        let active = plugin
            .active
            .map(|revision| self.store.quarantine(name, revision));
        let quarantine = active.transpose()?.flatten();
        Ok(PluginReport {
            plugin,
            bindings,
            statistics,
            quarantine,
            kv: KvReport {
                keys,
                bytes,
                max_keys: quota.keys,
                max_bytes: quota.bytes,
            },
        })
    }
}
