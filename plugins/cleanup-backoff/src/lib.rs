//! Retries a cleanup with exponential backoff, full jitter and a cap, and gives up in the end.
//!
//! Settings, with their defaults: `{"base_ms": 200, "cap_ms": 60000, "max_attempts": 100}`

use roost_plugin::Policy;
use roost_plugin::cleanup::{Cleanup, Decision, Facts};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    base_ms: u64,
    cap_ms: u64,
    max_attempts: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            base_ms: 200,
            cap_ms: 60_000,
            max_attempts: 100,
        }
    }
}

struct Backoff;

impl Policy for Backoff {
    type Settings = Settings;

    fn check(settings: &Settings) -> Result<(), String> {
        if settings.base_ms == 0 || settings.cap_ms > 86_400_000 {
            return Err("base_ms is at least 1 and cap_ms at most a day".to_owned());
        }
        Ok(())
    }
}

impl Cleanup for Backoff {
    fn decide(facts: &Facts, settings: &Settings) -> Decision {
        if facts.attempts >= settings.max_attempts {
            return Decision::GiveUp(format!(
                "remove the {} of {} by hand: {} attempts failed, the last with: {}",
                facts.resource, facts.vm_id, facts.attempts, facts.error
            ));
        }
        let factor = 1_u64 << facts.attempts.saturating_sub(1).min(32);
        let bound = settings.base_ms.saturating_mul(factor).min(settings.cap_ms);
        Decision::RetryAfter(facts.context.seed % (bound + 1))
    }
}

roost_plugin::export!(Backoff: cleanup);

#[cfg(test)]
mod tests {
    #[test]
    fn it_decides_as_the_fixtures_expect() {
        roost_plugin::testing::run_fixtures::<super::Backoff>("fixtures");
    }
}
