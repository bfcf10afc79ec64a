//! What the host offers beyond the facts, where an operator granted it.
//!
//! Nothing of it is needed, and a component imports only what it calls. In native tests a
//! [`crate::testing::Host`] stands for the real one.
//!
//! | grant | functions |
//! | --- | --- |
//! | `log`, given unless taken away | [`log`] |
//! | `query` | [`get_vm`], [`list_vms`], [`history`] |
//! | `kv` | [`kv_get`], [`kv_set`], [`kv_compare_and_swap`], [`kv_delete`], [`kv_list`] |

use crate::bindings::host::roost::policy::host as generated;
use crate::types::Vm;

pub use generated::{Event, KvError, Level, VmFilter};

/// Who answers: the import, or in a native test the mock.
macro_rules! ask {
    ($function:ident($($argument:expr),*)) => {{
        #[cfg(target_arch = "wasm32")]
        let answer = generated::$function($($argument),*);
        #[cfg(not(target_arch = "wasm32"))]
        let answer = crate::testing::host::$function($($argument),*);
        answer
    }};
}

/// Writes a line to the log of the plugin. At most 32 lines of 1,024 characters are kept of a call.
pub fn log(level: Level, message: &str) {
    ask!(log(level, message));
}

/// A VM by its id, if it is of the tenant that the decision is about.
#[must_use]
pub fn get_vm(id: &str) -> Option<Vm> {
    ask!(get_vm(id))
}

/// VMs of the tenant that the decision is about, by id, at most 256 of them.
#[must_use]
pub fn list_vms(filter: &VmFilter) -> Vec<Vm> {
    ask!(list_vms(filter))
}

/// The newest events of a VM of the same tenant, newest first, at most 64.
#[must_use]
pub fn history(vm_id: &str, limit: u32) -> Vec<Event> {
    ask!(history(vm_id, limit))
}

/// The value of a key, what this call wrote before included.
#[must_use]
pub fn kv_get(key: &str) -> Option<Vec<u8>> {
    ask!(kv_get(key))
}

/// Stores a value. Of two decisions made at the same time the last one stored wins.
///
/// # Errors
/// The quota is used up, or the key or the value can't be stored.
pub fn kv_set(key: &str, value: &[u8]) -> Result<(), KvError> {
    ask!(kv_set(key, value))
}

/// Stores `value`, or deletes the key if it is none, if the key's value is `expected`. False: it
/// is not. If another decision changed the key before this one could be stored, this one is thrown
/// away and the policy is asked again.
///
/// # Errors
/// As [`kv_set`].
pub fn kv_compare_and_swap(
    key: &str,
    expected: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Result<bool, KvError> {
    ask!(kv_compare_and_swap(key, expected, value))
}

/// Deletes a key. True: there was a value.
#[must_use]
pub fn kv_delete(key: &str) -> bool {
    ask!(kv_delete(key))
}

/// Keys that begin with `prefix` and come after `after`, at most 256 of them.
#[must_use]
pub fn kv_list(prefix: &str, after: Option<&str>) -> Vec<String> {
    ask!(kv_list(prefix, after))
}
