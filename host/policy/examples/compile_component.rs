//! The child process in which components are compiled, as a program of its own: what a program
//! that embeds the runtime starts, if it has no such command itself.
//!
//! `compile_component BYTES SECONDS < policy.wasm > artifact`
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    roost_policy::compile_component_main(std::env::args_os().skip(1))
}
