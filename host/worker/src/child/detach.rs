//! What separates a worker from the host process that started it.

use std::io;

/// A session of its own, so that neither a hangup nor a Ctrl-C of the host's terminal reaches
/// the worker; no privileges to gain; no descriptor but the standard ones.
pub(crate) fn detach() -> io::Result<()> {
    close_stray_descriptors()?;
    match rustix::process::setsid() {
        // The leader of a process group, as when started from a shell, can't have a session of
        // its own, and has a group of its own already.
        Ok(_) | Err(rustix::io::Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    rustix::process::chdir("/")?;
    rustix::thread::set_no_new_privs(true)?;
    rustix::thread::set_name(c"roost-worker")?;
    Ok(())
}

/// Lets go of the socket on standard input. Nothing takes its number.
pub(crate) fn release_stdin() -> io::Result<()> {
    Ok(rustix::stdio::dup2_stdin(std::io::stdout())?)
}

/// The host opens everything with `O_CLOEXEC`, but it may have been started with descriptors
/// that are not.
#[allow(unsafe_code)]
fn close_stray_descriptors() -> io::Result<()> {
    const FIRST: libc::c_uint = 3;
    // SAFETY: the process has just started and owns no descriptor from 3 on: what is open there
    // was inherited, and nothing in this process knows of it.
    let result = unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
