//! What a policy's decision costs. The measurement itself is the benchmark `policy` of
//! `roost-policy`; here is what it needs.

use anyhow::Result;

use crate::{languages, plugins, process, workspace};

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask bench policy\n  \
    cargo xtask bench policy --runs 9 --calls 10000 --json\n  \
    cargo xtask bench policy --javascript     also a policy in JavaScript; needs npm\n\n\
    Builds the policy host in the release profile, which takes minutes the first time.")]
pub(crate) struct Arguments {
    /// Runs; each value is the median of theirs
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Calls of each thread in a run
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    calls: u32,
    /// Measure a policy in JavaScript too: its tools are installed into target/languages
    #[arg(long)]
    javascript: bool,
    /// One JSON object a line: name, value, unit, n
    #[arg(long)]
    json: bool,
}

/// Runs the measurement.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    plugins::build()?;
    let (runs, calls) = (arguments.runs.to_string(), arguments.calls.to_string());
    let mut bench = workspace::cargo();
    bench
        .args(["bench", "--package", "roost-policy", "--bench", "policy"])
        .args(["--", "--runs", &runs, "--calls", &calls]);
    if arguments.javascript {
        bench.arg("--javascript").arg(languages::night_watch_js()?);
    }
    if arguments.json {
        bench.arg("--json");
    }
    process::run(&mut bench)
}
