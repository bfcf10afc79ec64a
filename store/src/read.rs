//! Reads: each is a snapshot of its own.

use std::ops::Bound;

use redb::{ReadOnlyTable, ReadTransaction, ReadableDatabase as _, ReadableTable as _};
use roost_model::{
    ActionId, ActionRequired, Binding, Charge, CleanupId, CleanupTask, Digest, Drain, Event, Hook,
    Image, Incident, IncidentId, Name, OpenWindow, Operation, OperationId, Plugin, Quarantine,
    Tenant, UsageWindow, VmId, VmRecord, WindowKey,
};
use serde::de::DeserializeOwned;

use crate::error::ReadError;
use crate::schema::{
    self as tables, Table, decode, number, pair_key, revision_key, vm_id, vm_keys, window_key,
};
use crate::store::Store;

mod counts;
mod decisions;
mod snapshot;

pub use counts::Counts;
pub use decisions::{DecisionFilter, DecisionPage, Order};
pub use snapshot::Snapshot;

type Read<T> = Result<T, ReadError>;

/// A table in a snapshot.
type Rows = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// A range of keys.
type Range = (Bound<Vec<u8>>, Bound<Vec<u8>>);

const ALL: Range = (Bound::Unbounded, Bound::Unbounded);

/// Bytes of the VM's id that keys of its things begin with.
const VM_ID_BYTES: usize = 16;

/// Which end a scan begins at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    First,
    Last,
}

fn open(transaction: &ReadTransaction, table: Table) -> Read<Rows> {
    Ok(transaction.open_table(table.definition())?)
}

fn raw(transaction: &ReadTransaction, table: Table, key: &[u8]) -> Read<Option<Vec<u8>>> {
    let rows = open(transaction, table)?;
    Ok(rows.get(key)?.map(|value| value.value().to_vec()))
}

impl Store {
    fn get<T: DeserializeOwned>(&self, table: Table, key: &[u8]) -> Read<Option<T>> {
        let value = raw(&self.database().begin_read()?, table, key)?;
        value.map(|value| decode(table, &value)).transpose()
    }

    /// What `index` says is at `key` of `table`; of one snapshot.
    fn get_by<T: DeserializeOwned>(
        &self,
        index: Table,
        key: &[u8],
        table: Table,
    ) -> Read<Option<T>> {
        let transaction = self.database().begin_read()?;
        let Some(target) = raw(&transaction, index, key)? else {
            return Ok(None);
        };
        let value = raw(&transaction, table, &target)?.ok_or_else(|| dangling(index, table))?;
        decode(table, &value).map(Some)
    }

    /// Values in a range of keys, from either end.
    fn scan<T: DeserializeOwned>(
        &self,
        table: Table,
        range: &Range,
        from: From,
        limit: usize,
    ) -> Read<Vec<T>> {
        let rows = open(&self.database().begin_read()?, table)?;
        walk(&rows, range, from, limit, |_, value| decode(table, value))
    }

    /// Every value of a table, by key.
    fn all<T: DeserializeOwned>(&self, table: Table) -> Read<Vec<T>> {
        self.scan(table, &ALL, From::First, usize::MAX)
    }

    /// The values in `table` that entries of `index` lead to, in the index's order; of one
    /// snapshot. `target` gives the key in `table` from an entry's key and value.
    fn indexed<T: DeserializeOwned>(
        &self,
        (index, range, from): (Table, &Range, From),
        table: Table,
        limit: usize,
        target: for<'a> fn(&'a [u8], &'a [u8]) -> &'a [u8],
    ) -> Read<Vec<T>> {
        let transaction = self.database().begin_read()?;
        let entries = open(&transaction, index)?;
        let values = open(&transaction, table)?;
        walk(&entries, range, from, limit, |key, value| {
            let value = values.get(target(key, value))?;
            let value = value.ok_or_else(|| dangling(index, table))?;
            decode(table, value.value())
        })
    }

    /// The number of the last event that is on disk; 0 before the first.
    ///
    /// # Errors
    /// It can't be read. So with every read below.
    pub fn last_event(&self) -> Read<u64> {
        let events = open(&self.database().begin_read()?, tables::EVENTS)?;
        let last = events.last()?;
        last.map_or(Ok(0), |(key, _)| number(tables::EVENTS, key.value()))
    }

    /// That the node drains, if it does.
    pub fn drain(&self) -> Read<Option<Drain>> {
        self.get(tables::META, tables::DRAIN_KEY)
    }

    /// A VM's record.
    pub fn vm(&self, id: VmId) -> Read<Option<VmRecord>> {
        self.get(tables::VMS, id.as_bytes())
    }

    /// Every VM's record, by id.
    pub fn vms(&self) -> Read<Vec<VmRecord>> {
        self.all(tables::VMS)
    }

