//! Several reads of one moment.

use std::ops::Bound;

use redb::{ReadTransaction, ReadableDatabase as _};
use roost_model::{Event, Name, Tenant, VmId, VmRecord};

use super::{From, Range, Read, dangling, open, raw, vm_range, walk};
use crate::change::KvUsage;
use crate::schema::{self as tables, decode, decode_kv, pair_key, vm_id};
use crate::store::Store;

/// The store as it was at one moment, for as long as it is held.
///
/// What is overwritten meanwhile keeps its place in the file, so hold it briefly.
pub struct Snapshot {
    transaction: ReadTransaction,
}

impl Store {
    /// The store as it is now.
    pub fn snapshot(&self) -> Read<Snapshot> {
        let transaction = self.database().begin_read()?;
        Ok(Snapshot { transaction })
    }
}

impl Snapshot {
    /// A VM's record.
    ///
    /// # Errors
    /// It can't be read. So with every read below.
    pub fn vm(&self, id: VmId) -> Read<Option<VmRecord>> {
        let value = raw(&self.transaction, tables::VMS, id.as_bytes())?;
        value.map(|value| decode(tables::VMS, &value)).transpose()
    }

    /// VMs of `tenant` by id, those after `after` that are `wanted`, at most `limit`.
    pub fn vms_of(
        &self,
        tenant: &Tenant,
        after: Option<VmId>,
        limit: usize,
        wanted: impl Fn(&VmRecord) -> bool,
    ) -> Read<Vec<VmRecord>> {
        let names = open(&self.transaction, tables::VM_NAMES)?;
        let mut ids = walk(
            &names,
            &prefix_range(&pair_key(tenant.as_str(), "")),
            From::First,
            usize::MAX,
            |_, id| vm_id(tables::VM_NAMES, id),
        )?;
        ids.retain(|id| after.is_none_or(|after| *id > after));
        ids.sort_unstable();
        let vms = open(&self.transaction, tables::VMS)?;
        let mut found = Vec::new();
        for id in ids {
            if found.len() >= limit {
                break;
            }
            let record = vms.get(id.as_bytes().as_slice())?;
            let record = record.ok_or_else(|| dangling(tables::VM_NAMES, tables::VMS))?;
            let record: VmRecord = decode(tables::VMS, record.value())?;
            if wanted(&record) {
                found.push(record);
            }
        }
        Ok(found)
    }

    /// Events of a VM, newest first.
    pub fn events_of(&self, vm: VmId, limit: usize) -> Read<Vec<Event>> {
        let index = open(&self.transaction, tables::VM_EVENTS)?;
        let events = open(&self.transaction, tables::EVENTS)?;
        walk(&index, &vm_range(vm), From::Last, limit, |key, _| {
            let number = key.get(super::VM_ID_BYTES..).unwrap_or(key);
            let event = events.get(number)?;
            let event = event.ok_or_else(|| dangling(tables::VM_EVENTS, tables::EVENTS))?;
            decode(tables::EVENTS, event.value())
        })
    }

    /// The value that a plugin keeps at `key`.
    pub fn kv_get(&self, plugin: &Name, key: &str) -> Read<Option<Vec<u8>>> {
        let row = pair_key(plugin.as_str(), key);
        let value = raw(&self.transaction, tables::PLUGIN_KV, &row)?;
        value
            .map(|value| decode_kv(&value).map(<[u8]>::to_vec))
            .transpose()
    }

    /// Keys of a plugin that begin with `prefix` and come after `after`, in the order of their
    /// bytes.
    pub fn kv_list(
        &self,
        plugin: &Name,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Read<Vec<String>> {
        let mut range = prefix_range(&pair_key(plugin.as_str(), prefix));
        if let Some(after) = after.filter(|after| *after >= prefix) {
            range.0 = Bound::Excluded(pair_key(plugin.as_str(), after));
        }
        // A name can't be turned around with a key behind it: it is followed by a zero.
        let skip = plugin.as_str().len() + 1;
        if !is_ordered(&range) {
            return Ok(Vec::new());
        }
        let rows = open(&self.transaction, tables::PLUGIN_KV)?;
        walk(&rows, &range, From::First, limit, |key, _| {
            let key = key.get(skip..).unwrap_or_default().to_vec();
            String::from_utf8(key).map_err(|_| tables::PLUGIN_KV.damaged("a key is not UTF-8"))
        })
    }

    /// How much a plugin keeps.
    pub fn kv_usage(&self, plugin: &Name) -> Read<KvUsage> {
        let key = plugin.as_str().as_bytes();
        let usage = raw(&self.transaction, tables::PLUGIN_KV_USAGE, key)?;
        usage.map_or(Ok(KvUsage::default()), |usage| {
            decode(tables::PLUGIN_KV_USAGE, &usage)
        })
    }
}

/// All keys that begin with `prefix`, which is not all 0xff.
fn prefix_range(prefix: &[u8]) -> Range {
    let mut end = prefix.to_vec();
    while end.pop_if(|last| *last == u8::MAX).is_some() {}
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    (
        Bound::Included(prefix.to_vec()),
        if end.is_empty() {
            Bound::Unbounded
        } else {
            Bound::Excluded(end)
        },
    )
}

/// Whether a range's begin is before its end: redb takes no other.
fn is_ordered((begin, end): &Range) -> bool {
    match (begin, end) {
        (Bound::Included(begin) | Bound::Excluded(begin), Bound::Excluded(end)) => begin < end,
        _ => true,
    }
}
