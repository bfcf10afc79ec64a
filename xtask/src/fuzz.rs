//! `cargo xtask fuzz`: builds the fuzz targets of `host/vmm/fuzz` with a stable compiler, and runs
//! them.
//!
//! `cargo fuzz` needs a nightly compiler for its flags. What it needs them for, LLVM's coverage
//! instrumentation, is a pass that a stable compiler can be told to run as well; libFuzzer itself is
//! compiled by `libfuzzer-sys`. AddressSanitizer has no stable flag.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::{distribution, process, workspace};

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask fuzz                              every target for a minute\n  \
    cargo xtask fuzz --seconds 600 --target vsock one target for ten minutes\n  \
    cargo xtask fuzz --seconds 600 --keep         add what was found to the kept inputs\n  \
    cargo xtask fuzz --target vsock --input FILE  run an input, and print what it stands for\n\n\
    What the targets find stays in target/fuzz/corpus, what breaks them in target/fuzz/artifacts.")]
pub(crate) struct Arguments {
    /// How long each target runs
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
    /// Run only this target; may be given several times
    #[arg(long, value_name = "NAME")]
    target: Vec<String>,
    /// Print one JSON object a line: name, value, unit, n
    #[arg(long)]
    json: bool,
    /// With AddressSanitizer, which is three to five times slower and uses the compiler's unstable
    /// options (RUSTC_BOOTSTRAP)
    #[arg(long)]
    address_sanitizer: bool,
    /// Add the inputs that reach something new to host/vmm/fuzz/corpus, which is committed
    #[arg(long)]
    keep: bool,
    /// Run this input only, and print it
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

/// What LLVM puts into the code for libFuzzer, as `cargo fuzz` does.
const INSTRUMENTATION: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    FUZZING,
];
/// What tells our crates that they are built for it.
const FUZZING: &str = "--cfg fuzzing";

/// Most bytes of an input: longer scripts find no more.
const MAX_INPUT_BYTES: u32 = 2048;
/// Longest that one input may take, seconds. They take milliseconds.
const INPUT_SECONDS: u32 = 25;
/// Most memory of a target, MiB. They take less than 300, and five times that with a sanitizer.
const MEMORY_MIB: u32 = 2048;
/// What each target does in `cargo xtask test`: the same inputs each time, so that a change that
/// has nothing to do with a defect is not the one that meets it.
const TEST: Effort = Effort::Inputs {
    count: 1500,
    seed: 1,
};

/// How much a target does.
#[derive(Clone, Copy)]
enum Effort {
    /// As much as it can in so many seconds, on top of what earlier runs found.
    Seconds(u64),
    /// So many inputs, made from a seed and the inputs that are kept.
    Inputs { count: u64, seed: u32 },
}

impl Effort {
    /// Options of libFuzzer.
    fn options(self) -> Vec<String> {
        match self {
            Self::Seconds(seconds) => vec![format!("-max_total_time={seconds}")],
            Self::Inputs { count, seed } => {
                vec![format!("-runs={count}"), format!("-seed={seed}")]
            }
        }
    }
}

/// Runs what the command line asks for.
///
/// # Errors
/// A target does not build, is not there, or found something.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let targets = chosen(&arguments.target)?;
    let bench = Bench::build(arguments.address_sanitizer)?;
    if let Some(input) = &arguments.input {
        let [target] = &targets[..] else {
            bail!("an input is of one target: name it by --target");
        };
        return bench.print(target, input);
    }
    let outcomes = bench.run_all(&targets, Effort::Seconds(arguments.seconds), arguments.json)?;
    if arguments.keep {
        for target in &targets {
            bench.keep(target)?;
        }
    }
    all_passed(&outcomes)
}

/// Every target for some seconds, beginning with the inputs that are kept.
///
/// # Errors
/// As with [`run`].
pub(crate) fn test() -> Result<()> {
    let bench = Bench::build(false)?;
    all_passed(&bench.run_all(&chosen(&[])?, TEST, false)?)
}

/// The workspace of the targets.
pub(crate) fn folder() -> PathBuf {
    workspace::root().join("host/vmm/fuzz")
}

/// Lints the targets and what they use of the other crates, which no other build compiles so.
///
/// # Errors
/// There is something to complain about.
pub(crate) fn lint() -> Result<()> {
    let mut clippy = cargo(&[FUZZING])?;
    clippy.args([
        "clippy",
        "--all-targets",
        "--target",
        &workspace::native_target()?,
    ]);
    process::run(clippy.args(["--", "-D", "warnings"]))
}

/// Every target: each is a file.
fn targets() -> Result<BTreeSet<String>> {
    let folder = folder().join("fuzz_targets");
    let entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut targets = BTreeSet::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_stem().and_then(|stem| stem.to_str());
        targets.extend(name.map(str::to_owned));
    }
    Ok(targets)
}

