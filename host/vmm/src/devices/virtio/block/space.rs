//! The configuration space (virtio 1.2, section 5.2.4) and what it says about requests.

/// Bytes of a sector, the unit of all that the driver asks for.
pub(super) const SECTOR_BYTES: u64 = 512;
/// Most buffers of data in a request: a ring of 256 without room for header and status.
pub(super) const MAX_SEGMENTS: u32 = 254;
/// Most bytes in one of them.
const MAX_SEGMENT_BYTES: u32 = 64 << 10;
/// Most bytes of a request's data.
pub(super) const MAX_DATA_BYTES: u32 = MAX_SEGMENTS * MAX_SEGMENT_BYTES;
/// Most bytes that one discard or write-zeroes request is about.
pub(super) const MAX_ERASE_BYTES: u64 = 1 << 30;
/// Disks are laid out for blocks of 4 KiB.
const PHYSICAL_BLOCK_EXPONENT: u8 = 3;
/// The same in sectors.
const PHYSICAL_BLOCK_SECTORS: u16 = 1 << PHYSICAL_BLOCK_EXPONENT;
/// Where `writeback` is.
pub(super) const WRITEBACK: u64 = 32;
/// Bytes up to the last field that one of our features has.
const BYTES: usize = 60;

/// The configuration space of a disk of `capacity_bytes`.
pub(super) fn space(capacity_bytes: u64, writeback: bool) -> [u8; BYTES] {
    let mut space = [0; BYTES];
    let mut put = |at: usize, bytes: &[u8]| {
        for (to, from) in space.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    };
    let erase_sectors = (MAX_ERASE_BYTES / SECTOR_BYTES) as u32;
    put(0, &(capacity_bytes / SECTOR_BYTES).to_le_bytes());
    put(8, &MAX_SEGMENT_BYTES.to_le_bytes());
    put(12, &MAX_SEGMENTS.to_le_bytes());
    put(20, &(SECTOR_BYTES as u32).to_le_bytes());
    put(24, &[PHYSICAL_BLOCK_EXPONENT]);
    put(26, &PHYSICAL_BLOCK_SECTORS.to_le_bytes());
    put(WRITEBACK as usize, &[writeback.into()]);
    put(34, &1_u16.to_le_bytes());
    put(36, &erase_sectors.to_le_bytes());
    put(40, &1_u32.to_le_bytes());
    put(44, &u32::from(PHYSICAL_BLOCK_SECTORS).to_le_bytes());
    put(48, &erase_sectors.to_le_bytes());
    put(52, &1_u32.to_le_bytes());
    put(56, &[1]);
    space
}
