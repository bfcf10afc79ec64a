//! Who does what to which VM, and when in the sequence: all of it comes from the seed, and nothing
//! from how a host answers.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;
use roost_model::Verb;
use serde_json::{Value, json};

/// VMs: names that VMs are created and deleted under.
pub(super) const VMS: usize = 100;
/// Clients that ask for things side by side.
pub(super) const CLIENTS: usize = 16;
/// What each client does in a round; afterwards everything comes to rest and is looked at.
pub(super) const STEPS: usize = 60;

/// What a VM runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Guest {
    /// Sleeps for good.
    Sleeps,
    /// Ticks for good.
    Ticks,
    /// Ends by itself, soon.
    Ends,
    /// Ends by itself, and is then booted again.
    Resets,
    /// Faults, again and again.
    Crashes,
}

impl Guest {
    /// Its kernel's tag.
    pub(super) const fn kernel(self) -> &'static str {
        match self {
            Self::Sleeps => "idle:1",
            Self::Ticks | Self::Ends | Self::Resets => "hello:1",
            Self::Crashes => "triple-fault:1",
        }
    }

    /// Which one the VM of this record runs.
    pub(super) fn of(record: &Value) -> Option<Self> {
        let label = record["spec"]["labels"]["guest"].as_str()?;
        [
            Self::Sleeps,
            Self::Ticks,
            Self::Ends,
            Self::Resets,
            Self::Crashes,
        ]
        .into_iter()
        .find(|guest| format!("{guest:?}").to_lowercase() == label)
    }

    /// The spec of a VM that runs it.
    pub(super) fn spec(self, name: &str, devices: Devices, taps: bool) -> Value {
        let mut spec = json!({
            "name": name,
            "kernel": self.kernel(),
            "memory_mib": 32,
            "labels": { "guest": format!("{self:?}").to_lowercase() },
        });
        match self {
            Self::Ends => spec["cmdline"] = "ticks=3".into(),
            Self::Resets => {
                spec["cmdline"] = "ticks=9".into();
                spec["on_reset"] = "reboot".into();
            }
            Self::Sleeps | Self::Ticks | Self::Crashes => {}
        }
        if devices.disk {
            spec["disks"] = json!([{ "name": "data", "size_mib": 1 }]);
        }
        if devices.vsock {
            spec["vsock"] = true.into();
        }
        if devices.network && taps {
            spec["networks"] = json!([{ "name": "net" }]);
        }
        spec
    }
}

/// What a VM has beside its guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Devices {
    disk: bool,
    network: bool,
    vsock: bool,
}

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Create(Guest, Devices),
    Verb {
        verb: Verb,
        /// Whether the request waits for the operation's end, rather than asking for it.
        waits: bool,
        /// Time for the guest to end by itself.
        grace: Option<Duration>,
    },
    /// Looks at the VM's record.
    Look,
    /// Reads what the VM printed.
    ReadLog,
    /// Asks what the VM's devices report.
    Devices,
    /// Lists all VMs.
    List,
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(guest, devices) => {
                write!(f, "create ({guest:?}")?;
                for (has, name) in [
                    (devices.disk, "disk"),
                    (devices.network, "network"),
                    (devices.vsock, "vsock"),
                ] {
                    if has {
                        write!(f, ", {name}")?;
                    }
                }
                write!(f, ")")
            }
            Self::Verb { verb, waits, grace } => {
                write!(f, "{}", verb.name())?;
                if let Some(grace) = grace {
                    write!(f, " within {grace:?}")?;
                }
                if !waits {
                    write!(f, " without waiting")?;
                }
                Ok(())
            }
            Self::Look => write!(f, "look"),
            Self::ReadLog => write!(f, "read the log"),
            Self::Devices => write!(f, "ask the devices"),
            Self::List => write!(f, "list"),
        }
    }
}

/// One step of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// The number of the VM.
    pub(super) vm: usize,
    pub(super) deed: Deed,
    /// How long it waits afterwards.
    pub(super) rest: Duration,
}

/// The name of VM number `vm`.
pub(super) fn name(vm: usize) -> String {
    format!("vm-{vm:02}")
}

/// A generator of its own for each part of a round, so that none depends on how far another is.
fn rng(seed: u64, round: u64, part: u64) -> Rng {
    // Distinct for all that a soak comes to, and mixed by `with_seed`'s first values.
    let mut rng = Rng::with_seed(seed ^ round.rotate_left(32) ^ part.rotate_left(56));
    let mixed = rng.u64(..);
    Rng::with_seed(mixed)
}