fn chosen(names: &[String]) -> Result<Vec<String>> {
    let targets = targets()?;
    if let Some(unknown) = names.iter().find(|name| !targets.contains(*name)) {
        let targets = Vec::from_iter(targets).join(", ");
        bail!("there is no target {unknown:?}; there are {targets}");
    }
    Ok(match names {
        [] => targets.into_iter().collect(),
        names => names.to_vec(),
    })
}

/// Cargo in the workspace of the targets, with a folder of its own to build into: other flags would
/// have everything built anew each time.
fn cargo(flags: &[&str]) -> Result<Command> {
    let mut cargo = workspace::cargo();
    cargo
        .current_dir(folder())
        .env("CARGO_TARGET_DIR", target_directory()?)
        .env("RUSTFLAGS", flags.join(" "));
    Ok(cargo)
}

fn target_directory() -> Result<PathBuf> {
    Ok(workspace::target_directory()?.join("fuzz"))
}

/// The targets as they were built.
struct Bench {
    /// Where the programs are.
    programs: PathBuf,
    /// Where everything else is.
    folder: PathBuf,
}

/// What a target did.
struct Outcome {
    name: String,
    runs: u64,
    runs_per_second: u64,
    /// Inputs that reach something that no other does.
    corpus: u64,
    /// Places in the code that were reached.
    covered: u64,
    passed: bool,
    /// How it ended.
    exit: String,
}

impl Bench {
    fn build(address_sanitizer: bool) -> Result<Self> {
        check_compiler()?;
        let target = workspace::native_target()?;
        let mut flags = INSTRUMENTATION.to_vec();
        let mut folder = target_directory()?;
        if address_sanitizer {
            flags.push("-Zsanitizer=address");
            folder = folder.join("address-sanitizer");
        }
        let mut build = cargo(&flags)?;
        build
            .args(["build", "--release", "--bins", "--target", &target])
            .env("CARGO_TARGET_DIR", &folder);
        if address_sanitizer {
            build.env("RUSTC_BOOTSTRAP", "1");
        }
        process::run(&mut build)?;
        Ok(Self {
            programs: folder.join(target).join("release"),
            folder,
        })
    }

    fn program(&self, target: &str) -> Command {
        let mut program = Command::new(self.programs.join(target));
        program.stdin(Stdio::null());
        program
    }

    /// A folder of this kind for a target, made if it is not there.
    fn place(&self, kind: &str, target: &str) -> Result<PathBuf> {
        let place = self.folder.join(kind).join(target);
        fs::create_dir_all(&place).with_context(|| format!("making {}", place.display()))?;
        Ok(place)
    }

    fn run_all(&self, targets: &[String], effort: Effort, json: bool) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        if !json {
            println!(
                "{:<12} {:>9} {:>7} {:>7} {:>7}  exit",
                "target", "runs", "runs/s", "corpus", "covered"
            );
        }
        for target in targets {
            let outcome = self.run(target, effort)?;
            outcome.print(json);
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    fn run(&self, target: &str, effort: Effort) -> Result<Outcome> {
        let corpus = match effort {
            Effort::Seconds(_) => self.place("corpus", target)?,
            Effort::Inputs { .. } => {
                let folder = self.place("tests", target)?;
                fs::remove_dir_all(&folder)?;
                self.place("tests", target)?
            }
        };
        let artifacts = self.place("artifacts", target)?;
        let log = self.place("logs", target)?.join("log");
        let kept = folder().join("corpus").join(target);
        let status = self
            .program(target)
            .arg(corpus)
            .args(kept.exists().then_some(kept))
            .args(effort.options())
            .arg(format!("-max_len={MAX_INPUT_BYTES}"))
            .arg(format!("-timeout={INPUT_SECONDS}"))
            .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
            // Inputs are as long as they like from the beginning.
            .arg("-len_control=0")
            .arg("-print_final_stats=1")
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .status()
            .with_context(|| format!("cannot run the target {target}"))?;
        let text = fs::read(&log)?;
        let text = String::from_utf8_lossy(&text);
        if !status.success() {
            explain(target, &text, &log);
        }
        Ok(Outcome {
            passed: status.success(),
            exit: status.to_string(),
            ..Outcome::parse(target, &text)
        })
    }

    /// Runs one input and prints what it stands for.
    fn print(&self, target: &str, input: &Path) -> Result<()> {
        process::run(
            self.program(target)
                .arg(input)
                .env("RUST_LIBFUZZER_DEBUG_PATH", "/dev/stdout")
                .env("RUST_BACKTRACE", "1"),
        )
    }

    /// Adds inputs that reach something that the kept ones do not.
    fn keep(&self, target: &str) -> Result<()> {
        let kept = folder().join("corpus").join(target);
        fs::create_dir_all(&kept)?;
        process::run(
            self.program(target)
                .arg("-set_cover_merge=1")
                // What is reached counts, and not how often: that keeps the folder small.
                .arg("-use_counters=0")
                .arg(format!("-max_len={MAX_INPUT_BYTES}"))
                .args([kept, self.place("corpus", target)?])
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        )
    }
}

/// libFuzzer is C++.
fn check_compiler() -> Result<()> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let mut program = compiler.split_whitespace();
    let found = program.next().and_then(process::find);
    if found.is_some() || Path::new(&compiler).exists() {
        return Ok(());
    }
    if std::env::var_os("CXX").is_some() {
        bail!("the fuzz targets need a C++ compiler, and there is no {compiler:?}, as CXX says");
    }
    distribution::install("fuzzing", &["g++"])
}

