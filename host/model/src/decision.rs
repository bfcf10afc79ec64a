//! Decisions of policies, as the journal keeps them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{DecidedBy, Hook, Tenant, VmId};

/// A decision in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// Position in the journal, from 1; those of decisions that are forgotten are not given again.
    pub number: u64,
    /// The decision.
    #[serde(flatten)]
    pub decision: NewDecision,
}

/// A decision that has no number yet; the store gives it one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewDecision {
    /// When it was made, ms since the Unix epoch.
    pub at_ms: u64,
    /// What was to be decided.
    pub hook: Hook,
    /// About which VM. For a create that was denied there is none under this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<VmId>,
    /// Whose VM, where that is known: a cleanup may outlive the VM's record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Tenant>,
    /// Which incarnation of the VM, if it was booted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<u64>,
    /// What the policies were told, without the settings of any plugin. Null where it was too
    /// large to be kept; then nothing can be replayed.
    pub facts: Value,
    /// What was decided. Null where it was too large to be kept.
    pub decision: Value,
    /// Who decided.
    pub decided_by: DecidedBy,
    /// Who was asked, in that order.
    #[serde(default)]
    pub calls: Vec<DecisionCall>,
    /// Whether a call that was not used, monitoring or shadow, decided otherwise.
    #[serde(default)]
    pub differs: bool,
    /// Time from the question to the decision, µs.
    #[serde(default)]
    pub elapsed_us: u64,
}

/// One plugin that was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionCall {
    /// Its name.
    pub plugin: String,
    /// Its revision.
    pub revision: u64,
    /// Why it was asked.
    pub mode: CallMode,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: CallOutcome,
    /// Whether it decided otherwise than what was used.
    #[serde(default)]
    pub differs: bool,
    /// Time that the call took, µs.
    #[serde(default)]
    pub latency_us: u64,
}

/// Why a plugin was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallMode {
    /// Its decision is used.
    Enforce,
    /// Its binding only monitors.
    Monitor,
    /// Its revision is in the shadow of the active one.
    Shadow,
}

impl CallMode {
    /// As it stands in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Monitor => "monitor",
            Self::Shadow => "shadow",
        }
    }
}

/// What came of asking a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum CallOutcome {
    /// It decided. Only what differs from the decision that was used is kept.
    Decided {
        /// What.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        decision: Option<Value>,
    },
    /// It made no decision.
    Failed {
        /// Kind of failure: stable, for programs.
        failure: String,
        /// What went wrong, for a person.
        error: String,
    },
    /// It is in quarantine and was not asked.
    Quarantined,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_keeps_its_shape_and_every_number() {
        let json = serde_json::json!({
            "number": 7, "at_ms": 1, "hook": "cleanup",
            "facts": { "context": { "seed": u64::MAX } },
            "decision": { "retry-after": 200 },
            "decided_by": { "by": "builtin" },
            "calls": [
                { "plugin": "a", "revision": 1, "mode": "enforce", "outcome": "failed",
                  "failure": "deadline", "error": "it did not answer", "differs": false,
                  "latency_us": 50_000 },
                { "plugin": "b", "revision": 2, "mode": "shadow", "outcome": "decided",
                  "decision": { "retry-after": 300 }, "differs": true, "latency_us": 20 },
                { "plugin": "c", "revision": 3, "mode": "monitor", "outcome": "quarantined",
                  "differs": false, "latency_us": 0 }
            ],
            "differs": true, "elapsed_us": 50_100
        });
        let record: DecisionRecord = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(&record).unwrap(), json);
    }
}
