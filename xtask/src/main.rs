//! The automation of the Roost repository: `cargo xtask <command>`.
//!
//! Each command does its own set-up on a machine that has only the Rust toolchain and a C
//! compiler, says what it does, and is quick when nothing is to do.

#![forbid(unsafe_code)]

mod bench;
mod crash_matrix;
mod demo;
mod distribution;
mod fuzz;
mod guests;
mod host;
mod http;
mod kvm;
mod languages;
mod leftovers;
mod licences;
mod measure;
mod node;
mod plugins;
mod process;
mod rest;
mod rig;
mod soak;
mod stock;
mod test;
mod usage;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "The automation of Roost"
)]
#[command(after_help = "Examples:\n  \
    cargo xtask demo        see what Roost does, in half a minute\n  \
    cargo xtask test        run everything that must hold\n  \
    cargo xtask rig         boot a stock Linux kernel on Roost\n")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the main promises on a real host in a temporary directory
    Demo(demo::Arguments),
    /// Run everything: formatting, lints, docs, licences, tests, the rig
    Test(test::Arguments),
    /// Kill the host, its workers, or both at every point of every verb, and look what comes of it
    CrashMatrix(crash_matrix::Arguments),
    /// Random verbs, kills and faulty policies, against a model of what may come of them
    Soak(soak::Arguments),
    /// Build the WebAssembly policies of plugins/
    #[command(after_help = "Example:\n  cargo xtask plugins\n\n\
        Adds the WebAssembly target where the toolchain can, else uses the distribution's compiler.")]
    Plugins,
    /// Boot a stock Linux kernel as a guest of Roost, inside an emulated machine if need be
    Rig(rig::Arguments),
    /// Fuzz everything that a guest or a worker can reach
    Fuzz(fuzz::Arguments),
    /// Write the test guests to a folder, to boot them by hand
    Guests(guests::Arguments),
    /// Measure
    #[command(subcommand)]
    Bench(bench::Command),
    /// Boot a Linux guest on the KVM of this machine and follow it to its reset
    #[command(hide = true)]
    LinuxGuest(rig::linux_guest::Arguments),
    /// What a Linux guest makes of its machine; the rig runs this
    #[command(hide = true)]
    Platform(rig::platform::Arguments),
    /// A Linux guest's devices, driven over its serial port; the rig runs this
    #[command(hide = true)]
    Devices(rig::devices::Arguments),
    /// The rig's part of `bench boot`
    #[command(hide = true)]
    BootTimes(bench::BootTimes),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::CrashMatrix(arguments) => crash_matrix::run(&arguments),
        Command::Soak(arguments) => soak::run(&arguments),
        Command::Plugins => plugins::build(),
        Command::Rig(arguments) => rig::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Guests(arguments) => guests::run(&arguments),
        Command::Bench(command) => bench::run(&command),
        Command::LinuxGuest(arguments) => rig::linux_guest::run(&arguments),
        Command::Platform(arguments) => rig::platform::run(&arguments),
        Command::Devices(arguments) => rig::devices::run(&arguments),
        Command::BootTimes(arguments) => bench::boot_times(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
