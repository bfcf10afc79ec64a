//! What a network device is made of.

use std::fs::File;
use std::io;

use crate::devices::virtio::RateLimits;

/// A network device.
#[derive(Debug)]
pub struct NetConfig {
    /// A TAP with `IFF_NO_PI` and `IFF_VNET_HDR`. Or a Unix socket that keeps packets apart
    /// (`SOCK_SEQPACKET` or `SOCK_DGRAM`), each of which begins with the 12 bytes of
    /// `virtio_net_hdr_v1`: for networks in user space.
    pub tap: File,
    /// The guest's address.
    pub mac: [u8; 6],
    /// The largest packet without its Ethernet header, bytes, that the driver is told to use. At
    /// least 68. `None`: it uses its own default, 1500.
    pub mtu: Option<u16>,
    /// Whether packets from another address than `mac` are dropped.
    pub anti_spoofing: bool,
    /// Whether the driver may leave checksums and segmentation to the other end. A socket's peer
    /// must then be able to do both.
    pub offloads: bool,
    /// How much may pass.
    pub limits: NetLimits,
}

impl NetConfig {
    /// A device with the usual properties: offloads, no spoofing, no limits.
    #[must_use]
    pub fn new(tap: File, mac: [u8; 6]) -> Self {
        Self {
            tap,
            mac,
            mtu: None,
            anti_spoofing: true,
            offloads: true,
            limits: NetLimits::default(),
        }
    }
}

/// How much may pass, as the guest sees it. Bytes are those of Ethernet packets. No limits by
/// default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetLimits {
    /// What the guest receives.
    pub receive: RateLimits,
    /// What it sends.
    pub transmit: RateLimits,
}

/// Why there can't be such a network device.
#[derive(Debug, thiserror::Error)]
pub enum NetConfigError {
    /// Packets can't be read from and written to it.
    #[error("the descriptor is neither a TAP nor a socket that keeps packets apart")]
    NoPackets,
    /// It is a TAP of the wrong kind.
    #[error("the TAP was not made with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR")]
    TapFlags,
    /// A guest can't have it.
    #[error("a guest can't have a group address or zero as its MAC address")]
    Mac,
    /// No network has it.
    #[error("an MTU of {0} bytes; 68 is the least")]
    Mtu(u16),
    /// The host refused something.
    #[error("{what}: {source}")]
    Host {
        /// What it was asked for.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
}
