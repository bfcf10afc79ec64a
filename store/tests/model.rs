//! The store against a model of it in memory, over generated commits and reopenings.

mod records;
mod values;

use std::collections::BTreeMap;

use proptest::prelude::*;
use records::*;
use roost_model::*;
use roost_store::{
    Change, CommitError, Conflict, DecisionFilter, Expect, KvUsage, KvWrite, Order, Store,
};
use values::kv;

/// What a store should hold, as simply as it can be said.
#[derive(Debug, Clone, Default)]
struct Model {
    vms: BTreeMap<VmId, VmRecord>,
    operations: BTreeMap<OperationId, Operation>,
    events: Vec<Event>,
    incidents: BTreeMap<IncidentId, Incident>,
    cleanup: BTreeMap<CleanupId, CleanupTask>,
    actions: BTreeMap<ActionId, ActionRequired>,
    bindings: BTreeMap<(&'static str, String), Binding>,
    plugins: BTreeMap<Name, Plugin>,
    images: BTreeMap<Digest, Image>,
    tags: BTreeMap<String, Digest>,
    open: BTreeMap<VmId, OpenWindow>,
    windows: BTreeMap<WindowKey, UsageWindow>,
    outbox: Vec<WindowKey>,
    charges: BTreeMap<WindowKey, Vec<Charge>>,
    decisions: Vec<NewDecision>,
    kv: BTreeMap<String, Vec<u8>>,
    quarantines: BTreeMap<Name, Quarantine>,
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
                self.vms.remove(&id);
            }
            Change::PutOperation(operation) => {
                self.operations.insert(operation.id, operation);
            }
            Change::AppendEvent(event) => self.events.push(Event {
                number: self.events.len() as u64 + 1,
                event,
            }),
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