/// One of `choices`, each as likely as its weight says.
fn weighted<T: Copy>(rng: &mut Rng, choices: &[(u32, T)]) -> Option<T> {
    let sum = choices.iter().map(|(weight, _)| weight).sum::<u32>();
    let mut at = rng.u32(..sum);
    choices.iter().find_map(|(weight, choice)| {
        let found = at < *weight;
        at = at.saturating_sub(*weight);
        found.then_some(*choice)
    })
}

/// What client number `client` does in a round. The first round begins with VMs for everybody.
pub(super) fn client(seed: u64, round: u64, client: usize) -> Vec<Step> {
    let mut rng = rng(seed, round, client as u64);
    let mine = (client..VMS).step_by(CLIENTS);
    let mut steps: Vec<Step> = mine
        .filter(|_| round == 0)
        .map(|vm| Step {
            vm,
            deed: create(&mut rng),
            rest: Duration::ZERO,
        })
        .collect();
    steps.extend((0..STEPS).map(|_| Step {
        vm: rng.usize(..VMS),
        deed: deed(&mut rng),
        rest: Duration::from_millis(rng.u64(..10)),
    }));
    steps
}

fn create(rng: &mut Rng) -> Deed {
    let guest = weighted(
        rng,
        &[
            (70, Guest::Sleeps),
            (3, Guest::Ticks),
            (12, Guest::Ends),
            (4, Guest::Resets),
            (11, Guest::Crashes),
        ],
    );
    let devices = Devices {
        disk: rng.u8(..4) == 0,
        network: rng.u8(..8) == 0,
        vsock: rng.u8(..4) == 0,
    };
    Deed::Create(guest.unwrap_or(Guest::Sleeps), devices)
}

fn deed(rng: &mut Rng) -> Deed {
    #[derive(Clone, Copy)]
    enum Kind {
        Create,
        Verb(Verb),
        Other(Deed),
    }
    let kind = weighted(
        rng,
        &[
            (9, Kind::Create),
            (28, Kind::Verb(Verb::Boot)),
            (12, Kind::Verb(Verb::Pause)),
            (13, Kind::Verb(Verb::Resume)),
            (7, Kind::Verb(Verb::Reboot)),
            (7, Kind::Verb(Verb::Shutdown)),
            (4, Kind::Verb(Verb::Delete)),
            (10, Kind::Other(Deed::Look)),
            (4, Kind::Other(Deed::ReadLog)),
            (4, Kind::Other(Deed::Devices)),
            (1, Kind::Other(Deed::List)),
        ],
    );
    match kind {
        Some(Kind::Create) => create(rng),
        Some(Kind::Verb(verb)) => {
            let gracious = matches!(verb, Verb::Shutdown | Verb::Reboot) && rng.u8(..4) == 0;
            Deed::Verb {
                verb,
                waits: rng.u8(..4) != 0,
                grace: gracious.then(|| Duration::from_millis(rng.u64(..200))),
            }
        }
        Some(Kind::Other(deed)) => deed,
        None => Deed::List,
    }
}

/// What happens to the node that nobody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mischief {
    /// `kill -9` of the workers of these VMs.
    KillWorkers(Vec<usize>),
    /// `kill -9` of the host, and of the workers of these VMs before the next one starts.
    KillHost(Vec<usize>),
    /// The host is asked to end, and another one started.
    RestartHost,
    /// A run directory of nobody appears.
    Stranger(u64),
}

impl fmt::Display for Mischief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |vms: &[usize]| {
            vms.iter()
                .map(|vm| name(*vm))
                .collect::<Vec<_>>()
                .join(", ")
        };
        match self {
            Self::KillWorkers(vms) => write!(f, "kill -9 of the workers of {}", names(vms)),
            Self::KillHost(vms) if vms.is_empty() => write!(f, "kill -9 of the host"),
            Self::KillHost(vms) => {
                write!(f, "kill -9 of the host and the workers of {}", names(vms))
            }
            Self::RestartHost => write!(f, "the host is restarted"),
            Self::Stranger(number) => write!(f, "run directory of nobody, number {number:x}"),
        }
    }
}

/// A plugin that is swapped while it decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plugin {
    pub(super) name: &'static str,
    /// The only hook that it is bound to.
    pub(super) hook: &'static str,
    /// Who decides when it does not.
    pub(super) on_failure: &'static str,
    /// What its revisions do, from the first one on: words of `tests/policies/unruly`.
    pub(super) revisions: &'static [&'static str],
}

/// Every one.
pub(super) const PLUGINS: [Plugin; 3] = [
    Plugin {
        name: "soak-admission",
        hook: "admission",
        on_failure: "next",
        revisions: &["obey", "deny", "trap", "loop", "nonsense"],
    },
    Plugin {
        name: "soak-recovery",
        hook: "recovery",
        on_failure: "builtin",
        revisions: &[
            "obey",
            "leave-stopped",
            "mark-failed",
            "destroy",
            "trap",
            "loop",
            "nonsense",
        ],
    },
    // The bundled policy charges where it does not: no window is free.
    Plugin {
        name: "soak-billing",
        hook: "billing",
        on_failure: "next",
        revisions: &["obey", "trap", "loop", "nonsense"],
    },
];

