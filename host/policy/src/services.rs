//! What the embedding host lets plugins read, as a trait: this crate knows no store.

use crate::bindings::{HostEvent, Vm, VmFilter};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The plugin, whose values are read.
    pub plugin: String,
    /// The tenant that the decision is about: only its VMs are shown. None: no VM is.
    pub tenant: Option<String>,
}

/// Gives plugins what they were granted.
pub trait HostServices: Send + Sync {
    /// A snapshot for one call. It must not wait for anything but memory.
    ///
    /// # Errors
    /// There is none to be had; the call fails, and it is not the plugin's fault.
    fn open(&self, caller: &Caller) -> Result<Box<dyn HostView>, String>;
}

/// What a call reads. Errors fail the call, and are not the plugin's fault.
#[allow(clippy::missing_errors_doc, reason = "they are all the one above")]
pub trait HostView: Send {
    /// A VM of the tenant.
    fn vm(&self, id: &str) -> Result<Option<Vm>, String>;
    /// VMs of the tenant by id, at most `limit`.
    fn vms(&self, filter: &VmFilter, limit: usize) -> Result<Vec<Vm>, String>;
    /// The newest events of a VM of the tenant, newest first, at most `limit`.
    fn history(&self, vm_id: &str, limit: usize) -> Result<Vec<HostEvent>, String>;
    /// A value of the plugin.
    fn kv_get(&self, key: &str) -> Result<Option<Vec<u8>>, String>;
    /// Keys of the plugin by their bytes, after `after`, at most `limit`.
    fn kv_list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, String>;
    /// What the plugin has stored and may store.
    fn kv_usage(&self) -> Result<KvUsage, String>;
}

/// What a plugin has stored and may store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvUsage {
    /// Keys that there are.
    pub keys: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Most keys.
    pub max_keys: u64,
    /// Most bytes of keys and values.
    pub max_bytes: u64,
}
