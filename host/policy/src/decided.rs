//! A decision and how it came about.

use std::time::Instant;

use roost_model::DecidedBy;

use crate::bindings::{
    AdmissionDecision, AdmissionFacts, BillingFacts, Charge, CleanupDecision, CleanupFacts,
    RecoveryDecision, RecoveryFacts,
};
use crate::facts::Facts;
use crate::question::Question;
use crate::record::CallRecord;
use crate::strikes::Quarantine;

/// A plugin that was asked and did not decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFailure {
    /// Its name.
    pub plugin: String,
    /// Its revision.
    pub revision: u64,
    /// What went wrong.
    pub error: String,
}

/// A revision that was quarantined, tried again in vain, or readmitted by a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineChange {
    /// The plugin's name.
    pub plugin: String,
    /// Its revision.
    pub revision: u64,
    /// Its quarantine as it is now; none if it is trusted again. To be stored, and given to
    /// [`PolicyHost::restore_quarantine`](crate::PolicyHost::restore_quarantine) at the next start.
    pub now: Option<Quarantine>,
}

/// A decision and how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Decided<T> {
    /// The decision.
    pub decision: T,
    /// Who made it.
    pub by: DecidedBy,
    /// Whether the native policy made it in the place of somebody who should have and did not.
    pub fell_back: bool,
    /// Who was asked and did not, those included that only monitor. Those that were not asked
    /// because of their quarantine are not among them.
    pub failures: Vec<PolicyFailure>,
    /// How long all calls took together, µs.
    pub elapsed_us: u64,
    /// Each plugin that was asked, in the order in which they were, and those that would have been
    /// but for their quarantine.
    pub calls: Vec<CallRecord>,
    /// What was asked, with the settings of the plugin that decided, or of the last one that was
    /// asked to. [`Facts::to_json`] makes the journal's form of it.
    pub facts: Facts,
    /// Whose trust changed by it.
    pub quarantine: Vec<QuarantineChange>,
}

/// The native policy's decision, for when no call can be made at all.
macro_rules! native {
    ($facts:ty, $decision:ty) => {
        /// What the native policy decides, without anybody being asked: for a host that is going
        /// down.
        impl From<$facts> for Decided<$decision> {
            fn from(facts: $facts) -> Self {
                Self {
                    decision: facts.builtin(),
                    by: DecidedBy::Builtin,
                    fell_back: true,
                    failures: Vec::new(),
                    elapsed_us: 0,
                    calls: Vec::new(),
                    facts: facts.into_facts(),
                    quarantine: Vec::new(),
                }
            }
        }
    };
}

native!(AdmissionFacts, AdmissionDecision);
native!(CleanupFacts, CleanupDecision);
native!(RecoveryFacts, RecoveryDecision);
native!(BillingFacts, Vec<Charge>);

/// µs since `started`.
pub(crate) fn micros(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX)
}
