//! What a store should hold, as simply as it can be said.

use std::collections::BTreeMap;

use roost_model::*;

use crate::{Change, Conflict, Expect, KvUsage, KvWrite};

/// What a store should hold, as simply as it can be said.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) vms: BTreeMap<VmId, VmRecord>,
    pub(crate) operations: BTreeMap<OperationId, Operation>,
    pub(crate) events: Vec<Event>,
    pub(crate) incidents: BTreeMap<IncidentId, Incident>,
    pub(crate) cleanup: BTreeMap<CleanupId, CleanupTask>,
    pub(crate) actions: BTreeMap<ActionId, ActionRequired>,
    pub(crate) bindings: BTreeMap<(&'static str, String), Binding>,
    pub(crate) plugins: BTreeMap<Name, Plugin>,
    pub(crate) images: BTreeMap<Digest, Image>,
    pub(crate) tags: BTreeMap<String, Digest>,
    pub(crate) open: BTreeMap<VmId, OpenWindow>,
    pub(crate) windows: BTreeMap<WindowKey, UsageWindow>,
    pub(crate) outbox: Vec<WindowKey>,
    pub(crate) charges: BTreeMap<WindowKey, Vec<Charge>>,
    pub(crate) departed: BTreeMap<VmId, VmRecord>,
    pub(crate) decisions: Vec<NewDecision>,
    pub(crate) kv: BTreeMap<String, Vec<u8>>,
    pub(crate) quarantines: BTreeMap<Name, Quarantine>,
    pub(crate) drain: Option<Drain>,
}

impl Model {
    fn name_free(&self, record: &VmRecord) -> Result<(), Conflict> {
        let (tenant, name) = (&record.spec.tenant, &record.spec.name);
        let same = |other: &&VmRecord| {
            other.id != record.id && (&other.spec.tenant, &other.spec.name) == (tenant, name)
        };
        match self.vms.values().find(same) {
            None => Ok(()),
            Some(other) => Err(Conflict::NameTaken {
                tenant: tenant.clone(),
                name: name.clone(),
                by: other.id,
            }),
        }
    }

    fn at(&self, id: VmId, expected: u64) -> Result<(), Conflict> {
        let found = self.vms.get(&id).ok_or(Conflict::VmMissing(id))?.revision;
        if found == expected {
            Ok(())
        } else {
            Err(Conflict::StaleRevision {
                id,
                expected,
                found,
            })
        }
    }

    fn apply(&mut self, change: Change) -> Result<(), Conflict> {
        match change {
            Change::PutVm { record, expect } => {
                match expect {
                    Expect::Absent if self.vms.contains_key(&record.id) => {
                        return Err(Conflict::VmExists(record.id));
                    }
                    Expect::Absent => {}
                    Expect::Revision(revision) => self.at(record.id, revision)?,
                }
                self.name_free(&record)?;
                self.vms.insert(record.id, record);
            }
            Change::RemoveVm { id, revision } => {
                self.at(id, revision)?;
                let removed = self.vms.remove(&id);
                if self.outbox.iter().any(|window| window.vm == id) {
                    self.departed.extend(removed.map(|record| (id, record)));
                }
            }
            Change::PutOperation(operation) => {
                self.operations.insert(operation.id, operation);
            }
            Change::AppendEvent(event) => self.events.push(Event {
                number: self.events.len() as u64 + 1,
                event,
            }),
            Change::PutDrain(drain) => self.drain = Some(drain),
            Change::RemoveDrain => self.drain = None,
            Change::PutIncident(incident) => {
                self.incidents.insert(incident.id, incident);
            }
            Change::PutCleanup(task) => {
                self.cleanup.insert(task.id, task);
            }
            Change::RemoveCleanup(id) => {
                self.cleanup.remove(&id);
            }
            Change::PutAction(action) => {
                self.actions.insert(action.id, action);
            }
            Change::RemoveAction(id) => {
                self.actions.remove(&id);
            }
            Change::PutPlugin(plugin) => {
                self.plugins.insert(plugin.name.clone(), plugin);
            }
            Change::PutBinding(binding) => {
                let key = (binding.hook.name(), binding.plugin.to_string());
                self.bindings.insert(key, binding);
            }
            Change::RemoveBinding { hook, plugin } => {
                self.bindings.remove(&(hook.name(), plugin.to_string()));
            }
            Change::PutImage(image) => {
                if let Some(tag) = &image.tag {
                    for other in self.images.values_mut() {
                        if other.tag.as_ref() == Some(tag) {
                            other.tag = None;
                        }
                    }
                    self.tags.insert(tag.clone(), image.digest);
                }
                self.images.insert(image.digest, image);
            }
            Change::PutOpenWindow(window) => {
                self.open.insert(window.key.vm, window);
            }
            Change::RemoveOpenWindow(vm) => {
                self.open.remove(&vm);
            }
            Change::CloseWindow(window) => {
                if self.windows.contains_key(&window.key) {
                    return Err(Conflict::WindowExists(window.key));
                }
                self.outbox.push(window.key);
                self.windows.insert(window.key, window);
            }
            Change::Bill { window, charges } => {
                let place = self.outbox.iter().position(|key| *key == window);
                self.outbox
                    .remove(place.ok_or(Conflict::NotInOutbox(window))?);
                self.charges.insert(window, charges);
                if self.outbox.iter().all(|other| other.vm != window.vm) {
                    self.departed.remove(&window.vm);
                }
            }
            Change::AppendDecision(decision) => self.decisions.push(decision),
            Change::WriteKv(write) => self.write_kv(write)?,
            Change::PutQuarantine(quarantine) => {
                self.quarantines
                    .insert(quarantine.plugin.clone(), quarantine);
            }
            Change::RemoveQuarantine { plugin, .. } => {
                self.quarantines.remove(&plugin);
            }
        }
        Ok(())
    }

    pub(crate) fn usage(&self) -> KvUsage {
        let bytes = self.kv.iter().map(|(key, value)| key.len() + value.len());
        KvUsage {
            keys: self.kv.len() as u64,
            bytes: bytes.sum::<usize>() as u64,
        }
    }

    fn write_kv(&mut self, write: KvWrite) -> Result<(), Conflict> {
        for (key, expected) in write.expected {
            if self.kv.get(&key) != expected.as_ref() {
                let plugin = write.plugin;
                return Err(Conflict::KvChanged { plugin, key });
            }
        }
        let before = self.usage();
        for (key, value) in write.writes {
            match value {
                Some(value) => self.kv.insert(key, value),
                None => self.kv.remove(&key),
            };
        }
        let (after, quota) = (self.usage(), write.quota);
        if (after.keys > before.keys && after.keys > quota.keys)
            || (after.bytes > before.bytes && after.bytes > quota.bytes)
        {
            let (plugin, wanted) = (write.plugin, after);
            return Err(Conflict::KvQuota {
                plugin,
                wanted,
                quota,
            });
        }
        Ok(())
    }

    /// Applies all of `changes`, or none; the events that they append.
    pub(crate) fn commit(&mut self, changes: Vec<Change>) -> Result<Vec<Event>, Conflict> {
        let mut after = self.clone();
        for change in changes {
            after.apply(change)?;
        }
        let events = after.events[self.events.len()..].to_vec();
        *self = after;
        Ok(events)
    }
}
