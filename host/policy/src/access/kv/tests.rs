//! The overlay against a store that is a map.

use std::collections::BTreeMap;

use super::*;
use crate::bindings::{HostEvent, Vm, VmFilter};
use crate::services::KvUsage;

struct Stored(BTreeMap<String, Vec<u8>>);

impl HostView for Stored {
    fn vm(&self, _: &str) -> Result<Option<Vm>, String> {
        Ok(None)
    }
    fn vms(&self, _: &VmFilter, _: usize) -> Result<Vec<Vm>, String> {
        Ok(Vec::new())
    }
    fn history(&self, _: &str, _: usize) -> Result<Vec<HostEvent>, String> {
        Ok(Vec::new())
    }
    fn kv_get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(self.0.get(key).cloned())
    }
    fn kv_list(&self, prefix: &str, after: Option<&str>, n: usize) -> Result<Vec<String>, String> {
        let fits =
            |key: &&String| key.starts_with(prefix) && after.is_none_or(|a| key.as_str() > a);
        Ok(self.0.keys().filter(fits).take(n).cloned().collect())
    }
    fn kv_usage(&self) -> Result<KvUsage, String> {
        Ok(KvUsage {
            keys: self.0.len() as u64,
            bytes: self.0.iter().map(|(k, v)| (k.len() + v.len()) as u64).sum(),
            max_keys: 3,
            max_bytes: 20,
        })
    }
}

fn stored(pairs: &[(&str, &str)]) -> Stored {
    let pairs = pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec()));
    Stored(pairs.collect())
}

fn set(kv: &mut KvBuffer, view: &Stored, key: &str, value: &str) -> Result<(), KvError> {
    kv.put(view, key.to_owned(), Some(value.as_bytes().to_vec()))
        .unwrap()
}

#[test]
fn a_call_sees_what_it_wrote_and_the_store_does_not_until_it_is_committed() {
    let view = stored(&[("a", "1"), ("b", "2")]);
    let mut kv = KvBuffer::default();
    set(&mut kv, &view, "c", "3").unwrap();
    kv.put(&view, "a".to_owned(), None).unwrap().unwrap();
    assert_eq!(kv.get(&view, "c").unwrap(), Some(b"3".to_vec()));
    assert_eq!(kv.get(&view, "a").unwrap(), None);
    assert_eq!(kv.list(&view, "", None).unwrap(), ["b", "c"]);
    assert_eq!(kv.list(&view, "", Some("b")).unwrap(), ["c"]);
    assert_eq!(view.0.len(), 2);
    let changes = kv.take();
    assert_eq!(changes.writes.len(), 2);
    assert!(changes.expected.is_empty());
    assert!(kv.take().is_empty());
}

#[test]
fn a_swap_holds_only_if_the_store_still_has_what_it_was_based_on() {
    let view = stored(&[("n", "1")]);
    let mut kv = KvBuffer::default();
    let swap = |kv: &mut KvBuffer, expected: Option<&str>, value: &str| {
        let value = Some(value.as_bytes().to_vec());
        kv.swap(&view, "n".to_owned(), expected.map(str::as_bytes), value)
            .unwrap()
            .unwrap()
    };
    assert!(!swap(&mut kv, Some("2"), "9"));
    assert!(!swap(&mut kv, None, "9"));
    assert!(swap(&mut kv, Some("1"), "2"));
    // The second one is based on the first, and both on what is stored.
    assert!(swap(&mut kv, Some("2"), "3"));
    let changes = kv.take();
    assert_eq!(changes.writes["n"], Some(b"3".to_vec()));
    assert_eq!(changes.expected["n"], Some(b"1".to_vec()));
}

#[test]
fn the_quota_is_kept_and_what_makes_room_is_always_allowed() {
    let view = stored(&[("a", "1234567890"), ("b", "1234")]);
    let mut kv = KvBuffer::default();
    set(&mut kv, &view, "c", "1").unwrap();
    assert!(matches!(
        set(&mut kv, &view, "d", ""),
        Err(KvError::Quota(_))
    ));
    assert!(matches!(
        set(&mut kv, &view, "c", "12345"),
        Err(KvError::Quota(_))
    ));
    kv.put(&view, "a".to_owned(), None).unwrap().unwrap();
    set(&mut kv, &view, "c", "12345").unwrap();
    set(&mut kv, &view, "d", "").unwrap();
}

#[test]
fn a_plugin_over_its_quota_can_still_shrink() {
    let view = stored(&[
        ("a", "1234567890"),
        ("b", "1234567890"),
        ("c", ""),
        ("d", ""),
    ]);
    let mut kv = KvBuffer::default();
    set(&mut kv, &view, "a", "1").unwrap();
    kv.put(&view, "d".to_owned(), None).unwrap().unwrap();
}

#[test]
fn keys_and_values_that_can_not_be_stored_are_refused() {
    let view = stored(&[]);
    let mut kv = KvBuffer::default();
    for key in ["", "a\nb", &"x".repeat(257)] {
        assert!(matches!(
            set(&mut kv, &view, key, ""),
            Err(KvError::Invalid(_))
        ));
    }
    let long = "x".repeat(65_537);
    assert!(matches!(
        set(&mut kv, &view, "a", &long),
        Err(KvError::Invalid(_))
    ));
    assert!(kv.take().is_empty());
}
