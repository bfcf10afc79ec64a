//! What a row of each table must be, and which rows must stand beside it.

use roost_model::{
    ActionRequired, Binding, Charge, CleanupTask, DecisionRecord, Drain, Event, Image, Incident,
    OpenWindow, Operation, Plugin, Quarantine, UsageWindow, VmRecord,
};
use serde::de::DeserializeOwned;

use crate::change::KvUsage;
use crate::error::ReadError;
use crate::schema::{
    self as tables, DECISION_BYTES_KEY, DRAIN_KEY, SCHEMA_KEY, Table, decode, decode_kv, name_key,
    number, owned_key, pair_key, revision_key, vm_event_key, window_key,
};

/// Of a SHA-256.
const DIGEST_BYTES: usize = 32;

/// Looks at a row's key and value.
pub(crate) type RowCheck = fn(&[u8], &[u8]) -> Result<Row, ReadError>;

/// What a row says about itself and others.
#[derive(Debug, Default)]
pub(crate) struct Row {
    /// The key that its value belongs to.
    pub(crate) key: Vec<u8>,
    /// Rows of an index that are there because of this one: table, key, value.
    pub(crate) indexed: Vec<(Table, Vec<u8>, Vec<u8>)>,
    /// Rows that it leads to: table, key.
    pub(crate) leads_to: Vec<(Table, Vec<u8>)>,
}

impl Row {
    fn at(key: impl Into<Vec<u8>>) -> Self {
        let key = key.into();
        Self {
            key,
            ..Self::default()
        }
    }

    fn marked(mut self, table: Table, key: impl Into<Vec<u8>>) -> Self {
        self.indexed.push((table, key.into(), Vec::new()));
        self
    }

    fn leading_to(mut self, table: Table, key: impl Into<Vec<u8>>) -> Self {
        self.leads_to.push((table, key.into()));
        self
    }
}

/// A row whose value is `T`.
fn of<T: DeserializeOwned>(
    table: Table,
    value: &[u8],
    row: impl FnOnce(&T) -> Row,
) -> Result<Row, ReadError> {
    decode(table, value).map(|value| row(&value))
}

/// A row that is there because of another, which is checked with that one.
#[expect(clippy::unnecessary_wraps, reason = "other rows can be damaged")]
pub(crate) fn index(key: &[u8], _value: &[u8]) -> Result<Row, ReadError> {
    Ok(Row::at(key))
}

pub(crate) fn meta(key: &[u8], value: &[u8]) -> Result<Row, ReadError> {
    match key {
        SCHEMA_KEY if value.len() != 4 => Err(tables::META.damaged("the schema is no number")),
        DECISION_BYTES_KEY => number(tables::META, value).map(|_| Row::at(key)),
        DRAIN_KEY => of(tables::META, value, |_: &Drain| Row::at(key)),
        _ => Ok(Row::at(key)),
    }
}

pub(crate) fn vm(_key: &[u8], value: &[u8]) -> Result<Row, ReadError> {
    of(tables::VMS, value, |vm: &VmRecord| {
        let id = vm.id.as_bytes();
        let mut row = Row::at(*id);
        row.indexed
            .push((tables::VM_NAMES, name_key(vm), id.to_vec()));
        row
    })
}

pub(crate) fn departed(_key: &[u8], value: &[u8]) -> Result<Row, ReadError> {
    of(tables::DEPARTED, value, |vm: &VmRecord| {
        Row::at(*vm.id.as_bytes())
    })
}

pub(crate) fn operation(_key: &[u8], value: &[u8]) -> Result<Row, ReadError> {
    of(tables::OPERATIONS, value, |operation: &Operation| {
        let id = operation.id.as_bytes();
        let row = Row::at(*id).marked(tables::VM_OPERATIONS, owned_key(operation.vm, id));
        if operation.is_done() {
            row
        } else {
            row.marked(tables::UNFINISHED, *id)
        }
    })
}

pub(crate) fn event(_key: &[u8], value: &[u8]) -> Result<Row, ReadError> {
    of(tables::EVENTS, value, |event: &Event| {
        let row = Row::at(event.number.to_be_bytes());
        match event.event.vm {
            Some(vm) => row.marked(tables::VM_EVENTS, vm_event_key(vm, event.number)),
            None => row,
        }
    })
}

pub(crate) fn incident(_key: &[u8], value: &[u8]) -> Result<Row, ReadError> {
    of(tables::INCIDENTS, value, |incident: &Incident| {
        let id = incident.id.as_bytes();
        let row = Row::at(*id).marked(tables::VM_INCIDENTS, owned_key(incident.vm, id));
        if incident.closed {
            row
        } else {
            row.marked(tables::OPEN_INCIDENTS, *id)
        }
    })
}

