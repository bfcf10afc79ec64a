//! What is forgotten, so that the file does not grow without end.

use redb::{ReadableTable as _, ReadableTableMetadata as _, WriteTransaction};
use roost_model::Operation;

use crate::error::ReadError;
use crate::schema::{self as tables, DECISION_BYTES_KEY, decode, number, owned_key};

/// Finished operations that are kept: a few for each of a host's thousands of VMs, about 10 MiB.
pub(crate) const MAX_FINISHED_OPERATIONS: u64 = 20_000;

/// How much of the journal of decisions is kept. The newest decision always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Decisions.
    pub decisions: u64,
    /// All of them together, bytes.
    pub decision_bytes: u64,
}

impl Default for Retention {
    /// 10,000 decisions, 64 MiB: some of every hook, to replay a candidate over, of a size that is
    /// read in a second.
    fn default() -> Self {
        Self {
            decisions: 10_000,
            decision_bytes: 64 << 20,
        }
    }
}

/// Removes the oldest decisions beyond what is kept, after `added` bytes of them were written.
pub(crate) fn forget_decisions(
    transaction: &WriteTransaction,
    keep: Retention,
    added: u64,
) -> Result<(), ReadError> {
    let mut meta = transaction.open_table(tables::META.definition())?;
    let mut decisions = transaction.open_table(tables::DECISIONS.definition())?;
    let before = match meta.get(DECISION_BYTES_KEY)? {
        Some(bytes) => Some(number(tables::META, bytes.value())?),
        None => None,
    };
    let mut bytes = match before {
        Some(before) => before.saturating_add(added),
        None => {
            let mut sum: u64 = 0;
            for row in decisions.iter()? {
                sum = sum.saturating_add(row?.1.value().len() as u64);
            }
            sum
        }
    };
    let mut count = decisions.len()?;
    while count > 1 && (count > keep.decisions || bytes > keep.decision_bytes) {
        let Some((_, oldest)) = decisions.pop_first()? else {
            break;
        };
        bytes = bytes.saturating_sub(oldest.value().len() as u64);
        count -= 1;
    }
    meta.insert(DECISION_BYTES_KEY, bytes.to_be_bytes().as_slice())?;
    Ok(())
}

/// Removes the oldest finished operations beyond `keep`. Unfinished ones always stay, and so do
/// damaged ones: someone should look at them.
pub(crate) fn forget_operations(
    transaction: &WriteTransaction,
    keep: u64,
) -> Result<(), ReadError> {
    let mut operations = transaction.open_table(tables::OPERATIONS.definition())?;
    let unfinished = transaction.open_table(tables::UNFINISHED.definition())?;
    let finished = operations.len()?.saturating_sub(unfinished.len()?);
    let mut excess = finished.saturating_sub(keep);
    if excess == 0 {
        return Ok(());
    }
    let mut old = Vec::new();
    for row in operations.iter()? {
        if excess == 0 {
            break;
        }
        let (key, value) = row?;
        if unfinished.get(key.value())?.is_none()
            && let Ok(operation) = decode::<Operation>(tables::OPERATIONS, value.value())
        {
            excess -= 1;
            old.push((operation.vm, operation.id));
        }
    }
    let mut by_vm = transaction.open_table(tables::VM_OPERATIONS.definition())?;
    for (vm, id) in old {
        operations.remove(id.as_bytes().as_slice())?;
        by_vm.remove(owned_key(vm, id.as_bytes()).as_slice())?;
    }
    Ok(())
}
