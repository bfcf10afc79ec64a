//! Planning a commit: everything it expects is checked, and every row it writes is made, before
//! anything is written. A commit that is refused has not touched the transaction.
//!
//! A plan sees the transaction as the commits before it left it, and its own earlier changes on
//! top. So changes of one commit act in their order, and none gets past a check by sharing a
//! commit with its twin.

use std::collections::BTreeMap;

use redb::{ReadableTable as _, WriteTransaction};
use roost_model::{Charge, Event, Image, NewEvent, UsageWindow, VmId, VmRecord, WindowKey};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::change::{Change, Conflict, Expect};
use crate::error::ReadError;
use crate::schema::{
    self as tables, Table, decode, encode, name_key, number, owned_key, pair_key, revision_key,
    vm_event_key, vm_id, vm_keys, window_key,
};

mod decisions;
mod kv;

/// Why a commit can't be planned.
pub(crate) enum Refused {
    /// What it expects does not hold.
    Conflict(Conflict),
    /// Something could not be read.
    Unreadable(ReadError),
}

impl<E: Into<ReadError>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self::Unreadable(error.into())
    }
}

impl From<Conflict> for Refused {
    fn from(conflict: Conflict) -> Self {
        Self::Conflict(conflict)
    }
}

/// The numbers that were given out last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers {
    event: u64,
    place: u64,
    decision: u64,
}

impl Numbers {
    /// As the transaction has them.
    pub(crate) fn read(transaction: &WriteTransaction) -> Result<Self, ReadError> {
        let last = |table: Table| -> Result<u64, ReadError> {
            let opened = transaction.open_table(table.definition())?;
            let last = opened.last()?;
            last.map_or(Ok(0), |(key, _)| number(table, key.value()))
        };
        Ok(Self {
            event: last(tables::EVENTS)?,
            place: last(tables::OUTBOX_QUEUE)?,
            decision: last(tables::DECISIONS)?,
        })
    }
}

/// What a commit will write.
pub(crate) struct Plan<'t> {
    transaction: &'t WriteTransaction,
    rows: BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>,
    numbers: Numbers,
    events: Vec<Event>,
    /// Size of the decisions that it appends, bytes.
    decision_bytes: u64,
}

/// What writing a plan did.
pub(crate) struct Written {
    /// The events that it appended.
    pub(crate) events: Vec<Event>,
    /// The numbers that it left off at.
    pub(crate) numbers: Numbers,
    /// Size of the decisions that it appended, bytes.
    pub(crate) decision_bytes: u64,
}

impl<'t> Plan<'t> {
    /// Plans all of `changes`, or none.
    pub(crate) fn new(
        transaction: &'t WriteTransaction,
        numbers: Numbers,
        changes: Vec<Change>,
    ) -> Result<Self, Refused> {
        let mut plan = Self {
            transaction,
            rows: BTreeMap::new(),
            numbers,
            events: Vec::new(),
            decision_bytes: 0,
        };
        for change in changes {
            plan.add(change)?;
        }
        Ok(plan)
    }

    /// Writes it; an error leaves the transaction of no use.
    pub(crate) fn write(self) -> Result<Written, redb::Error> {
        let mut opened = None;
        for ((table, key), value) in self.rows {
            // Rows are sorted by table, so each is opened once.
            let rows = match opened.take() {
                Some((name, rows)) if name == table => rows,
                before => {
                    drop(before);
                    self.transaction.open_table(table.definition())?
                }
            };
            let (_, rows) = opened.insert((table, rows));
            match value {
                Some(value) => drop(rows.insert(key.as_slice(), value.as_slice())?),
                None => drop(rows.remove(key.as_slice())?),
            }
        }
        Ok(Written {
            events: self.events,
            numbers: self.numbers,
            decision_bytes: self.decision_bytes,
        })
    }

    fn raw(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        if let Some(planned) = self.rows.get(&(table, key.to_vec())) {
            return Ok(planned.clone());
        }
        let rows = self.transaction.open_table(table.definition())?;
        let value = rows.get(key)?.map(|value| value.value().to_vec());
        Ok(value)
    }

    fn get<T: DeserializeOwned>(&self, table: Table, key: &[u8]) -> Result<Option<T>, ReadError> {
        let value = self.raw(table, key)?;
        value.map(|value| decode(table, &value)).transpose()
    }

    fn put_raw(&mut self, table: Table, key: &[u8], value: Vec<u8>) {
        self.rows.insert((table, key.to_vec()), Some(value));
    }

    fn put(&mut self, table: Table, key: &[u8], value: &impl Serialize) -> Result<(), Refused> {
        self.put_raw(table, key, encode(table, value)?);
        Ok(())
    }

    fn remove(&mut self, table: Table, key: &[u8]) {
        self.rows.insert((table, key.to_vec()), None);
    }

