//! What a driver must not do.

use proptest::prelude::*;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes as _, GuestAddress};

use super::*;
use crate::devices::virtio::test_driver::{NEXT, WRITE};

const SECTORS: u64 = BYTES / 512;

/// The status that a request of these buffers, behind a header, gets.
fn status(driver: &mut Driver, kind: u32, sector: u64, data: &[Buffer<'_>]) -> u8 {
    let header = header(kind, sector);
    let header = [Buffer::Read(&header)];
    ask(driver, &[&header, data, &[Buffer::Write(1)]].concat()).0
}

#[test]
fn ranges_that_are_not_all_on_the_disk_are_refused() {
    on_each_kind(|kind, driver| {
        let data = [9; 1024];
        for sector in [
            SECTORS - 1,
            SECTORS,
            SECTORS + 1,
            1 << 32,
            u64::MAX / 512 - 1,
            u64::MAX / 512,
            u64::MAX / 512 + 1,
            u64::MAX - 1,
            u64::MAX,
        ] {
            let read = status(driver, VIRTIO_BLK_T_IN, sector, &[Buffer::Write(1024)]);
            let written = status(driver, VIRTIO_BLK_T_OUT, sector, &[Buffer::Read(&data)]);
            assert_eq!((read, written), (IO_ERROR, IO_ERROR), "{kind:?} {sector}");
        }
        assert_eq!(write(driver, SECTORS - 2, &data), OK);
        assert_eq!(read(driver, SECTORS - 2, 1024), data);
    });
}

#[test]
fn lengths_that_are_no_whole_number_of_sectors_are_refused() {
    on_each_kind(|kind, driver| {
        for bytes in [1, 511, 513, 1023] {
            let data = vec![9; bytes];
            let read = status(driver, VIRTIO_BLK_T_IN, 0, &[Buffer::Write(bytes as u32)]);
            let written = status(driver, VIRTIO_BLK_T_OUT, 0, &[Buffer::Read(&data)]);
            assert_eq!((read, written), (IO_ERROR, IO_ERROR), "{kind:?} {bytes}");
        }
        for kind in [VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT] {
            assert_eq!(status(driver, kind, 0, &[]), IO_ERROR, "nothing");
            let empty = [Buffer::Write(0)];
            assert_eq!(status(driver, kind, 0, &empty), IO_ERROR, "an empty buffer");
        }
    });
}

#[test]
fn data_in_the_wrong_direction_is_refused() {
    on_each_kind(|kind, driver| {
        let data = [9; 512];
        let read = status(driver, VIRTIO_BLK_T_IN, 0, &[Buffer::Read(&data)]);
        let written = status(driver, VIRTIO_BLK_T_OUT, 0, &[Buffer::Write(512)]);
        assert_eq!((read, written), (IO_ERROR, IO_ERROR), "{kind:?}");
        assert_eq!(
            driver.counter("read_bytes") + driver.counter("written_bytes"),
            0
        );
    });
}

#[test]
fn types_that_there_are_not_are_unsupported() {
    on_each_kind(|kind, driver| {
        let known = [0, 1, 4, 8, 11, 13];
        let unknown = (0..64).filter(|kind| !known.contains(kind));
        for request in unknown.chain([1 << 31, u32::MAX, 1 << 8]) {
            let got = status(driver, request, 0, &[Buffer::Write(512)]);
            assert_eq!(got, UNSUPPORTED, "{kind:?} {request}");
        }
    });
}

#[test]
fn a_buffer_for_the_id_of_another_length_is_refused() {
    on_each_kind(|_, driver| {
        for bytes in [0, 1, 19, 21, 512, 1 << 20] {
            let got = status(driver, VIRTIO_BLK_T_GET_ID, 0, &[Buffer::Write(bytes)]);
            assert_eq!(got, IO_ERROR, "{bytes}");
        }
    });
}

#[test]
fn ranges_to_erase_that_make_no_sense_are_refused() {
    on_each_kind(|disk, driver| {
        assert_eq!(write(driver, 0, &[9; 512]), OK);
        assert_eq!(write(driver, SECTORS - 1, &[9; 512]), OK);
        let ranges = [
            (0, 0),
            (0, SECTORS as u32 + 1),
            (SECTORS - 1, 2),
            (SECTORS, 1),
            (1, u32::MAX),
            (0, u32::MAX),
            (0, (1 << 30) / 512 + 1),
            (u64::MAX / 512, 8),
            (u64::MAX, 1),
            (u64::MAX, u32::MAX),
        ];
        for kind in [VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES] {
            for range in ranges {
                assert_eq!(
                    erase(driver, kind, range, 0),
                    IO_ERROR,
                    "{disk:?} {range:?}"
                );
            }
            for flags in [2, 3, 1 << 31, u32::MAX] {
                let got = erase(driver, kind, (0, 8), flags);
                assert_eq!(got, UNSUPPORTED, "{disk:?} {flags}");
            }
            // Parts of one range, none, two, and many.
            let one = segment((0, 8), 0);
            for bytes in [0, 1, 15, 17, 32, 512] {
                let data: Vec<_> = one.iter().copied().cycle().take(bytes).collect();
                let got = status(driver, kind, 0, &[Buffer::Read(&data)]);
                assert_eq!(got, IO_ERROR, "{disk:?} {bytes}");
            }
        }
        let unmap = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
        let got = erase(driver, VIRTIO_BLK_T_DISCARD, (0, 8), unmap);
        assert_eq!(got, UNSUPPORTED, "{disk:?}");
        assert_eq!(read(driver, 0, 512), [9; 512], "{disk:?}");
        assert_eq!(read(driver, SECTORS - 1, 512), [9; 512], "{disk:?}");
    });
}

#[test]
fn a_header_that_is_too_short_is_refused() {
    on_each_kind(|kind, driver| {
        let header = header(VIRTIO_BLK_T_OUT, 0);
        for bytes in 0..16 {
            let buffers = [Buffer::Read(&header[..bytes]), Buffer::Write(513)];
            assert_eq!(ask(driver, &buffers).0, IO_ERROR, "{kind:?} {bytes}");
        }
        assert_eq!(ask(driver, &[Buffer::Write(1)]).0, IO_ERROR, "{kind:?}");
    });
}

#[test]
fn a_request_without_a_status_or_with_too_many_bytes_breaks_the_disk_until_it_is_reset() {
    for kind in KINDS {
        let folder = TempDir::new().unwrap();
        let mut driver = ready(Block::new(disk(kind, folder.path())).unwrap());
        let header = header(VIRTIO_BLK_T_OUT, 0);
        driver.send(0, &[Buffer::Read(&header), Buffer::Read(&[9; 512])]);
        assert!(driver.is_broken(), "{kind:?}");
        driver.negotiate(ALL & driver.offered());

        // Each descriptor is in memory, and all of it is read over and over.
        let (memory, ring) = driver.ring(0);
        for at in 0..255 {
            let descriptor = Descriptor::new(0, 4 << 20, NEXT | WRITE, at + 1);
            ring.set_descriptor(memory, at, descriptor);
        }
        ring.set_descriptor(memory, 255, Descriptor::new(0, 1, WRITE, 0));
        ring.make_available(memory, 0);
        driver.notify(0);
        driver.run();
        assert!(driver.is_broken(), "{kind:?}");
        driver.negotiate(ALL & driver.offered());
        assert_eq!(write(&mut driver, 0, &[9; 512]), OK, "{kind:?}");
    }
}

#[test]
fn a_reset_ends_what_is_under_way_and_memory_does_not_change_afterwards() {
    for kind in KINDS {
        let folder = TempDir::new().unwrap();
        let mut driver = ready(Block::new(disk(kind, folder.path())).unwrap());
        for at in 0..8 {
            assert_eq!(write(&mut driver, at * 1024, &pattern(at, 512 << 10)), OK);
        }
        for round in 0..20 {
            let requests: Vec<_> = (0..7)
                .map(|at| {
                    let header = header(VIRTIO_BLK_T_IN, at * 1024);
                    let data = Buffer::Write(512 << 10);
                    driver.add(0, &[Buffer::Read(&header), data, Buffer::Write(1)])
                })
                .collect();
            driver.notify(0);
            if round % 2 == 0 {
                driver.turn();
            }
            driver.reset();
            for request in &requests {
                for (address, bytes) in &request.writable {
                    let zeroes = vec![0; *bytes as usize];
                    let written = driver.memory.write_slice(&zeroes, GuestAddress(*address));
                    written.unwrap();
                }
            }
            driver.negotiate(ALL & driver.offered());
            // Something that takes a while, so that what is late could come.
            assert_eq!(read(&mut driver, 0, 512), pattern(0, 512), "{kind:?}");
            for request in &requests[1..] {
                let bytes = driver.received(request);
                assert!(bytes.iter().all(|byte| *byte == 0), "{kind:?}");
            }
        }
    }
}

#[test]
fn a_raw_file_that_became_shorter_gives_errors() {
    for kind in [Kind::RawRing, Kind::RawThread] {
        let folder = TempDir::new().unwrap();
        let mut driver = ready(Block::new(disk(kind, folder.path())).unwrap());
        open(&folder.path().join("disk"), true)
            .set_len(1536)
            .unwrap();
        let got = status(&mut driver, VIRTIO_BLK_T_IN, 0, &[Buffer::Write(4096)]);
        assert_eq!(got, IO_ERROR, "{kind:?}");
        assert_eq!(read(&mut driver, 2, 512), [0; 512], "{kind:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever is asked for is answered with a status, and the disk works afterwards.
    #[test]
    fn any_request_that_can_be_answered_is(requests in prop::collection::vec(request(), 1..40)) {
        let folder = TempDir::new().unwrap();
        for kind in [Kind::RawRing, Kind::OverRaw] {
            let folder = folder.path().join(format!("{kind:?}"));
            std::fs::create_dir(&folder).unwrap();
            let mut driver = ready(Block::new(disk(kind, &folder)).unwrap());
            for (kind, sector, sent, room) in &requests {
                let header = header(*kind, *sector);
                let buffers = [
                    Buffer::Read(&header),
                    Buffer::Read(sent),
                    Buffer::Write(*room),
                    Buffer::Write(1),
                ];
                let (status, _) = ask(&mut driver, &buffers);
                prop_assert!(status <= UNSUPPORTED);
            }
            prop_assert_eq!(write(&mut driver, 0, &[9; 512]), OK);
            prop_assert_eq!(read(&mut driver, 0, 512), [9; 512]);
        }
    }
}

/// Type, sector, what is sent and how much room there is: mostly almost right.
fn request() -> impl Strategy<Value = (u32, u64, Vec<u8>, u32)> {
    let kind = prop_oneof![
        8 => prop::sample::select(vec![0, 1, 4, 8, 11, 13]),
        1 => any::<u32>(),
    ];
    let sector = prop_oneof![8 => 0..SECTORS, 2 => SECTORS - 2..SECTORS + 2, 1 => any::<u64>()];
    let erase = (
        0..SECTORS + 2,
        0..64_u32,
        prop_oneof![0..2_u32, any::<u32>()],
    );
    let sent = prop_oneof![
        (0..5_usize).prop_map(|sectors| vec![7; sectors * 512]),
        erase.prop_map(|(sector, sectors, flags)| segment((sector, sectors), flags)),
        prop::collection::vec(any::<u8>(), 0..40),
    ];
    let room = prop_oneof![(0..5_u32).prop_map(|n| n * 512), 0..40_u32, Just(20_u32)];
    (kind, sector, sent, room)
}
