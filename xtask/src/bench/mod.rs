//! `cargo xtask bench …`: measurements, on a release build.

mod boot;
mod memory;
mod policy;
mod scale;
mod start;
mod store;

use anyhow::Result;

pub(crate) use boot::{Inside as BootTimes, run_inside as boot_times};

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// A policy's decision: fresh and warm, each hook, beside native Rust and bare wasmtime
    Policy(policy::Arguments),
    /// Request to boot → the guest's first byte, and the memory of an idle worker
    Start(start::Arguments),
    /// The parts of a boot: of a test guest on this machine, and of a stock Linux kernel in the rig
    Boot(boot::Arguments),
    /// A thousand VMs and more: how long each step takes, what they cost, what limits their number
    Scale(scale::Arguments),
    /// How fast state becomes durable, beside SQLite on the same disk
    Store(store::Arguments),
}

/// Runs the measurement.
pub(crate) fn run(command: &Command) -> Result<()> {
    match command {
        Command::Policy(arguments) => policy::run(arguments),
        Command::Start(arguments) => start::run(arguments),
        Command::Boot(arguments) => boot::run(arguments),
        Command::Scale(arguments) => scale::run(arguments),
        Command::Store(arguments) => store::run(arguments),
    }
}
