//! `roost`: the host, its workers, and the command line that talks to it.
#![forbid(unsafe_code)]

mod capacity;
mod cli;
mod client;
mod console;
mod control;
mod create;
mod drain;
mod ending;
mod observe;
mod operations;
mod output;
mod plugin;
mod repair;
mod serve;
mod service;
mod store;
mod vm;

use std::process::ExitCode;

use clap::Parser as _;

/// The name by which the host starts its workers. Not for people.
const WORKER: &str = "vm-worker";
/// The name by which the host starts the process that compiles a policy. Not for people.
const COMPILE: &str = "compile-component";

fn main() -> ExitCode {
    // Before anything else: a worker is one of thousands and takes nothing that it does not need.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|verb| verb == WORKER)
    {
        return match roost_worker::run_worker() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("roost {WORKER}: {error}");
                ExitCode::FAILURE
            }
        };
    }
    if std::env::args_os()
        .nth(1)
        .is_some_and(|verb| verb == COMPILE)
    {
        return roost_engine::compile_component_main(std::env::args_os().skip(2));
    }
    match cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("roost: {error:#}");
            ExitCode::FAILURE
        }
    }
}
