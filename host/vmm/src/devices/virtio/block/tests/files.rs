//! Which files can be disks.

use std::os::fd::OwnedFd;

use proptest::prelude::*;

use super::super::{DiskError, disk_bytes};
use super::*;

fn refused(config: DiskConfig) -> DiskError {
    match Block::new(config) {
        Ok(_) => panic!("it was accepted"),
        Err(error) => error,
    }
}

#[test]
fn a_file_that_is_written_has_one_user_and_a_base_has_many_that_read() {
    let folder = TempDir::new().unwrap();
    let raw = folder.path().join("raw");
    numbered(&raw, BYTES);
    let writable = || config(open(&raw, true), DiskFormat::Raw);
    let read_only = || DiskConfig {
        read_only: true,
        ..config(open(&raw, false), DiskFormat::Raw)
    };
    let over = |name| overlay(folder.path(), name, &raw, DiskFormat::Raw);

    let writer = Block::new(writable()).unwrap();
    assert!(matches!(refused(writable()), DiskError::InUse));
    assert!(matches!(refused(read_only()), DiskError::InUse));
    assert!(matches!(refused(over("one")), DiskError::InUse));
    drop(writer);

    let first = Block::new(over("one")).unwrap();
    let second = Block::new(over("two")).unwrap();
    let reader = Block::new(read_only()).unwrap();
    assert!(matches!(refused(over("one")), DiskError::InUse));
    assert!(matches!(refused(writable()), DiskError::InUse));
    drop((first, second));
    assert!(matches!(refused(writable()), DiskError::InUse));
    drop(reader);
    Block::new(writable()).unwrap();
}

#[test]
fn a_file_that_is_open_for_too_little_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("raw");
    create(&path).set_len(BYTES).unwrap();
    let with = |options: &mut std::fs::OpenOptions| {
        refused(config(options.open(&path).unwrap(), DiskFormat::Raw))
    };
    for options in [
        File::options().read(true),
        File::options().write(true),
        File::options().read(true).append(true),
    ] {
        assert!(matches!(with(options), DiskError::Access(_)));
    }
    let unreadable = DiskConfig {
        read_only: true,
        ..config(
            File::options().write(true).open(&path).unwrap(),
            DiskFormat::Raw,
        )
    };
    assert!(matches!(refused(unreadable), DiskError::Access("reading")));
}

#[test]
fn what_is_no_disk_is_refused() {
    let folder = TempDir::new().unwrap();
    let directory = DiskConfig {
        read_only: true,
        ..config(File::open(folder.path()).unwrap(), DiskFormat::Raw)
    };
    assert!(matches!(refused(directory), DiskError::Kind));
    let (pipe, _other_end): (OwnedFd, OwnedFd) = rustix::pipe::pipe().unwrap();
    let pipe = DiskConfig {
        read_only: true,
        ..config(pipe.into(), DiskFormat::Raw)
    };
    assert!(matches!(refused(pipe), DiskError::Kind));
    for bytes in [0, 1, 511, 513] {
        let path = folder.path().join(format!("{bytes}"));
        create(&path).set_len(bytes).unwrap();
        let error = refused(config(open(&path, true), DiskFormat::Raw));
        assert!(matches!(error, DiskError::Size(size) if size == bytes));
    }
}

#[test]
fn an_id_that_the_guest_could_not_see_whole_is_refused() {
    let folder = TempDir::new().unwrap();
    for id in [
        "",
        "123456789012345678901",
        "naïve",
        "two words",
        "a\n",
        "\0",
    ] {
        let config = DiskConfig {
            id: id.to_owned(),
            ..disk(Kind::RawThread, folder.path())
        };
        assert!(matches!(refused(config), DiskError::Id(_)), "{id:?}");
    }
}

#[test]
fn a_disk_and_its_base_must_go_together() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    numbered(&path("raw"), BYTES);
    create_qcow2(create(&path("alone")), BYTES, None).unwrap();
    let base = |name: &str, format| {
        Some(BaseImage {
            file: open(&path(name), false),
            format,
        })
    };
    let over = || overlay(folder.path(), "over", &path("raw"), DiskFormat::Raw);

    let missing = DiskConfig {
        base: None,
        ..over()
    };
    assert!(matches!(refused(missing), DiskError::BaseMissing));
    let not_an_overlay = DiskConfig {
        base: base("raw", DiskFormat::Raw),
        ..config(open(&path("alone"), true), DiskFormat::Qcow2)
    };
    assert!(matches!(refused(not_an_overlay), DiskError::NotAnOverlay));
    let under_raw = DiskConfig {
        base: base("alone", DiskFormat::Qcow2),
        ..config(open(&path("raw"), true), DiskFormat::Raw)
    };
    assert!(matches!(refused(under_raw), DiskError::BaseUnderRaw));
    let itself = DiskConfig {
        base: base("over", DiskFormat::Qcow2),
        ..over()
    };
    assert!(matches!(refused(itself), DiskError::SameFile));
    // The base of a base is not given.
    let twice = DiskConfig {
        base: base("over", DiskFormat::Qcow2),
        ..overlay(folder.path(), "twice", &path("over"), DiskFormat::Qcow2)
    };
    assert!(matches!(refused(twice), DiskError::BaseMissing));
}

