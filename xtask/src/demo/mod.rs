//! `cargo xtask demo`: the main promises on a real host, each of them checked.
//!
//! It starts `roost serve` in a temporary folder and drives it by the command line only, as a
//! user does. Every line that it prints was asserted before.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::host::{self, Host};
use crate::kvm::Kvm;
use crate::leftovers;
use crate::usage::{self, Sums};
use crate::workspace;

/// How long any single thing may take to happen.
const LIMIT: Duration = Duration::from_secs(30);
/// How long a paused guest is watched for output that must not come: nine of its ticks.
const SILENCE: Duration = Duration::from_secs(1);
/// The VM's name.
const VM: &str = "demo";
/// What the guest is told, and says again.
const CMDLINE: &str = "greeting=roost";

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask demo\n  \
    cargo xtask demo --json | tail -n 1    the last line is {\"demo\":\"ok\",…} if all went well\n\n\
    Needs a usable /dev/kvm. Leaves nothing behind but what cargo built.")]
pub(crate) struct Arguments {
    /// One JSON object a line; the last is {"demo":"ok",…}
    #[arg(long)]
    json: bool,
}

/// Runs the demo.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if let Kvm::Unusable(why) = Kvm::detect() {
        bail!("the demo needs KVM, and {why}; `cargo xtask rig` works without it");
    }
    let roost = workspace::build_roost(false)?;
    let start = Instant::now();
    let mut demo = Demo::start(&roost, arguments.json)?;
    demo.boots_a_guest()?;
    demo.pauses_and_resumes()?;
    demo.recovers_from_a_killed_worker()?;
    demo.changes_its_mind_with_another_component()?;
    demo.survives_its_own_death()?;
    demo.accounts_for_every_window()?;
    demo.leaves_nothing_behind()?;
    demo.finish(start.elapsed());
    Ok(())
}

struct Demo {
    host: Host,
    scratch: TempDir,
    kernel: PathBuf,
    json: bool,
    shown: u32,
    /// Every worker that ever ran.
    workers: Vec<u32>,
}

impl Demo {
    fn start(roost: &Path, json: bool) -> Result<Self> {
        let scratch = tempfile::Builder::new().prefix("roost-demo-").tempdir()?;
        let kernel = scratch.path().join("hello.elf");
        fs::write(&kernel, roost_guests::HELLO)?;
        let log = scratch.path().join("host.log");
        let host = Host::start(roost, &scratch.path().join("data"), &log)?;
        let mut demo = Self {
            host,
            scratch,
            kernel,
            json,
            shown: 0,
            workers: Vec::new(),
        };
        let pid = demo.host.pid();
        demo.show(
            "host",
            "a host serves on a Unix socket",
            json!({ "pid": pid }),
        );
        Ok(demo)
    }

