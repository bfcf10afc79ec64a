//! How many there are of what.

use redb::{ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _};
use roost_model::Name;

use super::{Read, open};
use crate::change::KvUsage;
use crate::schema::{self as tables, decode};
use crate::store::Store;

/// Records of one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Incidents that are not closed.
    pub open_incidents: u64,
    /// Cleanup tasks.
    pub cleanup_tasks: u64,
    /// Things that a person must do.
    pub actions_required: u64,
    /// Windows that are not charged for.
    pub outbox: u64,
    /// Decisions in the journal.
    pub decisions: u64,
    /// Plugins in quarantine.
    pub quarantines: u64,
}

impl Store {
    /// How many there are, without reading them.
    pub fn counts(&self) -> Read<Counts> {
        let transaction = self.database().begin_read()?;
        let count = |table| -> Read<u64> { Ok(open(&transaction, table)?.len()?) };
        Ok(Counts {
            open_incidents: count(tables::OPEN_INCIDENTS)?,
            cleanup_tasks: count(tables::CLEANUP)?,
            actions_required: count(tables::ACTIONS)?,
            outbox: count(tables::OUTBOX)?,
            decisions: count(tables::DECISIONS)?,
            quarantines: count(tables::QUARANTINES)?,
        })
    }

    /// How much each plugin keeps that has ever kept anything, by name.
    pub fn kv_usages(&self) -> Read<Vec<(Name, KvUsage)>> {
        let table = tables::PLUGIN_KV_USAGE;
        let rows = open(&self.database().begin_read()?, table)?;
        let mut usages = Vec::new();
        for row in rows.iter()? {
            let (plugin, usage) = row?;
            let plugin = std::str::from_utf8(plugin.value()).ok();
            let plugin = plugin.and_then(|plugin| plugin.parse().ok());
            let plugin = plugin.ok_or_else(|| table.damaged("a key is no name"))?;
            usages.push((plugin, decode(table, usage.value())?));
        }
        Ok(usages)
    }
}
