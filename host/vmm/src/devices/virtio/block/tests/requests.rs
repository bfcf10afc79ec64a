//! What a driver may ask for.

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes as _, GuestAddress};

use super::*;
use crate::devices::virtio::rng::RngState;
use crate::devices::virtio::test_driver::{HIGH, HIGH_BYTES, NEXT, WRITE};
use crate::devices::virtio::{DeviceState, RestoreError, VirtioDevice as _};

#[test]
fn what_is_written_is_read_back_however_buffers_are_split() {
    on_each_kind(|kind, driver| {
        let data = pattern(1, 8 * 512);
        let head = header(VIRTIO_BLK_T_OUT, 5);
        // The header over three buffers, the last of which holds data too.
        let joined: Vec<_> = head[9..].iter().chain(&data[..100]).copied().collect();
        let buffers = [
            Buffer::Read(&head[..1]),
            Buffer::Read(&head[1..9]),
            Buffer::Read(&joined),
            Buffer::Read(&data[100..101]),
            Buffer::Read(&data[101..]),
            Buffer::Write(1),
        ];
        assert_eq!(ask(driver, &buffers), (OK, vec![]), "{kind:?}");
        assert_eq!(read(driver, 5, 8 * 512), data, "{kind:?}");

        // Data and status in one buffer.
        let head = header(VIRTIO_BLK_T_IN, 5);
        let buffers = [
            Buffer::Read(&head),
            Buffer::Write(3),
            Buffer::Write(509 + 7 * 512 + 1),
        ];
        assert_eq!(ask(driver, &buffers), (OK, data), "{kind:?}");
    });
}

#[test]
fn what_was_not_written_is_as_it_was() {
    on_each_kind(|kind, driver| {
        let last = BYTES / 512 - 1;
        assert_eq!(write(driver, last, &[7; 512]), OK, "{kind:?}");
        assert_eq!(write(driver, 1, &[8; 512]), OK, "{kind:?}");
        let expected: Vec<u8> = match kind {
            Kind::OverRaw | Kind::OverQcow2 => {
                [numbered_sector(0), [8; 512], numbered_sector(2)].concat()
            }
            _ => [[0; 512], [8; 512], [0; 512]].concat(),
        };
        assert_eq!(read(driver, 0, 3 * 512), expected, "{kind:?}");
        assert_eq!(read(driver, last, 512), [7; 512], "{kind:?}");
    });
}

#[test]
fn many_requests_at_once_are_all_answered_with_their_own_data() {
    on_each_kind(|kind, driver| {
        for at in (0..64).rev() {
            assert_eq!(write(driver, at * 8, &pattern(at, 4096)), OK, "{kind:?}");
        }
        let requests: Vec<_> = (0..64)
            .map(|at| {
                let header = header(VIRTIO_BLK_T_IN, at * 8);
                driver.add(
                    0,
                    &[Buffer::Read(&header), Buffer::Write(4096), Buffer::Write(1)],
                )
            })
            .collect();
        driver.notify(0);
        wait(driver, &requests.iter().collect::<Vec<_>>());
        for (at, request) in (0..).zip(&requests) {
            let mut data = driver.received(request);
            assert_eq!(data.pop(), Some(OK));
            assert_eq!(data, pattern(at, 4096), "{kind:?}");
        }
        assert_eq!(driver.counter("reads"), 64);
        assert_eq!(driver.counter("read_bytes"), 64 * 4096);
        assert_eq!(driver.counter("writes"), 64);
        assert_eq!(driver.counter("written_bytes"), 64 * 4096);
        assert_eq!(driver.counter("errors"), 0);
    });
}

#[test]
fn more_bytes_than_may_be_under_way_are_read_in_several_goes() {
    on_each_kind(|kind, driver| {
        let (header_at, status_at) = (0x20_0000, 0x20_1000);
        let header = header(VIRTIO_BLK_T_IN, 0);
        let written = driver.memory.write_slice(&header, GuestAddress(header_at));
        written.unwrap();
        let (memory, ring) = driver.ring(0);
        // 45 MiB, all into the same memory: nobody looks at it.
        let requests: Vec<_> = (0..45)
            .map(|n| {
                let head = n * 3;
                for (at, address, bytes, flags) in [
                    (head, header_at, 16, NEXT),
                    (head + 1, HIGH, HIGH_BYTES as u32, NEXT | WRITE),
                    (head + 2, status_at + u64::from(n), 1, WRITE),
                ] {
                    let descriptor = Descriptor::new(address, bytes, flags, at + 1);
                    ring.set_descriptor(memory, at, descriptor);
                }
                ring.make_available(memory, head);
                let writable = Vec::new();
                Request { head, writable }
            })
            .collect();
        driver.notify(0);
        wait(driver, &requests.iter().collect::<Vec<_>>());
        assert_eq!(driver.bytes(status_at, 45), [OK; 45], "{kind:?}");
        assert_eq!(driver.counter("reads"), 45, "{kind:?}");
        assert_eq!(driver.counter("read_bytes"), 45 << 20, "{kind:?}");
    });
}