/// What an operator does about a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Swap {
    /// That revision decides from now on.
    Activate(u64),
    RollBack,
    /// That revision is asked beside the active one.
    Shadow(u64),
    Unshadow,
    /// A quarantine ends.
    Readmit,
}

impl fmt::Display for Swap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Activate(revision) => write!(f, "activate revision {revision}"),
            Self::RollBack => write!(f, "roll back"),
            Self::Shadow(revision) => write!(f, "shadow revision {revision}"),
            Self::Unshadow => write!(f, "end the shadow"),
            Self::Readmit => write!(f, "readmit"),
        }
    }
}

/// When, in steps of all clients since the round began, and what.
pub(super) type Timed<T> = Vec<(u64, T)>;

/// What happens to the node in a round.
pub(super) fn mischief(seed: u64, round: u64) -> Timed<Mischief> {
    let mut rng = rng(seed, round, 100);
    let all = (CLIENTS * STEPS) as u64;
    let mut at = 0;
    let mut mischief = Vec::new();
    loop {
        at += rng.u64(5..60);
        if at >= all {
            return mischief;
        }
        // Not each of them has a worker then.
        let mut vms = |most| (0..rng.usize(1..=most)).map(|_| rng.usize(..VMS)).collect();
        let (some, few) = (vms(6), vms(6));
        let what = match rng.u8(..20) {
            0..2 => Mischief::KillHost(Vec::new()),
            2 => Mischief::KillHost(few),
            3 => Mischief::RestartHost,
            4 => Mischief::Stranger(rng.u64(..)),
            _ => Mischief::KillWorkers(some),
        };
        mischief.push((at, what));
    }
}

/// What the operator does in a round, to the plugin with that index in [`PLUGINS`].
pub(super) fn swaps(seed: u64, round: u64) -> Timed<(usize, Swap)> {
    let mut rng = rng(seed, round, 101);
    let all = (CLIENTS * STEPS) as u64;
    let mut at = 0;
    let mut swaps = Vec::new();
    loop {
        at += rng.u64(5..60);
        if at >= all {
            return swaps;
        }
        let plugin = rng.usize(..PLUGINS.len());
        let revision = rng.u64(1..=PLUGINS[plugin].revisions.len() as u64);
        let swap = match rng.u8(..10) {
            0..6 => Swap::Activate(revision),
            6..8 => Swap::RollBack,
            8 if revision.is_multiple_of(2) => Swap::Shadow(revision),
            8 => Swap::Unshadow,
            _ => Swap::Readmit,
        };
        swaps.push((at, (plugin, swap)));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_decides_all_and_another_one_otherwise() {
        for round in 0..3 {
            assert_eq!(client(7, round, 3), client(7, round, 3));
            assert_eq!(mischief(7, round), mischief(7, round));
            assert_eq!(swaps(7, round), swaps(7, round));
            assert_ne!(client(7, round, 3), client(8, round, 3));
            assert_ne!(mischief(7, round), mischief(8, round));
            assert_ne!(swaps(7, round), swaps(8, round));
        }
        assert_ne!(client(7, 0, 3), client(7, 0, 4));
        assert_ne!(client(7, 0, 3), client(7, 1, 3));
    }

    #[test]
    fn some_rounds_have_everything_in_them() {
        let words: BTreeSet<String> = (0..4)
            .flat_map(|round| {
                let clients = (0..CLIENTS).flat_map(move |number| client(1, round, number));
                let deeds = clients.map(|step| step.deed.to_string());
                let mischief = mischief(1, round)
                    .into_iter()
                    .map(|(_, what)| what.to_string());
                let swaps = swaps(1, round)
                    .into_iter()
                    .map(|(_, (_, swap))| swap.to_string());
                deeds.chain(mischief).chain(swaps)
            })
            .map(|text| {
                text.split_whitespace()
                    .take(2)
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        for word in [
            "create (Sleeps)",
            "create (Ticks)",
            "create (Ends)",
            "create (Resets)",
            "create (Crashes)",
            "boot",
            "pause",
            "resume",
            "reboot",
            "shutdown",
            "delete",
            "boot without",
            "shutdown within",
            "look",
            "read the",
            "ask the",
            "list",
            "kill -9",
            "the host",
            "run directory",
            "activate revision",
            "roll back",
            "shadow revision",
            "end the",
            "readmit",
        ] {
            assert!(words.contains(word), "{word} is in none: {words:?}");
        }
    }
}
