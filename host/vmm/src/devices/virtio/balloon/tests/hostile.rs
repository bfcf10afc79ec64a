//! What a driver may not do.

use virtio_queue::desc::split::Descriptor;

use super::*;
use crate::devices::virtio::ChainError;
use crate::devices::virtio::test_driver::{HIGH, HIGH_BYTES, LOW_BYTES, NEXT};

/// The device must be broken for `error`, and work for a driver that resets it.
fn assert_broken(mut driver: Driver, error: ChainError) {
    assert!(driver.is_broken(), "not broken: {error}");
    assert_eq!(driver.counters().broken, Some(error.to_string()));
    driver.negotiate(FEATURES);
    touch(&driver, FREE, 1);
    inflate(&mut driver, [FREE]);
    assert_eq!(resident(&driver, FREE, 1), 0);
}

#[test]
fn pages_that_are_no_memory_or_come_twice_are_counted_and_the_others_taken() {
    let (mut driver, _) = balloon();
    touch(&driver, FREE, 2);
    let low_end = (LOW_BYTES / 4096) as u32;
    let high_end = ((HIGH as usize + HIGH_BYTES) / 4096) as u32;
    let outside = [
        low_end,
        low_end + 1,
        (HIGH / 4096) as u32 - 1,
        high_end,
        u32::MAX,
    ];
    let pages = [FREE, FREE, FREE + 1, FREE].into_iter().chain(outside);
    let request = inflate(&mut driver, pages);
    assert_eq!(driver.used(INFLATE), [(request.head, 0)]);
    assert_eq!(driver.counter("pages_outside"), 5);
    assert_eq!(driver.counter("pages_repeated"), 2);
    assert_eq!(driver.counter("inflated_pages"), 2);
    assert_eq!(driver.counter("discarded_bytes"), 2 * 4096);
    assert_eq!(resident(&driver, FREE, 2), 0);
}

#[test]
fn a_range_that_crosses_the_end_of_memory_is_taken_up_to_there() {
    let (mut driver, _) = balloon();
    let end = ((HIGH as usize + HIGH_BYTES) / 4096) as u32;
    inflate(&mut driver, end - 3..end + 4);
    assert_eq!(driver.counter("inflated_pages"), 3);
    assert_eq!(driver.counter("pages_outside"), 4);
}

#[test]
fn a_part_of_a_page_number_is_ignored_and_a_request_without_any_is_answered() {
    let (mut driver, _) = balloon();
    let bytes = [&numbers([FREE])[..], &[1, 2, 3]].concat();
    driver.send(INFLATE, &[Buffer::Read(&bytes)]);
    driver.send(INFLATE, &[Buffer::Read(&[1])]);
    driver.send(INFLATE, &[Buffer::Write(64)]);
    driver.send(DEFLATE, &[Buffer::Read(&[1])]);
    assert_eq!(driver.used(INFLATE).len(), 3);
    assert_eq!(driver.counter("malformed_requests"), 2);
    assert_eq!(driver.counter("inflated_pages"), 1);
    assert_eq!(driver.counter("deflated_pages"), 0);
}

#[test]
fn four_gib_of_page_numbers_break_the_device_and_nothing_is_allocated_for_them() {
    for bytes in [u32::MAX, 16 * 1024 + 1] {
        let (mut driver, _) = balloon();
        let (memory, ring) = driver.ring(INFLATE);
        ring.add(memory, &[(0x10_0000, bytes, false)]);
        driver.notify(INFLATE);
        driver.run();
        assert_broken(driver, ChainError::Bytes(16 << 10));
    }
    // The same numbers over and over, by descriptors that overlap.
    let (mut driver, _) = balloon();
    let (memory, ring) = driver.ring(INFLATE);
    for n in 0..100 {
        let next = if n < 99 { NEXT } else { 0 };
        ring.set_descriptor(memory, n, Descriptor::new(0x10_0000, 4096, next, n + 1));
    }
    ring.make_available(memory, 0);
    driver.notify(INFLATE);
    driver.run();
    assert_broken(driver, ChainError::Bytes(16 << 10));
}

#[test]
fn a_turn_ends_after_so_many_pages_and_another_comes_by_itself() {
    let (mut driver, _) = balloon();
    // Every other page: each is a range of its own.
    let pages = numbers((0..4096).map(|n| FREE + n % FREE_PAGES * 2 % FREE_PAGES));
    for _ in 0..20 {
        driver.add(INFLATE, &[Buffer::Read(&pages)]);
    }
    driver.notify(INFLATE);
    driver.turn();
    assert_eq!(driver.used(INFLATE).len(), 1);
    driver.turn();
    assert_eq!(driver.used(INFLATE).len(), 1);
    driver.run();
    assert_eq!(driver.used(INFLATE).len(), 18);
    assert_eq!(driver.counter("pages_outside"), 0);
}

