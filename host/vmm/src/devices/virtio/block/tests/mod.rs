//! Disks of every kind, used by a driver through their registers.

mod crash;
mod durability;
mod erase;
mod files;
mod hostile;
mod limits;
mod qcow2;
mod requests;

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use tempfile::TempDir;
use virtio_bindings::virtio_blk::*;

use super::{BaseImage, BaseName, Block, DiskConfig, DiskFormat, IoEngine, create_qcow2};
use crate::devices::virtio::RateLimits;
use crate::devices::virtio::test_driver::{Buffer, Driver, Request};

/// Bytes of the tests' disks.
const BYTES: u64 = 4 << 20;
const OK: u8 = VIRTIO_BLK_S_OK as u8;
const IO_ERROR: u8 = VIRTIO_BLK_S_IOERR as u8;
const UNSUPPORTED: u8 = VIRTIO_BLK_S_UNSUPP as u8;
/// All of the device's features.
const ALL: u64 = u64::MAX;

/// Every way in which a disk is stored and reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    RawRing,
    RawThread,
    Qcow2,
    OverRaw,
    OverQcow2,
}

const KINDS: [Kind; 5] = [
    Kind::RawRing,
    Kind::RawThread,
    Kind::Qcow2,
    Kind::OverRaw,
    Kind::OverQcow2,
];

fn open(path: &Path, write: bool) -> File {
    let mut options = File::options();
    options.read(true).write(write).open(path).unwrap()
}

fn create(path: &Path) -> File {
    let mut options = File::options();
    let options = options.read(true).write(true).create(true).truncate(true);
    options.open(path).unwrap()
}

/// A raw image of `bytes` in which every sector begins with its number.
fn numbered(path: &Path, bytes: u64) {
    let file = create(path);
    file.set_len(bytes).unwrap();
    for sector in 0..bytes / 512 {
        file.write_all_at(&sector.to_le_bytes(), sector * 512)
            .unwrap();
    }
}

fn config(file: File, format: DiskFormat) -> DiskConfig {
    DiskConfig {
        id: "disk-1".to_owned(),
        file,
        format,
        base: None,
        read_only: false,
        engine: IoEngine::Auto,
        limits: RateLimits::default(),
    }
}

/// An overlay over `base` in `folder`.
fn overlay(folder: &Path, name: &str, base: &Path, format: DiskFormat) -> DiskConfig {
    let path = folder.join(name);
    if !path.exists() {
        let name = BaseName {
            path: base.to_str().unwrap(),
            format,
        };
        create_qcow2(create(&path), BYTES, Some(name)).unwrap();
    }
    DiskConfig {
        base: Some(BaseImage {
            file: open(base, false),
            format,
        }),
        ..config(open(&path, true), DiskFormat::Qcow2)
    }
}

/// A disk of this kind in `folder`; the same one the next time. It is of zeroes, or of numbered
/// sectors if it has a base.
fn disk(kind: Kind, folder: &Path) -> DiskConfig {
    let path = folder.join("disk");
    let base = folder.join("base");
    match kind {
        Kind::RawRing | Kind::RawThread => {
            if !path.exists() {
                create(&path).set_len(BYTES).unwrap();
            }
            let engine = match kind {
                Kind::RawRing => IoEngine::IoUring,
                _ => IoEngine::Thread,
            };
            DiskConfig {
                engine,
                ..config(open(&path, true), DiskFormat::Raw)
            }
        }
        Kind::Qcow2 => {
            if !path.exists() {
                create_qcow2(create(&path), BYTES, None).unwrap();
            }
            config(open(&path, true), DiskFormat::Qcow2)
        }
        Kind::OverRaw => {
            if !base.exists() {
                numbered(&base, BYTES);
            }
            overlay(folder, "disk", &base, DiskFormat::Raw)
        }
        Kind::OverQcow2 => {
            if !base.exists() {
                create_qcow2(create(&base), BYTES, None).unwrap();
                let disk = Block::new(config(open(&base, true), DiskFormat::Qcow2)).unwrap();
                let mut driver = ready(disk);
                for at in (0..BYTES / 512).step_by(128) {
                    let data: Vec<_> = (at..at + 128).flat_map(numbered_sector).collect();
                    assert_eq!(write(&mut driver, at, &data), OK);
                }
            }
            overlay(folder, "disk", &base, DiskFormat::Qcow2)
        }
    }
}

