//! Rings, the geometry of queues, and when they are notified.

use std::sync::atomic::Ordering;

use virtio_bindings::virtio_mmio::*;

use super::{BUFFER, assert_broken, descriptor};
use crate::devices::virtio::test_driver::{
    Buffer, Driver, HIGH, Manner, OUTSIDE, Probe, QUEUE_SIZE, WRITE,
};

#[test]
fn an_available_ring_that_runs_ahead_is_refused() {
    for index in [QUEUE_SIZE + 1, 30_000, u16::MAX] {
        let mut driver = Driver::new(Probe::new(Manner::Answer));
        driver.negotiate(0);
        let (memory, ring) = driver.ring(0);
        ring.set_available_index(memory, index);
        driver.notify(0);
        driver.run();
        let ring = virtio_queue::Error::InvalidAvailRingIndex;
        assert_broken(driver, &format!("queue 0: {ring}"));
    }
}

#[test]
fn a_device_never_holds_more_chains_than_a_queue_has_descriptors() {
    let mut driver = Driver::new(Probe::new(Manner::Keep));
    driver.negotiate(0);
    let head = driver.send(0, &[Buffer::Write(1)]).head;
    for _ in 1..QUEUE_SIZE {
        let (memory, ring) = driver.ring(0);
        ring.make_available(memory, head);
        driver.notify(0);
        driver.run();
        assert!(!driver.is_broken());
    }
    let (memory, ring) = driver.ring(0);
    ring.make_available(memory, head);
    driver.notify(0);
    driver.run();
    let broken = driver.counters().broken;
    assert_eq!(
        broken.as_deref(),
        Some("queue 0: more chains than descriptors")
    );
}

#[test]
fn queue_sizes_that_are_none_are_refused_and_the_queue_stays_off() {
    let mut driver = Driver::new(Probe::new(Manner::Answer));
    for size in [
        0,
        3,
        u32::from(QUEUE_SIZE) * 2,
        0x1_0000,
        0x1_0010,
        u32::MAX,
    ] {
        driver.begin(0);
        let before = driver.counter("refused_accesses");
        driver.write(VIRTIO_MMIO_QUEUE_SEL, 0);
        driver.write(VIRTIO_MMIO_QUEUE_NUM, size);
        driver.write(VIRTIO_MMIO_QUEUE_READY, 1);
        assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_READY), 0, "{size}");
        assert_eq!(driver.counter("refused_accesses"), before + 2);
        driver.driver_ok();
        driver.notify(0);
        driver.run();
        assert!(!driver.is_broken(), "it just has no queue");
    }
}

#[test]
fn queues_that_are_not_there_read_as_zero_and_can_not_be_configured_or_notified() {
    let mut driver = Driver::new(Probe::new(Manner::Answer));
    driver.begin(0);
    for select in [2, 0xffff, 0x1_0000, u32::MAX] {
        driver.write(VIRTIO_MMIO_QUEUE_SEL, select);
        let before = driver.counter("refused_accesses");
        assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
        driver.write(VIRTIO_MMIO_QUEUE_NUM, 8);
        driver.write(VIRTIO_MMIO_QUEUE_DESC_LOW, 0x1000);
        driver.write(VIRTIO_MMIO_QUEUE_READY, 1);
        driver.write(VIRTIO_MMIO_QUEUE_NOTIFY, select);
        assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_READY), 0);
        assert_eq!(driver.counter("refused_accesses"), before + 4);
    }
    driver.run();
}

#[test]
fn rings_outside_of_memory_or_misaligned_break_the_device_when_they_are_enabled() {
    let registers = [
        (VIRTIO_MMIO_QUEUE_DESC_LOW, 16),
        (VIRTIO_MMIO_QUEUE_AVAIL_LOW, 2),
        (VIRTIO_MMIO_QUEUE_USED_LOW, 4),
    ];
    for (register, align) in registers {
        let misaligned = BUFFER + align / 2;
        let end = OUTSIDE - align;
        for address in [misaligned, OUTSIDE, end, HIGH - 16, !15, u64::MAX] {
            let mut driver = Driver::new(Probe::new(Manner::Answer));
            driver.begin(0);
            driver.write(VIRTIO_MMIO_QUEUE_SEL, 0);
            driver.write(VIRTIO_MMIO_QUEUE_NUM, 16);
            for (register, _) in registers {
                driver.write(register, BUFFER as u32);
            }
            driver.write(register, address as u32);
            driver.write(register + 4, (address >> 32) as u32);
            driver.write(VIRTIO_MMIO_QUEUE_READY, 1);
            assert!(driver.is_broken(), "{register:#x} {address:#x}");
            driver.driver_ok();
            driver.notify(0);
            driver.run();
            driver.negotiate(0);
        }
    }
}

#[test]
fn geometry_does_not_change_while_a_queue_is_enabled_or_the_driver_is_ready() {
    let mut driver = Driver::new(Probe::new(Manner::Answer));
    driver.begin(0);
    driver.enable_queue(8);
    let registers = [
        VIRTIO_MMIO_QUEUE_NUM,
        VIRTIO_MMIO_QUEUE_DESC_LOW,
        VIRTIO_MMIO_QUEUE_DESC_HIGH,
        VIRTIO_MMIO_QUEUE_AVAIL_LOW,
        VIRTIO_MMIO_QUEUE_AVAIL_HIGH,
        VIRTIO_MMIO_QUEUE_USED_LOW,
        VIRTIO_MMIO_QUEUE_USED_HIGH,
    ];
    let attack = |driver: &Driver| {
        let before = driver.counter("refused_accesses");
        registers
            .iter()
            .for_each(|register| driver.write(*register, 4));
        assert_eq!(driver.counter("refused_accesses"), before + 7);
    };
    attack(&driver);
    driver.driver_ok();
    attack(&driver);
    driver.write(VIRTIO_MMIO_QUEUE_READY, 0);
    assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_READY), 1);
    driver.write(VIRTIO_MMIO_QUEUE_SEL, 1);
    attack(&driver);
    let request = driver.send(0, &[Buffer::Write(9)]);
    assert_eq!(driver.used(0), [(request.head, 9)]);
}

#[test]
fn a_storm_of_notifications_is_one_turn() {
    let mut driver = Driver::new(Probe::new(Manner::Answer));
    driver.negotiate(0);
    let before = driver.counter("notifications");
    for _ in 0..100_000 {
        driver.notify(0);
    }
    driver.run();
    assert_eq!(driver.counter("notifications"), before + 1);
}

#[test]
fn a_queue_that_never_gets_empty_leaves_the_others_their_turns() {
    let probe = Probe::new(Manner::Refill);
    let seen = probe.seen.clone();
    let mut driver = Driver::new(probe);
    driver.negotiate(0);
    let (memory, ring) = driver.ring(0);
    ring.set_descriptor(memory, 0, descriptor(BUFFER, 1, WRITE, 0));
    seen.refill.store(ring.available + 2, Ordering::SeqCst);
    ring.make_available(memory, 0);
    driver.notify(0);
    let turns = || seen.turns.load(Ordering::SeqCst);
    let before = turns();
    for n in 1..=10 {
        driver.turn();
        assert_eq!(turns(), before + n);
    }
    driver.notify(1);
    driver.turn();
    assert_eq!(turns(), before + 12, "both had one");
}
