//! How fast state becomes durable, beside SQLite on the same disk.
//!
//! Each run is a process of its own (`xtask/bench-store`) on an empty directory. Runs of the two
//! take turns, so that what else the machine does meets both, and the ratio is the median of the
//! rounds' ratios. SQLite is measured with one connection that all writers share and with one for
//! each, and the better of the two counts.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::measure::{Measure, median};
use crate::{process, workspace};

/// Writers at once.
const WRITERS: [usize; 3] = [1, 8, 64];
/// Writes in place that the disk itself is measured with, and their size, bytes: a page.
const DISK_WRITES: usize = 300;
const DISK_WRITE_BYTES: usize = 4096;
/// Commits of a run before those that are measured. By then SQLite's log has reached the 1000 pages
/// after which it begins again at its start, and an fsync is not of a file that grows, which costs a
/// multiple.
const WARM_UP: usize = 1000;
/// Commits during which system calls are counted.
const COUNTED_COMMITS: usize = 2000;
/// System calls that make something durable.
const SYNCS: &str = "trace=fsync,fdatasync,sync_file_range,msync,syncfs";

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask bench store\n  \
    cargo xtask bench store --rounds 9 --duration 3000 --json\n  \
    cargo xtask bench store --dir /var/lib/roost    measure the disk that is there\n\n\
    Builds a program with SQLite in the release profile, which takes minutes the first time.\n\
    With strace(1), it also counts the fsyncs of each commit.")]
pub(crate) struct Arguments {
    /// Rounds, of which the medians are printed
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Length of a run, ms
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..=600_000))]
    duration: u64,
    /// Where to write: in a new folder there, removed afterwards  [default: cargo's target folder]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// One JSON object a line: name, value, unit, n
    #[arg(long)]
    json: bool,
}

/// What runs are made with.
struct Bench<'a> {
    arguments: &'a Arguments,
    program: PathBuf,
    /// On the disk that is measured.
    scratch: tempfile::TempDir,
}

/// What a run printed.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// Commits a second.
    rate: f64,
    /// Latencies of commits, ms.
    p50_ms: f64,
    p99_ms: f64,
}

/// A way to keep records, by the name that the program has for it.
type Engine = &'static str;

const ROOST: Engine = "roost";
const PEERS: [Engine; 2] = ["sqlite", "sqlite-connections"];

/// Runs the measurement.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let program = build()?;
    let dir = match &arguments.dir {
        Some(dir) => dir.clone(),
        None => workspace::target_directory()?,
    };
    let scratch = tempfile::Builder::new()
        .prefix("bench-store-")
        .tempdir_in(&dir)
        .with_context(|| format!("no folder can be made in {}", dir.display()))?;
    let bench = Bench {
        arguments,
        program,
        scratch,
    };
    bench.print("store.disk-sync", bench.disk_sync()?, "ms", DISK_WRITES);
    for writers in WRITERS {
        bench.compare(writers)?;
    }
    Ok(())
}

fn build() -> Result<PathBuf> {
    eprintln!("building bench-store (release)");
    let package = ["--package", "bench-store", "--features", "sqlite"];
    process::run(
        workspace::cargo()
            .args(["build", "--release"])
            .args(package),
    )?;
    Ok(workspace::target_directory()?.join("release/bench-store"))
}

