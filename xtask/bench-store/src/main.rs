//! One run: writers that commit state transitions as a busy host does, each the next when the one
//! before is durable. `cargo xtask bench store` runs it again and again and compares.
//!
//! It prints one JSON object: `commits`, `seconds`, `p50_us`, `p99_us`.

#![forbid(unsafe_code)]

mod roost;
#[cfg(feature = "sqlite")]
mod sqlite;
mod transition;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Parser, ValueEnum};

#[derive(Parser)]
struct Arguments {
    /// What keeps the records
    #[arg(long, value_enum)]
    engine: Engine,
    /// An empty directory for them
    #[arg(long)]
    dir: PathBuf,
    /// Writers at once, each with a VM of its own
    #[arg(long)]
    writers: usize,
    /// Commits before those that are measured: until files are as large as they stay. SQLite's
    /// log grows for 1000 pages, and an fsync of a file that grows costs a multiple
    #[arg(long, default_value_t = 0)]
    warm_up: usize,
    /// How long they write, ms
    #[arg(long, default_value_t = 1000)]
    duration_ms: u64,
    /// Stop after so many commits, if that comes first
    #[arg(long)]
    commits: Option<usize>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Engine {
    /// roost-store: group commit on redb
    Roost,
    /// SQLite, WAL, synchronous=FULL: one connection that the writers share
    #[cfg(feature = "sqlite")]
    Sqlite,
    /// SQLite, WAL, synchronous=FULL: a connection for each writer
    #[cfg(feature = "sqlite")]
    SqliteConnections,
}

/// How long writers write, whichever ends first.
#[derive(Clone, Copy)]
struct Phase {
    length: Duration,
    /// Commits of one writer.
    commits: usize,
}

impl Phase {
    /// Whether a writer that made `commits` goes on in the phase that began at `begun`.
    fn goes_on(&self, begun: Instant, commits: usize) -> bool {
        commits < self.commits && begun.elapsed() < self.length
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let share = |commits: usize| commits.div_ceil(arguments.writers.max(1));
    let phases = [
        Phase {
            length: Duration::MAX,
            commits: share(arguments.warm_up),
        },
        Phase {
            length: Duration::from_millis(arguments.duration_ms),
            commits: arguments.commits.map_or(usize::MAX, share),
        },
    ];
    let (dir, writers) = (&arguments.dir, arguments.writers);
    let (elapsed, mut latencies) = match arguments.engine {
        Engine::Roost => roost::run(dir, writers, phases)?,
        #[cfg(feature = "sqlite")]
        Engine::Sqlite => sqlite::run(dir, writers, phases, true)?,
        #[cfg(feature = "sqlite")]
        Engine::SqliteConnections => sqlite::run(dir, writers, phases, false)?,
    };
    latencies.sort_unstable();
    let result = serde_json::json!({
        "commits": latencies.len(),
        "seconds": elapsed.as_secs_f64(),
        "p50_us": micros(&latencies, 50),
        "p99_us": micros(&latencies, 99),
    });
    println!("{result}");
    Ok(())
}

/// A percentile of sorted latencies, µs; none of none.
fn micros(sorted: &[Duration], percent: usize) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let latency = sorted.get(last * percent / 100)?;
    Some(latency.as_secs_f64() * 1e6)
}
