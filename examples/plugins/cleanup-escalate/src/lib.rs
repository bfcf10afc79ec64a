//! Retries a cleanup by the kind of resource: quick at first, then slow, and in the end with an
//! advice to a person that fits the kind. A worker that can't be ended holds memory, so a person
//! hears of it soon; a directory can wait for hours.
//!
//! Settings: `{"kinds": {"worker": {"quick": 10, "slow": 10, "advice": "kill {vm}"}}}` adds kinds or
//! replaces those below. `quick` and `slow` are numbers of attempts; `{vm}` and `{resource}` in an
//! advice are filled in.

use std::collections::BTreeMap;

use roost_plugin::Policy;
use roost_plugin::cleanup::{Cleanup, Decision, Facts};
use roost_plugin::host::{self, Level};
use serde::Deserialize;

/// Longest pause between quick attempts, ms; also what they begin with, doubled each time.
const QUICK_MS: (u64, u64) = (200, 5_000);
/// Pause between slow attempts, ms, and as much again by chance.
const SLOW_MS: u64 = 60_000;
/// Attempts of either sort that settings may ask for.
const MAX_ATTEMPTS: u32 = 1000;

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    kinds: BTreeMap<String, Kind>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kind {
    quick: u32,
    slow: u32,
    advice: String,
}

impl Settings {
    fn kind(&self, resource: &str) -> Kind {
        let own = self.kinds.get(resource).cloned();
        own.unwrap_or_else(|| match resource {
            "worker" => kind(
                10,
                10,
                "kill the worker of {vm} by its pid and look into the kernel's log",
            ),
            "run-directory" => kind(10, 120, "remove the run directory of {vm} by hand"),
            _ => kind(10, 60, "remove the {resource} of {vm} by hand"),
        })
    }
}

fn kind(quick: u32, slow: u32, advice: &str) -> Kind {
    Kind {
        quick,
        slow,
        advice: advice.to_owned(),
    }
}

struct Escalate;

impl Policy for Escalate {
    type Settings = Settings;

    fn check(settings: &Settings) -> Result<(), String> {
        for (name, kind) in &settings.kinds {
            if kind.quick.max(kind.slow) > MAX_ATTEMPTS {
                return Err(format!(
                    "{name}: at most {MAX_ATTEMPTS} attempts of either sort"
                ));
            }
            if kind.advice.trim().is_empty() {
                return Err(format!("{name}: an advice that says nothing helps nobody"));
            }
        }
        Ok(())
    }
}

impl Cleanup for Escalate {
    fn decide(facts: &Facts, settings: &Settings) -> Decision {
        let kind = settings.kind(&facts.resource);
        let seed = facts.context.seed;
        if facts.attempts <= kind.quick {
            let (first, longest) = QUICK_MS;
            let bound = (first << facts.attempts.saturating_sub(1).min(16)).min(longest);
            return Decision::RetryAfter(seed % (bound + 1));
        }
        if facts.attempts - kind.quick == 1 && kind.slow > 0 {
            host::log(
                Level::Warn,
                &format!(
                    "the {} of {} stays: {}",
                    facts.resource, facts.vm_id, facts.error
                ),
            );
        }
        if facts.attempts - kind.quick <= kind.slow && facts.attempts < kind.quick + kind.slow {
            return Decision::RetryAfter(SLOW_MS + seed % SLOW_MS);
        }
        let advice = kind
            .advice
            .replace("{vm}", &facts.vm_id)
            .replace("{resource}", &facts.resource);
        Decision::GiveUp(format!(
            "{advice} ({} attempts; the last error: {})",
            facts.attempts, facts.error
        ))
    }
}

roost_plugin::export!(Escalate: cleanup);

#[cfg(test)]
mod tests {
    use roost_plugin::testing::{self, Host};

    use super::*;

    fn ask(host: &mut Host, attempts: u32) -> Decision {
        let facts = Facts {
            attempts,
            resource: "worker".to_owned(),
            ..testing::cleanup()
        };
        host.run(|| Escalate::decide(&facts, &Settings::default()))
    }

    #[test]
    fn it_goes_from_quick_to_slow_to_a_person_and_warns_once() {
        let mut host = Host::new("acme");
        let mut warned = 0;
        for attempts in 1..=20 {
            let decision = ask(&mut host, attempts);
            warned += host.lines().len();
            match attempts {
                1..=10 => assert!(matches!(decision, Decision::RetryAfter(..=5_000))),
                11..=19 => assert!(matches!(decision, Decision::RetryAfter(60_000..))),
                _ => assert!(matches!(decision, Decision::GiveUp(_))),
            }
        }
        assert_eq!(warned, 1);
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        for bad in [
            r#"{"kinds":{"x":{"quick":1001,"slow":1,"advice":"a"}}}"#,
            r#"{"kinds":{"x":{"quick":1,"slow":1,"advice":" "}}}"#,
            r#"{"kinds":{"x":{"quick":1}}}"#,
        ] {
            assert!(
                testing::validate_settings::<Escalate>(bad).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn it_decides_as_the_fixtures_expect() {
        testing::run_fixtures::<Escalate>("fixtures");
    }
}
