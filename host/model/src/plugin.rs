//! Plugins and their revisions.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{Digest, Grant, Hook, Name};

/// A named plugin with its revisions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plugin {
    /// The name.
    pub name: Name,
    /// The revision that decides, if one is active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<u64>,
    /// The revision that was active before: what a rollback goes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<u64>,
    /// The revision that a rollback left, until another one is activated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<u64>,
    /// The revision that is asked beside the active one and whose decisions are not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<u64>,
    /// By number, oldest first. Old ones that nothing needs are forgotten.
    pub revisions: Vec<PluginRevision>,
}

impl Plugin {
    /// A plugin without revisions.
    #[must_use]
    pub const fn new(name: Name) -> Self {
        Self {
            name,
            active: None,
            previous: None,
            rolled_back: None,
            shadow: None,
            revisions: Vec::new(),
        }
    }

    /// The revision of this number.
    #[must_use]
    pub fn revision(&self, number: u64) -> Option<&PluginRevision> {
        self.revisions.iter().find(|r| r.revision == number)
    }

    /// The revision that decides.
    #[must_use]
    pub fn active_revision(&self) -> Option<&PluginRevision> {
        self.active.and_then(|number| self.revision(number))
    }

    /// The revision in the shadow of the active one.
    #[must_use]
    pub fn shadow_revision(&self) -> Option<&PluginRevision> {
        self.shadow.and_then(|number| self.revision(number))
    }
}

/// One component under a plugin's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginRevision {
    /// From 1.
    pub revision: u64,
    /// SHA-256 of the component.
    pub digest: Digest,
    /// Size of the component, bytes.
    pub size_bytes: u64,
    /// The hooks that it exports.
    pub hooks: BTreeSet<Hook>,
    /// The version that it says it has.
    #[serde(default)]
    pub version: String,
    /// JSON that is passed to it with each call; `{}` if none was given.
    pub settings: String,
    /// The imports that it may use. One that imports more is refused.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub grants: BTreeSet<Grant>,
    /// Where it is in its life.
    #[serde(flatten)]
    pub state: RevisionState,
    /// ms since the Unix epoch.
    pub pushed_at_ms: u64,
}

/// Where a revision is in its life.
///
/// ```text
///   uploaded ──▶ compiled ──▶ validated ──▶ shadow ──▶ active ──▶ retired
///       └────────────┴──▶ failed   │                  ▲  │  ▲        │
///                                  └──────────────────┘  ▼  └────────┘
///                                                   quarantined
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum RevisionState {
    /// The component is stored; it is being compiled.
    Uploaded,
    /// It is being asked for its description and about its settings.
    Compiled,
    /// It can be activated.
    Validated,
    /// It is asked beside the active one; its decisions are recorded and not used.
    Shadow,
    /// It decides.
    Active,
    /// Another one decides now.
    Retired,
    /// It was refused.
    Failed {
        /// What was read and what was expected.
        reason: String,
    },
    /// It is the active one, or in the shadow, and failed so often that it is not asked for a
    /// while. It is shown so and not stored: see [`Quarantine`].
    Quarantined {
        /// The last failure.
        reason: String,
        /// When it is tried again, ms since the Unix epoch.
        until_ms: u64,
    },
}

impl RevisionState {
    /// As it stands in JSON.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Uploaded => "uploaded",
            Self::Compiled => "compiled",
            Self::Validated => "validated",
            Self::Shadow => "shadow",
            Self::Active => "active",
            Self::Retired => "retired",
            Self::Failed { .. } => "failed",
            Self::Quarantined { .. } => "quarantined",
        }
    }

    /// Whether a revision in this state has passed every check.
    #[must_use]
    pub const fn is_usable(&self) -> bool {
        !matches!(self, Self::Uploaded | Self::Compiled | Self::Failed { .. })
    }
}

/// A revision that is not asked because it failed too often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// The plugin.
    pub plugin: Name,
    /// The revision.
    pub revision: u64,
    /// The last failure.
    pub reason: String,
    /// Since when, ms since the Unix epoch.
    pub since_ms: u64,
    /// When it is tried again, ms since the Unix epoch.
    pub until_ms: u64,
    /// Quarantines in a row, from 1: each one lasts longer.
    pub round: u32,
}

/// Who made a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "kebab-case")]
pub enum DecidedBy {
    /// A plugin.
    Plugin {
        /// Its name.
        plugin: String,
        /// Its revision.
        revision: u64,
    },
    /// The host's native policy.
    Builtin,
}