    fn usage(&self) -> KvUsage {
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

    fn commit(&mut self, changes: Vec<Change>) -> Result<Vec<Event>, Conflict> {
        let mut after = self.clone();
        for change in changes {
            after.apply(change)?;
        }
        let events = after.events[self.events.len()..].to_vec();
        *self = after;
        Ok(events)
    }

    fn compare(&self, store: &Store) {
        fn all<K, V: Clone>(map: &BTreeMap<K, V>) -> Vec<V> {
            map.values().cloned().collect()
        }
        fn newest<K, V: Clone>(map: &BTreeMap<K, V>, wanted: impl Fn(&V) -> bool) -> Vec<V> {
            map.values().rev().filter(|v| wanted(v)).cloned().collect()
        }
        const MANY: usize = usize::MAX;
        let (operations, incidents) = (&self.operations, &self.incidents);
        assert_eq!(store.vms().unwrap(), all(&self.vms));
        assert_eq!(
            store.operations(None, MANY).unwrap(),
            newest(operations, |_| true)
        );
        assert_eq!(store.events(0, MANY).unwrap(), self.events);
        assert_eq!(store.last_event().unwrap(), self.events.len() as u64);
        assert_eq!(*store.watch_events().borrow(), self.events.len() as u64);
        assert_eq!(
            store.incidents(None, MANY).unwrap(),
            newest(incidents, |_| true)
        );
        assert_eq!(store.cleanup_tasks().unwrap(), all(&self.cleanup));
        assert_eq!(store.actions_required().unwrap(), all(&self.actions));
        assert_eq!(store.plugins().unwrap(), all(&self.plugins));
        assert_eq!(store.bindings().unwrap(), all(&self.bindings));
        assert_eq!(store.images().unwrap(), all(&self.images));
        assert_eq!(store.open_windows().unwrap(), all(&self.open));
        assert_eq!(store.windows(None, MANY).unwrap(), all(&self.windows));
        assert_eq!(
            store.charges(None, MANY).unwrap(),
            all(&self.charges).concat()
        );
        let outbox: Vec<_> = self
            .outbox
            .iter()
            .map(|key| self.windows[key].clone())
            .collect();
        assert_eq!(store.outbox(MANY).unwrap(), outbox);
        let unfinished: Vec<_> = operations
            .values()
            .filter(|o| !o.is_done())
            .cloned()
            .collect();
        assert_eq!(store.unfinished_operations().unwrap(), unfinished);
        let open: Vec<_> = incidents.values().filter(|i| !i.closed).cloned().collect();
        assert_eq!(store.open_incidents().unwrap(), open);
        let order = Order::Oldest { after: 0 };
        let decisions = store.decisions(&DecisionFilter::default(), order, MANY);
        let decisions = decisions.unwrap().items.into_iter().map(|d| d.decision);
        assert_eq!(decisions.collect::<Vec<_>>(), self.decisions);
        assert_eq!(store.quarantines().unwrap(), all(&self.quarantines));
        let snapshot = store.snapshot().unwrap();
        let keys: Vec<_> = self.kv.keys().cloned().collect();
        assert_eq!(snapshot.kv_list(&name("p"), "", None, MANY).unwrap(), keys);
        assert_eq!(snapshot.kv_usage(&name("p")).unwrap(), self.usage());
        for (key, value) in &self.kv {
            let found = snapshot.kv_get(&name("p"), key).unwrap();
            assert_eq!(found.as_ref(), Some(value));
        }
        let mut of_vm: Vec<_> = (self.events.iter())
            .filter(|e| e.event.vm == Some(vm_id(1)))
            .cloned()
            .collect();
        of_vm.reverse();
        assert_eq!(snapshot.events_of(vm_id(1), MANY).unwrap(), of_vm);
        for vm in (1..=VMS).map(vm_id) {
            assert_eq!(store.vm(vm).unwrap().as_ref(), self.vms.get(&vm));
            let of_vm = newest(operations, |o| o.vm == vm);
            assert_eq!(store.operations(Some(vm), MANY).unwrap(), of_vm);
            assert_eq!(
                store.incidents(Some(vm), MANY).unwrap(),
                newest(incidents, |i| i.vm == vm)
            );
            assert_eq!(store.open_window(vm).unwrap().as_ref(), self.open.get(&vm));
            let of_vm: Vec<_> = self
                .windows
                .values()
                .filter(|w| w.key.vm == vm)
                .cloned()
                .collect();
            assert_eq!(store.windows(Some(vm), MANY).unwrap(), of_vm);
            let last = of_vm.iter().rev().find(|w| w.key.incarnation == 1).cloned();
            assert_eq!(store.last_window(vm, 1).unwrap(), last);
        }
        for text in NAMES {
            let of_name = self.vms.values().find(|vm| vm.spec.name.as_str() == text);
            let found = store.vm_by_name(&Tenant::default(), &name(text)).unwrap();
            assert_eq!(found.as_ref(), of_name);
            let tagged = self
                .tags
                .get(text)
                .and_then(|digest| self.images.get(digest));
            assert_eq!(store.image_by_tag(text).unwrap().as_ref(), tagged);
        }
    }
}

/// VMs that there may be: few, so that commits meet.
const VMS: u128 = 3;
const NAMES: [&str; 3] = ["a", "b", "c"];

fn change() -> impl Strategy<Value = Change> {
    let vm_number = 1..=VMS;
    let text = proptest::sample::select(&NAMES);
    let window_key = || (1..=VMS, 1_u64..3, 1_u64..3).prop_map(|(vm, i, s)| key(vm, i, s));
    let hook = proptest::sample::select(&Hook::ALL);
    let id = 1_u128..4;
    let state = prop_oneof![
        Just(OperationState::Running),
        Just(OperationState::Succeeded),
        Just(OperationState::Failed {
            error: "no".to_owned()
        }),
    ];
    // Values that, two of them, fill the quota of 64 bytes.
    let value = (0_usize..40).prop_map(|length| vec![7; length]);
    let maybe = proptest::option::of(value);
    prop_oneof![
        3 => (vm_number.clone(), text.clone()).prop_map(|(n, text)| Change::PutVm {
            record: vm(n, text),
            expect: Expect::Absent,
        }),
        4 => (vm_number.clone(), text.clone(), 1_u64..4).prop_map(|(n, text, revision)| {
            Change::PutVm {
                record: at_revision(&vm(n, text), revision + 1),
                expect: Expect::Revision(revision),
            }
        }),
        2 => (vm_number.clone(), 1_u64..3)
            .prop_map(|(n, revision)| Change::RemoveVm { id: vm_id(n), revision }),
        2 => (id.clone(), state).prop_map(|(n, state)| {
            // An operation is of one VM for good.
            Change::PutOperation(operation(n, n % VMS + 1, state))
        }),
        2 => any::<u64>().prop_map(|at| Change::AppendEvent(event(at))),
        1 => (id.clone(), any::<bool>())
            .prop_map(|(n, closed)| Change::PutIncident(incident(n, n % VMS + 1, closed))),
        1 => (id.clone(), vm_number.clone()).prop_map(|(n, vm)| Change::PutCleanup(task(n, vm))),
        1 => id.clone().prop_map(|n| Change::RemoveCleanup(task(n, 1).id)),
        1 => id.clone().prop_map(|n| Change::PutAction(action(n))),
        1 => id.prop_map(|n| Change::RemoveAction(action(n).id)),
        1 => text.clone().prop_map(|text| Change::PutPlugin(plugin(text))),
        1 => (hook.clone(), text.clone(), any::<i32>())
            .prop_map(|(hook, text, priority)| Change::PutBinding(binding(hook, text, priority))),
        1 => (hook, text.clone())
            .prop_map(|(hook, text)| Change::RemoveBinding { hook, plugin: name(text) }),
        1 => (0_u8..3, proptest::option::of(text.clone()))
            .prop_map(|(n, tag)| Change::PutImage(image(n, tag))),
        1 => (vm_number.clone(), any::<u64>())
            .prop_map(|(vm, n)| Change::PutOpenWindow(open_window(vm, n))),
        1 => vm_number.clone().prop_map(|vm| Change::RemoveOpenWindow(vm_id(vm))),
        3 => window_key().prop_map(|key| Change::CloseWindow(window(key))),
        2 => (1_u64..4, vm_number, any::<bool>())
            .prop_map(|(at, n, differs)| Change::AppendDecision(decision(at, n, "p", differs))),
        4 => (text.clone(), maybe.clone(), proptest::option::of((text.clone(), maybe))).prop_map(
            |(key, value, expected)| Change::WriteKv(KvWrite {
                expected: expected.map(|(key, value)| (key.to_owned(), value)).into_iter().collect(),
                ..kv(key, value.as_deref())
            })
        ),
        1 => (text.clone(), any::<u64>())
            .prop_map(|(text, until)| Change::PutQuarantine(quarantine(text, until))),
        1 => text.clone().prop_map(|text| Change::RemoveQuarantine { plugin: name(text), revision: 1 }),
        3 => (window_key(), 0_usize..3).prop_map(|(window, count)| Change::Bill {
            window,
            charges: (0..count).map(|n| charge(window, &n.to_string())).collect(),
        }),
    ]
}

#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<Change>),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        9 => proptest::collection::vec(change(), 1..4).prop_map(Step::Commit),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_store_is_what_a_map_in_memory_would_be(
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Commit(changes) => {
                    let expected = model.commit(changes.clone());
                    let found = match runtime.block_on(store.commit(changes)) {
                        Ok(committed) => Ok(committed.events),
                        Err(CommitError::Conflict(conflict)) => Err(conflict),
                        Err(error) => panic!("{error}"),
                    };
                    prop_assert_eq!(found, expected);
                }
                Step::Reopen => {
                    drop(store);
                    store = Store::open(dir.path()).unwrap();
                }
            }
            model.compare(&store);
        }
    }
}
