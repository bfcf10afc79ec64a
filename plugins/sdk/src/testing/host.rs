//! A host for native tests. It answers, and refuses, as the real one does.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::host::{Event, KvError, Level, VmFilter};
use crate::types::Vm;

/// Calls of the host that one decision may make.
const MAX_CALLS: u32 = 1000;
/// Lines of the log that are kept of one decision, and characters of a line.
const MAX_LINES: usize = 32;
const MAX_LINE_CHARS: usize = 1024;
/// VMs and keys in one answer.
const MAX_LISTED: usize = 256;
/// Events in one answer.
const MAX_EVENTS: usize = 64;
/// Longest key and value, bytes.
const MAX_KEY_BYTES: usize = 256;
const MAX_VALUE_BYTES: usize = 65_536;

/// What an operator grants to a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grant {
    /// Lines in the log.
    Log,
    /// Questions about VMs and their history.
    Query,
    /// Keys and values that are kept.
    Kv,
}

/// A host with VMs, events and keys. [`Host::run`] decides on it.
///
/// ```
/// use roost_plugin::host;
/// use roost_plugin::testing::{Grant, Host};
///
/// let mut host = Host::new("acme").grant(Grant::Kv);
/// host.run(|| host::kv_set("count", b"1")).unwrap();
/// assert_eq!(host.key("count"), Some(&b"1"[..]));
/// ```
#[derive(Debug, Clone)]
pub struct Host {
    tenant: String,
    grants: BTreeSet<Grant>,
    vms: BTreeMap<String, Vm>,
    events: Vec<(String, Event)>,
    keys: BTreeMap<String, Vec<u8>>,
    quota: (usize, usize),
    lines: Vec<(Level, String)>,
    calls: u32,
}

impl Host {
    /// A host on which decisions are about VMs of `tenant`. Only [`Grant::Log`] is given.
    #[must_use]
    pub fn new(tenant: &str) -> Self {
        Self {
            tenant: tenant.to_owned(),
            grants: BTreeSet::from([Grant::Log]),
            vms: BTreeMap::new(),
            events: Vec::new(),
            keys: BTreeMap::new(),
            quota: (1024, 1 << 20),
            lines: Vec::new(),
            calls: 0,
        }
    }

    /// Grants something.
    #[must_use]
    pub fn grant(mut self, grant: Grant) -> Self {
        self.grants.insert(grant);
        self
    }

    /// Takes a grant away.
    #[must_use]
    pub fn revoke(mut self, grant: Grant) -> Self {
        self.grants.remove(&grant);
        self
    }

    /// Adds a VM. It is seen only if it is of the host's tenant.
    #[must_use]
    pub fn with_vm(mut self, vm: Vm) -> Self {
        self.vms.insert(vm.id.clone(), vm);
        self
    }

    /// Adds an event of a VM, newer than those before.
    #[must_use]
    pub fn with_event(mut self, vm_id: &str, event: Event) -> Self {
        self.events.push((vm_id.to_owned(), event));
        self
    }

    /// Stores a value.
    #[must_use]
    pub fn with_key(mut self, key: &str, value: &[u8]) -> Self {
        self.keys.insert(key.to_owned(), value.to_vec());
        self
    }

    /// How many keys, and how many bytes of keys and values, the plugin may store.
    #[must_use]
    pub fn with_quota(mut self, keys: usize, bytes: usize) -> Self {
        self.quota = (keys, bytes);
        self
    }

    /// The value of a key.
    #[must_use]
    pub fn key(&self, key: &str) -> Option<&[u8]> {
        self.keys.get(key).map(Vec::as_slice)
    }

    /// The lines that the last decision logged.
    #[must_use]
    pub fn lines(&self) -> &[(Level, String)] {
        &self.lines
    }

