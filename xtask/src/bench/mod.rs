//! `cargo xtask bench …`: measurements, on a release build.

mod policy;
mod start;

use anyhow::Result;

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// A policy's decision: fresh and warm, each hook, beside native Rust and bare wasmtime
    Policy(policy::Arguments),
    /// Request to boot → the guest's first byte, and the memory of an idle worker
    Start(start::Arguments),
}

/// Runs the measurement.
pub(crate) fn run(command: &Command) -> Result<()> {
    match command {
        Command::Policy(arguments) => policy::run(arguments),
        Command::Start(arguments) => start::run(arguments),
    }
}
