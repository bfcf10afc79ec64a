//! Restarts a VM with exponential backoff and jitter, and marks it failed after several times. A
//! VM that its user wants stopped stays stopped.
//!
//! Settings, with their defaults: `{"base_ms": 100, "cap_ms": 30000, "max_attempts": 5}`

use roost_plugin::Policy;
use roost_plugin::recovery::{Action, Decision, Facts, Recovery};
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
            base_ms: 100,
            cap_ms: 30_000,
            max_attempts: 5,
        }
    }
}

struct Restart;

impl Policy for Restart {
    type Settings = Settings;

    fn check(settings: &Settings) -> Result<(), String> {
        if settings.base_ms == 0 || settings.cap_ms > 86_400_000 {
            return Err("base_ms is at least 1 and cap_ms at most a day".to_owned());
        }
        Ok(())
    }
}

impl Recovery for Restart {
    fn decide(facts: &Facts, settings: &Settings) -> Decision {
        if matches!(facts.vm.desired.as_str(), "stopped" | "deleted") {
            return Decision {
                action: Action::LeaveStopped,
                reason: format!("its user wants it {}", facts.vm.desired),
            };
        }
        if facts.attempts >= settings.max_attempts {
            return Decision {
                action: Action::MarkFailed,
                reason: format!("{} restarts did not help", facts.attempts),
            };
        }
        let bound = settings
            .base_ms
            .saturating_mul(1 << facts.attempts.min(32))
            .min(settings.cap_ms);
        // Half of it is jitter, so that VMs that failed together do not return together.
        let delay = bound / 2 + facts.context.seed % (bound / 2 + 1);
        Decision {
            action: Action::RestartAfter(delay),
            reason: format!(
                "restart {} of {} after {}",
                facts.attempts + 1,
                settings.max_attempts,
                facts.incident.kind
            ),
        }
    }
}

roost_plugin::export!(Restart: recovery);

#[cfg(test)]
mod tests {
    #[test]
    fn it_decides_as_the_fixtures_expect() {
        roost_plugin::testing::run_fixtures::<super::Restart>("fixtures");
    }
}
