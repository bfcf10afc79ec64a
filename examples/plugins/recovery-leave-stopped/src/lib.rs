//! A recovery policy in as few lines as it takes: whatever happened, the VM stays stopped.

use roost_plugin::recovery::{Action, Decision, Facts, Recovery};
use roost_plugin::{NoSettings, Policy};

struct LeaveStopped;

impl Policy for LeaveStopped {
    type Settings = NoSettings;
}

impl Recovery for LeaveStopped {
    fn decide(facts: &Facts, _: &NoSettings) -> Decision {
        Decision {
            action: Action::LeaveStopped,
            reason: format!("a person should look at it: {}", facts.incident.detail),
        }
    }
}

roost_plugin::export!(LeaveStopped: recovery);

#[cfg(test)]
mod tests {
    #[test]
    fn it_decides_as_the_fixtures_expect() {
        roost_plugin::testing::run_fixtures::<super::LeaveStopped>("fixtures");
    }
}
