//! Calling a vCPU thread out of `KVM_RUN`.
//!
//! The thread's `immediate_exit` is set in the page that it shares with KVM, then a signal is
//! sent: whether it comes before, on the way into or in the middle of `KVM_RUN`, the kernel
//! returns `EINTR`, so no request is lost between looking and entering.
//!
//! The signal needs a handler, or it would end the process. That handler does nothing, and it is
//! the one thing in this crate that belongs to the whole process.

use std::io;

use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler, unblock_signal};

use super::{KvmError, Request as _};

extern "C" fn on_kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// The signal: the first real-time one, which neither the kernel nor a library sends by itself.
pub(super) fn signal() -> libc::c_int {
    SIGRTMIN()
}

/// Makes the signal harmless in this process. Does nothing where that is done, and refuses where
/// the process already uses the signal for something else.
pub(super) fn prepare_process() -> Result<(), KvmError> {
    match current_handler().request("sigaction")? {
        handler if handler == on_kick as *const () as usize => Ok(()),
        // Two threads may come here at once; both then install the same handler.
        libc::SIG_DFL | libc::SIG_IGN => {
            register_signal_handler(signal(), on_kick).request("sigaction")
        }
        _ => Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "the process handles the first real-time signal already; vCPU threads need it",
        ))
        .request("sigaction"),
    }
}

/// Lets the signal reach the calling thread, which may have inherited a mask that blocks it.
pub(super) fn prepare_thread() -> io::Result<()> {
    unblock_signal(signal()).map_err(|error| io::Error::other(error.to_string()))
}

fn current_handler() -> io::Result<usize> {
    // SAFETY: all zeroes are a valid `sigaction`.
    let mut current: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: without a new action this only fills `current`, which is valid to write.
    let result = unsafe { libc::sigaction(signal(), std::ptr::null(), &raw mut current) };
    match result {
        0 => Ok(current.sa_sigaction),
        _ => Err(io::Error::last_os_error()),
    }
}