    /// The VM that has `name` within `tenant`.
    pub fn vm_by_name(&self, tenant: &Tenant, name: &Name) -> Read<Option<VmRecord>> {
        let key = pair_key(tenant.as_str(), name.as_str());
        self.get_by(tables::VM_NAMES, &key, tables::VMS)
    }

    /// What `table` has, of one VM if one is given, by ids; newest first.
    fn of_vm<T: DeserializeOwned>(
        &self,
        index: Table,
        table: Table,
        vm: Option<VmId>,
        limit: usize,
    ) -> Read<Vec<T>> {
        match vm {
            None => self.scan(table, &ALL, From::Last, limit),
            Some(vm) => {
                let index = (index, &vm_range(vm), From::Last);
                self.indexed(index, table, limit, |key, _| {
                    key.get(VM_ID_BYTES..).unwrap_or(key)
                })
            }
        }
    }

    /// An operation.
    pub fn operation(&self, id: OperationId) -> Read<Option<Operation>> {
        self.get(tables::OPERATIONS, id.as_bytes())
    }

    /// Operations, of one VM if one is given; newest first.
    pub fn operations(&self, vm: Option<VmId>, limit: usize) -> Read<Vec<Operation>> {
        self.of_vm(tables::VM_OPERATIONS, tables::OPERATIONS, vm, limit)
    }

    /// Operations that are not done, oldest first.
    pub fn unfinished_operations(&self) -> Read<Vec<Operation>> {
        let index = (tables::UNFINISHED, &ALL, From::First);
        self.indexed(index, tables::OPERATIONS, usize::MAX, |key, _| key)
    }

    /// Events with numbers above `after`, by number.
    pub fn events(&self, after: u64, limit: usize) -> Read<Vec<Event>> {
        let range = (
            Bound::Excluded(after.to_be_bytes().to_vec()),
            Bound::Unbounded,
        );
        self.scan(tables::EVENTS, &range, From::First, limit)
    }

    /// Closed usage windows, of one VM if one is given; by VM, incarnation and sequence.
    pub fn windows(&self, vm: Option<VmId>, limit: usize) -> Read<Vec<UsageWindow>> {
        self.scan(
            tables::WINDOWS,
            &vm.map_or(ALL, vm_range),
            From::First,
            limit,
        )
    }

    /// The last closed window of an incarnation.
    pub fn last_window(&self, vm: VmId, incarnation: u64) -> Read<Option<UsageWindow>> {
        let bound = |sequence| {
            let key = WindowKey {
                vm,
                incarnation,
                sequence,
            };
            Bound::Included(window_key(&key).to_vec())
        };
        let range = (bound(0), bound(u64::MAX));
        Ok(self.scan(tables::WINDOWS, &range, From::Last, 1)?.pop())
    }

    /// Every open usage window, by VM.
    pub fn open_windows(&self) -> Read<Vec<OpenWindow>> {
        self.all(tables::OPEN_WINDOWS)
    }

    /// A VM's open usage window.
    pub fn open_window(&self, vm: VmId) -> Read<Option<OpenWindow>> {
        self.get(tables::OPEN_WINDOWS, vm.as_bytes())
    }

    /// Windows that are not charged for, in the order in which they were closed.
    pub fn outbox(&self, limit: usize) -> Read<Vec<UsageWindow>> {
        let index = (tables::OUTBOX_QUEUE, &ALL, From::First);
        self.indexed(index, tables::WINDOWS, limit, |_, window| window)
    }

    /// Windows of one VM that are not charged for, by key.
    pub fn outbox_of(&self, vm: VmId, limit: usize) -> Read<Vec<UsageWindow>> {
        let index = (tables::OUTBOX, &vm_range(vm), From::First);
        self.indexed(index, tables::WINDOWS, limit, |key, _| key)
    }

    /// VMs with windows that are not charged for, by id.
    pub fn outbox_vms(&self) -> Read<Vec<VmId>> {
        let entries = open(&self.database().begin_read()?, tables::OUTBOX)?;
        let mut vms = Vec::new();
        let mut after: Bound<Vec<u8>> = Bound::Unbounded;
        loop {
            let bounds = (after.as_ref().map(Vec::as_slice), Bound::Unbounded);
            let Some(entry) = entries.range::<&[u8]>(bounds)?.next() else {
                return Ok(vms);
            };
            let (key, _) = entry?;
            let id = key.value().get(..VM_ID_BYTES).unwrap_or_default();
            let vm = vm_id(tables::OUTBOX, id)?;
            after = Bound::Excluded(vm_keys(vm).1);
            vms.push(vm);
        }
    }

    /// The record that a VM had which is deleted and not all charged for.
    pub fn departed(&self, id: VmId) -> Read<Option<VmRecord>> {
        self.get(tables::DEPARTED, id.as_bytes())
    }

