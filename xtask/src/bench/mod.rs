//! `cargo xtask bench …`: measurements, on a release build.

mod start;
mod store;

use anyhow::Result;

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Request to boot → the guest's first byte, and the memory of an idle worker
    Start(start::Arguments),
    /// How fast state becomes durable, beside SQLite on the same disk
    Store(store::Arguments),
}

/// Runs the measurement.
pub(crate) fn run(command: &Command) -> Result<()> {
    match command {
        Command::Start(arguments) => start::run(arguments),
        Command::Store(arguments) => store::run(arguments),
    }
}
