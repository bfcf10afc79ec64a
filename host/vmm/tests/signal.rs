//! The signal that calls vCPU threads back belongs to the process: a test of its own.

#[allow(dead_code)]
mod machine;

use machine::{config, kvm};
use roost_vmm::{BuildError, Vm};
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

extern "C" fn of_somebody_else(
    _: std::ffi::c_int,
    _: *mut libc::siginfo_t,
    _: *mut std::ffi::c_void,
) {
}

#[test]
fn a_signal_that_the_process_uses_already_is_not_taken_from_it() {
    register_signal_handler(SIGRTMIN(), of_somebody_else).unwrap();
    let result = Vm::build(kvm(), config(roost_guests::HELLO));
    assert!(
        matches!(result, Err(BuildError::Kvm(ref error)) if error.request == "sigaction"),
        "{:?}",
        result.err()
    );
}
