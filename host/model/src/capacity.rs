//! What VMs claim of a node, and how much of it they may claim all together.
//!
//! A VM claims from its creation to its deletion, whether it runs or not: what was created can
//! always be booted, also by the recovery policy. A limit that is lowered takes nothing from the
//! VMs that are there; it refuses new ones.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Tenant, VmSpec};

/// Declares what is counted, once: whatever is added here is in every sum and every check, and
/// does not compile until it is said what a VM claims of it and how an operator limits it.
macro_rules! quantities {
    ($($(#[$doc:meta])+ $variant:ident: $field:ident, $option:literal, $unit:literal;)+) => {
        /// Something that VMs claim and that can be limited.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Quantity { $($(#[$doc])+ $variant,)+ }

        impl Quantity {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            const fn option(self) -> &'static str {
                match self { $(Self::$variant => $option,)+ }
            }

            const fn unit(self) -> &'static str {
                match self { $(Self::$variant => $unit,)+ }
            }
        }

        /// How much of everything: of one VM, or of many together.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Amounts { $($(#[$doc])+ pub $field: u64,)+ }

        impl Amounts {
            /// How much of `quantity`.
            #[must_use]
            pub const fn get(&self, quantity: Quantity) -> u64 {
                match quantity { $(Quantity::$variant => self.$field,)+ }
            }

            fn add(&mut self, other: &Self) {
                $(self.$field = self.$field.saturating_add(other.$field);)+
            }
        }

        /// The most of everything; what is absent is not limited.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Most { $($(#[$doc])+ pub $field: Option<u64>,)+ }

        impl Most {
            /// The most of `quantity`.
            #[must_use]
            pub const fn get(&self, quantity: Quantity) -> Option<u64> {
                match quantity { $(Quantity::$variant => self.$field,)+ }
            }

            /// These limits, with another one of `quantity`.
            #[must_use]
            pub const fn with(mut self, quantity: Quantity, most: Option<u64>) -> Self {
                match quantity { $(Quantity::$variant => self.$field = most,)+ }
                self
            }
        }
    };
}

quantities! {
    /// VMs.
    Vms: vms, "max-vms", "";
    /// vCPUs.
    Vcpus: vcpus, "max-vcpus", "";
    /// Memory of guests, MiB.
    Memory: memory_mib, "max-memory", " MiB";
    /// Descriptors that the host process has open for running VMs.
    Descriptors: descriptors, "max-descriptors", "";
}

/// Descriptors that the host process has open for a VM that runs, whatever devices it has: its
/// worker's control connection and process, and its run directory. Those of its disks, TAPs and
/// sockets are the worker's alone once it has been started.
pub const DESCRIPTORS_PER_VM: u64 = 3;

impl Amounts {
    /// What a VM of `spec` claims.
    #[must_use]
    pub fn of(spec: &VmSpec) -> Self {
        Self {
            vms: 1,
            vcpus: u64::from(spec.vcpus),
            memory_mib: spec.memory_mib,
            descriptors: DESCRIPTORS_PER_VM,
        }
    }
}

/// Whose VMs a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// All VMs of the host.
    Node,
    /// Those of one tenant, each tenant by itself.
    Tenant,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Node, Self::Tenant];
}

/// One limit. Shown as the option of `roost serve` that sets it, without dashes in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CapacityLimit {
    /// Whose VMs it counts.
    pub scope: Scope,
    /// What of them.
    pub quantity: Quantity,
}

impl CapacityLimit {
    /// Every limit that there is.
    pub fn all() -> impl Iterator<Item = Self> {
        Scope::ALL.into_iter().flat_map(|scope| {
            let quantities = Quantity::ALL.iter().copied();
            quantities.map(move |quantity| Self { scope, quantity })
        })
    }
}

impl fmt::Display for CapacityLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.quantity.option())?;
        match self.scope {
            Scope::Node => Ok(()),
            Scope::Tenant => f.write_str("-per-tenant"),
        }
    }
}

/// A VM would have passed a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the limit {limit} is {most}{unit}, {in_use}{unit} are in use and {requested}{unit} were \
     requested; delete VMs or raise the limit",
    unit = limit.quantity.unit()
)]
pub struct CapacityExceeded {
    /// Which limit.
    pub limit: CapacityLimit,
    /// What it is.
    pub most: u64,
    /// What the VMs that it counts claim already.
    pub in_use: u64,
    /// What the new VM would have claimed.
    pub requested: u64,
}

/// What is claimed already, as far as it matters to one tenant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Claimed {
    /// By all VMs of the host.
    pub node: Amounts,
    /// By those of the tenant.
    pub tenant: Amounts,
}

