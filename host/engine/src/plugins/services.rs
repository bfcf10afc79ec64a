//! What plugins may read of the host, from a snapshot of the store.

use std::collections::BTreeMap;

use roost_model::{Name, Tenant, VmId, VmRecord};
use roost_policy::{Caller, HostEvent, HostServices, HostView, KvUsage, Vm, VmFilter};
use roost_store::{ReadError, Snapshot, Store};

use crate::facts;

/// Gives plugins what they were granted, out of a store.
pub struct StoreServices {
    store: Store,
    kv_quota: roost_store::KvUsage,
}

impl StoreServices {
    /// Reads from `store`; each plugin may keep `kv_quota`, which is said to it and must be the
    /// engine's.
    #[must_use]
    pub const fn new(store: Store, kv_quota: roost_store::KvUsage) -> Self {
        Self { store, kv_quota }
    }
}

impl HostServices for StoreServices {
    fn open(&self, caller: &Caller) -> Result<Box<dyn HostView>, String> {
        let plugin = caller.plugin.parse();
        let plugin: Name = plugin.map_err(|_| "the plugin has no name".to_owned())?;
        let tenant = caller.tenant.as_deref().and_then(|t| t.parse().ok());
        Ok(Box::new(View {
            snapshot: self.store.snapshot().map_err(text)?,
            plugin,
            tenant,
            kv_quota: self.kv_quota,
        }))
    }
}

struct View {
    snapshot: Snapshot,
    plugin: Name,
    /// Whose VMs are shown; none: nobody's.
    tenant: Option<Tenant>,
    kv_quota: roost_store::KvUsage,
}

impl View {
    /// A VM of the tenant.
    fn record(&self, id: &str) -> Result<Option<VmRecord>, String> {
        let (Ok(id), Some(tenant)) = (id.parse::<VmId>(), &self.tenant) else {
            return Ok(None);
        };
        let found = self.snapshot.vm(id).map_err(text)?;
        Ok(found.filter(|record| record.spec.tenant == *tenant))
    }
}

impl HostView for View {
    fn vm(&self, id: &str) -> Result<Option<Vm>, String> {
        Ok(self.record(id)?.as_ref().map(facts::vm))
    }

    fn vms(&self, filter: &VmFilter, limit: usize) -> Result<Vec<Vm>, String> {
        let Some(tenant) = &self.tenant else {
            return Ok(Vec::new());
        };
        let after = match &filter.after {
            None => None,
            Some(id) => match id.parse::<VmId>() {
                Ok(id) => Some(id),
                // Nothing comes after what is no id.
                Err(_) => return Ok(Vec::new()),
            },
        };
        let labels: BTreeMap<&str, &str> = filter
            .labels
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let wanted = |record: &VmRecord| {
            let state = filter.state.as_deref();
            state.is_none_or(|state| record.state.name() == state)
                && labels.iter().all(|(key, value)| {
                    record.spec.labels.get(*key).map(String::as_str) == Some(*value)
                })
        };
        let found = self.snapshot.vms_of(tenant, after, limit, wanted);
        Ok(found.map_err(text)?.iter().map(facts::vm).collect())
    }

    fn history(&self, vm_id: &str, limit: usize) -> Result<Vec<HostEvent>, String> {
        let Some(record) = self.record(vm_id)? else {
            return Ok(Vec::new());
        };
        let events = self.snapshot.events_of(record.id, limit).map_err(text)?;
        Ok(events
            .into_iter()
            .map(|event| {
                let json = serde_json::to_value(&event).unwrap_or_default();
                let kind = json.get("kind").and_then(|kind| kind.as_str());
                HostEvent {
                    number: event.number,
                    at_ms: event.event.at_ms,
                    kind: kind.unwrap_or_default().to_owned(),
                    detail: json.to_string(),
                    attributes: Vec::new(),
                }
            })
            .collect())
    }

    fn kv_get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        self.snapshot.kv_get(&self.plugin, key).map_err(text)
    }

    fn kv_list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, String> {
        let keys = self.snapshot.kv_list(&self.plugin, prefix, after, limit);
        keys.map_err(text)
    }

    fn kv_usage(&self) -> Result<KvUsage, String> {
        let used = self.snapshot.kv_usage(&self.plugin).map_err(text)?;
        Ok(KvUsage {
            keys: used.keys,
            bytes: used.bytes,
            max_keys: self.kv_quota.keys,
            max_bytes: self.kv_quota.bytes,
        })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err calls")]
fn text(error: ReadError) -> String {
    error.to_string()
}
