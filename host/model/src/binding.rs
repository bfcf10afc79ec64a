//! Which plugin has a say in what, for whom.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Hook, Name, Tenant};

/// Which VMs a binding is for. Empty: all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Selector {
    /// Only VMs of this tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Tenant>,
    /// Only VMs that have all of these labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl Selector {
    /// Whether a VM of `tenant` with `labels` is selected.
    #[must_use]
    pub fn selects(&self, tenant: &str, labels: &BTreeMap<String, String>) -> bool {
        self.tenant
            .as_ref()
            .is_none_or(|wanted| wanted.as_str() == tenant)
            && self
                .labels
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// A plugin's say in a hook. One per (hook, plugin).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// The decision.
    pub hook: Hook,
    /// The plugin whose active revision decides.
    pub plugin: Name,
    /// Which VMs it is for.
    #[serde(default)]
    pub selector: Selector,
    /// The highest one that selects the VM decides; bundled policies have 0.
    #[serde(default = "default_priority")]
    pub priority: i32,
    /// Whether its decision is used.
    #[serde(default)]
    pub mode: BindingMode,
    /// What happens when it does not decide.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// How long an instance of the component lives.
    #[serde(default)]
    pub instance: InstanceMode,
}

const fn default_priority() -> i32 {
    100
}

/// Whether a binding's decision is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BindingMode {
    /// It is.
    #[default]
    Enforce,
    /// It is recorded beside the one that was used.
    Monitor,
}

/// What happens when a binding's plugin fails to decide.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// The host's native policy decides; what is to be priced waits.
    #[default]
    Builtin,
    /// The binding of the next lower priority decides.
    Next,
    /// Admission is denied; every other hook takes the native policy.
    Deny,
}

/// How long an instance of a component lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceMode {
    /// For one call: nothing that it leaves in memory reaches another.
    #[default]
    Fresh,
    /// For a bounded number of calls, all of them for VMs of one tenant. Quicker; what one call
    /// leaves in memory the next one sees.
    Warm,
}
