//! The header in front of each packet (virtio 1.2, section 5.1.6), and what a driver may ask for.

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_HOST_USO, VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_ECN,
    VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV6,
    VIRTIO_NET_HDR_GSO_UDP_L4,
};

/// Bytes of it, with the number of buffers, which is always there in virtio 1.
pub(super) const HEADER_BYTES: usize = 12;
/// Where the number of buffers is.
pub(super) const NUM_BUFFERS_OFFSET: usize = 10;

/// `virtio_net_hdr_v1`, without the number of buffers, which means nothing in a packet to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    flags: u8,
    gso_type: u8,
    header_bytes: u16,
    gso_bytes: u16,
    checksum_start: u16,
    checksum_offset: u16,
}

impl Header {
    pub(super) fn from_bytes(bytes: [u8; HEADER_BYTES]) -> Self {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1, ..] = bytes;
        Self {
            flags,
            gso_type,
            header_bytes: u16::from_le_bytes([h0, h1]),
            gso_bytes: u16::from_le_bytes([g0, g1]),
            checksum_start: u16::from_le_bytes([s0, s1]),
            checksum_offset: u16::from_le_bytes([o0, o1]),
        }
    }

    pub(super) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let [h0, h1] = self.header_bytes.to_le_bytes();
        let [g0, g1] = self.gso_bytes.to_le_bytes();
        let [s0, s1] = self.checksum_start.to_le_bytes();
        let [o0, o1] = self.checksum_offset.to_le_bytes();
        let (flags, gso_type) = (self.flags, self.gso_type);
        [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1, 0, 0]
    }

    /// The header as it is passed on with a packet of `bytes`, if a driver that negotiated what
    /// `has` says may send it (section 5.1.6.2). Flags that are not for the device are ignored.
    pub(super) fn checked(self, bytes: usize, has: impl Fn(u32) -> bool) -> Option<Self> {
        let needs_checksum = u32::from(self.flags) & VIRTIO_NET_HDR_F_NEEDS_CSUM != 0;
        let checksum_end = usize::from(self.checksum_start) + usize::from(self.checksum_offset) + 2;
        if needs_checksum && (!has(VIRTIO_NET_F_CSUM) || checksum_end > bytes) {
            return None;
        }
        let ecn = u32::from(self.gso_type) & VIRTIO_NET_HDR_GSO_ECN != 0;
        let (feature, may_have_ecn) = match u32::from(self.gso_type) & !VIRTIO_NET_HDR_GSO_ECN {
            VIRTIO_NET_HDR_GSO_NONE => (None, false),
            VIRTIO_NET_HDR_GSO_TCPV4 => (Some(VIRTIO_NET_F_HOST_TSO4), true),
            VIRTIO_NET_HDR_GSO_TCPV6 => (Some(VIRTIO_NET_F_HOST_TSO6), true),
            VIRTIO_NET_HDR_GSO_UDP_L4 => (Some(VIRTIO_NET_F_HOST_USO), false),
            _ => return None,
        };
        if ecn && !(may_have_ecn && has(VIRTIO_NET_F_HOST_ECN)) {
            return None;
        }
        let segments = feature.is_some();
        let is_allowed = feature.is_none_or(has);
        let makes_sense = needs_checksum && self.gso_bytes > 0;
        if segments && !(is_allowed && makes_sense) || usize::from(self.header_bytes) > bytes {
            return None;
        }
        Some(Self {
            flags: self.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM as u8,
            ..self
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: [u8; HEADER_BYTES] = [0; HEADER_BYTES];
    /// TCP over IPv4: checksum from byte 34 at offset 16, segments of 1448 bytes.
    const TSO4: [u8; HEADER_BYTES] = [1, 1, 66, 0, 0xa8, 5, 34, 0, 16, 0, 9, 9];

    fn check(bytes: [u8; HEADER_BYTES], packet: usize, features: &[u32]) -> Option<Vec<u8>> {
        let header = Header::from_bytes(bytes);
        let checked = header.checked(packet, |bit| features.contains(&bit));
        checked.map(|header| header.to_bytes().to_vec())
    }

    #[test]
    fn what_was_negotiated_passes_without_the_number_of_buffers() {
        assert_eq!(check(PLAIN, 14, &[]), Some(PLAIN.to_vec()));
        let passed = check(TSO4, 60_000, &[VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_TSO4]);
        assert_eq!(passed.unwrap(), [&TSO4[..10], &[0, 0]].concat());
    }

    #[test]
    fn flags_that_are_not_for_the_device_are_ignored() {
        let mut flagged = PLAIN;
        flagged[0] = 0xfe;
        assert_eq!(check(flagged, 14, &[]), Some(PLAIN.to_vec()));
    }

    #[test]
    fn what_was_not_negotiated_does_not_pass() {
        assert_eq!(check(TSO4, 60_000, &[VIRTIO_NET_F_CSUM]), None);
        assert_eq!(check(TSO4, 60_000, &[VIRTIO_NET_F_HOST_TSO4]), None);
        let mut checksum = TSO4;
        checksum[1] = 0;
        assert!(check(checksum, 100, &[VIRTIO_NET_F_CSUM]).is_some());
        assert_eq!(check(checksum, 100, &[]), None);
        let mut ecn = TSO4;
        ecn[1] |= 0x80;
        let without = [VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_TSO4];
        assert_eq!(check(ecn, 60_000, &without), None);
        let with = [without[0], without[1], VIRTIO_NET_F_HOST_ECN];
        assert!(check(ecn, 60_000, &with).is_some());
    }

    #[test]
    fn what_points_past_the_packet_or_segments_by_nothing_does_not_pass() {
        let features = [VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_TSO4];
        assert_eq!(check(TSO4, 65, &features), None, "its header is longer");
        assert_eq!(check(TSO4, 51, &features), None, "its checksum is outside");
        let broken: [(usize, u8); 4] = [(0, 0), (1, 3), (1, 0x7f), (7, 0xff)];
        for (byte, value) in broken {
            let mut header = TSO4;
            header[byte] = value;
            assert_eq!(check(header, 60_000, &features), None, "{byte}");
        }
        let mut header = TSO4;
        (header[4], header[5]) = (0, 0);
        assert_eq!(check(header, 60_000, &features), None);
    }
}
