//! Does what its settings say, most of which no policy should: what `cargo xtask soak` swaps in and
//! out while VMs run.
//!
//! Settings: `{"does": "obey"}`, or another word of [`Does`]. Where a hook has no use for the word,
//! the policy obeys there.

use std::hint::spin_loop;

use roost_plugin::Policy;
use roost_plugin::admission::{self, Admission};
use roost_plugin::billing::{self, Billing, Charge};
use roost_plugin::recovery::{self, Action, Recovery};
use serde::Deserialize;

/// What it does when it is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Does {
    /// What a policy should.
    #[default]
    Obey,
    /// Lets nothing in.
    Deny,
    /// Leaves VMs stopped, whatever happened to them.
    LeaveStopped,
    /// Gives VMs up.
    MarkFailed,
    /// Has VMs deleted.
    Destroy,
    /// Panics.
    Trap,
    /// Never answers.
    Loop,
    /// Answers what makes no sense.
    Nonsense,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    does: Does,
}

/// Restarts before it gives a VM up.
const MAX_RESTARTS: u32 = 3;

struct Unruly;

impl Policy for Unruly {
    type Settings = Settings;
}

/// What is wrong in the same way at every hook.
fn misbehave(does: Does) {
    match does {
        Does::Trap => panic!("it was told to"),
        Does::Loop => loop {
            spin_loop();
        },
        _ => {}
    }
}

impl Admission for Unruly {
    fn decide(_: &admission::Facts, settings: &Settings) -> admission::Decision {
        misbehave(settings.does);
        match settings.does {
            Does::Deny => admission::Decision::Deny("it was told to".to_owned()),
            Does::Nonsense => admission::Decision::AllowWith(admission::Change {
                vcpus: Some(0),
                memory_mib: None,
                labels: None,
                cmdline: None,
            }),
            _ => admission::Decision::Allow,
        }
    }
}

impl Recovery for Unruly {
    fn decide(facts: &recovery::Facts, settings: &Settings) -> recovery::Decision {
        misbehave(settings.does);
        let action = match settings.does {
            Does::LeaveStopped => Action::LeaveStopped,
            Does::MarkFailed => Action::MarkFailed,
            Does::Destroy => Action::Destroy,
            Does::Nonsense => Action::RestartAfter(u64::MAX),
            _ if matches!(facts.vm.desired.as_str(), "stopped" | "deleted") => Action::LeaveStopped,
            _ if facts.attempts >= MAX_RESTARTS => Action::MarkFailed,
            _ => Action::RestartAfter(facts.context.seed % 50),
        };
        recovery::Decision {
            action,
            reason: format!("it was told to {:?}", settings.does),
        }
    }
}

impl Billing for Unruly {
    fn decide(facts: &billing::Facts, settings: &Settings) -> Vec<Charge> {
        misbehave(settings.does);
        let windows = facts.windows.iter();
        let charges = windows.map(|window| Charge {
            incarnation: window.incarnation,
            // Nonsense: a window that it was not asked about.
            sequence: window.sequence + u64::from(settings.does == Does::Nonsense) * 1_000_000,
            item: "vcpu-time".to_owned(),
            quantity: window.vcpu_cpu_ns / 1_000_000,
            unit: "ms".to_owned(),
            unit_price_nanos: 7,
            currency: "EUR".to_owned(),
        });
        charges.collect()
    }
}

roost_plugin::export!(Unruly: admission, recovery, billing);

#[cfg(test)]
mod tests {
    #[test]
    fn it_decides_as_the_fixtures_expect() {
        roost_plugin::testing::run_fixtures::<super::Unruly>("fixtures");
    }

    #[test]
    #[should_panic(expected = "it was told to")]
    fn it_panics_when_it_is_told_to() {
        super::misbehave(super::Does::Trap);
    }
}