#[test]
fn a_qcow2_file_whose_features_or_tables_are_not_for_us_is_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("disk");
    for (at, bytes, why) in [
        (0, &b"RAW!"[..], "begin"),
        (4, &[0, 0, 0, 4], "version is 4"),
        (20, &[0, 0, 0, 21], "clusters"),
        (20, &[0, 0, 0, 8], "clusters"),
        (20, &[0xff; 4], "clusters"),
        (24, &[0xff; 8], "tables"),
        (32, &[0, 0, 0, 1], "encrypted"),
        (36, &[0x7f; 4], "tables"),
        (56, &[0x7f; 4], "tables"),
        (48, &[0, 0, 0, 0, 0, 0x10, 0, 0], "fill"),
        (60, &[0, 0, 0, 1], "snapshots"),
        (72, &[0x80, 0, 0, 0, 0, 0, 0, 0], "feature"),
        (72, &[0, 0, 0, 0, 0, 0, 0, 4], "feature"),
    ] {
        create_qcow2(create(&path), BYTES, None).unwrap();
        open(&path, true).write_all_at(bytes, at).unwrap();
        let error = refused(config(open(&path, true), DiskFormat::Qcow2)).to_string();
        assert!(error.contains(why), "{at}: {error}");
    }
    // The first block of refcounts is missing, outside of the file, unaligned, and there twice.
    let entries: [&[u64]; 5] = [&[], &[0, 0x2_0000], &[1 << 40], &[0x2_0008], &[0x2_0000; 2]];
    for entries in entries {
        create_qcow2(create(&path), BYTES, None).unwrap();
        let bytes: Vec<_> = entries
            .iter()
            .flat_map(|entry| entry.to_be_bytes())
            .collect();
        let file = open(&path, true);
        file.write_all_at(&[0; 16], 0x1_0000).unwrap();
        file.write_all_at(&bytes, 0x1_0000).unwrap();
        let error = refused(config(file, DiskFormat::Qcow2)).to_string();
        assert!(error.contains("refcounts"), "{entries:?}: {error}");
    }
    create(&path).write_all_at(b"QFI\xfb", 0).unwrap();
    let error = refused(config(open(&path, true), DiskFormat::Qcow2));
    assert!(matches!(error, DiskError::Qcow2(_)));
}

#[test]
fn a_qcow2_file_is_made_only_with_a_size_that_can_be() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("disk");
    for bytes in [0, 1, 513] {
        let error = create_qcow2(create(&path), bytes, None).unwrap_err();
        assert!(matches!(error, DiskError::Size(_)));
    }
    let error = create_qcow2(create(&path), 1 << 60, None).unwrap_err();
    assert!(matches!(
        error,
        DiskError::Qcow2(_) | DiskError::Host { .. }
    ));
    create_qcow2(create(&path), 1 << 40, None).unwrap();
    let file = open(&path, false);
    assert_eq!(disk_bytes(&file, DiskFormat::Qcow2).unwrap(), 1 << 40);
    assert!(file.metadata().unwrap().len() < 1 << 20);
}

#[test]
fn where_io_uring_is_asked_for_it_is_used_and_a_thread_where_that_is() {
    let folder = TempDir::new().unwrap();
    for kind in [Kind::RawRing, Kind::RawThread] {
        let block = Block::new(disk(kind, folder.path())).unwrap();
        let engine = match kind {
            Kind::RawRing => "io_uring",
            _ => "thread",
        };
        assert_eq!(block.backend.name(), engine);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever is in a qcow2 file's header and tables, it is opened or refused, and what is read
    /// from it comes or does not: nothing else happens.
    #[test]
    fn a_damaged_qcow2_file_does_no_harm(
        damage in prop::collection::vec((0..0x6_0000_u64, any::<[u8; 8]>()), 1..8),
        header in prop::collection::vec((0..112_u64, any::<u8>()), 0..4),
    ) {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("disk");
        create_qcow2(create(&path), BYTES, None).unwrap();
        {
            let block = Block::new(config(open(&path, true), DiskFormat::Qcow2)).unwrap();
            let mut driver = ready(block);
            prop_assert_eq!(write(&mut driver, 0, &pattern(1, 4096)), OK);
        }
        let file = open(&path, true);
        for (at, bytes) in damage {
            // Tables are where small addresses are; most of the rest is empty.
            file.write_all_at(&bytes, at / 0x1_0000 * 0x1_0000 + at % 64 * 8).unwrap();
        }
        for (at, byte) in header {
            file.write_all_at(&[byte], at).unwrap();
        }
        if let Ok(block) = Block::new(config(open(&path, true), DiskFormat::Qcow2)) {
            let bytes = block.disk.capacity_bytes;
            let mut driver = ready(block);
            let head = super::header(VIRTIO_BLK_T_IN, 0);
            let room = bytes.min(65536) as u32;
            ask(&mut driver, &[Buffer::Read(&head), Buffer::Write(room), Buffer::Write(1)]);
            write(&mut driver, 200, &[9; 512]);
            write(&mut driver, 0, &[9; 512]);
            flush(&mut driver);
            prop_assert!(!driver.is_broken());
        }
    }
}