    /// An index entry that is there or not.
    fn mark(&mut self, table: Table, key: &[u8], there: bool) {
        if there {
            self.put_raw(table, key, Vec::new());
        } else {
            self.remove(table, key);
        }
    }

    fn add(&mut self, change: Change) -> Result<(), Refused> {
        match change {
            Change::PutVm { record, expect } => self.put_vm(&record, expect)?,
            Change::RemoveVm { id, revision } => {
                let record = self.vm_at(id, revision)?;
                self.remove(tables::VM_NAMES, &name_key(&record));
                self.remove(tables::VMS, id.as_bytes());
                if self.has_windows_to_bill(id)? {
                    self.put(tables::DEPARTED, id.as_bytes(), &record)?;
                }
            }
            Change::PutOperation(operation) => {
                let id = operation.id.as_bytes();
                self.put(tables::OPERATIONS, id, &operation)?;
                self.mark(tables::VM_OPERATIONS, &owned_key(operation.vm, id), true);
                self.mark(tables::UNFINISHED, id, !operation.is_done());
            }
            Change::AppendEvent(event) => self.append(event)?,
            Change::PutDrain(drain) => self.put(tables::META, tables::DRAIN_KEY, &drain)?,
            Change::RemoveDrain => self.remove(tables::META, tables::DRAIN_KEY),
            Change::PutIncident(incident) => {
                let id = incident.id.as_bytes();
                self.put(tables::INCIDENTS, id, &incident)?;
                self.mark(tables::VM_INCIDENTS, &owned_key(incident.vm, id), true);
                self.mark(tables::OPEN_INCIDENTS, id, !incident.closed);
            }
            Change::PutCleanup(task) => self.put(tables::CLEANUP, task.id.as_bytes(), &task)?,
            Change::RemoveCleanup(id) => self.remove(tables::CLEANUP, id.as_bytes()),
            Change::PutAction(action) => {
                self.put(tables::ACTIONS, action.id.as_bytes(), &action)?;
            }
            Change::RemoveAction(id) => self.remove(tables::ACTIONS, id.as_bytes()),
            Change::PutPlugin(plugin) => {
                self.put(tables::PLUGINS, plugin.name.as_str().as_bytes(), &plugin)?;
            }
            Change::PutBinding(binding) => {
                let key = pair_key(binding.hook.name(), binding.plugin.as_str());
                self.put(tables::BINDINGS, &key, &binding)?;
            }
            Change::RemoveBinding { hook, plugin } => {
                self.remove(tables::BINDINGS, &pair_key(hook.name(), plugin.as_str()));
            }
            Change::AppendDecision(decision) => self.append_decision(decision)?,
            Change::WriteKv(write) => self.write_kv(&write)?,
            Change::PutQuarantine(quarantine) => {
                let key = revision_key(&quarantine.plugin, quarantine.revision);
                self.put(tables::QUARANTINES, &key, &quarantine)?;
            }
            Change::RemoveQuarantine { plugin, revision } => {
                self.remove(tables::QUARANTINES, &revision_key(&plugin, revision));
            }
            Change::PutImage(image) => self.put_image(&image)?,
            Change::PutOpenWindow(window) => {
                self.put(tables::OPEN_WINDOWS, window.key.vm.as_bytes(), &window)?;
            }
            Change::RemoveOpenWindow(vm) => self.remove(tables::OPEN_WINDOWS, vm.as_bytes()),
            Change::CloseWindow(window) => self.close_window(&window)?,
            Change::Bill { window, charges } => self.bill(window, &charges)?,
        }
        Ok(())
    }

    /// The record of `id`, which must have `revision`.
    fn vm_at(&self, id: VmId, revision: u64) -> Result<VmRecord, Refused> {
        let record: VmRecord = self
            .get(tables::VMS, id.as_bytes())?
            .ok_or(Conflict::VmMissing(id))?;
        if record.revision == revision {
            Ok(record)
        } else {
            let (expected, found) = (revision, record.revision);
            Err(Conflict::StaleRevision {
                id,
                expected,
                found,
            }
            .into())
        }
    }

    fn put_vm(&mut self, record: &VmRecord, expect: Expect) -> Result<(), Refused> {
        let id = record.id;
        let name = name_key(record);
        match expect {
            Expect::Absent => {
                if self.raw(tables::VMS, id.as_bytes())?.is_some() {
                    return Err(Conflict::VmExists(id).into());
                }
                self.demand_free(record, &name)?;
            }
            Expect::Revision(expected) => {
                let before = self.vm_at(id, expected)?;
                // A record says by its revision which one it follows.
                let follows = record.revision.saturating_sub(1);
                if follows != expected {
                    let (expected, found) = (follows, before.revision);
                    return Err(Conflict::StaleRevision {
                        id,
                        expected,
                        found,
                    }
                    .into());
                }
                let name_before = name_key(&before);
                if name_before != name {
                    self.demand_free(record, &name)?;
                    self.remove(tables::VM_NAMES, &name_before);
                }
            }
        }
        self.put(tables::VMS, id.as_bytes(), record)?;
        self.put_raw(tables::VM_NAMES, &name, id.as_bytes().to_vec());
        Ok(())
    }

