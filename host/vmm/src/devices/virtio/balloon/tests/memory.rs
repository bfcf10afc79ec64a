//! Memory goes to the host, and comes back.

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::os::unix::fs::MetadataExt as _;
use vm_memory::{FileOffset, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use super::*;
use crate::devices::virtio::test_driver::{HIGH, HIGH_BYTES, LOW_BYTES};

const PAGES: u32 = 512;

/// The free pages in the order of a driver that takes every other one from each end.
fn scattered() -> Vec<u32> {
    let up = (FREE..FREE + PAGES).step_by(2);
    let down = (FREE..FREE + PAGES).skip(1).step_by(2).rev();
    up.zip(down).flat_map(|(a, b)| [a, b]).collect()
}

fn inflate_scattered(driver: &mut Driver) {
    for part in scattered().chunks(256) {
        let request = inflate(driver, part.iter().copied());
        assert_eq!(driver.used(INFLATE), [(request.head, 0)]);
    }
}

#[test]
fn memory_in_the_balloon_takes_up_none_of_the_hosts_and_comes_back_as_zeroes() {
    let (mut driver, _) = balloon();
    touch(&driver, FREE - 1, PAGES + 2);
    assert_eq!(resident(&driver, FREE - 1, PAGES + 2), 514);

    inflate_scattered(&mut driver);
    assert_eq!(resident(&driver, FREE, PAGES), 0);
    assert_eq!(
        resident(&driver, FREE - 1, PAGES + 2),
        2,
        "not its neighbours"
    );
    assert_eq!(driver.counter("inflated_pages"), 512);
    assert_eq!(driver.counter("discarded_bytes"), 512 * 4096);
    for failure in [
        "kept_bytes",
        "discard_failures",
        "pages_outside",
        "pages_repeated",
    ] {
        assert_eq!(driver.counter(failure), 0, "{failure}");
    }

    let back = numbers(FREE..FREE + PAGES);
    let request = driver.send(DEFLATE, &[Buffer::Read(&back)]);
    assert_eq!(driver.used(DEFLATE), [(request.head, 0)]);
    assert_eq!(driver.counter("deflated_pages"), 512);
    let first = u64::from(FREE) * 4096;
    assert!(
        driver
            .bytes(first, 512 * 4096)
            .iter()
            .all(|byte| *byte == 0)
    );
    assert_eq!(driver.bytes(first - 1, 1), [0xaa]);
    touch(&driver, FREE, PAGES);
    assert_eq!(resident(&driver, FREE, PAGES), 512);
}

/// Memory like a test driver's over `file`, which has no holes.
fn over_file(file: &File, flags: i32) -> GuestMemoryMmap {
    let bytes = vec![0x55; LOW_BYTES + HIGH_BYTES];
    file.write_all_at(&bytes, 0).unwrap();
    let region = |address, bytes, offset| {
        let part = FileOffset::new(file.try_clone().unwrap(), offset);
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let region = MmapRegion::build(Some(part), bytes, access, flags).unwrap();
        GuestRegionMmap::new(region, GuestAddress(address)).unwrap()
    };
    // Turned around in the file, so that offsets are not addresses.
    let high = region(HIGH, HIGH_BYTES, 0);
    let low = region(0, LOW_BYTES, HIGH_BYTES as u64);
    GuestMemoryMmap::from_regions(vec![low, high]).unwrap()
}

fn memfd(flags: MemfdFlags) -> File {
    memfd_create("balloon", flags | MemfdFlags::CLOEXEC)
        .unwrap()
        .into()
}

#[test]
fn memory_that_is_a_shared_file_is_freed_in_the_file() {
    let file = memfd(MemfdFlags::empty());
    let memory = over_file(&file, libc::MAP_SHARED);
    let mut driver = Driver::with_memory(Balloon::new(ALL).unwrap(), memory);
    driver.negotiate(FEATURES);
    let before = file.metadata().unwrap().blocks();
    inflate_scattered(&mut driver);
    // In units of 512 bytes.
    assert_eq!(before - file.metadata().unwrap().blocks(), 512 * 8);
    assert_eq!(
        file.metadata().unwrap().size(),
        (LOW_BYTES + HIGH_BYTES) as u64
    );
    assert_eq!(resident(&driver, FREE, PAGES), 0);
    assert_eq!(driver.counter("discarded_bytes"), 512 * 4096);
    let first = u64::from(FREE) * 4096;
    let around = driver.bytes(first - 1, 512 * 4096 + 2);
    assert_eq!((around[0], around[around.len() - 1]), (0x55, 0x55));
    assert!(around[1..around.len() - 1].iter().all(|byte| *byte == 0));

    let high = (HIGH / 4096) as u32;
    inflate(&mut driver, [high + 1]);
    let mut page = [1; 4096];
    file.read_exact_at(&mut page, 4096).unwrap();
    assert_eq!(page, [0; 4096]);
}

#[test]
fn memory_that_is_a_private_copy_of_a_file_leaves_the_file_alone() {
    let file = tempfile::tempfile().unwrap();
    let memory = over_file(&file, libc::MAP_PRIVATE);
    let mut driver = Driver::with_memory(Balloon::new(ALL).unwrap(), memory);
    driver.negotiate(FEATURES);
    touch(&driver, FREE, PAGES);
    inflate_scattered(&mut driver);
    assert_eq!(driver.counter("discarded_bytes"), 512 * 4096);
    let first = u64::from(FREE) * 4096;
    let again = driver.bytes(first, 512 * 4096);
    assert!(again.iter().all(|byte| *byte == 0x55));
    let mut in_file = vec![0; LOW_BYTES + HIGH_BYTES];
    file.read_exact_at(&mut in_file, 0).unwrap();
    assert!(
        in_file[HIGH_BYTES + first as usize..][..512 * 4096]
            .iter()
            .all(|byte| *byte == 0x55)
    );
}

#[test]
fn huge_pages_are_kept() {
    let file = memfd(MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB);
    ftruncate(&file, 4 << 20).unwrap();
    let part = FileOffset::new(file, 0);
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // None are set aside, and none are touched: this works on hosts that have none.
    let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
    let region = MmapRegion::build(Some(part), 4 << 20, access, flags).unwrap();
    let region = GuestRegionMmap::new(region, GuestAddress(0)).unwrap();
    let memory = GuestMemoryMmap::from_regions(vec![region]).unwrap();
    let done = super::super::discard::discard(&memory, 0..3 << 20);
    assert_eq!((done.kept, done.discarded, done.failures), (3 << 20, 0, 0));
}

#[test]
fn free_pages_that_are_reported_go_to_the_host() {
    let (mut driver, _) = balloon();
    touch(&driver, FREE, FREE_PAGES);
    let (memory, ring) = driver.ring(REPORTING);
    let address = u64::from(FREE) * 4096;
    let reports = [
        (address, 64 * 4096, true),
        // Only the whole pages of this one.
        (address + 100 * 4096 + 1, 3 * 4096, true),
        (address + 200 * 4096, 4095, true),
    ];
    for report in reports {
        ring.add(memory, &[report]);
    }
    driver.notify(REPORTING);
    driver.run();
    assert_eq!(driver.used(REPORTING).len(), 3);
    assert_eq!(
        resident(&driver, FREE, FREE_PAGES),
        FREE_PAGES as usize - 66
    );
    assert_eq!(driver.counter("reported_bytes"), 67 * 4096 + 4095);
    assert_eq!(driver.counter("discarded_bytes"), 66 * 4096);
    assert_eq!(driver.counter("kept_bytes"), 4096 + 4095);
    // What was not whole is as it was.
    assert_eq!(driver.bytes(address + 100 * 4096, 4096), [0xaa; 4096]);
}

#[test]
fn free_pages_are_reported_on_the_queue_that_linux_uses_and_on_that_of_the_specification() {
    let statistics = 1 << feature::STATISTICS;
    let reporting = 1 << feature::REPORTING;
    for (features, queue, takes) in [
        (statistics | reporting, 3, true),
        (statistics | reporting, 4, true),
        (reporting, 2, true),
        (reporting, 4, true),
        (statistics | reporting, 2, false),
        (statistics, 3, false),
        (statistics, 4, false),
        (0, 2, false),
    ] {
        let mut driver = Driver::new(Balloon::new(ALL).unwrap());
        driver.negotiate(features);
        touch(&driver, FREE, 1);
        let (memory, ring) = driver.ring(queue);
        ring.add(memory, &[(u64::from(FREE) * 4096, 4096, true)]);
        driver.notify(queue);
        driver.run();
        let left = resident(&driver, FREE, 1);
        assert_eq!(left == 0, takes, "{features:#x} {queue}");
        assert!(!driver.is_broken());
    }
}
