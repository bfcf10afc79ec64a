//! `cargo xtask soak`: random verbs on 100 VMs by 16 clients, while workers and hosts are killed
//! and policies are swapped for faulty ones, against a model that says which answers are legal.
//!
//! ```text
//!   plan ──▶ clients ──────▶ host ◀────── mischief (kill -9)
//!   (seed)      │ answers     ▲  ◀─────── operator (plugins)
//!               ▼             │ at rest: records, node, usage, event log
//!             model ──────▶ quiet ◀───── chronicle
//! ```
//!
//! It goes in rounds. In a round each client takes so many steps, and mischief and the operator do
//! theirs when the clients have come so far together; then everything comes to rest and is looked
//! at. The seed decides who does what to which VM, and where in the sequence. How the steps of
//! different clients interleave it can't decide: the script that is written has it.

mod chronicle;
mod client;
mod mischief;
mod model;
mod operator;
mod plan;
mod quiet;
mod script;
mod shared;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::measure::Measure;
use crate::node::{self, Node};
use crate::workspace;
use chronicle::Chronicle;
use client::Client;
use operator::Operator;
use script::Script;
use shared::Shared;

/// What `cargo xtask test` takes: the same each time, so that a failure is a change's.
const TEST_SEED: u64 = 1;
/// How long it takes there.
const TEST_SECONDS: u64 = 60;

/// Set-up of hosts: everything that comes with the time comes often, and a quarantine ends soon.
/// However busy the machine, a policy gets its CPU time: one that works never fails.
const SERVE: [&str; 10] = [
    "--counter-interval",
    "1000",
    "--usage-window",
    "3",
    "--audit-interval",
    "5",
    "--quarantine-time",
    "3",
    "--policy-slack",
    "60000",
];

/// Kernels that guests need.
const KERNELS: [(&str, &[u8]); 3] = [
    ("idle:1", roost_guests::IDLE),
    ("hello:1", roost_guests::HELLO),
    ("triple-fault:1", roost_guests::TRIPLE_FAULT),
];

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask soak                          five minutes, another seed each time\n  \
    cargo xtask soak --seconds 60 --seed 7    the same decisions again\n\n\
    The seed decides who does what to which VM, and where in the sequence; how the steps of\n\
    clients that run side by side interleave is another matter each time. What was done is in\n\
    target/soak/SEED.log; its end is printed when something is wrong, and the data folder is kept.")]
pub(crate) struct Arguments {
    /// How long; the round that goes on then is cut short, and everything is looked at once more
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// What decides; printed, so that it can be given again  [default: another one each time]
    #[arg(long)]
    seed: Option<u64>,
    /// This `roost` rather than one that is built
    #[arg(long, value_name = "FILE", hide = true)]
    roost: Option<PathBuf>,
    /// One JSON object a line: name, value, unit, n
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let roost = match &arguments.roost {
        Some(roost) => roost.clone(),
        None => workspace::tested_roost()?,
    };
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let again = format!(
        "cargo xtask soak --seconds {} --seed {seed}",
        arguments.seconds
    );
    if !arguments.json {
        println!("{again}");
    }
    let dir = tempfile::tempdir()?;
    match soak(arguments, &roost, seed, dir.path()) {
        Ok(()) => Ok(()),
        Err(error) => {
            let kept = dir.keep();
            println!("data and log of the host: {}", kept.display());
            Err(error.context(format!("again: {again}")))
        }
    }
}

/// A minute of it, for `cargo xtask test`.
pub(crate) fn run_in_test() -> Result<()> {
    run(&Arguments {
        seconds: TEST_SECONDS,
        seed: Some(TEST_SEED),
        roost: None,
        json: false,
    })
}

fn soak(arguments: &Arguments, roost: &Path, seed: u64, dir: &Path) -> Result<()> {
    let begun = Instant::now();
    let script = workspace::target_directory()?.join(format!("soak/{seed}.log"));
    let mut node = Node::new(roost, dir, &SERVE);
    node.start_well()?;
    for (tag, kernel) in KERNELS {
        node.send("POST", &format!("/v1/images?tag={tag}"), kernel)?;
    }
    let shared = Shared::new(
        seed,
        node.data().join("roost.sock"),
        node::may_make_taps(),
        Script::begin(&script)?,
    );
    let mut operator = Operator::set_up(&shared)?;
    let mut chronicle = Chronicle::default();
    let end = Instant::now() + Duration::from_secs(arguments.seconds);
    let mut rounds = 0;
    let mut checks = || -> Result<()> {
        while Instant::now() < end {
            shared.script.say("soak", &format!("round {rounds}"));
            round(&shared, &mut node, &mut operator, rounds, end);
            if let Some(violation) = shared.violation() {
                bail!(violation.what);
            }
            quiet::check(&shared, &node, &mut chronicle)
                .with_context(|| format!("at rest after round {rounds}"))?;
            rounds += 1;
            if !arguments.json {
                eprintln!("  {rounds} rounds, {:.0?}", begun.elapsed());
            }
        }
        quiet::delete_all(&shared, &mut node, &mut chronicle).context("at the end")
    };
    let checked = checks();
    if checked.is_err() {
        let violation = shared.violation();
        let vm = violation.and_then(|violation| violation.vm);
        print!("{}", shared.script.shown(vm.as_deref()));
    }
    checked?;
    report(arguments, &shared, &chronicle, rounds, begun.elapsed());
    Ok(())
}

/// One round, cut short when it is `end`.
fn round(shared: &Shared, node: &mut Node, operator: &mut Operator<'_>, round: u64, end: Instant) {
    let seed = shared.seed;
    let clients = AtomicUsize::new(plan::CLIENTS);
    let is_over = || clients.load(Ordering::Acquire) == 0;
    shared.begin_round();
    // Whoever stops has told everybody why.
    thread::scope(|scope| {
        for number in 0..plan::CLIENTS {
            let clients = &clients;
            scope.spawn(move || {
                let steps = plan::client(seed, round, number);
                let is_late = || Instant::now() >= end;
                let _ = Client::number(shared, number).run(&steps, is_late);
                clients.fetch_sub(1, Ordering::Release);
            });
        }
        scope.spawn(|| mischief::run(shared, node, plan::mischief(seed, round), is_over));
        scope.spawn(|| operator.run(plan::swaps(seed, round), is_over));
    });
}

fn report(
    arguments: &Arguments,
    shared: &Shared,
    chronicle: &Chronicle,
    rounds: u64,
    elapsed: Duration,
) {
    let print = |name: &str, value: f64, unit| {
        Measure {
            name: &format!("soak.{name}"),
            value,
            unit,
            n: 1,
        }
        .print(arguments.json);
    };
    let counts = &shared.counts;
    print("seed", shared.seed as f64, "");
    print("rounds", rounds as f64, "");
    for (name, counter) in [
        ("requests", &counts.requests),
        ("requests-done", &counts.done),
        ("requests-refused", &counts.refused),
        ("requests-failed", &counts.failed),
        ("requests-lost", &counts.lost),
        ("workers-killed", &counts.workers_killed),
        ("hosts-killed", &counts.hosts_killed),
        ("hosts-restarted", &counts.hosts_restarted),
        ("plugin-swaps", &counts.swaps),
    ] {
        print(name, counter.load(Ordering::Relaxed) as f64, "");
    }
    print("policy-failures", chronicle.policy_failures as f64, "");
    print("quarantines", chronicle.quarantines as f64, "");
    print("incidents", chronicle.incidents as f64, "");
    print("time", elapsed.as_secs_f64(), "s");
}
