//! Descriptors, of which a process may have so many open (`RLIMIT_NOFILE`).
//!
//! What running VMs keep open is a quantity that is admitted, like memory. Beside it a boot needs
//! some for a moment, and so does a request; when there are none, that is told before anything is
//! begun, rather than found out halfway.

use std::error::Error;
use std::io;

use roost_model::{FailureKind, VmSpec};
use roost_worker::failure_kind;
use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Resource, getrlimit};

use crate::error::EngineError;

/// Descriptors that a boot has open at its height, beside those of the VM's devices: both ends of
/// the worker's first socket, its control socket, log, run directory, `/dev/kvm`, kernel and
/// initial RAM disk, what starting a process takes, and the worker's connection and process.
pub(crate) const PER_BOOT: usize = 16;
/// A disk: its layer and its image.
const PER_DISK: usize = 2;
/// A network: its TAP, and the socket by which it is set up.
const PER_NETWORK: usize = 2;
/// The socket of the vsock device, and its directory.
const PER_VSOCK: usize = 2;

/// Descriptors that any other request may need: images that are looked into.
pub(crate) const PER_REQUEST: usize = 8;

/// This process may not open as many files as are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the limit of open files is {most} (RLIMIT_NOFILE), {in_use} are in use and {requested} more \
     are needed; shut VMs down or raise the limit"
)]
pub struct NoDescriptors {
    /// The limit.
    pub most: u64,
    /// How many are open.
    pub in_use: u64,
    /// How many are needed.
    pub requested: u64,
}

/// How many descriptors a boot of a VM of `spec` needs for a moment.
pub(crate) fn of_boot(spec: &VmSpec) -> usize {
    let disks = PER_DISK * spec.disks.len();
    let networks = PER_NETWORK * spec.networks.len();
    PER_BOOT + disks + networks + PER_VSOCK * usize::from(spec.vsock)
}

/// Whether so many descriptors can be opened, by opening them: how many are in use says less,
/// because the limit is one of their numbers.
pub(crate) fn check(wanted: usize) -> Result<(), NoDescriptors> {
    let mut opened = Vec::with_capacity(wanted);
    while opened.len() < wanted {
        match eventfd(0, EventfdFlags::CLOEXEC) {
            Ok(descriptor) => opened.push(descriptor),
            Err(_) => {
                let most = limit();
                return Err(NoDescriptors {
                    most,
                    in_use: most.saturating_sub(opened.len() as u64),
                    requested: wanted as u64,
                });
            }
        }
    }
    Ok(())
}

/// How many files this process may have open.
pub(crate) fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

impl EngineError {
    /// What class of failure it is, where a boot fails of it.
    pub(crate) fn failure_kind(&self) -> FailureKind {
        let mut cause: Option<&(dyn Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return failure_kind(error);
            }
            cause = error.source();
        }
        FailureKind::Start
    }

    /// Whether it is that this process may open no more files.
    #[must_use]
    pub fn is_no_descriptors(&self) -> bool {
        self.failure_kind() == FailureKind::NoDescriptors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::DeviceError;

    #[test]
    fn what_can_be_opened_is_enough_and_what_can_not_is_told_with_the_limit() {
        check(4).unwrap();
        let most = limit();
        let wanted = usize::try_from(most).unwrap() + 1;
        let refused = check(wanted).unwrap_err();
        assert_eq!((refused.most, refused.requested), (most, most + 1));
        assert!(refused.in_use > 0 && refused.in_use < most, "{refused}");
        check(4).unwrap();
    }

    #[test]
    fn an_error_of_the_kernel_is_known_wherever_it_is() {
        let of = |errno: rustix::io::Errno| {
            let source = io::Error::from(errno);
            let disk = "root".parse().unwrap();
            EngineError::from(DeviceError::DiskFile { disk, source })
        };
        assert!(of(rustix::io::Errno::MFILE).is_no_descriptors());
        assert!(of(rustix::io::Errno::NFILE).is_no_descriptors());
        assert!(!of(rustix::io::Errno::NOENT).is_no_descriptors());
        let full = of(rustix::io::Errno::NOMEM);
        assert_eq!(full.failure_kind(), FailureKind::NoMemory);
    }
}
