//! A plugin's values as one call sees them: what is stored, under what it wrote.

use std::collections::BTreeSet;

use crate::bindings::KvError;
use crate::record::KvChanges;
use crate::services::HostView;

/// Longest key, bytes.
const MAX_KEY_BYTES: usize = 256;
/// Longest value, bytes.
const MAX_VALUE_BYTES: usize = 65_536;
/// Most keys of one answer.
const MAX_KEYS: usize = 256;

#[derive(Default)]
pub(crate) struct KvBuffer {
    changes: KvChanges,
    /// What the changes add to what is stored; negative where they take away.
    keys: i64,
    bytes: i64,
}

fn size(key: &str, value: Option<&[u8]>) -> i64 {
    let bytes = value.map_or(0, |value| key.len() + value.len());
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl KvBuffer {
    pub(crate) fn take(&mut self) -> KvChanges {
        std::mem::take(self).changes
    }

    pub(crate) fn get(&self, view: &dyn HostView, key: &str) -> Result<Option<Vec<u8>>, String> {
        match self.changes.writes.get(key) {
            Some(written) => Ok(written.clone()),
            None => view.kv_get(key),
        }
    }

    /// Stores or deletes. The outer error is the host's, the inner one the plugin's.
    pub(crate) fn put(
        &mut self,
        view: &dyn HostView,
        key: String,
        value: Option<Vec<u8>>,
    ) -> Result<Result<(), KvError>, String> {
        if !(1..=MAX_KEY_BYTES).contains(&key.len()) || key.chars().any(char::is_control) {
            let reason = format!("a key has 1 to {MAX_KEY_BYTES} bytes and no control characters");
            return Ok(Err(KvError::Invalid(reason)));
        }
        if value.as_ref().is_some_and(|v| v.len() > MAX_VALUE_BYTES) {
            let reason = format!("a value has at most {MAX_VALUE_BYTES} bytes");
            return Ok(Err(KvError::Invalid(reason)));
        }
        let old = self.get(view, &key)?;
        let keys = self.keys + i64::from(value.is_some()) - i64::from(old.is_some());
        let bytes = self.bytes + size(&key, value.as_deref()) - size(&key, old.as_deref());
        let usage = view.kv_usage()?;
        let over = |stored: u64, more: i64, limit: u64| {
            more > 0 && stored.saturating_add_signed(more) > limit
        };
        if over(usage.keys, keys, usage.max_keys) && keys > self.keys {
            let reason = format!("{} keys are allowed", usage.max_keys);
            return Ok(Err(KvError::Quota(reason)));
        }
        if over(usage.bytes, bytes, usage.max_bytes) && bytes > self.bytes {
            let reason = format!("{} bytes of keys and values are allowed", usage.max_bytes);
            return Ok(Err(KvError::Quota(reason)));
        }
        (self.keys, self.bytes) = (keys, bytes);
        self.changes.writes.insert(key, value);
        Ok(Ok(()))
    }

    pub(crate) fn swap(
        &mut self,
        view: &dyn HostView,
        key: String,
        expected: Option<&[u8]>,
        value: Option<Vec<u8>>,
    ) -> Result<Result<bool, KvError>, String> {
        if self.get(view, &key)?.as_deref() != expected {
            return Ok(Ok(false));
        }
        let stored = view.kv_get(&key)?;
        if let Err(error) = self.put(view, key.clone(), value)? {
            return Ok(Err(error));
        }
        // What the store must still have: not what this call itself wrote over it.
        self.changes.expected.entry(key).or_insert(stored);
        Ok(Ok(true))
    }

    pub(crate) fn list(
        &self,
        view: &dyn HostView,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<Vec<String>, String> {
        let writes = &self.changes.writes;
        // Each deleted key may be one of those that the store lists first.
        let stored = view.kv_list(prefix, after, MAX_KEYS + writes.len())?;
        let mut keys: BTreeSet<String> = stored.into_iter().collect();
        for (key, value) in writes {
            if value.is_none() {
                keys.remove(key);
            } else if key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after) {
                keys.insert(key.clone());
            }
        }
        Ok(keys.into_iter().take(MAX_KEYS).collect())
    }
}

#[cfg(test)]
mod tests;