    /// Makes a decision on this host. What it stores stays, unless it panics.
    ///
    /// # Panics
    /// `decide` panics: as the real host would count a failed call.
    pub fn run<T>(&mut self, decide: impl FnOnce() -> T) -> T {
        let mut during = self.clone();
        during.lines.clear();
        during.calls = 0;
        let outer = CURRENT.with(|current| current.replace(Some(during)));
        let result = catch_unwind(AssertUnwindSafe(decide));
        let during = CURRENT.with(|current| current.replace(outer));
        if let Some(mut during) = during {
            if result.is_err() {
                during.keys.clone_from(&self.keys);
            }
            *self = during;
        }
        result.unwrap_or_else(|panic| resume_unwind(panic))
    }

    fn seen(&self, id: &str) -> Option<&Vm> {
        self.vms.get(id).filter(|vm| vm.tenant == self.tenant)
    }

    fn store(&mut self, key: &str, value: &[u8]) -> Result<(), KvError> {
        check(key, value)?;
        let old = self.keys.insert(key.to_owned(), value.to_vec());
        let bytes: usize = self.keys.iter().map(|(k, v)| k.len() + v.len()).sum();
        let (max_keys, max_bytes) = self.quota;
        let broken = if self.keys.len() > max_keys {
            Some(format!("at most {max_keys} keys"))
        } else {
            (bytes > max_bytes).then(|| format!("at most {max_bytes} bytes"))
        };
        let Some(broken) = broken else {
            return Ok(());
        };
        match old {
            Some(old) => self.keys.insert(key.to_owned(), old),
            None => self.keys.remove(key),
        };
        Err(KvError::Quota(broken))
    }
}

fn check(key: &str, value: &[u8]) -> Result<(), KvError> {
    if key.is_empty() || key.len() > MAX_KEY_BYTES || key.chars().any(char::is_control) {
        return Err(KvError::Invalid(format!(
            "a key has 1 to {MAX_KEY_BYTES} bytes and no control characters"
        )));
    }
    if value.len() > MAX_VALUE_BYTES {
        return Err(KvError::Invalid(format!(
            "a value has at most {MAX_VALUE_BYTES} bytes"
        )));
    }
    Ok(())
}

thread_local! {
    static CURRENT: RefCell<Option<Host>> = const { RefCell::new(None) };
}

/// Calls a function of the host that `grant` is needed for.
fn call<T>(grant: Grant, function: &str, answer: impl FnOnce(&mut Host) -> T) -> T {
    CURRENT.with(|current| {
        let mut current = current.borrow_mut();
        let Some(host) = current.as_mut() else {
            panic!("{function} was called outside of `roost_plugin::testing::Host::run`");
        };
        assert!(
            host.grants.contains(&grant),
            "{function} needs the grant {grant:?}; a host would refuse the push"
        );
        host.calls += 1;
        assert!(
            host.calls <= MAX_CALLS,
            "more than {MAX_CALLS} calls of the host in one decision"
        );
        answer(host)
    })
}

pub(crate) fn log(level: Level, message: &str) {
    call(Grant::Log, "log", |host| {
        if host.lines.len() < MAX_LINES {
            let fit = |c: char| if c.is_control() { '\u{fffd}' } else { c };
            let line = message.chars().map(fit).take(MAX_LINE_CHARS).collect();
            host.lines.push((level, line));
        }
    });
}

pub(crate) fn get_vm(id: &str) -> Option<Vm> {
    call(Grant::Query, "get-vm", |host| host.seen(id).cloned())
}

pub(crate) fn list_vms(filter: &VmFilter) -> Vec<Vm> {
    call(Grant::Query, "list-vms", |host| {
        let after = filter.after.as_deref().unwrap_or_default();
        let wanted = |vm: &&Vm| {
            vm.tenant == host.tenant
                && vm.id.as_str() > after
                && filter.state.as_ref().is_none_or(|state| vm.state == *state)
                && filter.labels.iter().all(|label| vm.labels.contains(label))
        };
        let vms = host.vms.values().filter(wanted);
        vms.take(MAX_LISTED).cloned().collect()
    })
}

pub(crate) fn history(vm_id: &str, limit: u32) -> Vec<Event> {
    call(Grant::Query, "history", |host| {
        if host.seen(vm_id).is_none() {
            return Vec::new();
        }
        let limit = usize::try_from(limit).unwrap_or(MAX_EVENTS).min(MAX_EVENTS);
        let events = host.events.iter().rev().filter(|(of, _)| of == vm_id);
        events.take(limit).map(|(_, event)| event.clone()).collect()
    })
}

