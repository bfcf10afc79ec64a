//! How a VM's socket device is made.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use super::connection::Wait;

/// The first context id that a guest can have: 0 to 2 are reserved (virtio 1.2, section 5.10.4).
pub(super) const FIRST_CID: u32 = 3;
/// The last one: `u32::MAX` is `VMADDR_CID_ANY`.
pub(super) const LAST_CID: u32 = u32::MAX - 1;
/// The least that [`VsockLimits::buffer_bytes`] can be.
const MIN_BUFFER_BYTES: u32 = 4 << 10;
/// The most that [`VsockLimits::buffer_bytes`] can be, Linux's default for its own end.
pub(super) const MAX_BUFFER_BYTES: u32 = 256 << 10;
/// The most that [`VsockLimits::connections`] can be.
const MAX_CONNECTIONS: usize = 16 << 10;

/// A socket device: stream sockets between the guest and Unix sockets of the host.
///
/// A program on the host that connects to `listener` writes `CONNECT <port>\n`, and reads
/// `OK <port>\n` when a program in the guest has accepted at that port; then bytes flow. A program
/// in the guest that connects to port P of CID 2 (the host) reaches whoever listens at the Unix
/// socket `<prefix>_P` in `directory`. The convention is Firecracker's.
#[derive(Debug)]
pub struct VsockConfig {
    /// The guest's context id, 3 to 4294967294.
    pub guest_cid: u32,
    /// Where programs of the host connect.
    pub listener: UnixListener,
    /// The directory of the sockets that the guest can connect to. The process must see `/proc`.
    pub directory: OwnedFd,
    /// The beginning of their names, at most 64 bytes.
    pub prefix: String,
    /// What the guest can make the host keep.
    pub limits: VsockLimits,
}

/// Bounds of a socket device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VsockLimits {
    /// Most connections at a time, both directions together, 1 to 16384. More are refused.
    pub connections: usize,
    /// Bytes from the guest that are buffered for each connection while a program on the host does
    /// not read, 4 KiB to 256 KiB. The kernel's socket buffers (`net.core.wmem_default`) come on
    /// top.
    pub buffer_bytes: u32,
}

impl Default for VsockLimits {
    fn default() -> Self {
        Self {
            connections: 1024,
            buffer_bytes: 64 << 10,
        }
    }
}

/// Why a socket device can't be made.
#[derive(Debug, thiserror::Error)]
pub enum VsockConfigError {
    /// The context id is reserved.
    #[error("{0} can't be a guest's context id: {FIRST_CID} to {LAST_CID} can")]
    Cid(u32),
    /// The prefix is no part of a file's name, or too long.
    #[error(
        "the prefix of socket names must have 1 to {} bytes and no slash",
        super::dial::MAX_PREFIX_BYTES
    )]
    Prefix,
    /// A limit is out of its range.
    #[error("{name} can't be {value}: {min} to {max} can")]
    Limit {
        /// Which one.
        name: &'static str,
        /// What it is.
        value: usize,
        /// What it can be at least.
        min: usize,
        /// What it can be at most.
        max: usize,
    },
    /// The host has no timer, or the listener is no socket.
    #[error("{what}: {source}")]
    Host {
        /// What was to be done.
        what: &'static str,
        /// What the host said.
        source: io::Error,
    },
}

/// All bounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) connections: usize,
    pub(super) buffer_bytes: u32,
    /// Most programs of the host that have not said yet which port they want. More wait to be
    /// accepted.
    pub(super) handshakes: usize,
    /// How long they may take to say it.
    pub(super) handshake_patience: Duration,
    /// How long the guest may take to accept.
    pub(super) answer_patience: Duration,
    /// How long the guest may take to close after both directions have ended at the host.
    pub(super) close_patience: Duration,
    /// How long a program of the host may take for what a guest sent before it closed and went.
    /// Linux, as a guest, waits 8 s for it before it goes.
    pub(super) drain_patience: Duration,
}

impl Limits {
    pub(super) fn new(limits: VsockLimits) -> Result<Self, VsockConfigError> {
        let VsockLimits {
            connections,
            buffer_bytes,
        } = limits;
        let check = |name, value, min, max| match (min..=max).contains(&value) {
            true => Ok(()),
            false => Err(VsockConfigError::Limit {
                name,
                value,
                min,
                max,
            }),
        };
        check("the number of connections", connections, 1, MAX_CONNECTIONS)?;
        check(
            "the buffer of a connection",
            buffer_bytes as usize,
            MIN_BUFFER_BYTES as usize,
            MAX_BUFFER_BYTES as usize,
        )?;
        Ok(Self {
            connections,
            buffer_bytes,
            handshakes: 64,
            handshake_patience: Duration::from_secs(2),
            answer_patience: Duration::from_secs(2),
            close_patience: Duration::from_secs(2),
            drain_patience: Duration::from_secs(10),
        })
    }

    pub(super) fn patience(&self, wait: Wait) -> Duration {
        match wait {
            Wait::Answer => self.answer_patience,
            Wait::Close => self.close_patience,
            Wait::Drain => self.drain_patience,
        }
    }
}
