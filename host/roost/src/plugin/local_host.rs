//! What a component may ask of the host while it is tried here: what its fixture says there is.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use roost_policy::{Caller, HostEvent, HostServices, HostView, KvUsage, Subject, Vm, VmFilter};
use serde::{Deserialize, Serialize};

/// Keys, and bytes of keys and values, that a plugin may store here.
const MAX_KEYS: u64 = 1024;
const MAX_BYTES: u64 = 1 << 20;

/// `"host"` of a fixture. Nothing of it is needed; a policy that asks finds an empty host.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct State {
    /// Values of the plugin, as text.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    kv: BTreeMap<String, String>,
    /// VMs of the host; those of another tenant than the decision's are not shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    vms: Vec<Vm>,
}

/// The host of the fixture that is decided on now.
#[derive(Clone, Default)]
pub(super) struct LocalHost(Arc<RwLock<State>>);

impl LocalHost {
    pub(super) fn set(&self, state: State) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Whose VM it is, where the facts do not say.
    pub(super) fn subject(&self, vm: &str) -> Subject {
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let vm = state.vms.iter().find(|known| known.id == vm);
        vm.map_or_else(Subject::default, |vm| Subject {
            tenant: vm.tenant.clone(),
            labels: vm.labels.iter().cloned().collect(),
        })
    }
}

struct View {
    state: State,
    tenant: Option<String>,
}

impl HostServices for LocalHost {
    fn open(&self, caller: &Caller) -> Result<Box<dyn HostView>, String> {
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Ok(Box::new(View {
            state: state.clone(),
            tenant: caller.tenant.clone(),
        }))
    }
}

impl View {
    fn of_tenant(&self) -> impl Iterator<Item = &Vm> {
        self.state
            .vms
            .iter()
            .filter(|vm| self.tenant.as_deref() == Some(vm.tenant.as_str()))
    }
}

impl HostView for View {
    fn vm(&self, id: &str) -> Result<Option<Vm>, String> {
        Ok(self.of_tenant().find(|vm| vm.id == id).cloned())
    }

    fn vms(&self, filter: &VmFilter, limit: usize) -> Result<Vec<Vm>, String> {
        let after = filter.after.as_deref().unwrap_or_default();
        let mut vms: Vec<_> = self
            .of_tenant()
            .filter(|vm| {
                vm.id.as_str() > after
                    && filter.state.as_ref().is_none_or(|state| vm.state == *state)
                    && filter.labels.iter().all(|label| vm.labels.contains(label))
            })
            .cloned()
            .collect();
        vms.sort_by(|a, b| a.id.cmp(&b.id));
        vms.truncate(limit);
        Ok(vms)
    }

    fn history(&self, _vm_id: &str, _limit: usize) -> Result<Vec<HostEvent>, String> {
        Ok(Vec::new())
    }

    fn kv_get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(self
            .state
            .kv
            .get(key)
            .map(|value| value.clone().into_bytes()))
    }

    fn kv_list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, String> {
        let after = after.unwrap_or_default();
        let wanted = |key: &&String| key.starts_with(prefix) && key.as_str() > after;
        Ok(self
            .state
            .kv
            .keys()
            .filter(wanted)
            .take(limit)
            .cloned()
            .collect())
    }

    fn kv_usage(&self) -> Result<KvUsage, String> {
        let bytes = self
            .state
            .kv
            .iter()
            .map(|(key, value)| key.len() + value.len());
        Ok(KvUsage {
            keys: self.state.kv.len() as u64,
            bytes: bytes.sum::<usize>() as u64,
            max_keys: MAX_KEYS,
            max_bytes: MAX_BYTES,
        })
    }
}
