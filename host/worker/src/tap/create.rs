//! Making a TAP, which is an ioctl on `/dev/net/tun`.
#![allow(unsafe_code, reason = "ioctl")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

use super::{TapError, check_name, find_tap, open};

/// Makes a TAP, or opens it if it exists and nobody uses it. Packets are read from and written to
/// the result behind a `virtio_net_hdr_v1` of 12 bytes.
///
/// A persistent TAP stays until it is deleted; another goes with the last descriptor of it.
///
/// # Errors
/// [`TapError`] says what is in the way.
pub fn create(name: &str, persistent: bool) -> Result<File, TapError> {
    check_name(name)?;
    // The kernel says less clearly that the name is another interface's.
    find_tap(&open()?, name)?;
    let tun = File::options().read(true).write(true).open("/dev/net/tun");
    let tun = tun.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => TapError::Unsupported,
        _ => TapError::host("opening /dev/net/tun", error),
    })?;
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: flags as libc::c_short,
        },
    };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    // SAFETY: TUNSETIFF reads and writes an ifreq, and `request` is one. Its name ends in a zero:
    // it was checked to be shorter than the field.
    let made = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    check(made, "TUNSETIFF").map_err(|error| match error {
        TapError::Host { source, .. } if source.raw_os_error() == Some(libc::EBUSY) => {
            TapError::InUse(name.to_owned())
        }
        error => error,
    })?;
    let header_bytes: libc::c_int = 12;
    // SAFETY: TUNSETVNETHDRSZ reads an int.
    let set = unsafe {
        libc::ioctl(
            tun.as_raw_fd(),
            libc::TUNSETVNETHDRSZ,
            &raw const header_bytes,
        )
    };
    check(set, "TUNSETVNETHDRSZ")?;
    let persist = libc::c_ulong::from(persistent);
    // SAFETY: TUNSETPERSIST takes its argument by value and touches no memory.
    let set = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETPERSIST, persist) };
    check(set, "TUNSETPERSIST")?;
    Ok(tun)
}

fn check(result: libc::c_int, what: &'static str) -> Result<(), TapError> {
    match result {
        0.. => Ok(()),
        _ => Err(TapError::host(what, io::Error::last_os_error())),
    }
}
