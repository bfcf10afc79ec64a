//! The event log: append-only, numbered, everything that happened to VMs and policies.

use serde::{Deserialize, Serialize};

use crate::{
    ActionId, Charge, CleanupId, DecidedBy, DivergenceKind, GuestExit, Hook, IncidentId,
    IncidentKind, OperationId, RecoveryAction, Repair, Resolution, Tenant, UsageWindow, Verb, VmId,
};

/// An event as the log holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Position in the log, from 1, without gaps.
    pub number: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: NewEvent,
}

/// An event that has no number yet; the store gives it one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewEvent {
    /// When, ms since the Unix epoch.
    pub at_ms: u64,
    /// Which VM, if one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<VmId>,
    /// Whose VM, if one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Tenant>,
    /// Which incarnation of the VM, if one was meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<u64>,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum EventKind {
    /// A host process opened the store.
    HostStarted {
        /// Its process id.
        pid: u32,
    },
    /// The node takes no more VMs and shuts down those that run.
    NodeDraining {
        /// When guests that have not ended by themselves are stopped, ms since the Unix epoch.
        stop_at_ms: u64,
    },
    /// The node takes VMs again.
    NodeDrainEnded,
    /// An observed state was written.
    StateChanged {
        /// The state before.
        from: String,
        /// The state now.
        to: String,
    },
    /// An operation ended.
    OperationEnded {
        /// Which.
        operation: OperationId,
        /// What it did.
        verb: Verb,
        /// The error, if it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// Why it was called off, if it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cancelled: Option<String>,
    },
    /// A worker runs this incarnation.
    WorkerStarted {
        /// Its process id.
        pid: u32,
    },
    /// A host process took over a worker that an earlier one had started.
    WorkerAdopted {
        /// Its process id.
        pid: u32,
    },
    /// The guest's execution ended.
    GuestExited {
        /// How.
        #[serde(flatten)]
        exit: GuestExit,
    },
    /// Something happened that nobody asked for.
    IncidentOpened {
        /// Which.
        incident: IncidentId,
        /// What happened.
        #[serde(flatten)]
        incident_kind: IncidentKind,
    },
    /// A policy decided what to do about an incident.
    RecoveryDecided {
        /// Which.
        incident: IncidentId,
        /// What will be done.
        #[serde(flatten)]
        action: RecoveryAction,
        /// Who decided.
        decided_by: DecidedBy,
        /// Why, in the policy's words.
        reason: String,
    },
    /// A cleanup attempt failed and a policy decided when to try again.
    CleanupRetried {
        /// Which.
        task: CleanupId,
        /// Attempts so far.
        attempts: u32,
        /// Delay before the next, ms.
        delay_ms: u64,
        /// The error.
        error: String,
        /// Who decided.
        decided_by: DecidedBy,
    },
    /// A person must act.
    ActionRequired {
        /// Which.
        action: ActionId,
        /// What to do.
        what: String,
    },
    /// What a person had to do is done.
    ActionResolved {
        /// Which.
        action: ActionId,
        /// How.
        #[serde(flatten)]
        resolution: Resolution,
    },
    /// An audit found that records and the node do not agree.
    Diverged {
        /// What does not agree.
        #[serde(flatten)]
        found: DivergenceKind,
        /// What is done about it.
        #[serde(flatten)]
        repair: Repair,
    },
    /// A usage window was closed.
    WindowClosed {
        /// The window.
        window: UsageWindow,
    },
    /// A billing policy charged for a window.
    Charged {
        /// The charges.
        charges: Vec<Charge>,
        /// Who decided.
        decided_by: DecidedBy,
    },
    /// A plugin's revision was stored and validated.
    PluginPushed {
        /// The plugin.
        plugin: String,
        /// The revision.
        revision: u64,
    },
    /// A plugin's revision is now the one that decides.
    PluginActivated {
        /// The plugin.
        plugin: String,
        /// The revision.
        revision: u64,
    },
    /// A plugin's revision was refused.
    PluginRefused {
        /// The plugin.
        plugin: String,
        /// The revision.
        revision: u64,
        /// Why.
        reason: String,
    },
    /// A plugin went back to the revision that was active before.
    PluginRolledBack {
        /// The plugin.
        plugin: String,
        /// The revision that it left.
        from: u64,
        /// The revision that decides now.
        revision: u64,
    },
    /// A plugin's revision is now asked beside the active one.
    PluginShadowed {
        /// The plugin.
        plugin: String,
        /// The revision.
        revision: u64,
    },
    /// A plugin's revision is no longer asked beside the active one.
    PluginShadowEnded {
        /// The plugin.
        plugin: String,
        /// The revision.
        revision: u64,
    },
    /// A revision failed so often that it is not asked for a while.
    PluginQuarantined {
        /// The plugin.
        plugin: String,
        /// The revision.
        revision: u64,
        /// The last failure.
        reason: String,
        /// When it is tried again, ms since the Unix epoch.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until_ms: Option<u64>,
    },
    /// A revision is asked again after a quarantine.
    PluginReadmitted {
        /// The plugin.
        plugin: String,
        /// The revision.
        revision: u64,
        /// Whether an operator did it, rather than the time that passed.
        by_operator: bool,
    },
    /// A binding was set.
    PluginBound {
        /// The hook.
        hook: Hook,
        /// The plugin.
        plugin: String,
    },
    /// A binding was removed.
    PluginUnbound {
        /// The hook.
        hook: Hook,
        /// The plugin.
        plugin: String,
    },
    /// A plugin did not decide, and something else did.
    PolicyFailed {
        /// The hook.
        hook: Hook,
        /// The plugin.
        plugin: String,
        /// The revision.
        revision: u64,
        /// What went wrong.
        error: String,
    },
}
