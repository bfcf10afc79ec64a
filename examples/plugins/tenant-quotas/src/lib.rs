//! Limits how many VMs a tenant makes a day. The facts say how many VMs there are, not how many
//! were made and deleted again, so the policy counts for itself: it needs the grant `kv`.
//!
//! Settings: `{"creates_per_day": 100, "tenants": {"acme": {"creates_per_day": 10}}}`; what is
//! absent is not limited. A day is one of UTC.

use std::collections::BTreeMap;

use roost_plugin::Policy;
use roost_plugin::admission::{Admission, Decision, Facts, Request};
use roost_plugin::host::{self, Level};
use serde::Deserialize;

const DAY_MS: u64 = 86_400_000;

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    creates_per_day: Option<u64>,
    tenants: BTreeMap<String, Quota>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Quota {
    creates_per_day: Option<u64>,
}

impl Settings {
    fn limit(&self, tenant: &str) -> Option<u64> {
        match self.tenants.get(tenant) {
            Some(own) => own.creates_per_day,
            None => self.creates_per_day,
        }
    }
}

struct Quotas;

impl Policy for Quotas {
    type Settings = Settings;
}

impl Admission for Quotas {
    fn decide(facts: &Facts, settings: &Settings) -> Decision {
        let tenant = facts.vm.tenant.as_str();
        let (Request::Create, Some(limit)) = (&facts.request, settings.limit(tenant)) else {
            return Decision::Allow;
        };
        let made = Count::of(tenant, facts.context.now_ms / DAY_MS);
        if made.today >= limit {
            return Decision::Deny(format!(
                "{tenant} may make {limit} VMs a day and has made {} today",
                made.today
            ));
        }
        made.add_one()
    }
}

/// How many VMs a tenant made on the newest day on which it made any: one key per tenant, so that
/// nothing has to be deleted.
struct Count {
    key: String,
    stored: Option<Vec<u8>>,
    day: u64,
    today: u64,
}

impl Count {
    /// `today` is the number of the day since the Unix epoch.
    fn of(tenant: &str, today: u64) -> Self {
        let key = format!("made/{tenant}");
        let stored = host::kv_get(&key);
        let read = stored.as_deref().and_then(read);
        let count = match read {
            Some((day, count)) if day == today => count,
            _ => 0,
        };
        Self {
            key,
            stored,
            day: today,
            today: count,
        }
    }

    /// Counts one more. It is stored together with the VM; if another decision counts first, the
    /// host throws this one away and asks again.
    fn add_one(self) -> Decision {
        let value = format!("{} {}", self.day, self.today + 1);
        let stored =
            host::kv_compare_and_swap(&self.key, self.stored.as_deref(), Some(value.as_bytes()));
        match stored {
            Ok(true) => Decision::Allow,
            Ok(false) => Decision::Deny("another VM is being made: try again".to_owned()),
            Err(error) => {
                host::log(
                    Level::Error,
                    &format!("{} can't be counted: {error:?}", self.key),
                );
                Decision::Deny("VMs can't be counted: tell the operator".to_owned())
            }
        }
    }
}

/// A stored value: the day and the number.
fn read(value: &[u8]) -> Option<(u64, u64)> {
    let (day, count) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    Some((day.parse().ok()?, count.parse().ok()?))
}

roost_plugin::export!(Quotas: admission);

#[cfg(test)]
mod tests {
    use roost_plugin::testing::{self, Grant, Host};

    use super::*;

    fn ask(host: &mut Host, now_ms: u64, limit: u64) -> Decision {
        let mut facts = testing::admission();
        facts.context.now_ms = now_ms;
        let settings = Settings {
            creates_per_day: Some(limit),
            ..Settings::default()
        };
        host.run(|| Quotas::decide(&facts, &settings))
    }

    #[test]
    fn what_was_made_counts_for_the_day_and_no_longer() {
        let mut host = Host::new("acme").grant(Grant::Kv);
        assert_eq!(ask(&mut host, 1, 2), Decision::Allow);
        assert_eq!(ask(&mut host, 2, 2), Decision::Allow);
        assert!(matches!(ask(&mut host, DAY_MS - 1, 2), Decision::Deny(_)));
        assert_eq!(ask(&mut host, DAY_MS, 2), Decision::Allow);
        assert_eq!(host.key("made/acme"), Some(&b"1 1"[..]));
    }

    #[test]
    fn a_vm_that_can_not_be_counted_is_not_made() {
        let mut host = Host::new("acme").grant(Grant::Kv).with_quota(0, 0);
        assert!(matches!(ask(&mut host, 1, 2), Decision::Deny(_)));
        assert!(host.lines()[0].1.contains("made/acme can't be counted"));
    }

    #[test]
    fn a_tenants_own_quota_comes_first() {
        let own = BTreeMap::from([(
            "acme".to_owned(),
            Quota {
                creates_per_day: None,
            },
        )]);
        let settings = Settings {
            creates_per_day: Some(1),
            tenants: own,
        };
        assert_eq!(settings.limit("acme"), None);
        assert_eq!(settings.limit("other"), Some(1));
    }

    #[test]
    fn it_decides_as_the_fixtures_expect() {
        let host = Host::new("acme").grant(Grant::Kv);
        testing::run_fixtures_on::<Quotas>("fixtures", &host);
    }
}