    fn data(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    /// Prints what was just checked.
    fn show(&mut self, step: &str, sentence: &str, mut facts: Value) {
        self.shown += 1;
        if self.json {
            facts["step"] = step.into();
            facts["what"] = sentence.into();
            println!("{facts}");
        } else {
            println!("{:>2}. {sentence}", self.shown);
            for (name, fact) in facts.as_object().into_iter().flatten() {
                match fact {
                    Value::String(text) if text.contains('\n') => {
                        for line in text.lines() {
                            println!("      | {line}");
                        }
                    }
                    fact => println!("      {name}: {fact}"),
                }
            }
        }
    }

    /// The number of the guest's last tick.
    fn last_tick(&self) -> Result<Option<u64>> {
        Ok(ticks(&self.host.logs(VM)?).last().copied())
    }

    /// Waits until the guest's last tick is above `floor`, and returns it.
    fn wait_for_tick_above(&self, floor: u64) -> Result<u64> {
        self.host
            .wait(&format!("a tick after number {floor}"), LIMIT, |_| {
                Ok(self.last_tick()?.filter(|tick| *tick > floor))
            })
    }

    /// The events of `kind` so far.
    fn events(&self, kind: &str) -> Result<Vec<Value>> {
        let mut events = self.host.events()?;
        events.retain(|event| event["kind"] == kind);
        Ok(events)
    }

    /// Waits until there are `n` events of `kind` and returns the last.
    fn wait_for_event(&self, kind: &str, n: usize) -> Result<Value> {
        self.host
            .wait(&format!("event {kind} number {n}"), LIMIT, |_| {
                Ok(self.events(kind)?.into_iter().nth(n - 1))
            })
    }

    /// Waits until `incarnation` runs and ticks; returns its worker.
    fn wait_for_incarnation(&mut self, incarnation: u64) -> Result<u32> {
        let what = format!("incarnation {incarnation} runs");
        self.host.wait(&what, LIMIT, |host| {
            let record = host.vm(VM)?;
            Ok(
                (record["state"] == "running" && record["incarnation"] == incarnation)
                    .then_some(()),
            )
        })?;
        let worker = self.host.worker(VM)?;
        ensure!(
            !self.workers.contains(&worker),
            "incarnation {incarnation} has an old worker"
        );
        ensure!(host::is_running(worker), "worker {worker} does not run");
        self.workers.push(worker);
        self.wait_for_tick_above(0)?;
        Ok(worker)
    }

    fn boots_a_guest(&mut self) -> Result<()> {
        let kernel = self.kernel.to_string_lossy().into_owned();
        self.host.json(&[
            "vm",
            "create",
            "--name",
            VM,
            "--kernel",
            &kernel,
            "--memory",
            "64",
            "--cmdline",
            CMDLINE,
        ])?;
        let record = self.host.wait_for_state(VM, "stopped", LIMIT)?;
        ensure!(
            record["incarnation"] == 0,
            "a new VM has been booted already: {record}"
        );
        self.host.json(&["vm", "boot", VM])?;
        let worker = self.wait_for_incarnation(1)?;
        let logs = self.host.logs(VM)?;
        ensure!(
            logs.contains(CMDLINE),
            "the guest does not say its command line:\n{logs}"
        );
        let serial: Vec<_> = logs.lines().take(5).map(str::trim_end).collect();
        self.show(
            "boot",
            "a VM boots in a worker process of its own and prints over its serial port",
            json!({ "worker": worker, "incarnation": 1, "serial": serial.join("\n") }),
        );
        Ok(())
    }

    fn pauses_and_resumes(&mut self) -> Result<()> {
        self.host.json(&["vm", "pause", VM])?;
        self.host.wait_for_state(VM, "paused", LIMIT)?;
        let before = self.last_tick()?;
        thread::sleep(SILENCE);
        let after = self.last_tick()?;
        ensure!(
            before == after,
            "a paused guest went on from {before:?} to {after:?}"
        );
        let paused_at = before.unwrap_or(0);
        let quiet_ms = u64::try_from(SILENCE.as_millis())?;
        self.show(
            "pause",
            "paused: the guest is silent",
            json!({ "tick": paused_at, "silent_for_ms": quiet_ms }),
        );
        self.host.json(&["vm", "resume", VM])?;
        self.host.wait_for_state(VM, "running", LIMIT)?;
        let resumed_at = self.wait_for_tick_above(paused_at)?;
        self.show(
            "resume",
            "resumed: it goes on where it was",
            json!({ "tick": resumed_at }),
        );
        Ok(())
    }

    /// `kill -9` of the VM's worker; returns the incident and the decision about it.
    fn kill_worker(&self, n: usize) -> Result<(Value, Value)> {
        let worker = self.host.worker(VM)?;
        host::kill(worker)?;
        let incident = self.wait_for_event("incident-opened", n)?;
        ensure!(
            incident["incident_kind"] == "worker-exit",
            "not a worker's exit: {incident}"
        );
        let decision = self.wait_for_event("recovery-decided", n)?;
        ensure!(
            decision["incident"] == incident["incident"],
            "the decision is about something else: {decision}, {incident}"
        );
        Ok((incident, decision))
    }

    fn recovers_from_a_killed_worker(&mut self) -> Result<()> {
        let (incident, decision) = self.kill_worker(1)?;
        ensure!(
            decision["decided_by"]["plugin"] == "recovery-restart",
            "the bundled component did not decide: {decision}"
        );
        ensure!(
            decision["action"] == "restart",
            "it does not restart: {decision}"
        );
        self.show(
            "incident",
            "its worker is killed: an incident, and the recovery component's decision",
            json!({
                "worker_ended_with": incident["status"], "action": decision["action"],
                "delay_ms": decision["delay_ms"], "decided_by": decision["decided_by"],
                "reason": decision["reason"],
            }),
        );
        let worker = self.wait_for_incarnation(2)?;
        let tick = self.last_tick()?;
        self.show(
            "restart",
            "incarnation 2 runs in a new worker and prints again",
            json!({ "worker": worker, "incarnation": 2, "tick": tick }),
        );
        Ok(())
    }

    fn changes_its_mind_with_another_component(&mut self) -> Result<()> {
        let component =
            workspace::root().join("plugins/target/components/recovery-leave-stopped.wasm");
        let path = component.to_string_lossy().into_owned();
        self.host
            .json(&["plugin", "push", "leave-stopped", &path])?;
        self.host.json(&["plugin", "activate", "leave-stopped"])?;
        self.host
            .json(&["plugin", "bind", "recovery", "leave-stopped"])?;
        let (_, decision) = self.kill_worker(2)?;
        ensure!(
            decision["decided_by"]["plugin"] == "leave-stopped",
            "the new component did not decide: {decision}"
        );
        ensure!(
            decision["action"] == "leave-stopped",
            "it was not obeyed: {decision}"
        );
        let record = self.host.wait_for_state(VM, "stopped", LIMIT)?;
        ensure!(
            record["incarnation"] == 2,
            "the VM was started again: {record}"
        );
        ensure!(
            record["worker"].is_null(),
            "a stopped VM has a worker: {record}"
        );
        self.show(
            "deploy",
            "another component is deployed while the host runs: the next kill is decided by it",
            json!({
                "action": decision["action"], "decided_by": decision["decided_by"],
                "reason": decision["reason"], "state": record["state"],
            }),
        );
        Ok(())
    }

    fn survives_its_own_death(&mut self) -> Result<()> {
        self.host.json(&["vm", "boot", VM])?;
        let worker = self.wait_for_incarnation(3)?;
        let before = self.last_tick()?.unwrap_or(0);
        let old = self.host.pid();
        self.host.kill()?;
        ensure!(host::is_running(worker), "the worker died with its host");
        self.host.start_again()?;
        let record = self.host.wait_for_state(VM, "running", LIMIT)?;
        ensure!(
            record["worker"]["pid"] == worker && record["incarnation"] == 3,
            "the guest is not the same one: {record}"
        );
        let adopted = self.wait_for_event("worker-adopted", 1)?;
        ensure!(
            adopted["pid"] == worker,
            "another worker was adopted: {adopted}"
        );
        let after = self.wait_for_tick_above(before)?;
        let ticks = ticks(&self.host.logs(VM)?);
        ensure!(
            ticks.windows(2).all(|pair| pair[1] == pair[0] + 1),
            "the guest's ticks have a gap: {ticks:?}"
        );
        let new = self.host.pid();
        self.show(
            "adopt",
            "the host is killed and started again: the same guest went on ticking meanwhile",
            json!({
                "host": [old, new], "worker": worker, "incarnation": 3, "tick": [before, after],
            }),
        );
        self.host.json(&["vm", "pause", VM])?;
        self.host.wait_for_state(VM, "paused", LIMIT)?;
        self.host.json(&["vm", "resume", VM])?;
        self.host.wait_for_state(VM, "running", LIMIT)?;
        self.wait_for_tick_above(after)?;
        self.host.json(&["vm", "shutdown", VM])?;
        self.host.wait_for_state(VM, "stopped", LIMIT)?;
        ensure!(!host::is_running(worker), "the worker of a stopped VM runs");
        self.show(
            "manage",
            "and the new host manages it: pause, resume, shutdown",
            json!({ "state": "stopped" }),
        );
        Ok(())
    }

    fn accounts_for_every_window(&mut self) -> Result<()> {
        let usage = self
            .host
            .wait("every window is charged for", LIMIT, |host| {
                let usage = host.json(&["usage", VM])?;
                Ok(usage::all_charged(&usage)?.then_some(usage))
            })?;
        let sums = Sums::of(&usage)?;
        sums.were_closed_by(&["crash", "pause", "adoption", "stop"])?;
        ensure!(
            sums.incarnations.keys().eq([1, 2, 3].iter()),
            "windows of the wrong incarnations: {:?}",
            sums.incarnations.keys()
        );
        self.show(
            "usage",
            "usage windows without gaps add up to each incarnation's counters",
            json!({
                "windows": sums.windows, "closed_by": sums.closed_by,
                "vcpu_cpu_ns_by_incarnation": sums.incarnations,
            }),
        );
        self.show(
            "charges",
            "each window is charged once, and quantity times price is the amount",
            json!({ "charges": sums.charges, "amount_nanos": sums.amounts }),
        );
        Ok(())
    }

    fn leaves_nothing_behind(&mut self) -> Result<()> {
        self.host.json(&["vm", "delete", VM])?;
        self.host.wait("no VM is listed", LIMIT, |host| {
            Ok(host.items(&["vm", "list"])?.is_empty().then_some(()))
        })?;
        let data = self.data();
        self.host
            .wait("no worker runs and no run directory is left", LIMIT, |_| {
                Ok((leftovers::processes(&data, &self.workers)?.is_empty()
                    && leftovers::run_directories(&data)?.is_empty())
                .then_some(()))
            })?;
        let socket = self.host.socket();
        self.host.stop()?;
        ensure!(
            !socket.exists(),
            "the host left its socket {}",
            socket.display()
        );
        let processes = leftovers::processes(&data, &self.workers)?;
        ensure!(processes.is_empty(), "processes are left: {processes:?}");
        self.show(
            "clean",
            "deleted: no worker, no socket, no run directory and no record is left",
            json!({ "workers_ended": self.workers }),
        );
        Ok(())
    }

    fn finish(self, elapsed: Duration) {
        let seconds = (elapsed.as_secs_f64() * 1000.0).round() / 1000.0;
        if self.json {
            println!(
                "{}",
                json!({ "demo": "ok", "steps": self.shown, "seconds": seconds })
            );
        } else {
            println!("demo: ok, {} steps in {seconds:.1} s", self.shown);
        }
    }
}

/// The numbers of the ticks in a guest's serial output. The first and the last line may be cut.
fn ticks(logs: &str) -> Vec<u64> {
    logs.split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .filter_map(|line| line.trim().strip_prefix("tick ")?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::ticks;

    #[test]
    fn only_whole_ticks_count() {
        assert_eq!(ticks("hello\r\ntick 1\r\ntick 2\r\ntick 3"), [1, 2]);
    }
}
