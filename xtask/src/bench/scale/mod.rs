//! Many VMs on one machine: create, boot, list, audit, rest, lose the host, delete; how long each
//! takes, what a VM costs, and what there will be too little of first when there are more.
//!
//! Sixteen clients do what is done to VMs. Beside them a prober asks for a VM's record and for a
//! small list all along. The guest sleeps: what is measured is what is there for it.

mod limits;
mod prober;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use self::limits::Limit;
use self::prober::Prober;
use super::memory::Memory;
use crate::http::Connection;
use crate::measure::{Measure, median};
use crate::node::Node;
use crate::{leftovers, workspace};

/// Clients.
const CLIENTS: usize = 16;
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long VMs are left alone to see what that costs.
const REST: Duration = Duration::from_secs(15);
/// How often a list and an audit are made.
const LOOKS: usize = 5;
/// Memory of a guest, MiB: the least that a VM may have.
const MEMORY_MIB: usize = 32;
/// The budget: VMs on a machine.
const BUDGET_VMS: f64 = 4000.0;

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask bench scale\n  \
    cargo xtask bench scale --vms 4000 --json\n  \
    cargo xtask bench scale --vms 100 --roost target/debug/roost    another build\n\n\
    Builds roost in the release profile, which takes minutes the first time.")]
pub(crate) struct Arguments {
    /// VMs
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    vms: u32,
    /// This `roost` rather than one that is built
    #[arg(long, value_name = "FILE")]
    roost: Option<PathBuf>,
    /// One JSON object a line: name, value, unit, n
    #[arg(long)]
    json: bool,
}

/// Runs the measurement.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let roost = match &arguments.roost {
        Some(roost) => roost.clone(),
        None => workspace::build_roost(true)?,
    };
    let vms = usize::try_from(arguments.vms)?;
    let dir = tempfile::tempdir()?;
    let (most, memory) = (vms.to_string(), (vms * MEMORY_MIB).to_string());
    let serve = ["--max-vms", &most, "--max-memory", &memory];
    let mut bench = Bench {
        node: Node::new(&roost, dir.path(), &serve),
        prober: Prober::default(),
        vms,
        json: arguments.json,
    };
    bench.node.start_well()?;
    bench
        .node
        .send("POST", "/v1/images?tag=idle:1", roost_guests::IDLE)?;
    bench.measure()
}

struct Bench {
    node: Node,
    prober: Prober,
    vms: usize,
    json: bool,
}

/// What the machine had before there were VMs.
struct Before {
    available_kib: f64,
    threads: f64,
    descriptors: usize,
}

impl Bench {
    fn measure(&mut self) -> Result<()> {
        let socket = self.socket();
        let prober = std::mem::take(&mut self.prober);
        thread::scope(|scope| {
            scope.spawn(|| prober.run(&socket, "vm-0"));
            let measured = self.phases(&prober);
            prober.ends();
            measured
        })
    }

    fn socket(&self) -> PathBuf {
        self.node.data().join("roost.sock")
    }

    fn phases(&mut self, prober: &Prober) -> Result<()> {
        let before = Before {
            available_kib: limits::available_kib()?,
            threads: limits::all_threads().unwrap_or_default(),
            descriptors: limits::descriptors(self.node.pid()?),
        };
        self.timed(prober, "create", |bench| bench.each(create))?;
        self.timed(prober, "boot", |bench| bench.each(boot))?;
        self.looks(prober)?;
        let workers = self.workers()?;
        self.rest(prober, &workers, &before)?;
        self.lose_host(prober)?;
        self.timed(prober, "delete", |bench| bench.each(delete))?;
        let left = leftovers::processes(&self.node.data(), &[])?;
        ensure!(left.is_empty(), "workers are left: {left:?}");
        self.node.stop()
    }

    fn print(&self, name: &str, value: f64, unit: &'static str, n: usize) {
        let name = &format!("scale.{name}");
        Measure {
            name,
            value,
            unit,
            n,
        }
        .print(self.json);
    }

    /// Does something to all VMs.
    fn timed(
        &self,
        prober: &Prober,
        phase: &'static str,
        what: impl Fn(&Self) -> Result<()>,
    ) -> Result<()> {
        prober.begins(phase);
        let begun = Instant::now();
        what(self).with_context(|| phase.to_owned())?;
        self.took(phase, begun.elapsed());
        self.probed(prober, phase);
        Ok(())
    }

    fn took(&self, phase: &str, time: Duration) {
        let seconds = time.as_secs_f64();
        self.print(phase, seconds, "s", 1);
        self.print(&format!("{phase}-rate"), self.vms as f64 / seconds, "/s", 1);
    }

