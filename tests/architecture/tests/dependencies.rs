//! Dependencies point one way: `roost → api → engine → {store, policy, worker} → model` and
//! `worker → vmm → model`.

use std::collections::BTreeSet;

use architecture::members;

/// The crates that are shipped, and which of each other they may be built with.
const ALLOWED: [(&str, &[&str]); 9] = [
    ("roost-model", &[]),
    ("roost-store", &["roost-model"]),
    ("roost-policy", &["roost-model", "roost-policy-derive"]),
    ("roost-policy-derive", &[]),
    ("roost-vmm", &["roost-model"]),
    ("roost-worker", &["roost-model", "roost-vmm"]),
    (
        "roost-engine",
        &["roost-model", "roost-policy", "roost-store", "roost-worker"],
    ),
    ("roost-api", &["roost-engine", "roost-model"]),
    (
        "roost",
        &[
            "roost-api",
            "roost-engine",
            "roost-model",
            "roost-policy",
            "roost-store",
            "roost-worker",
        ],
    ),
];

/// Crates that only tests, examples and automation are built with.
const NOT_SHIPPED: [&str; 5] = [
    "architecture",
    "bench-store",
    "embed",
    "roost-guests",
    "xtask",
];

/// What a crate must not even reach over others.
const FORBIDDEN: [(&str, &[&str]); 3] = [
    ("roost-vmm", &["axum", "hyper", "redb", "tokio", "wasmtime"]),
    ("roost-policy", &["kvm-bindings", "kvm-ioctls", "vm-memory"]),
    (
        "roost-store",
        &["kvm-bindings", "kvm-ioctls", "vm-memory", "wasmtime"],
    ),
];

#[test]
fn every_member_is_either_in_the_arrows_or_not_shipped() {
    let known: BTreeSet<_> = ALLOWED
        .iter()
        .map(|(name, _)| *name)
        .chain(NOT_SHIPPED)
        .collect();
    let members = members();
    let found: BTreeSet<_> = members.keys().map(String::as_str).collect();
    assert_eq!(found, known);
}

#[test]
fn shipped_crates_depend_on_each_other_only_along_the_arrows() {
    let members = members();
    let ours = |name: &String| members.contains_key(name);
    for (name, allowed) in ALLOWED {
        let member = &members[name];
        for dependency in member.dependencies.iter().filter(|name| ours(name)) {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{name} must not depend on {dependency}; it may on {allowed:?}"
            );
        }
        for dependency in member.dev_dependencies.iter().filter(|name| ours(name)) {
            assert!(
                allowed.contains(&dependency.as_str())
                    || dependency == name
                    || dependency == "roost-guests",
                "the tests of {name} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn what_a_crate_must_not_know_is_not_even_reachable() {
    let members = members();
    for (name, forbidden) in FORBIDDEN {
        for dependency in forbidden {
            assert!(
                !members[name].reachable.contains(*dependency),
                "{name} reaches {dependency}"
            );
        }
    }
}
