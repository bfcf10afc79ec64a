//! Discarding and zeroing.

use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{FallocateFlags, fallocate};

use super::*;

/// What a raw disk in a file of `folder`'s file system answers to a request that needs this.
fn expected(kind: Kind, folder: &Path, flags: FallocateFlags) -> u8 {
    if !matches!(kind, Kind::RawRing | Kind::RawThread) {
        return OK;
    }
    let probe = create(&folder.join("probe"));
    probe.set_len(8192).unwrap();
    match fallocate(&probe, flags | FallocateFlags::KEEP_SIZE, 0, 4096) {
        Ok(()) => OK,
        Err(_) => UNSUPPORTED,
    }
}

#[test]
fn what_is_zeroed_reads_as_zeroes_and_its_neighbours_are_as_they_were() {
    for kind in KINDS {
        for flags in [0, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP] {
            // Aligned to clusters, to pages, to nothing; and a whole disk.
            for (sector, sectors) in [(128, 256), (8, 16), (3, 5), (0, BYTES as u32 / 512)] {
                let folder = TempDir::new().unwrap();
                let how = match flags {
                    0 => FallocateFlags::ZERO_RANGE,
                    _ => FallocateFlags::PUNCH_HOLE,
                };
                let expected = expected(kind, folder.path(), how);
                let mut driver = ready(Block::new(disk(kind, folder.path())).unwrap());
                let before = pattern(sector, 1 << 20);
                assert_eq!(write(&mut driver, 0, &before), OK);
                let range = (sector, sectors);
                let status = erase(&mut driver, VIRTIO_BLK_T_WRITE_ZEROES, range, flags);
                assert_eq!(status, expected, "{kind:?}");
                let mut after = before;
                if status == OK {
                    let end = after.len().min((sector as usize + sectors as usize) * 512);
                    after[sector as usize * 512..end].fill(0);
                    assert_eq!(driver.counter("discards"), 1);
                }
                let same = read(&mut driver, 0, 1 << 20) == after;
                assert!(same, "{kind:?} {range:?} {flags}");
            }
        }
    }
}

#[test]
fn what_is_discarded_takes_no_room_any_more_and_does_not_bring_the_base_back() {
    for kind in KINDS {
        let folder = TempDir::new().unwrap();
        let expected = expected(kind, folder.path(), FallocateFlags::PUNCH_HOLE);
        let mut driver = ready(Block::new(disk(kind, folder.path())).unwrap());
        for at in 0..4 {
            assert_eq!(write(&mut driver, at * 2048, &pattern(at, 1 << 20)), OK);
        }
        assert_eq!(flush(&mut driver), OK);
        let blocks = || {
            std::fs::metadata(folder.path().join("disk"))
                .unwrap()
                .blocks()
        };
        let full = blocks();
        let range = (0, 3 * 2048);
        let status = erase(&mut driver, VIRTIO_BLK_T_DISCARD, range, 0);
        assert_eq!(status, expected, "{kind:?}");
        assert_eq!(flush(&mut driver), OK);
        if status == OK {
            let after = read(&mut driver, 2048, 1 << 20);
            assert!(after.iter().all(|byte| *byte == 0), "{kind:?}");
        }
        if status == OK && matches!(kind, Kind::RawRing | Kind::RawThread) {
            assert!(blocks() <= full - 3 * 2048, "{kind:?}");
        }
        // A qcow2 file at least does not grow when the freed room is used again.
        let used = blocks();
        for at in 0..3 {
            assert_eq!(write(&mut driver, at * 2048, &pattern(at, 1 << 20)), OK);
        }
        assert_eq!(flush(&mut driver), OK);
        assert!(blocks() <= full.max(used), "{kind:?}");
        assert_eq!(read(&mut driver, 3 * 2048, 1 << 20), pattern(3, 1 << 20));
    }
}
