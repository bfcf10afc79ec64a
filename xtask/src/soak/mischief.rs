//! What happens to the node that nobody asked for: workers and hosts that die.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;

use super::plan::{self, Mischief, Timed};
use super::shared::{Going, Shared, count};
use crate::node::Node;

/// The process of a worker, of which there is only one of that start time.
struct Worker {
    vm: usize,
    id: String,
    incarnation: u64,
    pid: u32,
    start_ticks: u64,
}

/// Does what is planned when it is time, until everybody else is done.
pub(super) fn run(
    shared: &Shared,
    node: &mut Node,
    plan: Timed<Mischief>,
    is_over: impl Fn() -> bool,
) -> Going<()> {
    for (at, what) in plan {
        if !shared.wait_for_step(at, &is_over)? {
            return Ok(());
        }
        shared.script.say("mischief", &what.to_string());
        if let Err(error) = play(shared, node, &what) {
            return Err(shared.violated(None, format!("{what}: {error:#}")));
        }
    }
    Ok(())
}

fn play(shared: &Shared, node: &mut Node, what: &Mischief) -> Result<()> {
    match what {
        Mischief::KillWorkers(vms) => {
            for worker in workers(node, vms)? {
                kill(shared, &worker)?;
            }
        }
        Mischief::KillHost(vms) => {
            let workers = workers(node, vms)?;
            shared.host_goes();
            node.kill()?;
            for worker in &workers {
                kill(shared, worker)?;
            }
            count(&shared.counts.hosts_killed);
            start(shared, node)?;
        }
        Mischief::RestartHost => {
            shared.host_goes();
            node.stop()?;
            count(&shared.counts.hosts_restarted);
            start(shared, node)?;
        }
        Mischief::Stranger(number) => {
            // Of UUID version 7, as all ids are.
            let id = format!("vm-01890000000070008{:015x}", number >> 4);
            shared.facts().strangers.insert(id.clone());
            let dir = node.data().join("run").join(id);
            fs::create_dir(&dir)?;
            fs::write(dir.join("file"), "left over")?;
        }
    }
    Ok(())
}

fn start(shared: &Shared, node: &mut Node) -> Result<()> {
    shared.next_host();
    node.start_well()?;
    shared.host_answers();
    shared.script.say("mischief", "the host answers again");
    Ok(())
}

/// The workers of those of `vms` that have one.
fn workers(node: &Node, vms: &[usize]) -> Result<Vec<Worker>> {
    let records = node.items("/v1/vms")?;
    let find = |vm: usize| {
        let record = records
            .iter()
            .find(|record| record["spec"]["name"] == plan::name(vm).as_str())?;
        worker(vm, record)
    };
    Ok(vms.iter().filter_map(|vm| find(*vm)).collect())
}

fn worker(vm: usize, record: &Value) -> Option<Worker> {
    let worker = &record["worker"];
    Some(Worker {
        vm,
        id: record["id"].as_str()?.to_owned(),
        incarnation: worker["incarnation"].as_u64()?,
        pid: u32::try_from(worker["pid"].as_u64()?).ok()?,
        start_ticks: worker["start_ticks"].as_u64()?,
    })
}

/// `kill -9`, of this process and of no other that has its number by now.
fn kill(shared: &Shared, worker: &Worker) -> Result<()> {
    let pid = i32::try_from(worker.pid).ok().and_then(Pid::from_raw);
    let pid = pid.context("a worker's pid is none")?;
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        // It ended meanwhile.
        Err(Errno::SRCH) => return Ok(()),
        process => process?,
    };
    if start_ticks(worker.pid) != Some(worker.start_ticks) {
        return Ok(());
    }
    shared.model(worker.vm).trouble();
    let incarnation = (worker.id.clone(), worker.incarnation);
    shared.facts().killed.insert(incarnation);
    shared.script.say(
        "mischief",
        &format!("{} worker {} killed", plan::name(worker.vm), worker.pid),
    );
    count(&shared.counts.workers_killed);
    match pidfd_send_signal(process, Signal::KILL) {
        Err(Errno::SRCH) => Ok(()),
        sent => Ok(sent?),
    }
}

/// When a process started: field 22 of `/proc/<pid>/stat`.
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// That no process of ours has panicked.
pub(super) fn no_panics(node: &Node) -> Result<()> {
    let log = node.logged();
    let panicked = log.lines().find(|line| line.contains("panicked at"));
    ensure!(
        panicked.is_none(),
        "the host: {}",
        panicked.unwrap_or_default()
    );
    no_panics_in(&node.data().join("run"))
}

fn no_panics_in(run: &Path) -> Result<()> {
    for entry in fs::read_dir(run)? {
        let log = entry?.path().join("worker.log");
        let text = fs::read_to_string(&log).unwrap_or_default();
        if let Some(line) = text.lines().find(|line| line.contains("panicked at")) {
            anyhow::bail!("{}: {line}", log.display());
        }
    }
    Ok(())
}
