//! `cargo xtask bench …`: measurements, on a release build.

mod start;

use anyhow::Result;

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Request to boot → the guest's first byte, and the memory of an idle worker
    Start(start::Arguments),
}

/// Runs the measurement.
pub(crate) fn run(command: &Command) -> Result<()> {
    match command {
        Command::Start(arguments) => start::run(arguments),
    }
}
