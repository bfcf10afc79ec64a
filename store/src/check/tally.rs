//! What only shows over all rows: index entries that nothing leads to, and sums.

use std::collections::BTreeMap;

use redb::{ReadTransaction, ReadableTable as _, ReadableTableMetadata as _};

use super::CheckReport;
use super::rows::{Row, plugin_of};
use crate::change::KvUsage;
use crate::error::ReadError;
use crate::schema::{self as tables, DECISION_BYTES_KEY, Table, decode, number};

/// Counted over all rows.
#[derive(Default)]
pub(super) struct Tally {
    /// By index: entries that rows say are there.
    indexed: BTreeMap<Table, u64>,
    /// By plugin: what it keeps.
    kept: BTreeMap<Vec<u8>, KvUsage>,
    /// Size of all decisions.
    decision_bytes: u64,
}

/// The indexes whose entries are each there because of one row.
const INDEXES: [Table; 7] = [
    tables::VM_NAMES,
    tables::VM_OPERATIONS,
    tables::UNFINISHED,
    tables::VM_INCIDENTS,
    tables::OPEN_INCIDENTS,
    tables::OUTBOX_QUEUE,
    tables::VM_EVENTS,
];

impl Tally {
    pub(super) fn count(&mut self, table: Table, key: &[u8], value: &[u8], row: &Row) {
        for (index, ..) in &row.indexed {
            *self.indexed.entry(*index).or_default() += 1;
        }
        match table {
            tables::DECISIONS => self.decision_bytes += value.len() as u64,
            tables::PLUGIN_KV => {
                if let Some((plugin, key)) = plugin_of(key) {
                    let kept = self.kept.entry(plugin.to_vec()).or_default();
                    // One byte of the value is its version.
                    *kept = kept.with(key.len(), value.len().saturating_sub(1));
                }
            }
            _ => {}
        }
    }

    /// Compares what was counted with what the store says.
    pub(super) fn compare(
        &self,
        transaction: &ReadTransaction,
        report: &mut CheckReport,
    ) -> Result<(), ReadError> {
        let known: Vec<_> = tables::tables(report.schema).collect();
        for index in INDEXES.into_iter().filter(|index| known.contains(index)) {
            let entries = transaction.open_table(index.definition())?.len()?;
            let expected = self.indexed.get(&index).copied().unwrap_or_default();
            if entries > expected {
                let what = format!("it has {entries} entries, and {expected} rows belong in it");
                report.problem(index.0, None, what);
            }
        }
        if known.contains(&tables::PLUGIN_KV_USAGE) {
            self.compare_kept(transaction, report)?;
        }
        let meta = transaction.open_table(tables::META.definition())?;
        if let Some(said) = meta.get(DECISION_BYTES_KEY)?
            && let Ok(said) = number(tables::META, said.value())
            && said != self.decision_bytes
        {
            let what = format!(
                "it says {said} bytes, and they have {}",
                self.decision_bytes
            );
            report.problem(tables::META.0, Some(DECISION_BYTES_KEY), what);
        }
        Ok(())
    }

    fn compare_kept(
        &self,
        transaction: &ReadTransaction,
        report: &mut CheckReport,
    ) -> Result<(), ReadError> {
        let table = tables::PLUGIN_KV_USAGE;
        for row in transaction.open_table(table.definition())?.iter()? {
            let (plugin, said) = row?;
            let kept = self.kept.get(plugin.value()).copied().unwrap_or_default();
            // A value that can't be understood has been reported.
            if let Ok(said) = decode::<KvUsage>(table, said.value())
                && said != kept
            {
                let what = format!(
                    "it says {} keys and {} bytes, and the plugin keeps {} and {}",
                    said.keys, said.bytes, kept.keys, kept.bytes
                );
                report.problem(table.0, Some(plugin.value()), what);
            }
        }
        Ok(())
    }
}
