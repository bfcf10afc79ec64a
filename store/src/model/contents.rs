//! Everything that a store can be asked, as one value: of a store, and of the model.

use std::collections::{BTreeMap, BTreeSet};

use roost_model::*;

use super::changes::{NAMES, VMS};
use super::reference::Model;
use crate::records::*;
use crate::{DecisionFilter, KvUsage, Order, Store};

const MANY: usize = usize::MAX;

/// What all reads of a store answer.
#[derive(Debug, PartialEq)]
pub(crate) struct Contents {
    vms: Vec<VmRecord>,
    operations: Vec<Operation>,
    unfinished: Vec<Operation>,
    events: Vec<Event>,
    last_event: u64,
    events_of_vm_1: Vec<Event>,
    incidents: Vec<Incident>,
    open_incidents: Vec<Incident>,
    cleanup: Vec<CleanupTask>,
    actions: Vec<ActionRequired>,
    plugins: Vec<Plugin>,
    bindings: Vec<Binding>,
    quarantines: Vec<Quarantine>,
    drain: Option<Drain>,
    images: Vec<Image>,
    open_windows: Vec<OpenWindow>,
    windows: Vec<UsageWindow>,
    charges: Vec<Charge>,
    outbox: Vec<UsageWindow>,
    outbox_vms: Vec<VmId>,
    decisions: Vec<NewDecision>,
    kv: BTreeMap<String, Vec<u8>>,
    kv_usage: KvUsage,
    of_vms: Vec<OfVm>,
    by_name: Vec<(Option<VmRecord>, Option<Image>)>,
}

/// What reads of one VM answer.
#[derive(Debug, PartialEq)]
struct OfVm {
    record: Option<VmRecord>,
    departed: Option<VmRecord>,
    operations: Vec<Operation>,
    incidents: Vec<Incident>,
    open_window: Option<OpenWindow>,
    windows: Vec<UsageWindow>,
    last_window: Option<UsageWindow>,
    outbox: Vec<UsageWindow>,
}

impl Contents {
    /// Reads all of `store`.
    pub(crate) fn of_store(store: &Store) -> Self {
        let order = Order::Oldest { after: 0 };
        let decisions = store.decisions(&DecisionFilter::default(), order, MANY);
        let snapshot = store.snapshot().unwrap();
        let plugin = name("p");
        let value = |key: &String| snapshot.kv_get(&plugin, key).unwrap().unwrap();
        let keys = snapshot.kv_list(&plugin, "", None, MANY).unwrap();
        Self {
            vms: store.vms().unwrap(),
            operations: store.operations(None, MANY).unwrap(),
            unfinished: store.unfinished_operations().unwrap(),
            events: store.events(0, MANY).unwrap(),
            last_event: store.last_event().unwrap(),
            events_of_vm_1: snapshot.events_of(vm_id(1), MANY).unwrap(),
            incidents: store.incidents(None, MANY).unwrap(),
            open_incidents: store.open_incidents().unwrap(),
            cleanup: store.cleanup_tasks().unwrap(),
            actions: store.actions_required().unwrap(),
            plugins: store.plugins().unwrap(),
            bindings: store.bindings().unwrap(),
            quarantines: store.quarantines().unwrap(),
            drain: store.drain().unwrap(),
            images: store.images().unwrap(),
            open_windows: store.open_windows().unwrap(),
            windows: store.windows(None, MANY).unwrap(),
            charges: store.charges(None, MANY).unwrap(),
            outbox: store.outbox(MANY).unwrap(),
            outbox_vms: store.outbox_vms().unwrap(),
            decisions: decisions
                .unwrap()
                .items
                .into_iter()
                .map(|record| record.decision)
                .collect(),
            kv: keys
                .into_iter()
                .map(|key| (key.clone(), value(&key)))
                .collect(),
            kv_usage: snapshot.kv_usage(&plugin).unwrap(),
            of_vms: (1..=VMS).map(|n| OfVm::of_store(store, vm_id(n))).collect(),
            by_name: NAMES
                .map(|text| {
                    (
                        store.vm_by_name(&Tenant::default(), &name(text)).unwrap(),
                        store.image_by_tag(text).unwrap(),
                    )
                })
                .into(),
        }
    }

