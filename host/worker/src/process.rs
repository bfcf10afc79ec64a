//! Worker processes as the host sees them: named by pid and start time, held by a pidfd.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::sync::Arc;

use roost_model::VmId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::error::KillError;
use crate::limits::KILL_DEADLINE;
use crate::readiness;
use crate::run_dir::vm_of_log;

/// Names a process for good: a pid is used again, but not with the same start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WorkerIdentity {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot: field 22 of `/proc/<pid>/stat` (proc(5)).
    pub start_ticks: u64,
}

/// What becomes of a process that was not our child.
const UNKNOWN_STATUS: &str = "unknown";

/// A worker process that is watched: its end is noticed at once.
#[derive(Debug)]
pub(crate) struct Process {
    identity: WorkerIdentity,
    pidfd: Arc<OwnedFd>,
    ended: watch::Receiver<Option<String>>,
}

impl Process {
    /// Watches a child of this process, and reaps it whether or not anyone still looks. A child
    /// that can't be watched is killed.
    pub(crate) fn of_child(mut child: Child) -> io::Result<Self> {
        let (identity, pidfd, end) = match Self::look_at(&child) {
            Ok(parts) => parts,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
        };
        let (sender, ended) = watch::channel(None);
        tokio::spawn(async move {
            // An error means that the runtime is going down; the child is then init's to reap.
            if end.readable().await.is_ok() {
                // It has ended already: this does not block.
                let status = child
                    .wait()
                    .map_or_else(|_| UNKNOWN_STATUS.to_owned(), describe);
                sender.send_replace(Some(status));
            }
        });
        Ok(Self {
            identity,
            pidfd,
            ended,
        })
    }

    /// The child is not reaped yet: its pid names it, alive or not.
    fn look_at(child: &Child) -> io::Result<(WorkerIdentity, Arc<OwnedFd>, AsyncFd<Arc<OwnedFd>>)> {
        let pid = child.id();
        let (pidfd, start_ticks) =
            open(pid)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let pidfd = Arc::new(pidfd);
        let end = readiness::watch(Arc::clone(&pidfd))?;
        Ok((WorkerIdentity { pid, start_ticks }, pidfd, end))
    }

    /// Watches a process that another process started; `None` if there is no such process.
    pub(crate) fn of_stranger(pid: u32) -> io::Result<Option<Self>> {
        let Some((pidfd, start_ticks)) = open(pid)? else {
            return Ok(None);
        };
        let (sender, ended) = watch::channel(None);
        let pidfd = Arc::new(pidfd);
        let end = readiness::watch(Arc::clone(&pidfd))?;
        tokio::spawn(async move {
            tokio::select! {
                result = end.readable() => if result.is_ok() {
                    sender.send_replace(Some(UNKNOWN_STATUS.to_owned()));
                },
                () = sender.closed() => {}
            }
        });
        Ok(Some(Self {
            identity: WorkerIdentity { pid, start_ticks },
            pidfd,
            ended,
        }))
    }

    pub(crate) const fn identity(&self) -> WorkerIdentity {
        self.identity
    }

