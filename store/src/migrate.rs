//! Bringing a store that an older version wrote to the schema of this one.
//!
//! All steps and the new version are one transaction: a host that is killed here finds the store as
//! it was. A step only adds; values of an older version are read as they are.

use redb::{Database, ReadableTable as _, WriteTransaction};
use roost_model::Event;

use crate::error::ReadError;
use crate::open::schema;
use crate::schema::{self as tables, SCHEMA_KEY, SCHEMA_VERSION, decode, vm_event_key};

/// Migrates `database`, whose tables were checked.
pub(crate) fn migrate(database: &Database) -> Result<(), ReadError> {
    let found = schema(database)?;
    if found >= SCHEMA_VERSION {
        return Ok(());
    }
    let transaction = database.begin_write()?;
    for table in tables::tables(SCHEMA_VERSION) {
        transaction.open_table(table.definition())?;
    }
    if found < 2 {
        index_events(&transaction)?;
    }
    let version = SCHEMA_VERSION.to_be_bytes();
    transaction
        .open_table(tables::META.definition())?
        .insert(SCHEMA_KEY, version.as_slice())?;
    transaction.commit()?;
    Ok(())
}

/// Schema 2 has an index of events by VM. A damaged event is left out of it: the log itself tells
/// of the damage when it is read.
fn index_events(transaction: &WriteTransaction) -> Result<(), ReadError> {
    let events = transaction.open_table(tables::EVENTS.definition())?;
    let mut by_vm = transaction.open_table(tables::VM_EVENTS.definition())?;
    for row in events.iter()? {
        let (_, value) = row?;
        if let Ok(event) = decode::<Event>(tables::EVENTS, value.value())
            && let Some(vm) = event.event.vm
        {
            let nothing: &[u8] = &[];
            by_vm.insert(vm_event_key(vm, event.number).as_slice(), nothing)?;
        }
    }
    Ok(())
}