#[test]
fn reports_of_what_is_no_memory_break_the_device_and_of_all_memory_end_the_turn() {
    for (address, bytes) in [
        (LOW_BYTES as u64, 4096),
        (LOW_BYTES as u64 - 4096, 8192),
        (!4095, 4096),
    ] {
        let (mut driver, _) = balloon();
        let (memory, ring) = driver.ring(REPORTING);
        ring.add(memory, &[(address, bytes, true)]);
        driver.notify(REPORTING);
        driver.run();
        assert_broken(driver, ChainError::OutsideMemory { address, bytes });
    }
    let (mut driver, _) = balloon();
    let (memory, ring) = driver.ring(REPORTING);
    let most = [(0x10_0000, 0x30_0000, true); 86];
    ring.add(memory, &most);
    ring.add(memory, &[(0x10_0000, 4096, true)]);
    driver.notify(REPORTING);
    driver.turn();
    assert_eq!(driver.used(REPORTING).len(), 1);
    driver.run();
    assert_eq!(driver.used(REPORTING).len(), 1);
}

#[test]
fn a_driver_that_gives_its_own_rings_away_harms_only_itself() {
    for queue in [INFLATE, REPORTING] {
        let (mut driver, _) = balloon();
        let rings = 0x1_0000..0x6_0000_u32;
        if queue == INFLATE {
            inflate(
                &mut driver,
                (rings.start..rings.end).step_by(4096).map(|at| at / 4096),
            );
        } else {
            let (memory, ring) = driver.ring(queue);
            ring.add(
                memory,
                &[(rings.start.into(), rings.end - rings.start, true)],
            );
            driver.notify(queue);
            driver.run();
        }
        for queue in 0..5 {
            driver.notify(queue);
        }
        driver.run();
        driver.negotiate(FEATURES);
        touch(&driver, FREE, 1);
        inflate(&mut driver, [FREE]);
        assert_eq!(resident(&driver, FREE, 1), 0);
    }
}

#[test]
fn a_statistics_buffer_of_any_size_is_looked_at_only_at_its_start() {
    let (mut driver, control) = balloon();
    let mut bytes = statistic(4, 11);
    for _ in 0..100_000 {
        bytes.extend(statistic(5, 12));
    }
    bytes.extend(statistic(4, 13));
    driver.send(STATISTICS, &[Buffer::Read(&bytes)]);
    let guest = control.statistics().guest.unwrap();
    assert_eq!((guest.free_bytes, guest.total_bytes), (Some(11), Some(12)));
    assert_eq!(driver.counter("statistics_unknown"), 100_002 - 64);
    // Shorter than one, or not for reading at all.
    driver.send(STATISTICS, &[Buffer::Read(&[4, 0, 1])]);
    driver.send(STATISTICS, &[Buffer::Write(1 << 20)]);
    assert_eq!(control.statistics().guest.unwrap().free_bytes, None);
    assert!(!driver.is_broken());
}

#[test]
fn of_several_statistics_buffers_the_last_is_kept() {
    let (mut driver, _) = balloon();
    let requests: Vec<_> = (0..100)
        .map(|n| {
            driver
                .add(STATISTICS, &[Buffer::Read(&statistic(4, n))])
                .head
        })
        .collect();
    driver.notify(STATISTICS);
    driver.run();
    let used: Vec<_> = driver
        .used(STATISTICS)
        .iter()
        .map(|(head, _)| *head)
        .collect();
    assert_eq!(used, requests[..99]);
    driver.device.quiesce();
    driver.device.save().unwrap();
}

#[test]
fn only_what_it_has_given_can_be_written_to_the_configuration() {
    let (driver, control) = balloon();
    control.set_target_mib(1);
    for (offset, bytes) in [(0, 4), (4, 1), (4, 8), (5, 4), (8, 4), (u64::MAX / 2, 4)] {
        driver.write_config(offset, &vec![0xff; bytes]);
    }
    assert_eq!(driver.counter("refused_config_writes"), 6);
    assert_eq!(driver.config(0, 8), [0, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(driver.config(6, 8), [0; 8], "there is nothing behind");
}
