//! Charges for CPU time by how busy a VM was: a part is free, what is beyond is charged for in
//! tiers, each at its own price. A part of the memory is free too.
//!
//! All shares are of the CPU time that the VM could have had in a window, and windows tile a VM's
//! time; so nothing has to be remembered from one to the next.
//!
//! Settings, with their defaults; prices in 10⁻⁹ of the currency:
//! `{"currency": "EUR", "free_percent": 10, "tiers": [{"up_to_percent": 50, "vcpu_ms_nanos": 4},
//! {"up_to_percent": 100, "vcpu_ms_nanos": 8}], "free_mib": 128, "mib_s_nanos": 1}`

use roost_plugin::Policy;
use roost_plugin::billing::{Billing, Charge, Facts, Window};
use serde::Deserialize;

/// Highest price of a unit: one of the currency.
const MAX_PRICE_NANOS: u64 = 1_000_000_000;
/// Charges for a window are limited by the host.
const MAX_TIERS: usize = 16;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    currency: String,
    free_percent: u64,
    tiers: Vec<Tier>,
    free_mib: u64,
    mib_s_nanos: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tier {
    up_to_percent: u64,
    vcpu_ms_nanos: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let tier = |up_to_percent, vcpu_ms_nanos| Tier {
            up_to_percent,
            vcpu_ms_nanos,
        };
        Self {
            currency: "EUR".to_owned(),
            free_percent: 10,
            tiers: vec![tier(50, 4), tier(100, 8)],
            free_mib: 128,
            mib_s_nanos: 1,
        }
    }
}

struct Tiers;

impl Policy for Tiers {
    type Settings = Settings;

    fn check(settings: &Settings) -> Result<(), String> {
        let code = settings.currency.as_bytes();
        if code.len() != 3 || !code.iter().all(u8::is_ascii_uppercase) {
            return Err("currency is an ISO 4217 code: three capital letters".to_owned());
        }
        let mut before = settings.free_percent;
        for tier in &settings.tiers {
            if tier.up_to_percent <= before {
                return Err(
                    "each tier ends above the one before, the first above free_percent".to_owned(),
                );
            }
            before = tier.up_to_percent;
        }
        if before != 100 || settings.tiers.len() > MAX_TIERS {
            return Err(format!(
                "the last of at most {MAX_TIERS} tiers ends at 100 percent"
            ));
        }
        let mut prices = settings.tiers.iter().map(|tier| tier.vcpu_ms_nanos);
        if prices.any(|price| price > MAX_PRICE_NANOS) || settings.mib_s_nanos > MAX_PRICE_NANOS {
            return Err(format!("a price is at most {MAX_PRICE_NANOS} nanos"));
        }
        Ok(())
    }
}

impl Billing for Tiers {
    fn decide(facts: &Facts, settings: &Settings) -> Vec<Charge> {
        facts
            .windows
            .iter()
            .flat_map(|window| charges(window, settings))
            .collect()
    }
}

/// What a window costs. The fraction of a unit at its end is not charged for.
fn charges(window: &Window, settings: &Settings) -> Vec<Charge> {
    let elapsed_ms = window.end_ms.saturating_sub(window.start_ms);
    let possible_ms = elapsed_ms.saturating_mul(window.vcpus.into());
    let used_ms = window.vcpu_cpu_ns / 1_000_000;
    let share = |percent: u64| (u128::from(possible_ms) * u128::from(percent) / 100) as u64;

    let mut charges = Vec::new();
    let mut charge = |item: String, quantity, unit: &str, unit_price_nanos| {
        if quantity > 0 {
            charges.push(Charge {
                incarnation: window.incarnation,
                sequence: window.sequence,
                item,
                quantity,
                unit: unit.to_owned(),
                unit_price_nanos,
                currency: settings.currency.clone(),
            });
        }
    };
    let mut from = share(settings.free_percent);
    for (index, tier) in settings.tiers.iter().enumerate() {
        let last = index + 1 == settings.tiers.len();
        // Clocks differ, so that a busy VM may seem to have used more than there was.
        let to = if last {
            u64::MAX
        } else {
            share(tier.up_to_percent)
        };
        let quantity = used_ms.min(to).saturating_sub(from);
        charge(
            format!("vcpu-tier-{}", index + 1),
            quantity,
            "ms",
            tier.vcpu_ms_nanos,
        );
        from = to;
    }
    let mib = (window.memory_bytes >> 20).saturating_sub(settings.free_mib);
    charge(
        "memory".to_owned(),
        mib.saturating_mul(elapsed_ms) / 1000,
        "mib-s",
        settings.mib_s_nanos,
    );
    charges
}

roost_plugin::export!(Tiers: billing);

#[cfg(test)]
mod tests {
    use roost_plugin::testing;

    use super::*;

    #[test]
    fn every_ms_beyond_the_free_ones_is_in_one_tier() {
        for used_ms in [0, 5_999, 6_000, 6_001, 30_000, 30_001, 60_000, 61_000] {
            let window = Window {
                vcpu_cpu_ns: used_ms * 1_000_000,
                ..testing::window()
            };
            let charged: u64 = charges(&window, &Settings::default())
                .iter()
                .map(|c| c.quantity)
                .sum();
            assert_eq!(charged, used_ms.saturating_sub(6_000));
        }
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        for bad in [
            r#"{"currency":"eur"}"#,
            r#"{"free_percent":60}"#,
            r#"{"tiers":[{"up_to_percent":50,"vcpu_ms_nanos":1}]}"#,
            r#"{"tiers":[{"up_to_percent":100,"vcpu_ms_nanos":1000000001}]}"#,
            r#"{"mib_s_nanos":1000000001}"#,
        ] {
            assert!(testing::validate_settings::<Tiers>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn it_decides_as_the_fixtures_expect() {
        testing::run_fixtures::<Tiers>("fixtures");
    }
}
