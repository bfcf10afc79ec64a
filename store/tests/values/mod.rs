//! Values of plugins for the store's tests.

use std::collections::BTreeMap;

use roost_store::{KvUsage, KvWrite};

/// Stores `value` at `key` of plugin `p`, or removes it.
pub(crate) fn kv(key: &str, value: Option<&[u8]>) -> KvWrite {
    KvWrite {
        plugin: "p".parse().unwrap(),
        writes: BTreeMap::from([(key.to_owned(), value.map(<[u8]>::to_vec))]),
        expected: BTreeMap::new(),
        quota: KvUsage { keys: 4, bytes: 64 },
    }
}
