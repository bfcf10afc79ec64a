//! What is written down of a call: for the decision journal, events and the command line.

use std::collections::BTreeMap;

use roost_model::BindingMode;
use serde::{Deserialize, Serialize};

use crate::bindings::Level;
use crate::error::CallError;
use crate::facts::Decision;

/// One plugin that was asked, or would have been but for its quarantine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CallRecord {
    /// Its name.
    pub plugin: String,
    /// Its revision.
    pub revision: u64,
    /// Whether its decision was to be used.
    pub mode: BindingMode,
    /// What came of it.
    pub outcome: CallOutcome,
    /// How long it took, µs.
    pub elapsed_us: u64,
    /// Linear memory that the instance had in the end, bytes.
    pub memory_bytes: u64,
    /// What it wrote to the log.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<LogLine>,
    /// What it wants stored, if its decision is used.
    #[serde(skip_serializing_if = "KvChanges::is_empty")]
    pub kv: KvChanges,
}

/// What came of a call. In JSON `{"decision": …}` or `{"error": …}`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallOutcome {
    /// It decided, and it makes sense.
    Decision(Decision),
    /// It did not.
    Error(CallFailure),
}

/// Why a call made no decision, to be stored and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallFailure {
    /// Which kind of failure.
    pub kind: FailureKind,
    /// The trap's code, such as `stack-overflow`; for traps only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// One sentence for a person.
    pub message: String,
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// It trapped.
    Trap,
    /// It took too long.
    Deadline,
    /// The machine was too busy to give it its time. It is not the plugin's fault.
    Starved,
    /// It wanted more memory or tables than it may have.
    Memory,
    /// What it says makes no sense.
    Nonsense,
    /// It does not export the hook.
    NotExported,
    /// The host could not call it. It is not the plugin's fault.
    Host,
    /// It was not asked: its revision is quarantined.
    Quarantined,
}

impl From<&CallError> for CallFailure {
    fn from(error: &CallError) -> Self {
        Self {
            kind: error.kind(),
            code: error.code().map(str::to_owned),
            message: error.to_string(),
        }
    }
}

/// A line that a plugin wrote to the log, cleaned and cut.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// How much it matters.
    pub level: Level,
    /// What it says.
    pub message: String,
}

/// What a call wants stored of its plugin's values, in the transaction of the decision's effect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct KvChanges {
    /// By key: the value to store, or none to delete it.
    pub writes: BTreeMap<String, Option<Vec<u8>>>,
    /// By key: what it must still be when they are stored. Where one is not, nothing of the
    /// decision holds, and the plugin is to be asked again.
    pub expected: BTreeMap<String, Option<Vec<u8>>>,
}

impl KvChanges {
    /// Whether there is nothing to store.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.expected.is_empty()
    }
}