/// Prints why a target ended, and how to look closer.
fn explain(target: &str, log: &str, path: &Path) {
    let begin = log.find("panicked at").or_else(|| log.find("ERROR: "));
    let begin = begin.unwrap_or(log.len().saturating_sub(2000));
    let rest = log.get(begin..).unwrap_or_default();
    eprintln!("\n{target} failed:");
    rest.lines().take(30).for_each(|line| eprintln!("  {line}"));
    eprintln!("all that it said: {}", path.display());
    let artifact = log
        .lines()
        .rev()
        .find_map(|line| line.split("written to ").nth(1));
    if let Some(artifact) = artifact {
        eprintln!("again: cargo xtask fuzz --target {target} --input {artifact}\n");
    }
}

fn all_passed(outcomes: &[Outcome]) -> Result<()> {
    let failed = outcomes.iter().filter(|outcome| !outcome.passed);
    let failed: Vec<_> = failed.map(|outcome| outcome.name.as_str()).collect();
    if !failed.is_empty() {
        bail!(
            "{} of {} targets failed: {}",
            failed.len(),
            outcomes.len(),
            failed.join(", ")
        );
    }
    Ok(())
}

impl Outcome {
    /// What stands in a log of libFuzzer: `stat::…` lines, and a line of the last state with
    /// `cov: <places> … corp: <inputs>/<bytes>`.
    fn parse(name: &str, log: &str) -> Self {
        let stat = |name: &str| {
            let line = log
                .lines()
                .find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name));
            line.and_then(|rest| rest.trim_start_matches(':').trim().parse().ok())
        };
        let last = |name: &str| {
            let line = log.lines().rev().find_map(|line| line.split_once(name));
            line.and_then(|(_, rest)| {
                let digits = rest.trim_start();
                let end = digits
                    .find(|c: char| !c.is_ascii_digit())
                    .unwrap_or(digits.len());
                digits.get(..end)?.parse().ok()
            })
        };
        Self {
            name: name.to_owned(),
            runs: stat("number_of_executed_units").unwrap_or(0),
            runs_per_second: stat("average_exec_per_sec").unwrap_or(0),
            corpus: last(" corp: ").unwrap_or(0),
            covered: last(" cov: ").unwrap_or(0),
            passed: false,
            exit: String::new(),
        }
    }

    fn print(&self, json: bool) {
        let Self {
            name,
            runs,
            runs_per_second,
            corpus,
            covered,
            passed,
            exit,
        } = self;
        if !json {
            let exit = if *passed { "passed" } else { exit };
            println!("{name:<12} {runs:>9} {runs_per_second:>7} {corpus:>7} {covered:>7}  {exit}");
            return;
        }
        for (what, value, unit) in [
            ("runs", *runs, "runs"),
            ("rate", *runs_per_second, "runs/s"),
            ("corpus", *corpus, "inputs"),
            ("covered", *covered, "places"),
            ("failed", u64::from(!passed), "runs"),
        ] {
            let name = format!("fuzz.{name}.{what}");
            println!(
                "{}",
                json!({ "name": name, "value": value, "unit": unit, "n": 1 })
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_of_libfuzzer_is_understood() {
        let log = "#2\tINITED cov: 7 ft: 8 corp: 1/1b exec/s: 0 rss: 29Mb\n\
            #6568\tDONE   cov: 4257 ft: 19606 corp: 759/81Kb lim: 2048 exec/s: 142 rss: 38Mb\n\
            Done 6568 runs in 46 second(s)\n\
            stat::number_of_executed_units: 6568\n\
            stat::average_exec_per_sec:     142\n";
        let outcome = Outcome::parse("block", log);
        assert_eq!((outcome.runs, outcome.runs_per_second), (6568, 142));
        assert_eq!((outcome.corpus, outcome.covered), (759, 4257));
    }

    #[test]
    fn a_target_that_is_not_there_is_refused_with_those_that_are() {
        let error = chosen(&["levitation".to_owned()]).unwrap_err().to_string();
        assert!(
            error.contains("levitation") && error.contains("vsock"),
            "{error}"
        );
        assert_eq!(chosen(&["rng".to_owned()]).unwrap(), ["rng"]);
        assert!(chosen(&[]).unwrap().len() > 10);
    }

    #[test]
    fn failures_are_named() {
        let outcome = |name: &str, passed| Outcome {
            passed,
            ..Outcome::parse(name, "")
        };
        assert!(all_passed(&[outcome("a", true)]).is_ok());
        let error = all_passed(&[outcome("a", true), outcome("b", false)]).unwrap_err();
        assert_eq!(error.to_string(), "1 of 2 targets failed: b");
    }
}