pub(crate) fn kv_get(key: &str) -> Option<Vec<u8>> {
    call(Grant::Kv, "kv-get", |host| host.keys.get(key).cloned())
}

pub(crate) fn kv_set(key: &str, value: &[u8]) -> Result<(), KvError> {
    call(Grant::Kv, "kv-set", |host| host.store(key, value))
}

pub(crate) fn kv_compare_and_swap(
    key: &str,
    expected: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Result<bool, KvError> {
    call(Grant::Kv, "kv-compare-and-swap", |host| {
        check(key, value.unwrap_or_default())?;
        if host.key(key) != expected {
            return Ok(false);
        }
        match value {
            Some(value) => host.store(key, value)?,
            None => drop(host.keys.remove(key)),
        }
        Ok(true)
    })
}

pub(crate) fn kv_delete(key: &str) -> bool {
    call(Grant::Kv, "kv-delete", |host| {
        host.keys.remove(key).is_some()
    })
}

pub(crate) fn kv_list(prefix: &str, after: Option<&str>) -> Vec<String> {
    call(Grant::Kv, "kv-list", |host| {
        let after = after.unwrap_or_default();
        let wanted = |key: &&String| key.starts_with(prefix) && key.as_str() > after;
        let keys = host.keys.keys().filter(wanted);
        keys.take(MAX_LISTED).cloned().collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host;
    use crate::testing::vm as some_vm;

    fn of(tenant: &str, id: &str) -> Vm {
        Vm {
            id: id.to_owned(),
            tenant: tenant.to_owned(),
            ..some_vm()
        }
    }

    const ALL: VmFilter = VmFilter {
        labels: Vec::new(),
        state: None,
        after: None,
        attributes: Vec::new(),
    };

    #[test]
    #[should_panic(expected = "kv-get needs the grant Kv")]
    fn what_is_not_granted_is_refused() {
        Host::new("acme").run(|| host::kv_get("key"));
    }

    #[test]
    #[should_panic(expected = "more than 1000 calls")]
    fn calls_are_counted() {
        Host::new("acme").run(|| (0..=MAX_CALLS).for_each(|_| host::log(Level::Info, "x")));
    }

    #[test]
    fn another_tenants_vm_is_none() {
        let mut host = Host::new("acme")
            .grant(Grant::Query)
            .with_vm(of("acme", "vm-1"))
            .with_vm(of("other", "vm-2"));
        host.run(|| {
            assert!(host::get_vm("vm-1").is_some());
            assert!(host::get_vm("vm-2").is_none());
            assert_eq!(host::list_vms(&ALL).len(), 1);
        });
    }

    #[test]
    fn a_decision_that_panics_stores_nothing() {
        let mut host = Host::new("acme").grant(Grant::Kv).with_key("a", b"1");
        let failed = catch_unwind(AssertUnwindSafe(|| {
            host.run(|| {
                host::kv_set("a", b"2").unwrap();
                panic!("no");
            });
        }));
        assert!(failed.is_err());
        assert_eq!(host.key("a"), Some(&b"1"[..]));
    }

    #[test]
    fn keys_are_swapped_only_where_they_are_as_expected_and_within_the_quota() {
        let mut host = Host::new("acme").grant(Grant::Kv).with_quota(1, 100);
        host.run(|| {
            assert!(host::kv_compare_and_swap("a", None, Some(b"1")).unwrap());
            assert!(!host::kv_compare_and_swap("a", None, Some(b"2")).unwrap());
            assert!(matches!(host::kv_set("b", b""), Err(KvError::Quota(_))));
            assert!(matches!(host::kv_set("", b""), Err(KvError::Invalid(_))));
            assert_eq!(host::kv_list("", None), ["a"]);
            assert!(host::kv_compare_and_swap("a", Some(b"1"), None).unwrap());
            assert!(!host::kv_delete("a"));
        });
    }
}
