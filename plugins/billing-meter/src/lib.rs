//! Charges for vCPU time and for memory while a VM has a worker.
//!
//! Settings, with their defaults; prices in 10⁻⁹ of the currency:
//! `{"currency": "USD", "vcpu_ms_nanos": 6, "mib_s_nanos": 1}`

use roost_plugin::Policy;
use roost_plugin::billing::{Billing, Charge, Facts, Window};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    currency: String,
    vcpu_ms_nanos: u64,
    mib_s_nanos: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            currency: "USD".to_owned(),
            vcpu_ms_nanos: 6,
            mib_s_nanos: 1,
        }
    }
}

/// Highest price of a unit: one of the currency. A window's amount must fit into 64 bits.
const MAX_PRICE_NANOS: u64 = 1_000_000_000;

struct Meter;

impl Policy for Meter {
    type Settings = Settings;

    fn check(settings: &Settings) -> Result<(), String> {
        let code = settings.currency.as_bytes();
        if code.len() != 3 || !code.iter().all(u8::is_ascii_uppercase) {
            return Err("currency is an ISO 4217 code: three capital letters".to_owned());
        }
        if settings.vcpu_ms_nanos.max(settings.mib_s_nanos) > MAX_PRICE_NANOS {
            return Err(format!("a price is at most {MAX_PRICE_NANOS} nanos"));
        }
        Ok(())
    }
}

impl Billing for Meter {
    fn decide(facts: &Facts, settings: &Settings) -> Vec<Charge> {
        facts
            .windows
            .iter()
            .flat_map(|window| charges(window, settings))
            .collect()
    }
}

fn charges(window: &Window, settings: &Settings) -> [Charge; 2] {
    let charge = |item: &str, quantity, unit: &str, unit_price_nanos| Charge {
        incarnation: window.incarnation,
        sequence: window.sequence,
        item: item.to_owned(),
        quantity,
        unit: unit.to_owned(),
        unit_price_nanos,
        currency: settings.currency.clone(),
    };
    // A policy has no memory, so the fraction of a unit at a window's end is lost: less than 1 ms
    // and less than 1 MiB·s for each window.
    let mib = window.memory_bytes >> 20;
    let ms = window.end_ms.saturating_sub(window.start_ms);
    let mib_s = mib.saturating_mul(ms) / 1000;
    [
        charge(
            "vcpu-time",
            window.vcpu_cpu_ns / 1_000_000,
            "ms",
            settings.vcpu_ms_nanos,
        ),
        charge("memory-time", mib_s, "mib-s", settings.mib_s_nanos),
    ]
}

roost_plugin::export!(Meter: billing);

#[cfg(test)]
mod tests {
    #[test]
    fn it_decides_as_the_fixtures_expect() {
        roost_plugin::testing::run_fixtures::<super::Meter>("fixtures");
    }
}
