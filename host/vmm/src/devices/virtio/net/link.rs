//! The host's end: a TAP, or a socket that keeps packets apart.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use rustix::fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat};
use rustix::net::{RecvFlags, SocketType, sockopt};
use vm_memory::VolatileSlice;

use super::config::NetConfigError;
use super::header::HEADER_BYTES;

/// The descriptor and what it is.
pub(super) struct Link {
    file: File,
    kind: Kind,
}

enum Kind {
    Tap {
        /// Whether the kernel segments UDP (Linux 6.2).
        segments_udp: bool,
    },
    Socket,
}

/// What became of a packet that was to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    Done,
    /// The host has no room for it.
    Full,
    /// The host says that it makes no sense.
    Refused,
    /// The interface is not up.
    Down,
    /// There is no interface any more.
    Lost,
}

impl Link {
    /// Takes over a descriptor, from here on without blocking.
    pub(super) fn new(file: File) -> Result<Self, NetConfigError> {
        let host = |what| move |error: rustix::io::Errno| host(what, error.into());
        let metadata = fstat(&file).map_err(host("fstat of a TAP"))?;
        let kind = match FileType::from_raw_mode(metadata.st_mode) {
            FileType::Socket => match sockopt::socket_type(&file) {
                Ok(SocketType::DGRAM | SocketType::SEQPACKET) => Kind::Socket,
                _ => return Err(NetConfigError::NoPackets),
            },
            FileType::CharacterDevice => Self::prepare_tap(&file)?,
            _ => return Err(NetConfigError::NoPackets),
        };
        let flags = fcntl_getfl(&file).map_err(host("F_GETFL of a TAP"))?;
        fcntl_setfl(&file, flags | OFlags::NONBLOCK).map_err(host("F_SETFL of a TAP"))?;
        Ok(Self { file, kind })
    }

    fn prepare_tap(file: &File) -> Result<Kind, NetConfigError> {
        let mut request = libc::ifreq {
            ifr_name: [0; libc::IFNAMSIZ],
            ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 },
        };
        // SAFETY: TUNGETIFF writes an ifreq, and `request` is one. A descriptor that is no TUN or
        // TAP refuses it, or, if the number means something else to it, was not meant to be passed.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNGETIFF, &raw mut request) };
        if result < 0 {
            return Err(NetConfigError::NoPackets);
        }
        // SAFETY: TUNGETIFF sets the flags, which are this field of the union.
        let flags = i32::from(unsafe { request.ifr_ifru.ifru_flags });
        let needed = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        if flags & needed != needed {
            return Err(NetConfigError::TapFlags);
        }
        let (tap, bytes) = (file.as_raw_fd(), HEADER_BYTES as libc::c_int);
        // SAFETY: TUNSETVNETHDRSZ reads an int.
        let result = unsafe { libc::ioctl(tap, libc::TUNSETVNETHDRSZ, &raw const bytes) };
        if result < 0 {
            return Err(host("TUNSETVNETHDRSZ", io::Error::last_os_error()));
        }
        let udp = libc::TUN_F_CSUM | libc::TUN_F_USO4 | libc::TUN_F_USO6;
        let segments_udp = set_tap_offloads(file, udp).is_ok();
        set_tap_offloads(file, 0).map_err(|error| host("TUNSETOFFLOAD", error))?;
        Ok(Kind::Tap { segments_udp })
    }

    /// Whether UDP packets can be segmented.
    pub(super) fn segments_udp(&self) -> bool {
        match self.kind {
            Kind::Tap { segments_udp } => segments_udp,
            Kind::Socket => true,
        }
    }

    /// Says what the host may leave to the guest in packets to come: `TUN_F_…` flags.
    pub(super) fn set_offloads(&self, flags: libc::c_uint) -> io::Result<()> {
        match self.kind {
            Kind::Tap { .. } => set_tap_offloads(&self.file, flags),
            Kind::Socket => Ok(()),
        }
    }

    /// Sends a packet that consists of `head` and of `rest`, which is in guest memory.
    pub(super) fn send(&self, head: &[u8], rest: &[VolatileSlice<'_>]) -> Sent {
        let guards: Vec<_> = rest.iter().map(VolatileSlice::ptr_guard).collect();
        let head = libc::iovec {
            iov_base: head.as_ptr().cast_mut().cast(),
            iov_len: head.len(),
        };
        let rest = guards.iter().map(|guard| libc::iovec {
            iov_base: guard.as_ptr().cast_mut().cast(),
            iov_len: guard.len(),
        });
        let pieces: Vec<_> = std::iter::once(head).chain(rest).collect();
        let descriptor = self.file.as_raw_fd();
        let sent = match self.kind {
            // SAFETY: `pieces` has as many elements as it says. Each is a range that is valid for
            // reading during the call: `head`, or guest memory that a guard holds. That the guest
            // may change it meanwhile matters to the kernel only, which copies it.
            Kind::Tap { .. } => unsafe {
                libc::writev(descriptor, pieces.as_ptr(), pieces.len() as libc::c_int)
            },
            Kind::Socket => {
                let message = libc::msghdr {
                    msg_name: std::ptr::null_mut(),
                    msg_namelen: 0,
                    msg_iov: pieces.as_ptr().cast_mut(),
                    msg_iovlen: pieces.len(),
                    msg_control: std::ptr::null_mut(),
                    msg_controllen: 0,
                    msg_flags: 0,
                };
                // SAFETY: as above; `sendmsg` changes neither the message nor its pieces.
                unsafe { libc::sendmsg(descriptor, &raw const message, libc::MSG_NOSIGNAL) }
            }
        };
        match sent {
            0.. => Sent::Done,
            _ => classify(&io::Error::last_os_error()),
        }
    }

    /// Throws away what waits, at most `most` packets; returns how many there were.
    pub(super) fn discard(&self, most: u64) -> u64 {
        let mut start = [0; 64];
        let read = |into: &mut [u8; 64]| match self.kind {
            Kind::Tap { .. } => rustix::io::read(&self.file, into),
            Kind::Socket => rustix::net::recv(&self.file, into, RecvFlags::TRUNC).map(|(n, _)| n),
        };
        (0..most)
            .take_while(|_| matches!(read(&mut start), Ok(1..)))
            .count() as u64
    }
}

impl AsRawFd for Link {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// Whether an error that reading or writing returned says that the interface is gone for good.
pub(super) fn is_lost(error: &io::Error) -> bool {
    // EBADFD is a TAP whose interface was deleted; the others are sockets without a peer.
    matches!(
        error.raw_os_error(),
        Some(
            libc::EBADFD
                | libc::EBADF
                | libc::ENODEV
                | libc::EPIPE
                | libc::ECONNRESET
                | libc::ECONNREFUSED
                | libc::ENOTCONN
        )
    )
}

fn classify(error: &io::Error) -> Sent {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM) => Sent::Full,
        Some(libc::EIO) => Sent::Down,
        _ if is_lost(error) => Sent::Lost,
        _ => Sent::Refused,
    }
}

fn set_tap_offloads(file: &File, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value and touches no memory.
    let result = unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            libc::TUNSETOFFLOAD,
            libc::c_ulong::from(flags),
        )
    };
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn host(what: &'static str, source: io::Error) -> NetConfigError {
    NetConfigError::Host { what, source }
}
