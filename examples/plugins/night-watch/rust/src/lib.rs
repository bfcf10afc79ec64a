//! Restarts a VM a few times, then waits for a person.
//!
//! Settings, with their defaults: `{"max_restarts": 3, "delay_ms": 1000}`

use roost_plugin::Policy;
use roost_plugin::recovery::{Action, Decision, Facts, Recovery};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// Restarts before it gives up.
    max_restarts: u32,
    /// The first delay; each further one is twice as long.
    delay_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_restarts: 3,
            delay_ms: 1000,
        }
    }
}

struct NightWatch;

impl Policy for NightWatch {
    type Settings = Settings;

    fn check(settings: &Settings) -> Result<(), String> {
        if settings.max_restarts > 10 {
            return Err("max_restarts is at most 10".to_owned());
        }
        if !(1..=60_000).contains(&settings.delay_ms) {
            return Err("delay_ms is 1 to 60000".to_owned());
        }
        Ok(())
    }
}

impl Recovery for NightWatch {
    fn decide(facts: &Facts, settings: &Settings) -> Decision {
        if matches!(facts.vm.desired.as_str(), "stopped" | "deleted") {
            return Decision {
                action: Action::LeaveStopped,
                reason: format!("its user wants it {}", facts.vm.desired),
            };
        }
        if facts.attempts >= settings.max_restarts {
            return Decision {
                action: Action::LeaveStopped,
                reason: format!("it needs a person: {}", facts.incident.detail),
            };
        }
        // The seed keeps VMs that failed together from coming back together.
        let jitter = facts.context.seed % settings.delay_ms;
        let delay = (settings.delay_ms << facts.attempts) + jitter;
        Decision {
            action: Action::RestartAfter(delay),
            reason: format!(
                "restart {} of {}",
                facts.attempts + 1,
                settings.max_restarts
            ),
        }
    }
}

roost_plugin::export!(NightWatch: recovery);

#[cfg(test)]
mod tests {
    use roost_plugin::testing;

    use super::*;

    #[test]
    fn each_delay_is_twice_the_one_before() {
        let delay = |attempts| {
            let facts = Facts {
                attempts,
                ..testing::recovery()
            };
            NightWatch::decide(&facts, &Settings::default()).action
        };
        assert_eq!(delay(0), Action::RestartAfter(1000));
        assert_eq!(delay(2), Action::RestartAfter(4000));
        assert_eq!(delay(3), Action::LeaveStopped);
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        assert!(testing::validate_settings::<NightWatch>("{}").is_ok());
        for bad in [
            r#"{"delay_ms":0}"#,
            r#"{"max_restarts":11}"#,
            r#"{"delays":1}"#,
        ] {
            assert!(
                testing::validate_settings::<NightWatch>(bad).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn it_decides_as_the_fixtures_expect() {
        testing::run_fixtures::<NightWatch>(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures"));
    }
}
