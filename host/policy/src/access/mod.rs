//! What a component sees of the host: the functions of `roost:policy/host`, within its grants.

mod kv;
mod log;

use std::sync::Arc;

use crate::bindings::{HostEvent, KvError, Level, Vm, VmFilter, host};
use crate::record::{KvChanges, LogLine};
use crate::services::{Caller, HostServices, HostView};
use kv::KvBuffer;
use log::LogBuffer;

/// Most calls of host functions within one call of a plugin.
const MAX_HOST_CALLS: u32 = 1000;
/// Most VMs of one answer.
const MAX_VMS: usize = 256;
/// Most events of one answer.
const MAX_EVENTS: usize = 64;

/// The host could not answer: not the plugin's fault.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct HostFault(pub(crate) String);

/// A plugin's access to the host in one call.
#[derive(Default)]
pub(crate) struct Access {
    services: Option<Arc<dyn HostServices>>,
    /// Who calls; none while a component is loaded.
    caller: Option<Caller>,
    view: Option<Box<dyn HostView>>,
    calls: u32,
    kv: KvBuffer,
    log: LogBuffer,
}

impl Access {
    /// For one more call.
    pub(crate) fn begin(
        &mut self,
        services: Option<&Arc<dyn HostServices>>,
        caller: Option<Caller>,
    ) {
        self.services = services.cloned();
        self.caller = caller;
        self.view = None;
        self.calls = 0;
    }

    /// Takes what the call left.
    pub(crate) fn end(&mut self) -> (Vec<LogLine>, KvChanges) {
        self.view = None;
        (self.log.take(), self.kv.take())
    }

    /// The last line of the highest level: what a panic hook writes.
    pub(crate) fn last_error(&self) -> Option<&str> {
        self.log.last_error()
    }

    fn count(&mut self) -> wasmtime::Result<()> {
        self.calls += 1;
        if self.calls > MAX_HOST_CALLS {
            wasmtime::bail!("it called the host more than {MAX_HOST_CALLS} times");
        }
        Ok(())
    }

    /// The snapshot that this call reads.
    fn view(&mut self) -> wasmtime::Result<&dyn HostView> {
        self.count()?;
        if self.view.is_none() {
            let Some(caller) = &self.caller else {
                wasmtime::bail!("it may not ask the host while it is loaded");
            };
            let services = self.services.as_ref();
            let services =
                services.ok_or_else(|| fault("there is nothing to ask here".to_owned()))?;
            self.view = Some(services.open(caller).map_err(fault)?);
        }
        let view = self.view.as_deref();
        view.ok_or_else(|| fault("there is nothing to ask here".to_owned()))
    }

    fn is_subjects(&self, vm: &Vm) -> bool {
        let tenant = self.caller.as_ref().and_then(|c| c.tenant.as_deref());
        tenant == Some(vm.tenant.as_str())
    }
}

fn fault(reason: String) -> wasmtime::Error {
    wasmtime::Error::from(HostFault(reason))
}

impl host::Host for Access {
    fn log(&mut self, level: Level, message: String) -> wasmtime::Result<()> {
        self.count()?;
        self.log.push(level, &message);
        Ok(())
    }

    fn get_vm(&mut self, id: String) -> wasmtime::Result<Option<Vm>> {
        let found = self.view()?.vm(&id).map_err(fault)?;
        Ok(found.filter(|vm| self.is_subjects(vm)))
    }

    fn list_vms(&mut self, filter: VmFilter) -> wasmtime::Result<Vec<Vm>> {
        let mut found = self.view()?.vms(&filter, MAX_VMS).map_err(fault)?;
        found.retain(|vm| self.is_subjects(vm));
        found.truncate(MAX_VMS);
        Ok(found)
    }

    fn history(&mut self, vm_id: String, limit: u32) -> wasmtime::Result<Vec<HostEvent>> {
        let limit = MAX_EVENTS.min(usize::try_from(limit).unwrap_or(MAX_EVENTS));
        let view = self.view()?;
        // The view shows VMs of the tenant only; of a VM that it does not show there is no history.
        if view.vm(&vm_id).map_err(fault)?.is_none() {
            return Ok(Vec::new());
        }
        let mut found = view.history(&vm_id, limit).map_err(fault)?;
        found.truncate(limit);
        Ok(found)
    }

    fn kv_get(&mut self, key: String) -> wasmtime::Result<Option<Vec<u8>>> {
        self.view()?;
        let Self {
            view: Some(view),
            kv,
            ..
        } = self
        else {
            return Ok(None);
        };
        kv.get(view.as_ref(), &key).map_err(fault)
    }

    fn kv_set(&mut self, key: String, value: Vec<u8>) -> wasmtime::Result<Result<(), KvError>> {
        self.view()?;
        let Self {
            view: Some(view),
            kv,
            ..
        } = self
        else {
            return Ok(Ok(()));
        };
        kv.put(view.as_ref(), key, Some(value)).map_err(fault)
    }

    fn kv_compare_and_swap(
        &mut self,
        key: String,
        expected: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
    ) -> wasmtime::Result<Result<bool, KvError>> {
        self.view()?;
        let Self {
            view: Some(view),
            kv,
            ..
        } = self
        else {
            return Ok(Ok(false));
        };
        kv.swap(view.as_ref(), key, expected.as_deref(), value)
            .map_err(fault)
    }

    fn kv_delete(&mut self, key: String) -> wasmtime::Result<bool> {
        self.view()?;
        let Self {
            view: Some(view),
            kv,
            ..
        } = self
        else {
            return Ok(false);
        };
        let view = view.as_ref();
        let was = kv.get(view, &key).map_err(fault)?.is_some();
        if was {
            // A key that has a value can be deleted.
            let _ = kv.put(view, key, None).map_err(fault)?;
        }
        Ok(was)
    }

    fn kv_list(&mut self, prefix: String, after: Option<String>) -> wasmtime::Result<Vec<String>> {
        self.view()?;
        let Self {
            view: Some(view),
            kv,
            ..
        } = self
        else {
            return Ok(Vec::new());
        };
        kv.list(view.as_ref(), &prefix, after.as_deref())
            .map_err(fault)
    }
}
