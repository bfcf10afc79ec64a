//! Dying on purpose: the points at which a test lets the host, its workers, or both be killed.
//!
//! Every effect of the engine passes [`Faults::around`] or [`Faults::reach`]. Without a fault that
//! is armed, as always outside of tests, both do nothing.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use roost_model::{Effect, Fault, FaultPoint, InvalidFault, Moment, Victim};
use roost_worker::Probe;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, kill_process, pidfd_open, pidfd_send_signal,
};

/// What text begins with that asks for a trace.
const TRACE: &str = "trace=";

/// How long a killed worker may take to end, s: the kernel frees the guest's memory first.
const KILL_SECONDS: i64 = 10;

/// The fault that is armed, if one is. Clones share one.
#[derive(Clone, Default)]
pub struct Faults(Option<Arc<Armed>>);

struct Armed {
    what: What,
    /// How often each point was reached.
    reached: Mutex<HashMap<FaultPoint, u32>>,
    /// The workers of this host process.
    workers: Mutex<Vec<OwnedFd>>,
}

enum What {
    Fault(Fault),
    /// Each point that is reached becomes a line: `<effect>:<before|after>:<n> <workers>`, the
    /// latter the number of workers that a fault there would kill.
    Trace(Mutex<File>),
}

/// Text that names neither a fault nor a trace.
#[derive(Debug, thiserror::Error)]
pub enum FaultsError {
    /// It can't be understood.
    #[error("{0}, or trace=<file>")]
    Invalid(#[from] InvalidFault),
    /// The trace can't be written.
    #[error("the trace {path}: {source}")]
    Trace {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Faults {
    /// Arms what `text` says: `<effect>:<before|after>[:<n>]=<host|worker|both>`, or
    /// `trace=<file>`, which kills nobody and appends every point that is reached to a file.
    ///
    /// # Errors
    /// [`FaultsError`]: it says something else.
    pub fn arm(text: &str) -> Result<Self, FaultsError> {
        let what = match text.strip_prefix(TRACE) {
            Some(path) => {
                let file = File::options().create(true).append(true).open(path);
                let file = file.map_err(|source| FaultsError::Trace {
                    path: path.into(),
                    source,
                })?;
                What::Trace(Mutex::new(file))
            }
            None => What::Fault(text.parse()?),
        };
        Ok(Self(Some(Arc::new(Armed {
            what,
            reached: Mutex::default(),
            workers: Mutex::default(),
        }))))
    }

    /// Does `work`, which is `effect`.
    pub(crate) async fn around<T>(&self, effect: Effect, work: impl Future<Output = T>) -> T {
        self.reach(effect, Moment::Before);
        let result = work.await;
        self.reach(effect, Moment::After);
        result
    }

    /// Does `work`, which is `effect` and blocks.
    pub(crate) fn around_blocking<T>(&self, effect: Effect, work: impl FnOnce() -> T) -> T {
        self.reach(effect, Moment::Before);
        let result = work();
        self.reach(effect, Moment::After);
        result
    }

    /// `effect` is about to come, or has come. It does not return where the host dies.
    pub(crate) fn reach(&self, effect: Effect, moment: Moment) {
        if let Some(armed) = &self.0 {
            armed.reach(FaultPoint { effect, moment });
        }
    }

    /// Takes note of a worker of this host process.
    pub(crate) fn watch(&self, pid: u32) {
        let Some(armed) = &self.0 else { return };
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        // One that is gone already need not be killed.
        if let Some(pidfd) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) {
            lock(&armed.workers).push(pidfd);
        }
    }
}

impl Armed {
    fn reach(&self, point: FaultPoint) {
        let time = {
            let mut reached = lock(&self.reached);
            let time = reached.entry(point).or_default();
            *time += 1;
            *time
        };
        match &self.what {
            What::Trace(file) => {
                let workers = lock(&self.workers);
                let alive = workers.iter().filter(|worker| !has_ended(worker)).count();
                let line = format!("{point}:{time} {alive}\n");
                if let Err(error) = lock(file).write_all(line.as_bytes()) {
                    tracing::error!(%error, "the trace can't be written");
                }
            }
            What::Fault(fault) if (fault.point, fault.time) == (point, time) => {
                self.strike(fault);
            }
            What::Fault(_) => {}
        }
    }

    fn strike(&self, fault: &Fault) {
        let killed = match fault.victim {
            Victim::Host => 0,
            Victim::Worker | Victim::Both => {
                let workers = lock(&self.workers);
                workers.iter().filter(|worker| kill(worker)).count()
            }
        };
        // Whoever armed it reads this line.
        eprintln!("fault: {fault}: {killed} workers killed");
        if fault.victim == Victim::Worker {
            return;
        }
        let _ = kill_process(getpid(), Signal::KILL);
        // The signal may take a moment; nothing more is done here.
        loop {
            std::thread::park();
        }
    }
}

/// Kills a worker and waits until it is gone; returns whether it was there.
fn kill(worker: &OwnedFd) -> bool {
    if has_ended(worker) || pidfd_send_signal(worker, Signal::KILL).is_err() {
        return false;
    }
    wait(worker, KILL_SECONDS);
    true
}

fn has_ended(worker: &OwnedFd) -> bool {
    wait(worker, 0)
}

/// Waits for a process's end; returns whether it came.
fn wait(worker: &OwnedFd, seconds: i64) -> bool {
    let patience = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let mut ended = [PollFd::new(worker, PollFlags::IN)];
    poll(&mut ended, Some(&patience)).is_ok_and(|ready| ready > 0)
}

impl Probe for Faults {
    fn reach(&self, effect: Effect, moment: Moment) {
        Self::reach(self, effect, moment);
    }

    fn spawned(&self, pid: u32) {
        self.watch(pid);
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_deref().map(|armed| &armed.what) {
            None => f.write_str("no fault"),
            Some(What::Fault(fault)) => write!(f, "{fault}"),
            Some(What::Trace(_)) => f.write_str("a trace"),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_has_each_point_with_its_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trace");
        let faults = Faults::arm(&format!("trace={}", path.display())).unwrap();
        for _ in 0..2 {
            faults.around_blocking(Effect::MakeDisk, || ());
        }
        assert_eq!(
            std::fs::read_to_string(path).unwrap(),
            "make-disk:before:1 0\nmake-disk:after:1 0\nmake-disk:before:2 0\nmake-disk:after:2 0\n"
        );
    }

    #[test]
    fn what_can_not_be_armed_is_refused() {
        assert!(matches!(
            Faults::arm("everything=host"),
            Err(FaultsError::Invalid(_))
        ));
        assert!(matches!(
            Faults::arm("trace=/nowhere/trace"),
            Err(FaultsError::Trace { .. })
        ));
    }

    #[test]
    fn a_worker_is_killed_at_the_time_that_was_asked_for_and_the_host_is_not() {
        let mut child = std::process::Command::new("sleep")
            .arg("600")
            .spawn()
            .unwrap();
        let faults = Faults::arm("pause-guest:after:2=worker").unwrap();
        faults.watch(child.id());
        faults.around_blocking(Effect::PauseGuest, || ());
        assert!(child.try_wait().unwrap().is_none());
        faults.around_blocking(Effect::PauseGuest, || ());
        assert!(!child.wait().unwrap().success());
    }

    /// The sources of the lifecycle; plugins have no steps.
    fn sources() -> Vec<(String, String)> {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut folders = vec![root.clone(), root.join("audit")];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|extension| extension == "rs") {
                    let name = path.strip_prefix(&root).unwrap().display().to_string();
                    found.push((name, std::fs::read_to_string(path).unwrap()));
                }
            }
        }
        found
    }

    #[test]
    fn every_commit_of_the_lifecycle_is_a_fault_point() {
        // What passes the points, and uploads, which are no verb.
        let excused = ["context.rs", "images.rs", "faults.rs"];
        for (name, text) in sources() {
            if excused.contains(&name.as_str()) {
                continue;
            }
            for after in text.split(".commit(").skip(1) {
                let names_effect = after.trim_start().starts_with("Effect::");
                assert!(names_effect, "{name} commits without naming an effect");
            }
        }
    }

    #[test]
    fn files_are_changed_only_where_that_is_a_fault_point() {
        // Run directories are also made by `engine.rs`, once for the host.
        let known = ["devices.rs", "logs.rs", "stop.rs", "engine.rs", "faults.rs"];
        let changes = [
            "remove_dir_all(",
            "remove_file(",
            "fs::write(",
            "DirBuilder::new",
            "create_dir",
            "fs::rename(",
        ];
        for (name, text) in sources() {
            for change in changes {
                let allowed = known.contains(&name.as_str()) || !text.contains(change);
                assert!(allowed, "{name} calls {change} and is not known to do so");
            }
        }
    }
}