    /// What reads of a store that holds what `model` holds answer.
    pub(crate) fn of_model(model: &Model) -> Self {
        let image = |text| {
            model
                .tags
                .get(text)
                .and_then(|digest| model.images.get(digest))
        };
        let vm = |text| model.vms.values().find(|vm| vm.spec.name.as_str() == text);
        Self {
            vms: all(&model.vms),
            operations: newest(&model.operations, |_| true),
            unfinished: oldest(&model.operations, |operation| !operation.is_done()),
            events: model.events.clone(),
            last_event: model.events.len() as u64,
            events_of_vm_1: (model.events.iter().rev())
                .filter(|event| event.event.vm == Some(vm_id(1)))
                .cloned()
                .collect(),
            incidents: newest(&model.incidents, |_| true),
            open_incidents: oldest(&model.incidents, |incident| !incident.closed),
            cleanup: all(&model.cleanup),
            actions: all(&model.actions),
            plugins: all(&model.plugins),
            bindings: all(&model.bindings),
            quarantines: all(&model.quarantines),
            drain: model.drain,
            images: all(&model.images),
            open_windows: all(&model.open),
            windows: all(&model.windows),
            charges: all(&model.charges).concat(),
            outbox: outbox(model, |_| true),
            outbox_vms: (model.outbox.iter().map(|key| key.vm))
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
            decisions: model.decisions.clone(),
            kv: model.kv.clone(),
            kv_usage: model.usage(),
            of_vms: (1..=VMS).map(|n| OfVm::of_model(model, vm_id(n))).collect(),
            by_name: NAMES
                .map(|text| (vm(text).cloned(), image(text).cloned()))
                .into(),
        }
    }
}

impl OfVm {
    fn of_store(store: &Store, vm: VmId) -> Self {
        Self {
            record: store.vm(vm).unwrap(),
            departed: store.departed(vm).unwrap(),
            operations: store.operations(Some(vm), MANY).unwrap(),
            incidents: store.incidents(Some(vm), MANY).unwrap(),
            open_window: store.open_window(vm).unwrap(),
            windows: store.windows(Some(vm), MANY).unwrap(),
            last_window: store.last_window(vm, 1).unwrap(),
            outbox: store.outbox_of(vm, MANY).unwrap(),
        }
    }

    fn of_model(model: &Model, vm: VmId) -> Self {
        let windows = oldest(&model.windows, |window| window.key.vm == vm);
        let mut outbox = outbox(model, |window| window.key.vm == vm);
        outbox.sort_by_key(|window| window.key);
        Self {
            record: model.vms.get(&vm).cloned(),
            departed: model.departed.get(&vm).cloned(),
            operations: newest(&model.operations, |operation| operation.vm == vm),
            incidents: newest(&model.incidents, |incident| incident.vm == vm),
            open_window: model.open.get(&vm).cloned(),
            last_window: (windows.iter().rev())
                .find(|window| window.key.incarnation == 1)
                .cloned(),
            windows,
            outbox,
        }
    }
}

fn all<K, V: Clone>(map: &BTreeMap<K, V>) -> Vec<V> {
    map.values().cloned().collect()
}

fn oldest<K, V: Clone>(map: &BTreeMap<K, V>, wanted: impl Fn(&V) -> bool) -> Vec<V> {
    map.values()
        .filter(|value| wanted(value))
        .cloned()
        .collect()
}

fn newest<K, V: Clone>(map: &BTreeMap<K, V>, wanted: impl Fn(&V) -> bool) -> Vec<V> {
    let mut found = oldest(map, wanted);
    found.reverse();
    found
}

/// Windows that are not charged for, in the order in which they were closed.
fn outbox(model: &Model, wanted: impl Fn(&UsageWindow) -> bool) -> Vec<UsageWindow> {
    let windows = model.outbox.iter().map(|key| &model.windows[key]);
    windows.filter(|window| wanted(window)).cloned().collect()
}