    /// What the prober saw of the phase that is over.
    fn probed(&self, prober: &Prober, phase: &str) {
        for (list, name) in [(false, "record"), (true, "list")] {
            if let Some(latency) = prober.latency(phase, list) {
                let name = format!("{phase}-{name}");
                self.print(&format!("{name}-p50"), latency.p50_ms, "ms", latency.n);
                self.print(&format!("{name}-p99"), latency.p99_ms, "ms", latency.n);
            }
        }
        prober.begins("");
    }

    /// Has the clients do `what` to each VM.
    fn each(&self, what: fn(&Path, usize) -> Result<()>) -> Result<()> {
        let (socket, next) = (self.socket(), AtomicUsize::new(0));
        let failed = Mutex::new(None);
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    loop {
                        let vm = next.fetch_add(1, Ordering::Relaxed);
                        if vm >= self.vms {
                            return;
                        }
                        if let Err(error) = what(&socket, vm) {
                            next.store(self.vms, Ordering::Relaxed);
                            if let Ok(mut failed) = failed.lock() {
                                failed.get_or_insert(error);
                            }
                        }
                    }
                });
            }
        });
        match failed.into_inner() {
            Ok(Some(error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Lists all VMs, and audits them.
    fn looks(&self, prober: &Prober) -> Result<()> {
        for (name, path) in [("list-all", "/v1/vms"), ("audit", "/v1/audit")] {
            prober.begins(name);
            let mut times = Vec::new();
            for _ in 0..LOOKS {
                let begun = Instant::now();
                let answer = ask(&self.socket(), "GET", path, &[])?;
                times.push(begun.elapsed().as_secs_f64() * 1e3);
                let audited = path != "/v1/audit"
                    || answer["checked"] == self.vms && answer["divergences"] == json!([]);
                ensure!(audited, "the audit: {answer}");
            }
            self.print(name, median(&mut times), "ms", LOOKS);
            self.probed(prober, name);
        }
        Ok(())
    }

    fn workers(&self) -> Result<Vec<u32>> {
        let vms = self.node.items("/v1/vms")?;
        let pids = vms
            .iter()
            .filter(|vm| vm["state"] == "running")
            .filter_map(|vm| u32::try_from(vm["worker"]["pid"].as_u64()?).ok());
        let pids: Vec<u32> = pids.collect();
        ensure!(pids.len() == self.vms, "{} VMs run", pids.len());
        Ok(pids)
    }

    /// Leaves the VMs alone, and looks what that costs; then what limits their number.
    fn rest(&self, prober: &Prober, workers: &[u32], before: &Before) -> Result<()> {
        let host = self.node.pid()?;
        prober.begins("rest");
        let (spent_host, spent_workers) = (limits::cpu_time(&[host]), limits::cpu_time(workers));
        let begun = Instant::now();
        thread::sleep(REST);
        let seconds = begun.elapsed().as_secs_f64();
        let share = |pids: &[u32], before: Duration| {
            limits::cpu_time(pids).saturating_sub(before).as_secs_f64() / seconds
        };
        let cpu_workers = share(workers, spent_workers);
        let cpu_host = share(&[host], spent_host);
        self.probed(prober, "rest");
        self.print("rest-cpu-host", cpu_host * 100.0, "%", 1);
        self.print("rest-cpu-workers", cpu_workers * 100.0, "%", 1);

        let memory = Memory::of(host)?;
        self.print("host-resident", memory.resident_kib, "KiB", 1);
        self.print("host-proportional", memory.proportional_kib, "KiB", 1);
        self.print("host-private", memory.private_kib, "KiB", 1);
        let memories: Vec<Memory> = workers
            .iter()
            .map(|pid| Memory::of(*pid))
            .collect::<Result<_>>()?;
        let of =
            |field: fn(&Memory) -> f64| median(&mut memories.iter().map(field).collect::<Vec<_>>());
        let n = memories.len();
        self.print(
            "worker-resident",
            of(|memory| memory.resident_kib),
            "KiB",
            n,
        );
        self.print(
            "worker-proportional",
            of(|memory| memory.proportional_kib),
            "KiB",
            n,
        );
        self.print("worker-private", of(|memory| memory.private_kib), "KiB", n);

        let vms = self.vms as f64;
        let used_kib = (before.available_kib - limits::available_kib()?).max(0.0);
        let descriptors = limits::descriptors(host).saturating_sub(before.descriptors) as f64;
        let cores = thread::available_parallelism()?.get() as f64;
        let limits = [
            Limit {
                what: "memory",
                unit: "KiB",
                there: before.available_kib,
                each: used_kib / vms,
            },
            Limit {
                what: "host-descriptors",
                unit: "",
                there: limits::most_descriptors(host)? - before.descriptors as f64,
                each: descriptors / vms,
            },
            Limit {
                what: "threads",
                unit: "",
                there: limits::most_threads() - before.threads,
                each: limits::threads(workers) as f64 / vms,
            },
            Limit {
                what: "cpu-at-rest",
                unit: "millicores",
                there: cores * 1e3,
                each: (cpu_host + cpu_workers) * 1e3 / vms,
            },
        ];
        for limit in &limits {
            self.print(
                &format!("{}-each", limit.what),
                limit.each,
                limit.unit,
                self.vms,
            );
            self.print(&format!("{}-enough-for", limit.what), limit.vms(), "VMs", 1);
        }
        if let Some(first) = limits::first(&limits).filter(|_| !self.json) {
            let (what, most) = (first.what, first.vms());
            let verdict = if most >= BUDGET_VMS {
                "enough"
            } else {
                "not enough"
            };
            println!(
                "what limits VMs like these on this machine is {what}: {most} of them, which is \
                 {verdict} for {BUDGET_VMS}"
            );
        }
        Ok(())
    }

    /// Kills the host, starts another one, and waits until it has taken over every VM.
    fn lose_host(&mut self, prober: &Prober) -> Result<()> {
        let last = last_event(&self.node)?;
        prober.begins("adopt");
        self.node.kill()?;
        let (begun, wall) = (Instant::now(), now_ms()?);
        self.node.start_well()?;
        self.print("adopt-until-ready", begun.elapsed().as_secs_f64(), "s", 1);
        // When the last was adopted is in the log: looking for it does not make it later.
        let mut after = last;
        let mut adopted = 0;
        let mut last_ms = wall;
        while adopted < self.vms {
            ensure!(
                begun.elapsed() < PATIENCE,
                "{adopted} of {} VMs are adopted",
                self.vms
            );
            for event in self
                .node
                .items(&format!("/v1/events?after={after}&limit=10000"))?
            {
                after = event["number"].as_u64().context("an event has no number")?;
                match event["kind"].as_str() {
                    Some("worker-adopted") => {
                        adopted += 1;
                        last_ms = last_ms.max(event["at_ms"].as_u64().unwrap_or_default());
                    }
                    Some("incident-opened") => bail!("a VM was lost: {event}"),
                    _ => {}
                }
            }
            thread::sleep(Duration::from_millis(50));
        }
        self.took("adopt", Duration::from_millis(last_ms - wall));
        self.workers()?;
        self.probed(prober, "adopt");
        Ok(())
    }
}

fn now_ms() -> Result<u64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(u64::try_from(now.as_millis())?)
}

fn last_event(node: &Node) -> Result<u64> {
    let mut last = 0;
    loop {
        let events = node.items(&format!("/v1/events?after={last}&limit=10000"))?;
        match events.last() {
            None => return Ok(last),
            Some(event) => last = event["number"].as_u64().context("an event has no number")?,
        }
    }
}

fn ask(socket: &Path, method: &str, path: &str, body: &[u8]) -> Result<Value> {
    let answer = Connection::open(socket, PATIENCE)?.exchange(method, path, body)?;
    let text = String::from_utf8_lossy(&answer.body);
    ensure!(
        (200..300).contains(&answer.status),
        "{method} {path}: status {}: {text}",
        answer.status
    );
    serde_json::from_str(&text).with_context(|| format!("{method} {path}: no JSON"))
}

fn name(vm: usize) -> String {
    format!("vm-{vm}")
}

fn create(socket: &Path, vm: usize) -> Result<()> {
    let spec = json!({ "name": name(vm), "kernel": "idle:1", "memory_mib": MEMORY_MIB });
    ask(socket, "POST", "/v1/vms", spec.to_string().as_bytes()).map(drop)
}

fn boot(socket: &Path, vm: usize) -> Result<()> {
    verb(socket, "POST", &format!("/v1/vms/{}/boot", name(vm)))
}

fn delete(socket: &Path, vm: usize) -> Result<()> {
    verb(socket, "DELETE", &format!("/v1/vms/{}", name(vm)))
}

/// Takes a verb to its end, which must be a success.
fn verb(socket: &Path, method: &str, path: &str) -> Result<()> {
    let operation = ask(socket, method, path, &[])?;
    ensure!(operation["status"] == "succeeded", "{path}: {operation}");
    Ok(())
}