pub(crate) fn cleanup(_key: &[u8], value: &[u8]) -> Result<Row, ReadError> {
    of(tables::CLEANUP, value, |task: &CleanupTask| {
        Row::at(*task.id.as_bytes())
    })
}

pub(crate) fn action(_key: &[u8], value: &[u8]) -> Result<Row, ReadError> {
    of(tables::ACTIONS, value, |action: &ActionRequired| {
        Row::at(*action.id.as_bytes())
    })
}

pub(crate) fn plugin(_key: &[u8], value: &[u8]) -> Result<Row, ReadError> {
    of(tables::PLUGINS, value, |plugin: &Plugin| {
        Row::at(plugin.name.as_str())
    })
}

pub(crate) fn binding(_key: &[u8], value: &[u8]) -> Result<Row, ReadError> {
    of(tables::BINDINGS, value, |binding: &Binding| {
        Row::at(pair_key(binding.hook.name(), binding.plugin.as_str()))
    })
}

pub(crate) fn quarantine(_key: &[u8], value: &[u8]) -> Result<Row, ReadError> {
    of(tables::QUARANTINES, value, |quarantine: &Quarantine| {
        Row::at(revision_key(&quarantine.plugin, quarantine.revision))
    })
}

pub(crate) fn image(_key: &[u8], value: &[u8]) -> Result<Row, ReadError> {
    of(tables::IMAGES, value, |image: &Image| {
        let row = Row::at(*image.digest.as_bytes());
        match &image.tag {
            Some(tag) => row.leading_to(tables::IMAGE_TAGS, tag.as_bytes()),
            None => row,
        }
    })
}

pub(crate) fn image_tag(key: &[u8], value: &[u8]) -> Result<Row, ReadError> {
    if value.len() != DIGEST_BYTES {
        return Err(tables::IMAGE_TAGS.damaged("its value is no digest"));
    }
    Ok(Row::at(key).leading_to(tables::IMAGES, value))
}

pub(crate) fn open_window(_key: &[u8], value: &[u8]) -> Result<Row, ReadError> {
    of(tables::OPEN_WINDOWS, value, |window: &OpenWindow| {
        Row::at(*window.key.vm.as_bytes())
    })
}

pub(crate) fn window(_key: &[u8], value: &[u8]) -> Result<Row, ReadError> {
    of(tables::WINDOWS, value, |window: &UsageWindow| {
        Row::at(window_key(&window.key))
    })
}

pub(crate) fn outbox(key: &[u8], value: &[u8]) -> Result<Row, ReadError> {
    number(tables::OUTBOX, value)?;
    let mut row = Row::at(key).leading_to(tables::WINDOWS, key);
    row.indexed
        .push((tables::OUTBOX_QUEUE, value.to_vec(), key.to_vec()));
    Ok(row)
}

pub(crate) fn charge(key: &[u8], value: &[u8]) -> Result<Row, ReadError> {
    of(tables::CHARGES, value, |charge: &Charge| {
        let window = window_key(&charge.window);
        // Behind the window there is the charge's place among its charges.
        let place = key.get(window.len()..).unwrap_or_default();
        Row::at([window.as_slice(), place].concat()).leading_to(tables::WINDOWS, window)
    })
}

pub(crate) fn decision(_key: &[u8], value: &[u8]) -> Result<Row, ReadError> {
    of(tables::DECISIONS, value, |decision: &DecisionRecord| {
        Row::at(decision.number.to_be_bytes())
    })
}

pub(crate) fn plugin_kv(key: &[u8], value: &[u8]) -> Result<Row, ReadError> {
    decode_kv(value)?;
    match plugin_of(key) {
        Some((plugin, _)) => Ok(Row::at(key).leading_to(tables::PLUGIN_KV_USAGE, plugin)),
        None => Err(tables::PLUGIN_KV.damaged("its key has no zero behind the plugin's name")),
    }
}

pub(crate) fn plugin_kv_usage(key: &[u8], value: &[u8]) -> Result<Row, ReadError> {
    of(tables::PLUGIN_KV_USAGE, value, |_: &KvUsage| Row::at(key))
}

/// The plugin's name and the plugin's own key, from a key of [`tables::PLUGIN_KV`].
pub(crate) fn plugin_of(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let zero = key.iter().position(|byte| *byte == 0)?;
    Some((key.get(..zero)?, key.get(zero + 1..)?))
}
