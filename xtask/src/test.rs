//! `cargo xtask test`: everything that must hold, in order.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::kvm::Kvm;
use crate::{
    crash_matrix, fuzz, languages, licences, plugins, process, rig, soak, stock, workspace,
};

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask test              everything; what CI runs\n  \
    cargo xtask test --kvm rig    run the tests that need KVM in the emulated machine\n  \
    cargo xtask test --only lint  only the steps whose name contains \"lint\"\n  \
    cargo xtask test --languages  policies in JavaScript, Python and C; a job of its own")]
pub(crate) struct Arguments {
    /// Where the tests that need KVM run
    #[arg(long, value_enum, default_value_t = KvmChoice::Auto)]
    kvm: KvmChoice,
    /// Run only the steps whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Run only what needs the tools of other languages, which are installed into target/languages
    #[arg(long)]
    languages: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum KvmChoice {
    /// On this machine if it has a usable /dev/kvm, else in the rig
    Auto,
    /// On this machine
    Native,
    /// In the rig's emulated machine
    Rig,
}

impl KvmChoice {
    /// Whether the tests run on this machine.
    fn native(self) -> Result<bool> {
        match (self, Kvm::detect()) {
            (Self::Rig, _) | (Self::Auto, Kvm::Unusable(_)) => Ok(false),
            (_, Kvm::Hardware | Kvm::Software) => Ok(true),
            (Self::Native, Kvm::Unusable(why)) => bail!("the tests on KVM cannot run here: {why}"),
        }
    }
}

/// A step and what it does.
struct Step<'a> {
    name: &'static str,
    run: Box<dyn Fn() -> Result<()> + 'a>,
}

fn step<'a>(name: &'static str, run: impl Fn() -> Result<()> + 'a) -> Step<'a> {
    Step {
        name,
        run: Box::new(run),
    }
}

/// What a run without `--languages` does, in order; the tests that need KVM run on this machine if
/// `native`.
fn everything(native: bool) -> Vec<Step<'static>> {
    let steps = [
        step("set-up: policies", plugins::build),
        step("set-up: rig", rig::set_up),
        step("format", format),
        step("lint", lint),
        step("lint: policies", lint_policies),
        step("lint: fuzz targets", fuzz::lint),
        step("tests: policies", test_policies),
        step("docs", docs),
        step("licences and duplicates", licences::check),
        step("tests", move || tests(native)),
        step("fuzz targets", fuzz::test),
        step("crash matrix", crash_matrix::run_all),
        step("soak", soak::run_in_test),
        step("policies under stock wasmtime", stock::check),
        step("tests on KVM in the rig", || {
            rig::tests(&rig::KVM_PACKAGES, rig::RUNS, false)
                .context("this machine has no usable /dev/kvm and the rig failed")
        }),
        step("rig: Linux guest", rig::boot_linux),
    ];
    steps
        .into_iter()
        .filter(|step| match step.name {
            "tests on KVM in the rig" => !native,
            // On an emulated CPU it would take hours.
            "crash matrix" | "soak" => native,
            _ => true,
        })
        .collect()
}

/// Runs every step, goes on after a failure, and ends with a summary.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let native = arguments.kvm.native()?;
    let mut steps = if arguments.languages {
        vec![
            step("set-up: policies", plugins::build),
            step("policies in JavaScript, Python and C", languages::test),
        ]
    } else {
        everything(native)
    };
    if let Some(text) = &arguments.only {
        steps.retain(|step| step.name.contains(text.as_str()));
    }
    if steps.is_empty() {
        bail!(
            "no step has {:?} in its name",
            arguments.only.as_deref().unwrap_or_default()
        );
    }

    let start = Instant::now();
    let mut results = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        println!("\n== {}/{} {}", index + 1, steps.len(), step.name);
        let begun = Instant::now();
        let result = (step.run)();
        let elapsed = begun.elapsed();
        match &result {
            Ok(()) => println!("== {}: passed in {}", step.name, seconds(elapsed)),
            Err(error) => println!(
                "== {}: FAILED after {}: {error:#}",
                step.name,
                seconds(elapsed)
            ),
        }
        results.push((step.name, elapsed, result));
    }

    println!("\nSummary");
    for (name, elapsed, result) in &results {
        let verdict = if result.is_ok() { "passed" } else { "FAILED" };
        println!("  {verdict}  {:>9}  {name}", seconds(*elapsed));
    }
    println!("  in all  {:>9}", seconds(start.elapsed()));
    let failed = results
        .iter()
        .filter(|(_, _, result)| result.is_err())
        .count();
    for (name, _, result) in &results {
        if let Err(error) = result {
            println!("{name}: {error:#}");
        }
    }
    println!("{} passed, {failed} failed", results.len() - failed);
    if failed > 0 {
        std::process::exit(1);
    }
    Ok(())
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = workspace::cargo();
    command.args(arguments);
    command
}

fn format() -> Result<()> {
    process::run(&mut cargo(&["fmt", "--all", "--check"]))?;
    // The policies and the fuzz targets are workspaces of their own.
    process::run(cargo(&["fmt", "--all", "--check"]).current_dir(policies()))?;
    process::run(cargo(&["fmt", "--check"]).current_dir(fuzz::folder()))
}

fn lint() -> Result<()> {
    process::run(&mut cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))
}

fn policies() -> std::path::PathBuf {
    workspace::root().join("plugins")
}

/// The policies are linted as programs of this machine: the lints are the same, and the toolchain
/// may have no standard library for WebAssembly.
fn lint_policies() -> Result<()> {
    let target = workspace::target_directory()?.join("lint-policies");
    process::run(
        cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--target",
            &workspace::native_target()?,
        ])
        .args(["--", "-D", "warnings"])
        .env("CARGO_TARGET_DIR", target)
        .current_dir(policies()),
    )
}

/// The policies' own tests: they are plain functions, and run as programs of this machine.
fn test_policies() -> Result<()> {
    let target = workspace::target_directory()?.join("lint-policies");
    process::run(
        cargo(&[
            "test",
            "--workspace",
            "--target",
            &workspace::native_target()?,
        ])
        .env("CARGO_TARGET_DIR", target)
        .current_dir(policies()),
    )
}

fn docs() -> Result<()> {
    process::run(
        cargo(&["doc", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings"),
    )
}

/// Unit, integration and documentation tests. `--no-fail-fast`, so that one run shows all.
fn tests(native: bool) -> Result<()> {
    let mut command = cargo(&["test", "--workspace", "--no-fail-fast"]);
    if native {
        return process::run(&mut command);
    }
    println!("no /dev/kvm is used here: the tests that need it run in the rig, in a later step");
    // Examples in the documentation are compiled by rustdoc and cannot be carried there.
    let mut examples = cargo(&["test", "--doc"]);
    for package in rig::KVM_PACKAGES {
        command.args(["--exclude", package]);
        if !rig::KVM_PROGRAMS.contains(&package) {
            examples.args(["-p", package]);
        }
    }
    process::run(&mut command)?;
    let mut here = cargo(&["test", "--package", "roost"]);
    for test in rig::NO_KVM_TESTS {
        here.args(["--test", test]);
    }
    process::run(&mut here)?;
    process::run(&mut examples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_shows_how_many_steps_there_are() {
        let readme = std::fs::read_to_string(workspace::root().join("README.md")).unwrap();
        let steps = everything(true);
        let (n, last) = (steps.len(), steps.last().unwrap().name);
        let shown = format!("== {n}/{n} {last}\n{n} passed, 0 failed\n");
        assert!(
            readme.contains(&shown),
            "the README does not show {shown:?}"
        );
    }
}
