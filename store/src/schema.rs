//! Tables, keys and values.
//!
//! Keys are bytes that sort as they should: ids and digests as they are, numbers big-endian.
//! Values are a version byte and JSON; fields are added with defaults, so that a newer binary
//! reads what an older one wrote.

use redb::TableDefinition;
use roost_model::{Name, VmId, VmRecord, WindowKey};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::check::rows::{self, RowCheck};
use crate::error::ReadError;

/// The schema that this crate writes. A file with a newer one is refused.
pub const SCHEMA_VERSION: u32 = 3;

/// The version byte of values.
pub(crate) const VALUE_VERSION: u8 = 1;

/// A table from bytes to bytes, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Table(pub(crate) &'static str);

impl Table {
    /// How redb knows it.
    pub(crate) const fn definition(self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(self.0)
    }

    /// The error for a value of this table that can't be understood.
    pub(crate) fn damaged(self, reason: impl Into<String>) -> ReadError {
        ReadError::Value {
            table: self.0,
            reason: reason.into(),
        }
    }
}

// A table can't be added without the check of its rows.
macro_rules! tables {
    ($all:ident, $since:literal: $($(#[$doc:meta])* $constant:ident, $name:literal: $check:expr;)*) => {
        $($(#[$doc])* pub(crate) const $constant: Table = Table($name);)*

        #[doc = concat!("The tables that came with schema ", $since, ", and what their rows are.")]
        const $all: &[(Table, RowCheck)] = &[$(($constant, $check)),*];
    };
}

/// The tables of a store of `schema`, which are made when the store is, and what their rows are.
pub(crate) fn checked_tables(schema: u32) -> impl Iterator<Item = (Table, RowCheck)> {
    let added = [(1, SINCE_1), (2, SINCE_2), (3, SINCE_3)];
    let has = added.into_iter().filter(move |(since, _)| *since <= schema);
    has.flat_map(|(_, tables)| tables.iter().copied())
}

/// The tables of a store of `schema`.
pub(crate) fn tables(schema: u32) -> impl Iterator<Item = Table> {
    checked_tables(schema).map(|(table, _)| table)
}

tables! { SINCE_1, 1:
    /// `schema`: a big-endian u32.
    META, "meta": rows::meta;
    /// VM id to record.
    VMS, "vms": rows::vm;
    /// Tenant, zero, name to VM id.
    VM_NAMES, "vm_names": rows::index;
    /// Operation id to operation.
    OPERATIONS, "operations": rows::operation;
    /// VM id and operation id to nothing.
    VM_OPERATIONS, "vm_operations": rows::index;
    /// Ids of operations that are not done.
    UNFINISHED, "unfinished_operations": rows::index;
    /// Number to event.
    EVENTS, "events": rows::event;
    /// Incident id to incident.
    INCIDENTS, "incidents": rows::incident;
    /// VM id and incident id to nothing.
    VM_INCIDENTS, "vm_incidents": rows::index;
    /// Ids of incidents that are not closed.
    OPEN_INCIDENTS, "open_incidents": rows::index;
    /// Cleanup id to task.
    CLEANUP, "cleanup_tasks": rows::cleanup;
    /// Action id to action-required record.
    ACTIONS, "actions_required": rows::action;
    /// Name to plugin.
    PLUGINS, "plugins": rows::plugin;
    /// Hook, zero, plugin to binding.
    BINDINGS, "bindings": rows::binding;
    /// Digest to image.
    IMAGES, "images": rows::image;
    /// Tag to digest.
    IMAGE_TAGS, "image_tags": rows::image_tag;
    /// VM id to open window.
    OPEN_WINDOWS, "open_windows": rows::open_window;
    /// Window key to closed window.
    WINDOWS, "usage_windows": rows::window;
    /// Window key to place in the queue, for windows that are not charged for.
    OUTBOX, "billing_outbox": rows::outbox;
    /// Place in the queue, in the order of closing, to window key.
    OUTBOX_QUEUE, "billing_outbox_queue": rows::index;
    /// Window key and index to charge.
    CHARGES, "charges": rows::charge;
}

tables! { SINCE_2, 2:
    /// VM id and number of an event of it to nothing.
    VM_EVENTS, "vm_events": rows::index;
    /// Number to decision.
    DECISIONS, "decisions": rows::decision;
    /// Plugin, zero, key to a version byte and the value.
    PLUGIN_KV, "plugin_kv": rows::plugin_kv;
    /// Plugin to how much it keeps.
    PLUGIN_KV_USAGE, "plugin_kv_usage": rows::plugin_kv_usage;
    /// Plugin, zero, revision to its quarantine.
    QUARANTINES, "quarantines": rows::quarantine;
}

tables! { SINCE_3, 3:
    /// VM id to the record that a VM had which is deleted and not all charged for.
    DEPARTED, "departed_vms": rows::departed;
}

/// The key of the schema version in [`META`].
pub(crate) const SCHEMA_KEY: &[u8] = b"schema";

/// The key of the size of all decisions, bytes, in [`META`]: a big-endian u64.
pub(crate) const DECISION_BYTES_KEY: &[u8] = b"decision_bytes";

/// The key of the node's drain in [`META`], which is there as long as it drains: a
/// [`roost_model::Drain`].
pub(crate) const DRAIN_KEY: &[u8] = b"drain";

/// VM id, incarnation, sequence.
pub(crate) fn window_key(key: &WindowKey) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(key.vm.as_bytes());
    bytes[16..24].copy_from_slice(&key.incarnation.to_be_bytes());
    bytes[24..].copy_from_slice(&key.sequence.to_be_bytes());
    bytes
}

/// Two names with a zero between: no name holds one.
pub(crate) fn pair_key(first: &str, second: &str) -> Vec<u8> {
    [first.as_bytes(), &[0], second.as_bytes()].concat()
}

/// A VM's tenant, a zero, and its name.
pub(crate) fn name_key(record: &VmRecord) -> Vec<u8> {
    pair_key(record.spec.tenant.as_str(), record.spec.name.as_str())
}

/// The first and the last of the keys that begin with a VM's id.
pub(crate) fn vm_keys(vm: VmId) -> (Vec<u8>, Vec<u8>) {
    let first = vm.as_bytes().to_vec();
    // Longer than every such key.
    let last = [first.as_slice(), &[u8::MAX; 32]].concat();
    (first, last)
}

/// VM id and event number.
pub(crate) fn vm_event_key(vm: VmId, number: u64) -> Vec<u8> {
    [vm.as_bytes().as_slice(), &number.to_be_bytes()].concat()
}

/// A plugin's name, a zero, and the number of one of its revisions.
pub(crate) fn revision_key(plugin: &Name, revision: u64) -> Vec<u8> {
    [plugin.as_str().as_bytes(), &[0], &revision.to_be_bytes()].concat()
}

/// A VM's id and the id of something that is the VM's.
pub(crate) fn owned_key(vm: VmId, id: &[u8; 16]) -> Vec<u8> {
    [vm.as_bytes().as_slice(), id].concat()
}

pub(crate) fn encode(table: Table, value: &impl Serialize) -> Result<Vec<u8>, ReadError> {
    let mut bytes = vec![VALUE_VERSION];
    serde_json::to_writer(&mut bytes, value).map_err(|error| table.damaged(error.to_string()))?;
    Ok(bytes)
}

/// A plugin's value as it is kept.
pub(crate) fn encode_kv(value: &[u8]) -> Vec<u8> {
    [&[VALUE_VERSION], value].concat()
}

/// A plugin's value.
pub(crate) fn decode_kv(bytes: &[u8]) -> Result<&[u8], ReadError> {
    match bytes.split_first() {
        Some((&VALUE_VERSION, value)) => Ok(value),
        _ => Err(PLUGIN_KV.damaged("its version byte is not known")),
    }
}

pub(crate) fn decode<T: DeserializeOwned>(table: Table, bytes: &[u8]) -> Result<T, ReadError> {
    match bytes.split_first() {
        Some((&VALUE_VERSION, json)) => {
            serde_json::from_slice(json).map_err(|error| table.damaged(error.to_string()))
        }
        Some((version, _)) => Err(table.damaged(format!(
            "its version byte is {version}, and {VALUE_VERSION} is known"
        ))),
        None => Err(table.damaged("it is empty")),
    }
}

/// A big-endian number in a key or a value of `table`.
pub(crate) fn number(table: Table, bytes: &[u8]) -> Result<u64, ReadError> {
    let array = bytes.try_into().map_err(|_| {
        table.damaged(format!(
            "a number of 8 bytes was expected, not {}",
            bytes.len()
        ))
    })?;
    Ok(u64::from_be_bytes(array))
}

/// A VM's id as an index holds it.
pub(crate) fn vm_id(table: Table, bytes: &[u8]) -> Result<VmId, ReadError> {
    let array = bytes.try_into().map_err(|_| {
        table.damaged(format!(
            "an id of 16 bytes was expected, not {}",
            bytes.len()
        ))
    })?;
    Ok(VmId::from_uuid(Uuid::from_bytes(array)))
}
