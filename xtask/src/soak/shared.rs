//! What everybody in a soak shares: which host there is, how far the sequence is, what is known.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::model::Vm;
use super::plan::{self, Guest};
use super::script::Script;

/// How long a step is waited for before one looks whether the soak has ended meanwhile.
const LOOK: Duration = Duration::from_millis(100);

/// What went wrong.
#[derive(Debug, Clone)]
pub(super) struct Violation {
    /// What was to hold and did not.
    pub(super) what: String,
    /// The VM that it is about, if it is about one.
    pub(super) vm: Option<String>,
}

/// Somebody found a violation: everybody stops.
#[derive(Debug)]
pub(super) struct Stopped;

/// The result of what stops at the first violation.
pub(super) type Going<T> = Result<T, Stopped>;

/// Which host there is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hosts {
    /// Its number: one more for each that was started.
    pub(super) number: u64,
    /// How often one was taken away so far.
    gone: u64,
    /// Whether it answers.
    up: bool,
}

/// What was done that must show in the records, or explains what shows there.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Incarnations whose worker was killed: id of the VM, number.
    pub(super) killed: BTreeSet<(String, u64)>,
    /// VMs that there never were, whose run directories appeared.
    pub(super) strangers: BTreeSet<String>,
    /// What VMs run, by id, as far as it is known.
    pub(super) guests: BTreeMap<String, Guest>,
    /// Operations whose end was answered: whether it was a success.
    pub(super) ended: BTreeMap<String, bool>,
}

/// Whether the admission policy in force may be one that denies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Denying {
    pub(super) possible: bool,
    /// How often that changed.
    pub(super) changes: u64,
}

/// Counts that are reported.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) requests: AtomicU64,
    pub(super) done: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) workers_killed: AtomicU64,
    pub(super) hosts_killed: AtomicU64,
    pub(super) hosts_restarted: AtomicU64,
    pub(super) swaps: AtomicU64,
}

/// One more of it.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// All of it.
pub(super) struct Shared {
    pub(super) seed: u64,
    pub(super) socket: PathBuf,
    /// Whether VMs may have networks.
    pub(super) taps: bool,
    pub(super) script: Script,
    pub(super) counts: Counts,
    models: Vec<Mutex<Vm>>,
    hosts: Mutex<Hosts>,
    hosts_changed: Condvar,
    /// Steps of all clients in this round so far.
    steps: Mutex<u64>,
    stepped: Condvar,
    facts: Mutex<Facts>,
    denying: Mutex<Denying>,
    violation: Mutex<Option<Violation>>,
    requests: AtomicU64,
}

/// A panic is a violation of its own; what was locked is still the best that is known.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(seed: u64, socket: PathBuf, taps: bool, script: Script) -> Self {
        let absent = || Mutex::new(Vm::absent());
        Self {
            seed,
            socket,
            taps,
            script,
            counts: Counts::default(),
            models: std::iter::repeat_with(absent).take(plan::VMS).collect(),
            hosts: Mutex::new(Hosts {
                number: 0,
                gone: 0,
                up: true,
            }),
            hosts_changed: Condvar::new(),
            steps: Mutex::new(0),
            stepped: Condvar::new(),
            facts: Mutex::default(),
            denying: Mutex::new(Denying {
                possible: false,
                changes: 0,
            }),
            violation: Mutex::default(),
            requests: AtomicU64::new(0),
        }
    }

    /// The model of VM number `vm`.
    pub(super) fn model(&self, vm: usize) -> MutexGuard<'_, Vm> {
        lock(&self.models[vm])
    }

    pub(super) fn facts(&self) -> MutexGuard<'_, Facts> {
        lock(&self.facts)
    }

    pub(super) fn denying(&self) -> Denying {
        *lock(&self.denying)
    }

    pub(super) fn set_denying(&self, possible: bool) {
        let mut denying = lock(&self.denying);
        denying.possible = possible;
        denying.changes += 1;
    }

    /// A number for a request that no other has.
    pub(super) fn next_request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }

    /// Has everybody stop. The first violation is the one that is reported: the others may be
    /// because of it.
    pub(super) fn violated(&self, vm: Option<&str>, what: impl Into<String>) -> Stopped {
        let (what, vm) = (what.into(), vm.map(str::to_owned));
        self.script.say("VIOLATION", &what);
        lock(&self.violation).get_or_insert(Violation { what, vm });
        self.hosts_changed.notify_all();
        self.stepped.notify_all();
        Stopped
    }

    pub(super) fn violation(&self) -> Option<Violation> {
        lock(&self.violation).clone()
    }

    pub(super) fn go_on(&self) -> Going<()> {
        if lock(&self.violation).is_some() {
            return Err(Stopped);
        }
        Ok(())
    }

    /// Waits until there is a host that answers.
    pub(super) fn host(&self) -> Going<Hosts> {
        let mut hosts = lock(&self.hosts);
        loop {
            self.go_on()?;
            if hosts.up {
                return Ok(*hosts);
            }
            let waited = self.hosts_changed.wait_timeout(hosts, LOOK);
            hosts = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The number of the host that there is, or that there was if there is none.
    pub(super) fn host_number(&self) -> u64 {
        lock(&self.hosts).number
    }

    /// Whether a host was taken away since `before`.
    pub(super) fn interrupted(&self, before: Hosts) -> bool {
        lock(&self.hosts).gone != before.gone
    }

    /// The host is about to be taken away.
    pub(super) fn host_goes(&self) {
        let mut hosts = lock(&self.hosts);
        hosts.gone += 1;
        hosts.up = false;
    }

    /// The host is gone, and another one is about to be started.
    pub(super) fn next_host(&self) {
        lock(&self.hosts).number += 1;
    }

    /// The next host answers.
    pub(super) fn host_answers(&self) {
        lock(&self.hosts).up = true;
        self.hosts_changed.notify_all();
    }

    /// A client begins a step.
    pub(super) fn step(&self) {
        *lock(&self.steps) += 1;
        self.stepped.notify_all();
    }

    /// Another round begins.
    pub(super) fn begin_round(&self) {
        *lock(&self.steps) = 0;
    }

    /// Waits until so many steps have begun, or `is_over`; returns whether they have.
    pub(super) fn wait_for_step(&self, at: u64, is_over: impl Fn() -> bool) -> Going<bool> {
        let mut steps = lock(&self.steps);
        while *steps < at {
            self.go_on()?;
            if is_over() {
                return Ok(false);
            }
            let waited = self.stepped.wait_timeout(steps, LOOK);
            steps = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        self.go_on()?;
        Ok(true)
    }
}
