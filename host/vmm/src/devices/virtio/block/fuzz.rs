//! A driver of the device for fuzz targets, and its disk in memory.

use std::fs::File;
use std::num::NonZeroU64;
use std::sync::Arc;

use arbitrary::{Arbitrary, Result, Unstructured};
use rustix::fs::{MemfdFlags, memfd_create};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_OK, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID,
    VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};

use super::{BaseImage, BaseName, Block, DiskConfig, DiskFormat, IoEngine, create_qcow2};
use crate::devices::virtio::fuzz::{Length, Padded, Part, Shape, Subject};
use crate::devices::virtio::test_driver::{Buffer, Driver};
use crate::devices::virtio::{LimitControl, RateLimit, RateLimits};

/// Bytes of the disk.
const BYTES: u64 = 1 << 20;

/// The disk and its files.
pub(crate) struct Bench {
    file: File,
    base: Option<File>,
    kind: Kind,
    read_only: bool,
    limits: Option<Arc<LimitControl>>,
}

/// How the disk is stored and reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ring,
    Thread,
    Qcow2,
    Overlay,
}

#[derive(Debug)]
pub(crate) struct Config {
    kind: Kind,
    read_only: bool,
}

impl<'a> Arbitrary<'a> for Config {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Self {
            kind: match u.int_in_range(0..=7)? {
                0..=2 => Kind::Ring,
                3..=5 => Kind::Thread,
                6 => Kind::Qcow2,
                _ => Kind::Overlay,
            },
            read_only: u.ratio(1, 8)?,
        })
    }
}

/// A request as a driver makes it, each part of which may be anything.
#[derive(Debug)]
pub(crate) struct Request {
    kind: u32,
    sector: u64,
    /// Behind the header.
    data: Vec<u8>,
    /// Before the status.
    room: u32,
    has_status: bool,
}

impl<'a> Arbitrary<'a> for Request {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        const KINDS: [u32; 6] = [
            VIRTIO_BLK_T_IN,
            VIRTIO_BLK_T_OUT,
            VIRTIO_BLK_T_FLUSH,
            VIRTIO_BLK_T_DISCARD,
            VIRTIO_BLK_T_WRITE_ZEROES,
            VIRTIO_BLK_T_GET_ID,
        ];
        let kind = match u.ratio(15, 16)? {
            true => *u.choose(&KINDS)?,
            false => u.arbitrary()?,
        };
        let sector = match u.int_in_range(0..=7)? {
            0 => u.arbitrary()?,
            1 => BYTES / 512 - u64::from(u.arbitrary::<u8>()? % 4),
            _ => u.arbitrary::<u8>()?.into(),
        };
        let sectors = u32::from(u.arbitrary::<u8>()? % 16);
        let exact = u.ratio(7, 8)?;
        let (data, room) = match (kind, exact) {
            (VIRTIO_BLK_T_IN, true) => (Vec::new(), 512 * sectors),
            (VIRTIO_BLK_T_GET_ID, true) => (Vec::new(), 20),
            (VIRTIO_BLK_T_OUT, true) => (vec![u.arbitrary()?; 512 * sectors as usize], 0),
            (VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES, true) => {
                let flags = u32::from(u.arbitrary::<u8>()? % 4);
                let range = [sector.to_le_bytes(), pair(sectors, flags)];
                (range.concat(), 0)
            }
            (_, true) => (Vec::new(), 0),
            (_, false) => (u.arbitrary::<Padded>()?.0, u.arbitrary::<Length>()?.0),
        };
        Ok(Self {
            kind,
            sector,
            data,
            room,
            has_status: u.ratio(31, 32)?,
        })
    }
}

fn pair(low: u32, high: u32) -> [u8; 8] {
    (u64::from(high) << 32 | u64::from(low)).to_le_bytes()
}

/// The host changes the limits: bytes a second and at once.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub(crate) struct Host {
    per_second: Option<NonZeroU64>,
    burst: u32,
    operations: bool,
}

fn memory_file() -> File {
    let flags = MemfdFlags::CLOEXEC;
    memfd_create("disk", flags).unwrap().into()
}

