//! Which features are offered, and what those that a driver took mean to the TAP.

use virtio_bindings::virtio_net::*;

use crate::devices::virtio::Active;

/// Offered always: the MAC address, buffers that can be merged, the state of the link.
const ALWAYS: [u32; 3] = [
    VIRTIO_NET_F_MAC,
    VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_NET_F_STATUS,
];
/// Offered if offloads are: what the guest leaves to the host, and the host to the guest.
const OFFLOADS: [u32; 8] = [
    VIRTIO_NET_F_CSUM,
    VIRTIO_NET_F_HOST_TSO4,
    VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_HOST_ECN,
    VIRTIO_NET_F_GUEST_CSUM,
    VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_GUEST_ECN,
];
/// The same for UDP, where the kernel can do it. Its older form (`UFO`) is not offered: kernels
/// only imitate it.
const UDP_OFFLOADS: [u32; 3] = [
    VIRTIO_NET_F_HOST_USO,
    VIRTIO_NET_F_GUEST_USO4,
    VIRTIO_NET_F_GUEST_USO6,
];

/// The features of a device with an `mtu` to tell or not, and with or without `offloads`, as a mask.
pub(super) fn offered(mtu: bool, offloads: bool, segments_udp: bool) -> u64 {
    let mut features = mask(&ALWAYS);
    if mtu {
        features |= mask(&[VIRTIO_NET_F_MTU]);
    }
    if offloads {
        features |= mask(&OFFLOADS);
        if segments_udp {
            features |= mask(&UDP_OFFLOADS);
        }
    }
    features
}

fn mask(bits: &[u32]) -> u64 {
    bits.iter().fold(0, |mask, bit| mask | 1 << bit)
}

/// Whether packets of 64 KiB may be received.
pub(super) fn receives_segments(active: &Active) -> bool {
    let segments = [
        VIRTIO_NET_F_GUEST_TSO4,
        VIRTIO_NET_F_GUEST_TSO6,
        VIRTIO_NET_F_GUEST_USO4,
        VIRTIO_NET_F_GUEST_USO6,
    ];
    segments.into_iter().any(|feature| active.has(feature))
}

/// What a driver can do by itself when it receives, as `TUN_F_…` flags. Segments need checksums
/// (virtio 1.2, section 5.1.3.1).
pub(super) fn tap_offloads(active: &Active) -> libc::c_uint {
    let flag = |feature, flag| if active.has(feature) { flag } else { 0 };
    if !active.has(VIRTIO_NET_F_GUEST_CSUM) {
        return 0;
    }
    let tcp = flag(VIRTIO_NET_F_GUEST_TSO4, libc::TUN_F_TSO4)
        | flag(VIRTIO_NET_F_GUEST_TSO6, libc::TUN_F_TSO6);
    let ecn = match tcp {
        0 => 0,
        _ => flag(VIRTIO_NET_F_GUEST_ECN, libc::TUN_F_TSO_ECN),
    };
    // The kernel takes both or none.
    let udp = match active.has(VIRTIO_NET_F_GUEST_USO4) && active.has(VIRTIO_NET_F_GUEST_USO6) {
        true => libc::TUN_F_USO4 | libc::TUN_F_USO6,
        false => 0,
    };
    libc::TUN_F_CSUM | tcp | ecn | udp
}
