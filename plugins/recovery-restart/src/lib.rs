//! Restarts a VM with exponential backoff and jitter, and gives it up when that happens too often.
//! A VM that is given up is in quarantine: it is *failed*, and nothing boots it but a user.
//!
//! Settings, with their defaults:
//! `{"restart": "on-failure", "base_ms": 100, "cap_ms": 30000, "max_attempts": 5, "window_ms": null}`
//!
//! * `restart`: `never`; `on-failure`: after everything but the guest's own end; `always`: after
//!   that, too, where the VM's spec has it asked about (`on_end`). A VM that its user wants stopped
//!   stays stopped.
//! * `base_ms`, `cap_ms`: the first delay at its longest, and the longest of all; each is twice the
//!   one before it.
//! * `max_attempts`: restarts before the VM is given up; `null`: it never is.
//! * `window_ms`: restarts that are longer ago do not count, neither for `max_attempts` nor for the
//!   delay; `null`: all count since a user booted the VM, or since it last ran well for long.

use roost_plugin::Policy;
use roost_plugin::recovery::{Action, Decision, Facts, Recovery};
use serde::Deserialize;

/// The host tells of as many earlier incidents.
const HISTORY: u32 = 32;
/// The longest delay that a host takes, ms.
const DAY_MS: u64 = 86_400_000;
/// The kind of incident that is a guest's own end.
const GUEST_ENDED: &str = "guest-ended";

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum When {
    Never,
    OnFailure,
    Always,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    restart: When,
    base_ms: u64,
    cap_ms: u64,
    max_attempts: Option<u32>,
    window_ms: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            restart: When::OnFailure,
            base_ms: 100,
            cap_ms: 30_000,
            max_attempts: Some(5),
            window_ms: None,
        }
    }
}

struct Restart;

impl Policy for Restart {
    type Settings = Settings;

    fn check(settings: &Settings) -> Result<(), String> {
        if settings.base_ms == 0 || settings.cap_ms > DAY_MS {
            return Err("base_ms is at least 1 and cap_ms at most a day".to_owned());
        }
        let too_many = settings.max_attempts.is_some_and(|max| max > HISTORY);
        if settings.window_ms.is_some() && too_many {
            return Err(format!(
                "with window_ms, max_attempts is at most {HISTORY}: no more incidents are told of"
            ));
        }
        Ok(())
    }
}

impl Recovery for Restart {
    fn decide(facts: &Facts, settings: &Settings) -> Decision {
        let guest_ended = facts.incident.kind == GUEST_ENDED;
        if guest_ended && settings.restart != When::Always {
            return Decision {
                action: Action::LeaveStopped,
                reason: "the guest ended by itself".to_owned(),
            };
        }
        // A guest that ends by itself leaves a VM that is wanted stopped, until this says otherwise.
        if !guest_ended && matches!(facts.vm.desired.as_str(), "stopped" | "deleted") {
            return Decision {
                action: Action::LeaveStopped,
                reason: format!("its user wants it {}", facts.vm.desired),
            };
        }
        if settings.restart == When::Never {
            return Decision {
                action: Action::MarkFailed,
                reason: format!(
                    "no restart after {}: the setting is never",
                    facts.incident.kind
                ),
            };
        }
        let attempts = attempts(facts, settings);
        if settings.max_attempts.is_some_and(|max| attempts >= max) {
            return Decision {
                action: Action::MarkFailed,
                reason: match settings.window_ms {
                    Some(window_ms) => format!("{attempts} restarts within {window_ms} ms"),
                    None => format!("{attempts} restarts did not help"),
                },
            };
        }
        let bound = settings
            .base_ms
            .saturating_mul(1 << attempts.min(32))
            .min(settings.cap_ms);
        // Half of it is jitter, so that VMs that failed together do not return together.
        let delay = bound / 2 + facts.context.seed % (bound / 2 + 1);
        let restart = u64::from(attempts) + 1;
        let kind = &facts.incident.kind;
        Decision {
            action: Action::RestartAfter(delay),
            reason: match settings.max_attempts {
                Some(max) => format!("restart {restart} of {max} after {kind}"),
                None => format!("restart {restart} after {kind}"),
            },
        }
    }
}

/// The restarts that count.
fn attempts(facts: &Facts, settings: &Settings) -> u32 {
    let Some(window_ms) = settings.window_ms else {
        return facts.attempts;
    };
    let since_ms = facts.context.now_ms.saturating_sub(window_ms);
    let restarts = facts
        .history
        .iter()
        // What is before the last time that the VM was given up is over: a user has booted it.
        .take_while(|past| !matches!(past.action.as_str(), "mark-failed" | "leave-stopped"))
        .filter(|past| past.action == "restart" && past.at_ms >= since_ms)
        .count();
    u32::try_from(restarts).unwrap_or(u32::MAX)
}

roost_plugin::export!(Restart: recovery);

#[cfg(test)]
mod tests {
    #[test]
    fn it_decides_as_the_fixtures_expect() {
        roost_plugin::testing::run_fixtures::<super::Restart>("fixtures");
    }
}
