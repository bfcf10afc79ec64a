//! The worker alone, for [`roost_worker::WorkerBackend`]: smaller than the whole of Roost, and so
//! is what each VM's process keeps private of it.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    match roost_worker::run_worker() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
