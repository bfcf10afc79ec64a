//! Commits that a host could make.

use proptest::prelude::*;
use roost_model::*;

use crate::records::*;
use crate::values::kv;
use crate::{Change, Expect, KvWrite};

/// VMs that there may be: few, so that commits meet.
pub(crate) const VMS: u128 = 3;
/// Names and tags that there may be.
pub(crate) const NAMES: [&str; 3] = ["a", "b", "c"];

/// One change; several of them are a commit.
pub(crate) fn change() -> impl Strategy<Value = Change> {
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
        1 => any::<u64>().prop_map(|at| Change::PutDrain(drain(at))),
        1 => Just(Change::RemoveDrain),
        1 => (text.clone(), any::<u64>())
            .prop_map(|(text, until)| Change::PutQuarantine(quarantine(text, until))),
        1 => text.clone().prop_map(|text| Change::RemoveQuarantine { plugin: name(text), revision: 1 }),
        3 => (window_key(), 0_usize..3).prop_map(|(window, count)| Change::Bill {
            window,
            charges: (0..count).map(|n| charge(window, &n.to_string())).collect(),
        }),
    ]
}
