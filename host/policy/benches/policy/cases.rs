//! The policies that are measured.

use std::path::Path;

use roost_model::{Grant, Hook};
use roost_policy::{Decision, Facts};

use crate::component;
pub(crate) use crate::facts::Size;
use crate::{facts, native};

/// A policy and what it is asked.
pub(crate) struct Case {
    /// Its hook and what it is made of.
    pub(crate) name: &'static str,
    pub(crate) hook: Hook,
    pub(crate) component: Vec<u8>,
    pub(crate) facts: fn(Size) -> Facts,
    /// The same decision in native Rust.
    pub(crate) native: Option<fn(&Facts) -> Decision>,
    pub(crate) grants: &'static [Grant],
    /// Whether the budgets are meant for it.
    pub(crate) has_budget: bool,
}

/// A policy of this repository, made from Rust.
fn rust(
    name: &'static str,
    policy: &str,
    facts: fn(Size) -> Facts,
    native: fn(&Facts) -> Decision,
) -> Case {
    let components = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/target/components");
    let file = components.join(format!("{policy}.wasm"));
    Case {
        name,
        hook: facts(Size::Small).hook(),
        component: std::fs::read(file).expect("`cargo xtask plugins` has built it"),
        facts,
        native: Some(native),
        grants: &[],
        has_budget: true,
    }
}

/// All of them.
pub(crate) fn all(javascript: Option<Vec<u8>>) -> Vec<Case> {
    let mut cases = vec![
        rust(
            "admission.rust",
            "admission-limits",
            facts::admission,
            native::admission,
        ),
        rust(
            "cleanup.rust",
            "cleanup-backoff",
            facts::cleanup,
            native::cleanup,
        ),
        rust(
            "recovery.rust",
            "recovery-restart",
            facts::recovery,
            native::recovery,
        ),
        rust(
            "billing.rust",
            "billing-meter",
            facts::billing,
            native::billing,
        ),
        // There is no bundled observer, so it is one that looks at nothing.
        Case {
            name: "observer.text",
            hook: Hook::Observer,
            component: component::observer(),
            facts: facts::observer,
            native: None,
            grants: &[],
            has_budget: true,
        },
        // The other way to know of many VMs: to ask.
        Case {
            name: "cleanup.text-list-vms",
            hook: Hook::Cleanup,
            component: component::listing_vms(),
            facts: |_| facts::cleanup(Size::Small),
            native: None,
            grants: &[Grant::Query],
            has_budget: false,
        },
        rust(
            "recovery.rust-night-watch",
            "night-watch",
            facts::recovery,
            native::night_watch,
        ),
    ];
    cases.extend(javascript.map(|component| Case {
        name: "recovery.javascript-night-watch",
        hook: Hook::Recovery,
        component,
        facts: facts::recovery,
        native: Some(native::night_watch),
        grants: &[],
        has_budget: false,
    }));
    cases
}
