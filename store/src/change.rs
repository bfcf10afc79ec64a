//! What a commit is made of.

use std::collections::BTreeMap;

use roost_model::{
    ActionId, ActionRequired, Binding, Charge, CleanupId, CleanupTask, Drain, Event, Hook, Image,
    Incident, Name, NewDecision, NewEvent, OpenWindow, Operation, Plugin, Quarantine, Tenant,
    UsageWindow, VmId, VmRecord, WindowKey,
};
use serde::{Deserialize, Serialize};

/// What must hold for a VM's record to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// There is no such VM, and its name is free within its tenant.
    Absent,
    /// The record has this revision.
    Revision(u64),
}

/// One change of a commit.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a commit has a handful of changes, and every one of them is about to be serialized"
)]
pub enum Change {
    /// Writes a VM's record, with the revision that the caller gave it.
    PutVm {
        /// The record.
        record: VmRecord,
        /// What must hold.
        expect: Expect,
    },
    /// Removes a VM's record and frees its name. What windows that are not charged for need of it is
    /// kept.
    RemoveVm {
        /// The VM.
        id: VmId,
        /// The revision that it must have.
        revision: u64,
    },
    /// Journals an operation.
    PutOperation(Operation),
    /// Appends to the event log.
    AppendEvent(NewEvent),
    /// Writes that the node drains.
    PutDrain(Drain),
    /// Writes that the node does not drain. It did not: fine.
    RemoveDrain,
    /// Writes an incident.
    PutIncident(Incident),
    /// Writes a cleanup task.
    PutCleanup(CleanupTask),
    /// Removes a cleanup task. None there: fine.
    RemoveCleanup(CleanupId),
    /// Writes an action-required record.
    PutAction(ActionRequired),
    /// Removes an action-required record. None there: fine.
    RemoveAction(ActionId),
    /// Writes a plugin with its revisions.
    PutPlugin(Plugin),
    /// Writes a binding; there is one for each hook and plugin.
    PutBinding(Binding),
    /// Removes a binding. None there: fine.
    RemoveBinding {
        /// The hook.
        hook: Hook,
        /// The plugin.
        plugin: Name,
    },
    /// Appends to the journal of decisions; the oldest are forgotten.
    AppendDecision(NewDecision),
    /// Writes values of a plugin.
    WriteKv(KvWrite),
    /// Writes the quarantine of a plugin's revision.
    PutQuarantine(Quarantine),
    /// Removes the quarantine of a plugin's revision. None there: fine.
    RemoveQuarantine {
        /// The plugin.
        plugin: Name,
        /// The revision.
        revision: u64,
    },
    /// Writes an image; its tag, if it has one, points to it from now on.
    PutImage(Image),
    /// Writes a VM's open usage window.
    PutOpenWindow(OpenWindow),
    /// Removes a VM's open usage window. None there: fine.
    RemoveOpenWindow(VmId),
    /// Writes a closed window and puts it into the billing outbox. Once for each key.
    CloseWindow(UsageWindow),
    /// Takes a window from the outbox and writes its charges. With the last window of a VM that is
    /// removed, what was kept of its record is forgotten.
    Bill {
        /// The window.
        window: WindowKey,
        /// Its charges; none: it was free.
        charges: Vec<Charge>,
    },
}

/// What a decision wants stored of its plugin's values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvWrite {
    /// The plugin.
    pub plugin: Name,
    /// By key: the value to store, or none to delete it.
    pub writes: BTreeMap<String, Option<Vec<u8>>>,
    /// By key: what it must be before; none: not there.
    pub expected: BTreeMap<String, Option<Vec<u8>>>,
    /// What the plugin may keep. A write that makes it no larger is always taken.
    pub quota: KvUsage,
}

/// How much a plugin keeps, or may keep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvUsage {
    /// Keys.
    pub keys: u64,
    /// Keys and values together, bytes.
    pub bytes: u64,
}

impl KvUsage {
    /// With one more key of this length, bytes, and its value.
    pub(crate) const fn with(self, key: usize, value: usize) -> Self {
        Self {
            keys: self.keys.saturating_add(1),
            bytes: self.bytes.saturating_add(key as u64 + value as u64),
        }
    }

    /// Without one key of this length, bytes, and its value.
    pub(crate) const fn without(self, key: usize, value: usize) -> Self {
        Self {
            keys: self.keys.saturating_sub(1),
            bytes: self.bytes.saturating_sub(key as u64 + value as u64),
        }
    }
}

/// What a commit did beyond what it said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Committed {
    /// The events that it appended, with their numbers.
    pub events: Vec<Event>,
}

/// Why a commit was not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// There is a record already.
    #[error("{0} exists already")]
    VmExists(VmId),
    /// Another VM has the name.
    #[error("tenant {tenant} has a VM named {name} already: {by}")]
    NameTaken {
        /// The tenant.
        tenant: Tenant,
        /// The name.
        name: Name,
        /// Which VM has it.
        by: VmId,
    },
    /// There is no record.
    #[error("there is no record of {0}")]
    VmMissing(VmId),
    /// The record was changed meanwhile.
    #[error("{id} has revision {found}, not {expected}")]
    StaleRevision {
        /// The VM.
        id: VmId,
        /// The revision that the commit expected.
        expected: u64,
        /// The revision that the record has.
        found: u64,
    },
    /// The window was closed before.
    #[error("window {} of incarnation {} of {} is closed already", .0.sequence, .0.incarnation, .0.vm)]
    WindowExists(WindowKey),
    /// A plugin's value is not what a decision was made from.
    #[error("the value of {key:?} of plugin {plugin} was changed meanwhile")]
    KvChanged {
        /// The plugin.
        plugin: Name,
        /// The key.
        key: String,
    },
    /// A plugin wants to keep more than it may.
    #[error(
        "plugin {plugin} would keep {} keys and {} bytes; it may keep {} and {}",
        .wanted.keys, .wanted.bytes, .quota.keys, .quota.bytes
    )]
    KvQuota {
        /// The plugin.
        plugin: Name,
        /// What it would keep.
        wanted: KvUsage,
        /// What it may keep.
        quota: KvUsage,
    },
    /// The window was charged for before, or never closed.
    #[error("window {} of incarnation {} of {} is not in the outbox", .0.sequence, .0.incarnation, .0.vm)]
    NotInOutbox(WindowKey),
}