    /// Charges, of one VM if one is given; by window.
    pub fn charges(&self, vm: Option<VmId>, limit: usize) -> Read<Vec<Charge>> {
        self.scan(
            tables::CHARGES,
            &vm.map_or(ALL, vm_range),
            From::First,
            limit,
        )
    }

    /// Incidents, of one VM if one is given; newest first.
    pub fn incidents(&self, vm: Option<VmId>, limit: usize) -> Read<Vec<Incident>> {
        self.of_vm(tables::VM_INCIDENTS, tables::INCIDENTS, vm, limit)
    }

    /// Incidents that are not closed, oldest first.
    pub fn open_incidents(&self) -> Read<Vec<Incident>> {
        let index = (tables::OPEN_INCIDENTS, &ALL, From::First);
        self.indexed(index, tables::INCIDENTS, usize::MAX, |key, _| key)
    }

    /// An incident.
    pub fn incident(&self, id: IncidentId) -> Read<Option<Incident>> {
        self.get(tables::INCIDENTS, id.as_bytes())
    }

    /// A cleanup task.
    pub fn cleanup_task(&self, id: CleanupId) -> Read<Option<CleanupTask>> {
        self.get(tables::CLEANUP, id.as_bytes())
    }

    /// An action-required record.
    pub fn action(&self, id: ActionId) -> Read<Option<ActionRequired>> {
        self.get(tables::ACTIONS, id.as_bytes())
    }

    /// The cleanup queue, oldest first.
    pub fn cleanup_tasks(&self) -> Read<Vec<CleanupTask>> {
        self.all(tables::CLEANUP)
    }

    /// What a person must do, oldest first.
    pub fn actions_required(&self) -> Read<Vec<ActionRequired>> {
        self.all(tables::ACTIONS)
    }

    /// A plugin.
    pub fn plugin(&self, name: &Name) -> Read<Option<Plugin>> {
        self.get(tables::PLUGINS, name.as_str().as_bytes())
    }

    /// Every plugin, by name.
    pub fn plugins(&self) -> Read<Vec<Plugin>> {
        self.all(tables::PLUGINS)
    }

    /// Every binding, by hook and plugin.
    pub fn bindings(&self) -> Read<Vec<Binding>> {
        self.all(tables::BINDINGS)
    }

    /// The binding of a plugin to a hook.
    pub fn binding(&self, hook: Hook, plugin: &Name) -> Read<Option<Binding>> {
        self.get(tables::BINDINGS, &pair_key(hook.name(), plugin.as_str()))
    }

    /// Every quarantine, by plugin and revision.
    pub fn quarantines(&self) -> Read<Vec<Quarantine>> {
        self.all(tables::QUARANTINES)
    }

    /// The quarantine that a plugin's revision is in.
    pub fn quarantine(&self, plugin: &Name, revision: u64) -> Read<Option<Quarantine>> {
        self.get(tables::QUARANTINES, &revision_key(plugin, revision))
    }

    /// Every image, by digest.
    pub fn images(&self) -> Read<Vec<Image>> {
        self.all(tables::IMAGES)
    }

    /// An image.
    pub fn image(&self, digest: &Digest) -> Read<Option<Image>> {
        self.get(tables::IMAGES, digest.as_bytes())
    }

    /// The image that `tag` points to.
    pub fn image_by_tag(&self, tag: &str) -> Read<Option<Image>> {
        self.get_by(tables::IMAGE_TAGS, tag.as_bytes(), tables::IMAGES)
    }
}

/// What `each` makes of the rows in a range of keys, from either end.
fn walk<T>(
    rows: &Rows,
    range: &Range,
    from: From,
    limit: usize,
    each: impl Fn(&[u8], &[u8]) -> Read<T>,
) -> Read<Vec<T>> {
    let bounds = (
        range.0.as_ref().map(Vec::as_slice),
        range.1.as_ref().map(Vec::as_slice),
    );
    let mut rows = rows.range::<&[u8]>(bounds)?;
    let mut found = Vec::new();
    while found.len() < limit {
        let row = match from {
            From::First => rows.next(),
            From::Last => rows.next_back(),
        };
        let Some(row) = row else { break };
        let (key, value) = row?;
        found.push(each(key.value(), value.value())?);
    }
    Ok(found)
}

/// The error for an entry of `index` that leads nowhere.
fn dangling(index: Table, table: Table) -> ReadError {
    index.damaged(format!("it names a row that {} does not have", table.0))
}

/// All keys that begin with a VM's id.
fn vm_range(vm: VmId) -> Range {
    let (first, last) = vm_keys(vm);
    (Bound::Included(first), Bound::Included(last))
}