fn numbered_sector(sector: u64) -> [u8; 512] {
    let mut data = [0; 512];
    data[..8].copy_from_slice(&sector.to_le_bytes());
    data
}

/// Runs a test on a new disk of each kind.
fn on_each_kind(test: impl Fn(Kind, &mut Driver)) {
    for kind in KINDS {
        let folder = TempDir::new().unwrap();
        let mut driver = ready(Block::new(disk(kind, folder.path())).unwrap());
        test(kind, &mut driver);
        assert!(!driver.is_broken(), "{kind:?}: {:?}", driver.counters());
    }
}

/// A driver that took all features.
fn ready(block: Block) -> Driver {
    let mut driver = Driver::new(block);
    let offered = driver.offered();
    driver.negotiate(offered & ALL);
    driver
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    let mut header = kind.to_le_bytes().to_vec();
    // Reserved, and to be ignored.
    header.extend([0xee; 4]);
    header.extend(sector.to_le_bytes());
    header
}

/// Waits until all of `requests` came back; the number of bytes that each has written.
fn wait(driver: &mut Driver, requests: &[&Request]) -> Vec<u32> {
    let mut written = vec![None; requests.len()];
    driver.run_until("the disk answers", |driver| {
        for (head, bytes) in driver.used(0) {
            let at = requests.iter().position(|request| request.head == head);
            let place = &mut written[at.expect("an answer to what was asked")];
            assert_eq!(*place, None, "a second answer");
            *place = Some(bytes);
        }
        assert!(!driver.is_broken(), "{:?}", driver.counters());
        written.iter().all(Option::is_some)
    });
    written.into_iter().flatten().collect()
}

/// Sends a request and waits; the status and the data that came back.
fn ask(driver: &mut Driver, buffers: &[Buffer<'_>]) -> (u8, Vec<u8>) {
    let request = driver.send(0, buffers);
    let [written] = wait(driver, &[&request])[..] else {
        unreachable!()
    };
    let mut data = driver.received(&request);
    assert_eq!(written as usize, data.len(), "the status is the last byte");
    (data.pop().unwrap(), data)
}

fn read(driver: &mut Driver, sector: u64, bytes: u32) -> Vec<u8> {
    let header = header(VIRTIO_BLK_T_IN, sector);
    let buffers = [
        Buffer::Read(&header),
        Buffer::Write(bytes),
        Buffer::Write(1),
    ];
    let (status, data) = ask(driver, &buffers);
    assert_eq!(status, OK);
    data
}

fn write(driver: &mut Driver, sector: u64, data: &[u8]) -> u8 {
    let header = header(VIRTIO_BLK_T_OUT, sector);
    let buffers = [Buffer::Read(&header), Buffer::Read(data), Buffer::Write(1)];
    ask(driver, &buffers).0
}

fn flush(driver: &mut Driver) -> u8 {
    let header = header(VIRTIO_BLK_T_FLUSH, 0);
    ask(driver, &[Buffer::Read(&header), Buffer::Write(1)]).0
}

/// Discards or zeroes sectors.
fn erase(driver: &mut Driver, kind: u32, range: (u64, u32), flags: u32) -> u8 {
    let header = header(kind, 0);
    let segment = segment(range, flags);
    let buffers = [
        Buffer::Read(&header),
        Buffer::Read(&segment),
        Buffer::Write(1),
    ];
    ask(driver, &buffers).0
}

fn segment((sector, sectors): (u64, u32), flags: u32) -> Vec<u8> {
    let mut segment = sector.to_le_bytes().to_vec();
    segment.extend(sectors.to_le_bytes());
    segment.extend(flags.to_le_bytes());
    segment
}

/// Bytes that differ from place to place.
fn pattern(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..bytes).map(|_| next()).collect()
}
