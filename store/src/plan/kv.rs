//! Values of plugins in a plan.

use super::{Plan, Refused};
use crate::change::{Conflict, KvUsage, KvWrite};
use crate::schema::{self as tables, decode_kv, encode_kv, pair_key};

impl Plan<'_> {
    pub(super) fn write_kv(&mut self, write: &KvWrite) -> Result<(), Refused> {
        let plugin = write.plugin.as_str();
        for (key, expected) in &write.expected {
            let found = self.raw(tables::PLUGIN_KV, &pair_key(plugin, key))?;
            let found = found.as_deref().map(decode_kv).transpose()?;
            if found != expected.as_deref() {
                let (plugin, key) = (write.plugin.clone(), key.clone());
                return Err(Conflict::KvChanged { plugin, key }.into());
            }
        }
        let before: KvUsage = self
            .get(tables::PLUGIN_KV_USAGE, plugin.as_bytes())?
            .unwrap_or_default();
        let mut usage = before;
        for (key, value) in &write.writes {
            let row = pair_key(plugin, key);
            if let Some(old) = self.raw(tables::PLUGIN_KV, &row)? {
                usage = usage.without(key.len(), decode_kv(&old)?.len());
            }
            match value {
                Some(value) => {
                    usage = usage.with(key.len(), value.len());
                    self.put_raw(tables::PLUGIN_KV, &row, encode_kv(value));
                }
                None => self.remove(tables::PLUGIN_KV, &row),
            }
        }
        let grows_past = |before: u64, after: u64, quota: u64| after > before && after > quota;
        if grows_past(before.keys, usage.keys, write.quota.keys)
            || grows_past(before.bytes, usage.bytes, write.quota.bytes)
        {
            return Err(Conflict::KvQuota {
                plugin: write.plugin.clone(),
                wanted: usage,
                quota: write.quota,
            }
            .into());
        }
        if usage != before {
            self.put(tables::PLUGIN_KV_USAGE, plugin.as_bytes(), &usage)?;
        }
        Ok(())
    }
}
