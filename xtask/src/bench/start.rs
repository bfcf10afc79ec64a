//! How long a boot takes, and what an idle worker costs.
//!
//! The request goes over the host's Unix socket; the guest's output is asked for on a second
//! connection until it begins. So the time is what a program that uses the API sees: journal,
//! policy, worker process, VM, guest.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::memory::Memory;
use crate::host::Host;
use crate::measure::{Measure, median};
use crate::{http, workspace};

/// Boots that are not measured, until caches are as they stay.
const WARM_UP: u32 = 3;
/// Memory of the guest, MiB: the budget's.
const MEMORY_MIB: u32 = 128;
/// How long a single boot or stop may take.
const LIMIT: Duration = Duration::from_secs(30);
/// The VM's name.
const VM: &str = "bench";

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask bench start\n  \
    cargo xtask bench start --runs 200 --json\n\n\
    Builds roost in the release profile, which takes minutes the first time.")]
pub(crate) struct Arguments {
    /// Boots that are measured
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    runs: u32,
    /// One JSON object a line: name, value, unit, n
    #[arg(long)]
    json: bool,
}

/// Runs the measurement.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let roost = workspace::build_roost(true)?;
    let scratch = tempfile::tempdir()?;
    let kernel = scratch.path().join("hello.elf");
    fs::write(&kernel, roost_guests::HELLO)?;
    let log = scratch.path().join("host.log");
    let mut host = Host::start(&roost, &scratch.path().join("data"), &log)?;
    let mut times = Vec::new();
    let mut memories = Vec::new();
    for run in 0..WARM_UP + arguments.runs {
        // A new VM each time: one that was booted before shows its last output until it is gone.
        let memory = MEMORY_MIB.to_string();
        let path = kernel.to_string_lossy();
        host.json(&[
            "vm", "create", "--name", VM, "--kernel", &path, "--memory", &memory,
        ])?;
        let elapsed = boot(&host)?;
        if run >= WARM_UP {
            times.push(elapsed.as_secs_f64() * 1e3);
            memories.push(Memory::of(host.worker(VM)?)?);
        }
        host.json(&["vm", "delete", VM])?;
        if run % 10 == 9 {
            eprintln!("  {} of {} boots", run + 1, WARM_UP + arguments.runs);
        }
    }
    host.stop()?;

    let n = times.len();
    let print = |name, value, unit| {
        Measure {
            name,
            value,
            unit,
            n,
        }
        .print(arguments.json);
    };
    print("start.request-to-first-byte", median(&mut times), "ms");
    let print_memory = |name, of: fn(&Memory) -> f64| {
        print(
            name,
            median(&mut memories.iter().map(of).collect::<Vec<_>>()),
            "KiB",
        );
    };
    print_memory("start.worker-private", |memory| memory.private_kib);
    print_memory("start.worker-proportional", |memory| {
        memory.proportional_kib
    });
    print_memory("start.worker-resident", |memory| memory.resident_kib);
    Ok(())
}

/// Boots the VM and returns the time from the request to the guest's first byte.
fn boot(host: &Host) -> Result<Duration> {
    let socket = host.socket();
    let start = Instant::now();
    let request = thread::spawn({
        let socket = socket.clone();
        move || http::request(&socket, "POST", &format!("/v1/vms/{VM}/boot"))
    });
    // Answers at once while there is no worker, then when there is output.
    let logs = format!("/v1/vms/{VM}/logs?wait_ms=1000");
    let elapsed = loop {
        let answer = http::request(&socket, "GET", &logs)?;
        if !answer.is_empty() {
            break start.elapsed();
        }
        ensure!(
            start.elapsed() < LIMIT,
            "the guest printed nothing within {LIMIT:?}"
        );
    };
    request
        .join()
        .ok()
        .context("the thread of the request panicked")??;
    host.wait_for_state(VM, "running", LIMIT)?;
    Ok(elapsed)
}