impl Claimed {
    /// The sums over `claims`, each with whose it is, for `tenant`.
    pub fn sum<'a>(
        claims: impl IntoIterator<Item = (&'a Tenant, &'a Amounts)>,
        tenant: &Tenant,
    ) -> Self {
        let mut sum = Self::default();
        for (owner, claim) in claims {
            sum.node.add(claim);
            if owner == tenant {
                sum.tenant.add(claim);
            }
        }
        sum
    }

    const fn of(&self, scope: Scope) -> &Amounts {
        match scope {
            Scope::Node => &self.node,
            Scope::Tenant => &self.tenant,
        }
    }
}

/// The limits of a host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capacity {
    /// For all VMs of the host.
    pub node: Most,
    /// For those of each tenant.
    pub tenant: Most,
}

impl Capacity {
    /// No limit but `limit`, which is `most`.
    #[must_use]
    pub fn only(limit: CapacityLimit, most: u64) -> Self {
        let mut capacity = Self::default();
        let of_scope = match limit.scope {
            Scope::Node => &mut capacity.node,
            Scope::Tenant => &mut capacity.tenant,
        };
        *of_scope = Most::default().with(limit.quantity, Some(most));
        capacity
    }

    /// What `limit` is, if it is set.
    #[must_use]
    pub const fn get(&self, limit: CapacityLimit) -> Option<u64> {
        let of_scope = match limit.scope {
            Scope::Node => &self.node,
            Scope::Tenant => &self.tenant,
        };
        of_scope.get(limit.quantity)
    }

    /// Whether a VM that claims `claim` fits beside what is claimed already.
    ///
    /// # Errors
    /// The first limit that it would pass.
    pub fn check(&self, claimed: &Claimed, claim: &Amounts) -> Result<(), CapacityExceeded> {
        for limit in CapacityLimit::all() {
            let in_use = claimed.of(limit.scope).get(limit.quantity);
            let requested = claim.get(limit.quantity);
            match self.get(limit) {
                Some(most) if in_use.saturating_add(requested) > most => {
                    return Err(CapacityExceeded {
                        limit,
                        most,
                        in_use,
                        requested,
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn amounts() -> impl Strategy<Value = Amounts> {
        (1..4_u64, 1..33_u64, 32..4096_u64, 1..9_u64).prop_map(
            |(vms, vcpus, memory_mib, descriptors)| Amounts {
                vms,
                vcpus,
                memory_mib,
                descriptors,
            },
        )
    }

    proptest! {
        /// Whatever is asked for in whatever order, what was let in never passes a limit, and
        /// what was refused would have passed the one that is named.
        #[test]
        fn what_is_let_in_never_passes_a_limit(
            index in 0..CapacityLimit::all().count(),
            most in 0..10_000_u64,
            asked in prop::collection::vec((0..3_usize, amounts()), 0..40),
        ) {
            let limit = CapacityLimit::all().nth(index).unwrap();
            let capacity = Capacity::only(limit, most);
            let tenants: [Tenant; 3] = ["a", "b", "c"].map(|name| name.parse().unwrap());
            let mut claims: Vec<(Tenant, Amounts)> = Vec::new();
            for (tenant, claim) in asked {
                let tenant = &tenants[tenant];
                let counted = |(owner, _): &&(Tenant, Amounts)| match limit.scope {
                    Scope::Node => true,
                    Scope::Tenant => owner == tenant,
                };
                let before: u64 = claims
                    .iter()
                    .filter(counted)
                    .map(|(_, claim)| claim.get(limit.quantity))
                    .sum();
                let claimed = Claimed::sum(claims.iter().map(|(t, c)| (t, c)), tenant);
                let requested = claim.get(limit.quantity);
                match capacity.check(&claimed, &claim) {
                    Ok(()) => {
                        prop_assert!(before + requested <= most);
                        claims.push((tenant.clone(), claim));
                    }
                    Err(exceeded) => {
                        prop_assert!(before + requested > most);
                        prop_assert_eq!(
                            exceeded,
                            CapacityExceeded { limit, most, in_use: before, requested }
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn sums_do_not_wrap() {
        let all = Amounts {
            vms: u64::MAX,
            vcpus: u64::MAX,
            memory_mib: u64::MAX,
            descriptors: u64::MAX,
        };
        let claimed = Claimed::sum(
            [(&Tenant::default(), &all), (&Tenant::default(), &all)],
            &Tenant::default(),
        );
        for limit in CapacityLimit::all() {
            let refused = Capacity::only(limit, u64::MAX - 1).check(&claimed, &all);
            assert_eq!(refused.unwrap_err().limit, limit);
        }
    }

    #[test]
    fn a_refusal_names_the_limit_the_use_and_the_request() {
        let limit = CapacityLimit {
            scope: Scope::Tenant,
            quantity: Quantity::Memory,
        };
        let exceeded = CapacityExceeded {
            limit,
            most: 1024,
            in_use: 1000,
            requested: 64,
        };
        assert_eq!(
            exceeded.to_string(),
            "the limit max-memory-per-tenant is 1024 MiB, 1000 MiB are in use and 64 MiB were \
             requested; delete VMs or raise the limit"
        );
    }
}