impl Bench<'_> {
    fn print(&self, name: &str, value: f64, unit: &'static str, n: usize) {
        Measure {
            name,
            value,
            unit,
            n,
        }
        .print(self.arguments.json);
    }

    /// The median time of a write in place with a sync, ms: a commit can't take less.
    fn disk_sync(&self) -> Result<f64> {
        let path = self.scratch.path().join("disk");
        let file = File::create(&path)?;
        let page = |number| (number * DISK_WRITE_BYTES) as u64;
        file.write_all_at(&vec![6; DISK_WRITES * DISK_WRITE_BYTES], 0)?;
        file.sync_all()?;
        let mut times = Vec::new();
        for number in 0..DISK_WRITES {
            let begun = Instant::now();
            file.write_all_at(&[7; DISK_WRITE_BYTES], page(number))?;
            file.sync_data()?;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        fs::remove_file(&path)?;
        Ok(median(&mut times))
    }

    /// Measures both with so many writers.
    fn compare(&self, writers: usize) -> Result<()> {
        let mut engines = [&[ROOST], PEERS.as_slice()].concat();
        let mut runs = BTreeMap::<Engine, Vec<Run>>::new();
        for round in 0..self.arguments.rounds {
            eprintln!("  {writers} writers: round {}", round + 1);
            for engine in &engines {
                let run = self.run(engine, writers)?;
                runs.entry(engine).or_default().push(run);
            }
            // Whoever was first is last.
            engines.reverse();
        }
        let rate = |engine: &Engine| median_of(&runs[engine], |run| run.rate);
        let peer = PEERS
            .into_iter()
            .max_by(|a, b| rate(a).total_cmp(&rate(b)))
            .unwrap_or(PEERS[0]);
        for (name, engine) in [("roost", ROOST), ("sqlite", peer)] {
            let runs = &runs[engine];
            let print = |what: &str, value, unit| {
                let name = format!("store.{writers}-writers.{name}{what}");
                self.print(&name, value, unit, runs.len());
            };
            print("", median_of(runs, |run| run.rate), "writes/s");
            print(".p50", median_of(runs, |run| run.p50_ms), "ms");
            print(".p99", median_of(runs, |run| run.p99_ms), "ms");
            if let Some(syncs) = self.syncs(engine, writers)? {
                print(".syncs-per-write", syncs, "");
            }
        }
        let pairs = runs[ROOST].iter().zip(&runs[peer]);
        let mut ratios: Vec<_> = pairs.map(|(roost, peer)| roost.rate / peer.rate).collect();
        let name = format!("store.{writers}-writers.ratio");
        self.print(&name, median(&mut ratios), "x", ratios.len());
        Ok(())
    }

    /// The program, to be run on an empty directory.
    fn command(&self, engine: Engine, writers: usize, dir: &Path) -> Vec<String> {
        vec![
            self.program.display().to_string(),
            format!("--engine={engine}"),
            format!("--writers={writers}"),
            format!("--dir={}", dir.display()),
            format!("--warm-up={WARM_UP}"),
        ]
    }

    fn run(&self, engine: Engine, writers: usize) -> Result<Run> {
        let dir = tempfile::tempdir_in(self.scratch.path())?;
        let duration = format!("--duration-ms={}", self.arguments.duration);
        let command = self.command(engine, writers, dir.path());
        let printed = process::output(Command::new(&command[0]).args(&command[1..]).arg(duration))?;
        let printed: Value =
            serde_json::from_str(&printed).context("bench-store printed no JSON")?;
        let field = |name: &str| {
            let value = printed[name].as_f64();
            value.with_context(|| format!("bench-store printed no {name}: {printed}"))
        };
        Ok(Run {
            rate: field("commits")? / field("seconds")?,
            p50_ms: field("p50_us")? / 1e3,
            p99_ms: field("p99_us")? / 1e3,
        })
    }

    /// Calls that make something durable, for each commit; none where they can't be counted.
    fn syncs(&self, engine: Engine, writers: usize) -> Result<Option<f64>> {
        let Some(strace) = process::find("strace") else {
            eprintln!("  strace is not installed: fsyncs are not counted");
            return Ok(None);
        };
        // What opening and closing take is counted apart.
        let [with, without] = [COUNTED_COMMITS, 0].map(|commits| -> Result<usize> {
            let dir = tempfile::tempdir_in(self.scratch.path())?;
            let log = self.scratch.path().join("strace");
            let command = self.command(engine, writers, dir.path());
            let limits = [
                "--duration-ms=600000".into(),
                format!("--commits={commits}"),
            ];
            let mut traced = Command::new(&strace);
            traced.args(["--follow-forks", "--seccomp-bpf", "-qq", "-e", SYNCS, "-o"]);
            process::output(traced.arg(&log).arg("--").args(command).args(limits))?;
            let log = fs::read_to_string(log)?;
            // A call that another thread interrupts has a second line.
            Ok(log
                .lines()
                .filter(|line| !line.contains(" resumed>"))
                .count())
        });
        Ok(Some(
            (with? as f64 - without? as f64) / COUNTED_COMMITS as f64,
        ))
    }
}

fn median_of(runs: &[Run], of: impl Fn(&Run) -> f64) -> f64 {
    median(&mut runs.iter().map(of).collect::<Vec<_>>())
}