#[test]
fn the_disk_tells_its_id() {
    on_each_kind(|_, driver| {
        let header = header(VIRTIO_BLK_T_GET_ID, 0);
        let buffers = [Buffer::Read(&header), Buffer::Write(20), Buffer::Write(1)];
        let expected = b"disk-1\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
        assert_eq!(ask(driver, &buffers), (OK, expected));
    });
}

#[test]
fn the_configuration_space_has_the_size_and_the_limits_at_any_offset_and_width() {
    on_each_kind(|_, driver| {
        let number = |offset, bytes| {
            let read = driver.config(offset, bytes);
            read.iter()
                .rev()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        };
        assert_eq!(number(0, 8), BYTES / 512);
        assert_eq!(number(8, 4), 64 << 10, "size_max");
        assert_eq!(number(12, 4), 254, "seg_max");
        assert_eq!(number(20, 4), 512, "blk_size");
        assert_eq!(number(24, 1), 3, "physical_block_exp");
        assert_eq!(number(26, 2), 8, "min_io_size");
        assert_eq!(number(34, 2), 1, "num_queues");
        assert_eq!(number(36, 4), (1 << 30) / 512, "max_discard_sectors");
        assert_eq!(number(40, 4), 1, "max_discard_seg");
        assert_eq!(number(44, 4), 8, "discard_sector_alignment");
        assert_eq!(number(48, 4), (1 << 30) / 512, "max_write_zeroes_sectors");
        assert_eq!(number(52, 4), 1, "max_write_zeroes_seg");
        assert_eq!(number(56, 1), 1, "write_zeroes_may_unmap");
        assert_eq!(number(1, 4), (BYTES / 512) >> 8);
        assert_eq!(number(60, 8), 0);
        for offset in 0..70 {
            for bytes in 1..=8 {
                driver.config(offset, bytes);
                driver.write_config(offset, &vec![0xff; bytes]);
            }
        }
        assert_eq!(number(0, 8), BYTES / 512, "only writeback can be written");
    });
}

#[test]
fn a_read_only_disk_refuses_writes_and_says_so_beforehand() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("image");
    numbered(&path, BYTES);
    let read_only = DiskConfig {
        read_only: true,
        ..config(open(&path, false), DiskFormat::Raw)
    };
    let mut driver = ready(Block::new(read_only).unwrap());
    let offered = driver.offered();
    assert_ne!(offered & 1 << VIRTIO_BLK_F_RO, 0);
    for feature in [
        VIRTIO_BLK_F_FLUSH,
        VIRTIO_BLK_F_CONFIG_WCE,
        VIRTIO_BLK_F_DISCARD,
        VIRTIO_BLK_F_WRITE_ZEROES,
    ] {
        assert_eq!(offered & 1 << feature, 0, "{feature}");
    }
    assert_eq!(write(&mut driver, 0, &[1; 512]), IO_ERROR);
    for kind in [VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES] {
        assert_eq!(erase(&mut driver, kind, (0, 8), 0), UNSUPPORTED);
    }
    assert_eq!(flush(&mut driver), OK);
    assert_eq!(read(&mut driver, 3, 512), numbered_sector(3));
    assert_eq!(driver.counter("errors"), 3);
}

#[test]
fn a_disk_goes_on_where_it_was_after_it_was_saved_and_restored() {
    for kind in KINDS {
        let folder = TempDir::new().unwrap();
        let mut driver = ready(Block::new(disk(kind, folder.path())).unwrap());
        driver.write_config(32, &[0]);
        // Some are under way when it pauses, and must be answered; some are not taken yet.
        let mut requests = Vec::new();
        for at in 0..40 {
            let header = header(VIRTIO_BLK_T_OUT, at * 8);
            let data = pattern(at, 4096);
            requests.push(driver.add(
                0,
                &[Buffer::Read(&header), Buffer::Read(&data), Buffer::Write(1)],
            ));
            if at == 30 {
                driver.notify(0);
                driver.turn();
            }
        }
        // The file is locked, so the old device must go first, as its worker would.
        let mut driver = driver.migrate_to(|| Block::new(disk(kind, folder.path())).unwrap());
        wait(&mut driver, &requests.iter().collect::<Vec<_>>());
        for at in 0..40 {
            assert_eq!(
                read(&mut driver, at * 8, 4096),
                pattern(at, 4096),
                "{kind:?}"
            );
        }
        assert_eq!(driver.config(32, 1), [0], "writeback");
    }
}

#[test]
fn a_state_is_not_restored_onto_another_disk() {
    let folder = TempDir::new().unwrap();
    let block = Block::new(disk(Kind::RawRing, folder.path())).unwrap();
    let path = folder.path().join("other");
    create(&path).set_len(BYTES / 2).unwrap();
    let mut other = Block::new(config(open(&path, true), DiskFormat::Raw)).unwrap();
    let state = block.save();
    let before = other.save();
    assert!(matches!(
        other.restore(state, None),
        Err(RestoreError::Invalid(_))
    ));
    let rng = DeviceState::Rng(RngState {});
    assert_eq!(other.restore(rng, None), Err(RestoreError::Kind("block")));
    assert_eq!(other.save(), before);
}
