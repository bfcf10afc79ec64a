//! Denies VMs beyond limits from its settings: of a tenant, and of the node.
//!
//! Settings (all optional; absent: no limit):
//! `{"tenant": {"vms": 10, "vcpus": 20, "memory_mib": 8192}, "node": {…}}`

use roost_plugin::Policy;
use roost_plugin::admission::{Admission, Decision, Facts, Usage};
use serde::Deserialize;

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    tenant: Limits,
    node: Limits,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Limits {
    vms: Option<u64>,
    vcpus: Option<u64>,
    memory_mib: Option<u64>,
}

impl Limits {
    /// The first limit that `used` and the VM together would pass.
    fn passed(&self, whose: &str, used: &Usage, facts: &Facts) -> Option<String> {
        let asked = [
            ("VMs", self.vms, used.vms, 1),
            ("vCPUs", self.vcpus, used.vcpus, u64::from(facts.vm.vcpus)),
            (
                "MiB of memory",
                self.memory_mib,
                used.memory_mib,
                facts.vm.memory_mib,
            ),
        ];
        asked.into_iter().find_map(|(unit, limit, used, asked)| {
            let limit = limit?;
            (used.saturating_add(asked) > limit).then(|| {
                format!("{whose} may have {limit} {unit}; {used} are in use and {asked} asked for")
            })
        })
    }
}

struct Limit;

impl Policy for Limit {
    type Settings = Settings;
}

impl Admission for Limit {
    fn decide(facts: &Facts, settings: &Settings) -> Decision {
        let tenant = format!("tenant {}", facts.vm.tenant);
        let passed = settings
            .tenant
            .passed(&tenant, &facts.tenant, facts)
            .or_else(|| settings.node.passed("this node", &facts.node, facts));
        passed.map_or(Decision::Allow, Decision::Deny)
    }
}

roost_plugin::export!(Limit: admission);

#[cfg(test)]
mod tests {
    #[test]
    fn it_decides_as_the_fixtures_expect() {
        roost_plugin::testing::run_fixtures::<super::Limit>("fixtures");
    }
}
