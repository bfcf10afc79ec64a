//! Where a component's policy interfaces are, and whether their types are ours.

use std::collections::BTreeSet;

use roost_model::Hook;
use wasmtime::component::{Instance, InstancePre};
use wasmtime::{Error, Store};

use crate::bindings::{admission, billing, cleanup, observer, plugin, recovery};
use crate::call::CallState;
use crate::error::LoadError;
use crate::text::clean;

/// Where the interfaces are in the component.
pub(crate) struct Exports {
    pub(crate) plugin: plugin::GuestIndices,
    pub(crate) admission: Option<admission::GuestIndices>,
    pub(crate) cleanup: Option<cleanup::GuestIndices>,
    pub(crate) recovery: Option<recovery::GuestIndices>,
    pub(crate) billing: Option<billing::GuestIndices>,
    pub(crate) observer: Option<observer::GuestIndices>,
}

/// The interfaces of one instance that were called before: taking one compares its types with
/// ours, which is a good part of what a call of a warm instance would take.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) admission: Option<admission::Guest>,
    pub(crate) cleanup: Option<cleanup::Guest>,
    pub(crate) recovery: Option<recovery::Guest>,
    pub(crate) billing: Option<billing::Guest>,
    pub(crate) observer: Option<observer::Guest>,
}

impl Exports {
    /// Looks for `plugin` and for `hooks`.
    pub(crate) fn new(
        component: &InstancePre<CallState>,
        hooks: &BTreeSet<Hook>,
    ) -> Result<Self, LoadError> {
        macro_rules! find {
            ($hook:ident, $variant:ident) => {
                hooks
                    .contains(&Hook::$variant)
                    .then(|| $hook::GuestIndices::new(component))
                    .transpose()
                    .map_err(|error| wrong_type(Hook::$variant.name(), &error))?
            };
        }
        Ok(Self {
            plugin: plugin::GuestIndices::new(component)
                .map_err(|error| wrong_type("plugin", &error))?,
            admission: find!(admission, Admission),
            cleanup: find!(cleanup, Cleanup),
            recovery: find!(recovery, Recovery),
            billing: find!(billing, Billing),
            observer: find!(observer, Observer),
        })
    }

    /// Types are compared when an interface is taken from an instance. It is done for all of them
    /// when a component is pushed, so that no call has to fail for it.
    pub(crate) fn first_of_wrong_type(
        &self,
        store: &mut Store<CallState>,
        instance: &Instance,
    ) -> Option<LoadError> {
        macro_rules! check {
            ($name:expr, $found:expr) => {
                if let Some(Err(error)) = $found.map(|found| found.load(&mut *store, instance)) {
                    return Some(wrong_type($name, &error));
                }
            };
        }
        check!("plugin", Some(&self.plugin));
        check!(Hook::Admission.name(), self.admission.as_ref());
        check!(Hook::Cleanup.name(), self.cleanup.as_ref());
        check!(Hook::Recovery.name(), self.recovery.as_ref());
        check!(Hook::Billing.name(), self.billing.as_ref());
        check!(Hook::Observer.name(), self.observer.as_ref());
        None
    }
}

/// The full name of an interface of the contract.
pub(crate) fn interface(name: &str) -> String {
    format!("roost:policy/{name}@0.1.0")
}

fn wrong_type(name: &str, error: &Error) -> LoadError {
    LoadError::WrongType {
        interface: interface(name),
        reason: clean(&format!("{error:#}")),
    }
}
