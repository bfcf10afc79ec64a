//! How a worker gets its configuration and its descriptors: in one message over the socket that
//! is its standard input. The worker holds nothing else, so the kernel numbers what arrives from
//! 3 on: control socket, `/dev/kvm`, kernel, initial RAM disk, then those of the devices.
//!
//! Compared to descriptors that are inherited by number this needs no code between `fork` and
//! `exec`, leaks nothing, and a worker can be started before it is known for which VM.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;

use roost_model::VmId;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use crate::devices::{self, DeviceList, Devices, Machine};
use crate::limits::MAX_CONFIG_BYTES;

/// The version of [`WorkerConfig`]. Host and worker are one binary, unless it was replaced on
/// disk while the host ran: then this tells.
pub(crate) const CONFIG_VERSION: u32 = 2;

/// Control socket, `/dev/kvm`, kernel, initial RAM disk, and those of the devices. The kernel
/// passes up to 253 (`SCM_MAX_FD`).
const MAX_DESCRIPTORS: usize = 4 + devices::MAX_DESCRIPTORS;

/// What a worker is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WorkerConfig {
    pub(crate) version: u32,
    pub(crate) vm: VmId,
    pub(crate) incarnation: u64,
    pub(crate) nonce: String,
    pub(crate) vcpus: u32,
    pub(crate) memory_bytes: u64,
    pub(crate) cmdline: String,
    /// Whether a fourth descriptor is the initial RAM disk.
    pub(crate) initrd: bool,
    /// The devices, whose descriptors follow.
    pub(crate) devices: DeviceList,
    pub(crate) machine: Machine,
}

/// What a worker is given.
#[derive(Debug)]
pub(crate) struct Descriptors {
    pub(crate) control: UnixListener,
    pub(crate) kvm: File,
    pub(crate) kernel: File,
    pub(crate) initrd: Option<File>,
    pub(crate) devices: Devices,
}

/// The message is not what a worker expects.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The host did not send anything, or it can't be received.
    #[error("receiving the configuration: {0}")]
    Receive(#[source] io::Error),
    /// The configuration is not understood.
    #[error("the configuration: {0}")]
    Malformed(#[source] serde_json::Error),
    /// The configuration or its descriptors did not arrive whole.
    #[error("the configuration or its descriptors did not arrive whole")]
    Truncated,
    /// The host is of another version.
    #[error("the configuration has version {found}, expected {CONFIG_VERSION}")]
    Version {
        /// The version that was read.
        found: u32,
    },
    /// Descriptors are missing, or there are too many.
    #[error("{found} descriptors came with the configuration, expected {expected}")]
    Descriptors {
        /// How many came.
        found: usize,
        /// How many were announced.
        expected: usize,
    },
}

/// Sends `config` and `descriptors` (control socket, `/dev/kvm`, kernel, initial RAM disk and those
/// of the devices, in this order) over a `SOCK_SEQPACKET` socket.
pub(crate) fn send(
    socket: &OwnedFd,
    config: &WorkerConfig,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let message = serde_json::to_vec(config)?;
    if message.len() > MAX_CONFIG_BYTES || descriptors.len() > MAX_DESCRIPTORS {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{} bytes, expected at most {MAX_CONFIG_BYTES}",
                message.len()
            ),
        ));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(descriptors));
    sendmsg(
        socket,
        &[IoSlice::new(&message)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Waits for what [`send`] sends.
pub(crate) fn receive(socket: impl AsFd) -> Result<(WorkerConfig, Descriptors), BootstrapError> {
    let mut message = vec![0; MAX_CONFIG_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut message)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )
    .map_err(|error| BootstrapError::Receive(error.into()))?;
    let mut descriptors: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    if received.bytes == 0 {
        return Err(BootstrapError::Receive(io::ErrorKind::UnexpectedEof.into()));
    }
    if received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(BootstrapError::Truncated);
    }
    let message = message.get(..received.bytes).unwrap_or_default();
    let config: WorkerConfig =
        serde_json::from_slice(message).map_err(BootstrapError::Malformed)?;
    if config.version != CONFIG_VERSION {
        return Err(BootstrapError::Version {
            found: config.version,
        });
    }
    let expected = 3 + usize::from(config.initrd) + config.devices.descriptors();
    let found = descriptors.len();
    let count = BootstrapError::Descriptors { found, expected };
    if found != expected {
        return Err(count);
    }
    let mut descriptors = descriptors.drain(..);
    let (Some(control), Some(kvm), Some(kernel)) =
        (descriptors.next(), descriptors.next(), descriptors.next())
    else {
        return Err(count);
    };
    let initrd = config.initrd.then(|| descriptors.next()).flatten();
    let descriptors = Descriptors {
        control: control.into(),
        kvm: kvm.into(),
        kernel: kernel.into(),
        initrd: initrd.map(File::from),
        devices: config.devices.clone().join(&mut descriptors).ok_or(count)?,
    };
    Ok((config, descriptors))
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use std::io::Read as _;

    use super::*;

    fn config() -> WorkerConfig {
        WorkerConfig {
            version: CONFIG_VERSION,
            vm: VmId::from_uuid(uuid::Uuid::from_u128(1)),
            incarnation: 3,
            nonce: "n".repeat(32),
            vcpus: 1,
            memory_bytes: 128 << 20,
            cmdline: "\u{1}".repeat(2047),
            initrd: true,
            devices: DeviceList::default(),
            machine: Machine::default(),
        }
    }

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap()
    }

    #[test]
    fn the_longest_configuration_arrives_with_its_descriptors_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let file = |text: &str| {
            let path = dir.path().join(text);
            std::fs::write(&path, text).unwrap();
            File::open(path).unwrap()
        };
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        let (kvm, kernel, initrd) = (file("kvm"), file("kernel"), file("initrd"));
        let (here, there) = pair();

        let sent = [
            listener.as_fd(),
            kvm.as_fd(),
            kernel.as_fd(),
            initrd.as_fd(),
        ];
        send(&here, &config(), &sent).unwrap();
        let (received, descriptors) = receive(&there).unwrap();

        assert_eq!(received, config());
        let text = |mut file: File| {
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            text
        };
        assert_eq!(text(descriptors.kvm), "kvm");
        assert_eq!(text(descriptors.kernel), "kernel");
        assert_eq!(text(descriptors.initrd.unwrap()), "initrd");
    }

    #[test]
    fn a_host_that_died_before_it_sent_anything_is_an_error() {
        let (here, there) = pair();
        drop(here);
        assert!(matches!(receive(&there), Err(BootstrapError::Receive(_))));
    }

    #[test]
    fn missing_descriptors_are_counted() {
        let (here, there) = pair();
        send(&here, &config(), &[here.as_fd()]).unwrap();
        let error = receive(&there).unwrap_err();
        assert!(matches!(
            error,
            BootstrapError::Descriptors {
                found: 1,
                expected: 4
            }
        ));
    }

    #[test]
    fn another_version_is_refused_by_number() {
        let (here, there) = pair();
        send(
            &here,
            &WorkerConfig {
                version: CONFIG_VERSION + 1,
                ..config()
            },
            &[here.as_fd()],
        )
        .unwrap();
        assert!(matches!(
            receive(&there).unwrap_err(),
            BootstrapError::Version {
                found
            } if found == CONFIG_VERSION + 1
        ));
    }
}