    /// No VM may have the name of `record`.
    fn demand_free(&self, record: &VmRecord, key: &[u8]) -> Result<(), Refused> {
        let Some(by) = self.raw(tables::VM_NAMES, key)? else {
            return Ok(());
        };
        let taken = Conflict::NameTaken {
            tenant: record.spec.tenant.clone(),
            name: record.spec.name.clone(),
            by: vm_id(tables::VM_NAMES, &by)?,
        };
        Err(taken.into())
    }

    fn append(&mut self, event: NewEvent) -> Result<(), Refused> {
        self.numbers.event = next(tables::EVENTS, self.numbers.event)?;
        let event = Event {
            number: self.numbers.event,
            event,
        };
        self.put(tables::EVENTS, &event.number.to_be_bytes(), &event)?;
        if let Some(vm) = event.event.vm {
            self.mark(tables::VM_EVENTS, &vm_event_key(vm, event.number), true);
        }
        self.events.push(event);
        Ok(())
    }

    fn put_image(&mut self, image: &Image) -> Result<(), Refused> {
        if let Some(tag) = &image.tag {
            let digest = image.digest.as_bytes().to_vec();
            if let Some(before) = self.raw(tables::IMAGE_TAGS, tag.as_bytes())?
                && before != digest
                && let Some(mut loser) = self.get::<Image>(tables::IMAGES, &before)?
                && loser.tag.as_ref() == Some(tag)
            {
                loser.tag = None;
                self.put(tables::IMAGES, &before, &loser)?;
            }
            self.put_raw(tables::IMAGE_TAGS, tag.as_bytes(), digest);
        }
        self.put(tables::IMAGES, image.digest.as_bytes(), image)
    }

    fn close_window(&mut self, window: &UsageWindow) -> Result<(), Refused> {
        let key = window_key(&window.key);
        if self.raw(tables::WINDOWS, &key)?.is_some() {
            return Err(Conflict::WindowExists(window.key).into());
        }
        self.numbers.place = next(tables::OUTBOX_QUEUE, self.numbers.place)?;
        let place = self.numbers.place.to_be_bytes();
        self.put(tables::WINDOWS, &key, window)?;
        self.put_raw(tables::OUTBOX, &key, place.to_vec());
        self.put_raw(tables::OUTBOX_QUEUE, &place, key.to_vec());
        Ok(())
    }

    fn bill(&mut self, window: WindowKey, charges: &[Charge]) -> Result<(), Refused> {
        let key = window_key(&window);
        let place = self
            .raw(tables::OUTBOX, &key)?
            .ok_or(Conflict::NotInOutbox(window))?;
        self.remove(tables::OUTBOX, &key);
        self.remove(tables::OUTBOX_QUEUE, &place);
        for (index, charge) in (0_u32..).zip(charges) {
            let key = [key.as_slice(), &index.to_be_bytes()].concat();
            self.put(tables::CHARGES, &key, charge)?;
        }
        let vm = window.vm;
        if self.raw(tables::DEPARTED, vm.as_bytes())?.is_some() && !self.has_windows_to_bill(vm)? {
            self.remove(tables::DEPARTED, vm.as_bytes());
        }
        Ok(())
    }

    /// Whether windows of `vm` are in the outbox.
    fn has_windows_to_bill(&self, vm: VmId) -> Result<bool, Refused> {
        let (first, last) = vm_keys(vm);
        let of_vm = (tables::OUTBOX, first.clone())..=(tables::OUTBOX, last.clone());
        if self.rows.range(of_vm).any(|(_, value)| value.is_some()) {
            return Ok(true);
        }
        let entries = (self.transaction)
            .open_table(tables::OUTBOX.definition())
            .map_err(ReadError::from)?;
        let range = first.as_slice()..=last.as_slice();
        for entry in entries.range::<&[u8]>(range).map_err(ReadError::from)? {
            let (key, _) = entry.map_err(ReadError::from)?;
            let key = (tables::OUTBOX, key.value().to_vec());
            if !self.rows.contains_key(&key) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The number after `last`. The largest one can only come from a damaged key.
fn next(table: Table, last: u64) -> Result<u64, ReadError> {
    last.checked_add(1)
        .ok_or_else(|| table.damaged("its numbers are used up"))
}
