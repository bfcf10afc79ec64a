//! What a guest says about its memory (virtio 1.2, section 5.5.6.4).

use super::GuestStatistics;
use crate::devices::virtio::Chain;

/// A statistic: a tag of 2 and a value of 8 bytes, packed, little-endian.
const STATISTIC_BYTES: usize = 10;
/// Most statistics that are looked at. There are 16 kinds.
const MAX_STATISTICS: usize = 64;

/// Reads what the driver sent; also returns how many are unknown or not looked at.
pub(super) fn read(chain: &Chain) -> (GuestStatistics, u64) {
    let mut reader = chain.reader();
    let mut statistics = GuestStatistics::default();
    let mut unknown = 0;
    for _ in 0..MAX_STATISTICS {
        let mut bytes = [0; STATISTIC_BYTES];
        if reader.read_exact(&mut bytes).is_err() {
            break;
        }
        let [t0, t1, value @ ..] = bytes;
        let tag = u16::from_le_bytes([t0, t1]);
        match place(&mut statistics, tag) {
            Some(place) => *place = Some(u64::from_le_bytes(value)),
            None => unknown += 1,
        }
    }
    unknown += (reader.remaining() / STATISTIC_BYTES) as u64;
    (statistics, unknown)
}

/// Where the statistic with this tag belongs.
fn place(statistics: &mut GuestStatistics, tag: u16) -> Option<&mut Option<u64>> {
    Some(match tag {
        0 => &mut statistics.swap_in_bytes,
        1 => &mut statistics.swap_out_bytes,
        2 => &mut statistics.major_faults,
        3 => &mut statistics.minor_faults,
        4 => &mut statistics.free_bytes,
        5 => &mut statistics.total_bytes,
        6 => &mut statistics.available_bytes,
        7 => &mut statistics.disk_caches_bytes,
        8 => &mut statistics.hugetlb_allocations,
        9 => &mut statistics.hugetlb_failures,
        // From here on, Linux 6.12 (include/uapi/linux/virtio_balloon.h).
        10 => &mut statistics.oom_kills,
        11 => &mut statistics.allocation_stalls,
        12 => &mut statistics.async_scans,
        13 => &mut statistics.direct_scans,
        14 => &mut statistics.async_reclaims,
        15 => &mut statistics.direct_reclaims,
        _ => return None,
    })
}
