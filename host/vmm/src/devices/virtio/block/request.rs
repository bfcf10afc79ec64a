//! What a driver asks for (virtio 1.2, section 5.2.6), every field checked.
//!
//! A request is a header of 16 bytes, data, and at the very end a byte for the status. How these
//! are spread over descriptors is the driver's choice.

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP,
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};
use vm_memory::{Le32, Le64};

use super::backend::{ByteRange, Operation};
use super::space::{MAX_ERASE_BYTES, SECTOR_BYTES};
use crate::devices::virtio::{Chain, DeviceError, Reader, ShortBuffer};

/// Bytes of the header.
pub(super) const HEADER_BYTES: u32 = 16;
/// Bytes of what a discard or write-zeroes request is about.
const ERASE_BYTES: u64 = 16;
/// Bytes of the status.
const STATUS_BYTES: u32 = 1;
/// Bytes of a disk's id.
pub(super) const ID_BYTES: usize = VIRTIO_BLK_ID_BYTES as usize;

/// The header, but for a field that is reserved.
struct Header {
    kind: u32,
    sector: u64,
}

/// What a discard or write-zeroes request is about.
struct Erase {
    sector: u64,
    sectors: u32,
    flags: u32,
}

impl Header {
    fn read(reader: &mut Reader<'_>) -> Result<Self, ShortBuffer> {
        let (kind, _reserved, sector) = (
            reader.read_obj::<Le32>()?,
            reader.read_obj::<Le32>()?,
            reader.read_obj::<Le64>()?,
        );
        Ok(Self {
            kind: kind.to_native(),
            sector: sector.to_native(),
        })
    }
}

impl Erase {
    fn read(reader: &mut Reader<'_>) -> Result<Self, ShortBuffer> {
        let (sector, sectors, flags) = (
            reader.read_obj::<Le64>()?,
            reader.read_obj::<Le32>()?,
            reader.read_obj::<Le32>()?,
        );
        Ok(Self {
            sector: sector.to_native(),
            sectors: sectors.to_native(),
            flags: flags.to_native(),
        })
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    Ok = VIRTIO_BLK_S_OK as u8,
    IoError = VIRTIO_BLK_S_IOERR as u8,
    Unsupported = VIRTIO_BLK_S_UNSUPP as u8,
}

/// What there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// For the backend.
    Io(Operation),
    /// The disk's id is asked for.
    Id,
    /// Nothing but to say so.
    Refused(Status),
}

/// What a request is checked against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Disk {
    pub(super) capacity_bytes: u64,
    pub(super) read_only: bool,
}

impl Request {
    /// Reads and checks a request.
    ///
    /// # Errors
    /// There is no room for the status, so that it can't be answered.
    pub(super) fn parse(chain: &Chain, disk: Disk) -> Result<Self, DeviceError> {
        let Some(room) = chain.writable_bytes().checked_sub(STATUS_BYTES) else {
            return Err(DeviceError::Protocol("a disk request without a status"));
        };
        let mut reader = chain.reader();
        let Ok(header) = Header::read(&mut reader) else {
            return Ok(Self::Refused(Status::IoError));
        };
        let sent = reader.remaining() as u64;
        let request = match header.kind {
            VIRTIO_BLK_T_IN => disk
                .data(header.sector, room.into())
                .map(|range| Self::Io(Operation::Read(range))),
            VIRTIO_BLK_T_OUT if disk.read_only => Err(Status::IoError),
            VIRTIO_BLK_T_OUT => disk
                .data(header.sector, sent)
                .map(|range| Self::Io(Operation::Write(range))),
            VIRTIO_BLK_T_FLUSH => Ok(Self::Io(Operation::Flush)),
            VIRTIO_BLK_T_GET_ID if room as usize == ID_BYTES => Ok(Self::Id),
            VIRTIO_BLK_T_GET_ID => Err(Status::IoError),
            // Not offered for a disk that can't be written.
            VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES if disk.read_only => {
                Err(Status::Unsupported)
            }
            // One range, as the configuration space says.
            kind @ (VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES) => {
                match (sent == ERASE_BYTES, Erase::read(&mut reader)) {
                    (true, Ok(erase)) => disk.erase(kind, &erase).map(Self::Io),
                    _ => Err(Status::IoError),
                }
            }
            _ => Err(Status::Unsupported),
        };
        Ok(request.unwrap_or_else(Self::Refused))
    }

    /// Bytes that are copied to or from the disk.
    pub(super) fn data_bytes(self) -> u64 {
        match self {
            Self::Io(operation) => operation.data_bytes(),
            _ => 0,
        }
    }
}

impl Disk {
    /// The range of a read or write.
    fn data(self, sector: u64, bytes: u64) -> Result<ByteRange, Status> {
        match bytes.is_multiple_of(SECTOR_BYTES) {
            true if bytes > 0 => self.range(sector, bytes),
            _ => Err(Status::IoError),
        }
    }

    fn erase(self, kind: u32, erase: &Erase) -> Result<Operation, Status> {
        let flags = erase.flags;
        let unmap = flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0;
        let is_discard = kind == VIRTIO_BLK_T_DISCARD;
        if flags & !VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0 || (is_discard && unmap) {
            return Err(Status::Unsupported);
        }
        let bytes = u64::from(erase.sectors) * SECTOR_BYTES;
        if bytes == 0 || bytes > MAX_ERASE_BYTES {
            return Err(Status::IoError);
        }
        let range = self.range(erase.sector, bytes)?;
        Ok(match is_discard {
            true => Operation::Discard(range),
            false => Operation::WriteZeroes { range, unmap },
        })
    }

    fn range(self, sector: u64, bytes: u64) -> Result<ByteRange, Status> {
        let offset = sector.checked_mul(SECTOR_BYTES);
        let offset = offset.ok_or(Status::IoError)?;
        match offset.checked_add(bytes) {
            Some(end) if end <= self.capacity_bytes => Ok(ByteRange { offset, bytes }),
            _ => Err(Status::IoError),
        }
    }
}