    /// Waits for the process's end; returns how it ended.
    pub(crate) async fn ended(&self) -> String {
        let mut ended = self.ended.clone();
        let status = ended
            .wait_for(Option::is_some)
            .await
            .map(|status| status.clone());
        match status {
            Ok(status) => status.unwrap_or_default(),
            // The watching task ended without a word: the runtime is going down.
            Err(_) => std::future::pending().await,
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// Sends `SIGKILL`. A process that is gone already is fine.
    pub(crate) fn signal_kill(&self) -> io::Result<()> {
        send_kill(&self.pidfd)
    }

    /// Kills the process and waits until it is gone.
    pub(crate) async fn kill(&self) -> Result<(), KillError> {
        let pid = self.identity.pid;
        self.signal_kill()
            .map_err(|source| KillError::Signal { pid, source })?;
        match timeout(KILL_DEADLINE, self.ended()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(KillError::StillThere {
                pid,
                after_ms: KILL_DEADLINE.as_millis(),
            }),
        }
    }
}

/// Kills the process that `worker` names; returns whether there was one.
pub(crate) async fn kill(worker: WorkerIdentity) -> Result<bool, KillError> {
    let pid = worker.pid;
    let inspect = |source| KillError::Inspect { pid, source };
    let Some((pidfd, start_ticks)) = open(pid).map_err(inspect)? else {
        return Ok(false);
    };
    if start_ticks != worker.start_ticks {
        return Ok(false);
    }
    let pidfd = readiness::watch(Arc::new(pidfd)).map_err(inspect)?;
    send_kill(pidfd.get_ref()).map_err(|source| KillError::Signal { pid, source })?;
    match timeout(KILL_DEADLINE, pidfd.readable()).await {
        Ok(Ok(_)) => Ok(true),
        Ok(Err(source)) => Err(inspect(source)),
        Err(_) => Err(KillError::StillThere {
            pid,
            after_ms: KILL_DEADLINE.as_millis(),
        }),
    }
}

/// Whether `worker` is there and has not ended: a zombie has.
pub(crate) fn is_running(worker: WorkerIdentity) -> io::Result<bool> {
    let Some((pidfd, start_ticks)) = open(worker.pid)? else {
        return Ok(false);
    };
    Ok(start_ticks == worker.start_ticks && !has_ended(&pidfd)?)
}

fn has_ended(pidfd: &OwnedFd) -> io::Result<bool> {
    let mut ended = [PollFd::new(pidfd, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    Ok(poll(&mut ended, Some(&now))? > 0)
}

/// The workers whose logs are in run directories below `run_dirs`: standard error names them.
pub(crate) fn workers(run_dirs: &Path) -> io::Result<Vec<(VmId, WorkerIdentity)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process that may not be looked at is another user's, or gone.
        let Ok(log) = std::fs::read_link(format!("/proc/{pid}/fd/2")) else {
            continue;
        };
        if let Some(vm) = vm_of_log(run_dirs, &log)
            && let Some(start_ticks) = start_ticks(pid)?
        {
            found.push((vm, WorkerIdentity { pid, start_ticks }));
        }
    }
    Ok(found)
}

/// A pidfd and the start time of the same process; `None` if there is none.
fn open(pid: u32) -> io::Result<Option<(OwnedFd, u64)>> {
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Ok(None);
    };
    let pidfd = match pidfd_open(raw, PidfdFlags::NONBLOCK) {
        Ok(pidfd) => pidfd,
        // A thread's id that is not a process's: EINVAL, since Linux 6.9 ENOENT.
        Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // The pid can't have been used again in between unless the process of the pidfd is gone,
    // and then a signal through the pidfd reaches nobody.
    Ok(start_ticks(pid)?.map(|ticks| (pidfd, ticks)))
}

fn send_kill(pidfd: &OwnedFd) -> io::Result<()> {
    match pidfd_send_signal(pidfd, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Field 22 of `/proc/<pid>/stat`; `None` if there is no such process.
fn start_ticks(pid: u32) -> io::Result<Option<u64>> {
    let stat = match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat,
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    parse_start_ticks(&stat)
        .map(Some)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// The second field is the command's name in parentheses and may contain anything; what follows
/// the last parenthesis begins with field 3.
fn parse_start_ticks(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?
        .1
        .split_ascii_whitespace()
        .nth(22 - 3)?
        .parse()
        .ok()
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("signal {signal}"),
        (None, Some(code)) => format!("exit status {code}"),
        (None, None) => UNKNOWN_STATUS.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) S (b)) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9";
        assert_eq!(parse_start_ticks(stat), Some(4711));
    }

    #[test]
    fn this_process_has_a_start_time_and_it_stays() {
        let pid = std::process::id();
        let first = start_ticks(pid).unwrap();
        assert!(first.is_some_and(|ticks| ticks > 0));
        assert_eq!(start_ticks(pid).unwrap(), first);
    }

    #[tokio::test]
    async fn a_pid_that_was_used_again_is_not_killed() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let start_ticks = start_ticks(child.id()).unwrap().unwrap();
        let other = WorkerIdentity {
            pid: child.id(),
            start_ticks: start_ticks + 1,
        };
        assert!(!kill(other).await.unwrap());
        assert!(child.try_wait().unwrap().is_none());
        let this = WorkerIdentity {
            pid: child.id(),
            start_ticks,
        };
        assert!(kill(this).await.unwrap());
        assert_eq!(describe(child.wait().unwrap()), "signal 9");
        assert!(!kill(this).await.unwrap());
    }
}