impl Subject for Bench {
    type Config = Config;
    type Request = Request;
    type Host = Host;
    type Device = Block;

    fn new(config: &Config) -> Self {
        let (file, mut base) = (memory_file(), None);
        match config.kind {
            Kind::Ring | Kind::Thread => file.set_len(BYTES).unwrap(),
            Kind::Qcow2 => create_qcow2(file.try_clone().unwrap(), BYTES, None).unwrap(),
            Kind::Overlay => {
                let below = memory_file();
                below.set_len(BYTES).unwrap();
                base = Some(below);
                let name = BaseName {
                    path: "/below",
                    format: DiskFormat::Raw,
                };
                create_qcow2(file.try_clone().unwrap(), BYTES, Some(name)).unwrap();
            }
        }
        Self {
            file,
            base,
            kind: config.kind,
            read_only: config.read_only,
            limits: None,
        }
    }

    fn device(&mut self) -> Block {
        let (format, engine) = match self.kind {
            // Where a sandbox has no io_uring, a thread.
            Kind::Ring => (DiskFormat::Raw, IoEngine::Auto),
            Kind::Thread => (DiskFormat::Raw, IoEngine::Thread),
            Kind::Qcow2 | Kind::Overlay => (DiskFormat::Qcow2, IoEngine::Auto),
        };
        let base = self.base.as_ref().map(|file| BaseImage {
            file: file.try_clone().unwrap(),
            format: DiskFormat::Raw,
        });
        let block = Block::new(DiskConfig {
            id: "fuzz".to_owned(),
            file: self.file.try_clone().unwrap(),
            format,
            base,
            read_only: self.read_only,
            engine,
            limits: RateLimits::default(),
        });
        let block = block.unwrap();
        self.limits = Some(block.limits());
        block
    }

    fn shape(&self, request: &Request) -> Shape {
        let mut header = pair(request.kind, 0).to_vec();
        header.extend(request.sector.to_le_bytes());
        let mut parts = vec![Part::Read(header)];
        if !request.data.is_empty() {
            parts.push(Part::Read(request.data.clone()));
        }
        if request.room > 0 {
            parts.push(Part::Write(request.room));
        }
        if request.has_status {
            parts.push(Part::Write(1));
        }
        Shape { queue: 0, parts }
    }

    fn host(&mut self, action: &Host) {
        let limit = action.per_second.map(|per_second| RateLimit {
            per_second,
            burst: action.burst.into(),
        });
        let (bytes, operations) = match action.operations {
            true => (None, limit),
            false => (limit, None),
        };
        for limits in self.limits.iter() {
            limits.set_limits(RateLimits { bytes, operations });
        }
    }

    fn works(&mut self, driver: &mut Driver) {
        for limits in self.limits.iter() {
            limits.set_limits(RateLimits::default());
        }
        let data = [0x5a; 512];
        if !self.read_only {
            let header = header(VIRTIO_BLK_T_OUT, 3);
            let request = [Buffer::Read(&header), Buffer::Read(&data), Buffer::Write(1)];
            assert_eq!(answer(driver, &request), [VIRTIO_BLK_S_OK as u8]);
        }
        let header = header(VIRTIO_BLK_T_IN, 3);
        let request = [Buffer::Read(&header), Buffer::Write(512), Buffer::Write(1)];
        let answer = answer(driver, &request);
        assert_eq!(answer.last(), Some(&(VIRTIO_BLK_S_OK as u8)));
        if !self.read_only {
            assert_eq!(&answer[..512], data);
        }
    }
}

fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut header = [0; 16];
    header[..8].copy_from_slice(&pair(kind, 0));
    header[8..].copy_from_slice(&sector.to_le_bytes());
    header
}

/// Sends a request and waits for what the device writes.
fn answer(driver: &mut Driver, request: &[Buffer<'_>]) -> Vec<u8> {
    let request = driver.send(0, request);
    let mut used = Vec::new();
    driver.run_until("the disk answers", |driver| {
        used.extend(driver.used(0));
        !used.is_empty()
    });
    driver.received(&request)
}
