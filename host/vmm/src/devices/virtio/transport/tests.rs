//! Negotiation, its order, resets, interrupts, and what is saved. What a hostile driver does to
//! queues and chains is in [`super::super::hostile_tests`].

use std::sync::atomic::Ordering;

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_mmio::*;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;

use super::registers::TRANSPORT_FEATURES;
use super::{SaveError, VirtioState};
use crate::devices::mmio::MmioDevice as _;
use crate::devices::virtio::RestoreError;
use crate::devices::virtio::test_driver::{
    ACKNOWLEDGE, Buffer, DRIVER, DRIVER_OK, Driver, FEATURE, FEATURES_OK, Manner, NEEDS_RESET,
    Probe, QUEUE_SIZE,
};

const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;

fn driver(manner: Manner) -> Driver {
    Driver::new(Probe::new(manner))
}

#[test]
fn a_driver_finds_the_device_and_what_it_offers() {
    let driver = driver(Manner::Answer);
    assert_eq!(driver.read(VIRTIO_MMIO_MAGIC_VALUE).to_le_bytes(), *b"virt");
    assert_eq!(driver.read(VIRTIO_MMIO_VERSION), 2);
    assert_eq!(driver.read(VIRTIO_MMIO_DEVICE_ID), 4);
    assert_eq!(driver.offered(), 1 << FEATURE | TRANSPORT_FEATURES);
    driver.write(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 2);
    assert_eq!(driver.read(VIRTIO_MMIO_DEVICE_FEATURES), 0);
    assert_eq!(driver.read(VIRTIO_MMIO_SHM_LEN_LOW), u32::MAX, "none");
    assert_eq!(driver.status(), 0);
}

#[test]
fn a_negotiated_device_works_and_interrupts_once_for_what_it_did_in_one_turn() {
    let mut driver = driver(Manner::Answer);
    driver.negotiate(1 << FEATURE);
    assert!(!driver.take_interrupt(), "nothing was used");
    let requests: Vec<_> = (0..5)
        .map(|_| driver.add(1, &[Buffer::Read(b"x"), Buffer::Write(10)]))
        .collect();
    driver.notify(1);
    driver.run();
    let expected: Vec<_> = requests.iter().map(|request| (request.head, 10)).collect();
    assert_eq!(driver.used(1), expected);
    assert_eq!(driver.received(&requests[4]), [0xee; 10]);
    assert_eq!(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 1);
    assert!(driver.take_interrupt());
    assert_eq!(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    assert_eq!(driver.counter("interrupts"), 1);
    assert_eq!(driver.used(0), []);
}

#[test]
fn features_are_taken_before_features_ok_only_and_only_those_that_are_offered() {
    let mut driver = driver(Manner::Answer);
    driver.write_features(u64::MAX);
    assert_eq!(driver.counter("refused_accesses"), 2, "before DRIVER");
    for bad in [1 << FEATURE, 1 << VIRTIO_F_VERSION_1 | 1 << 5, u64::MAX] {
        driver.reset();
        driver.write(VIRTIO_MMIO_STATUS, ACKNOWLEDGE | DRIVER);
        driver.write_features(bad);
        driver.write(VIRTIO_MMIO_STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        assert_eq!(driver.status(), ACKNOWLEDGE | DRIVER, "{bad:#x}");
        driver.driver_ok();
        assert_eq!(driver.status(), ACKNOWLEDGE | DRIVER, "nor any further");
    }
    driver.begin(0);
    let refused = driver.counter("refused_accesses");
    driver.write_features(1 << VIRTIO_F_VERSION_1 | 1 << FEATURE);
    assert_eq!(driver.counter("refused_accesses"), refused + 2);
}

#[test]
fn a_device_that_can_not_be_activated_asks_for_a_reset() {
    let mut driver = driver(Manner::Fail);
    driver.begin(0);
    driver.enable_queue(8);
    driver.driver_ok();
    assert_eq!(driver.status(), 1 | 2 | 4 | 8 | NEEDS_RESET);
    assert_eq!(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 2, "it says so");
    let broken = driver.counters().broken.unwrap();
    assert!(broken.contains("no driver is good enough"), "{broken}");
    driver.reset();
    assert_eq!(driver.counters().broken, None);
}

#[test]
fn a_reset_forgets_everything_and_the_device_works_again() {
    let probe = Probe::new(Manner::Keep);
    let seen = probe.seen.clone();
    let mut driver = Driver::new(probe);
    for round in 1..=3 {
        driver.negotiate(EVENT_IDX);
        driver.send(0, &[Buffer::Write(8)]);
        assert_eq!(seen.activated.load(Ordering::SeqCst), round);
        driver.reset();
        assert_eq!(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
        driver.write(VIRTIO_MMIO_QUEUE_SEL, 0);
        assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_READY), 0);
        driver.notify(0);
        driver.run();
    }
    assert_eq!(driver.counter("broke"), 0);
    // `negotiate` begins with one itself.
    assert_eq!(driver.counter("resets"), 6);
    assert_eq!(seen.resets.load(Ordering::SeqCst), 6);
}

#[test]
fn the_configuration_space_is_read_and_written_in_every_width_and_past_its_end() {
    let driver = driver(Manner::Answer);
    assert_eq!(driver.config(0, 4), b"prob");
    assert_eq!(driver.config(3, 2), b"be");
    assert_eq!(driver.config(6, 8), [0; 8]);
    assert_eq!(driver.config(0xeff, 1), [0]);
    driver.write_config(5, b"!");
    driver.write_config(4, &[0; 8]);
    driver.write_config(0xef8, &[0; 8]);
    assert_eq!(driver.config(0, 8), b"probe!\0\0");
}

#[test]
fn a_change_of_the_configuration_is_told_once_the_driver_is_ready_and_counted_before() {
    let probe = Probe::new(Manner::Answer);
    let (seen, call) = (probe.seen.clone(), probe.call.clone());
    let mut driver = Driver::new(probe);
    driver.begin(0);
    driver.enable_queue(8);
    driver.write(VIRTIO_MMIO_QUEUE_READY, 0);
    driver.write(VIRTIO_MMIO_QUEUE_USED_LOW, 1);
    driver.write(VIRTIO_MMIO_QUEUE_READY, 1);
    assert!(driver.is_broken(), "it says so in the status");
    assert_eq!(driver.read(VIRTIO_MMIO_CONFIG_GENERATION), 1);
    assert!(!driver.take_interrupt());
    driver.negotiate(0);
    seen.changes.store(true, Ordering::SeqCst);
    call.write(1).unwrap();
    driver.run();
    assert_eq!(driver.read(VIRTIO_MMIO_CONFIG_GENERATION), 2);
    assert_eq!(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 2);
    assert!(driver.take_interrupt());
}

#[test]
fn no_interrupt_comes_where_the_driver_wants_none() {
    let mut driver = driver(Manner::Answer);
    driver.negotiate(0);
    let (memory, ring) = driver.ring(0);
    ring.set_no_interrupt(memory, true);
    driver.send(0, &[Buffer::Write(1)]);
    assert!(!driver.take_interrupt());
    let (memory, ring) = driver.ring(0);
    ring.set_no_interrupt(memory, false);
    driver.send(0, &[Buffer::Write(1)]);
    assert!(driver.take_interrupt());
}

#[test]
fn with_event_indices_the_interrupt_comes_where_the_driver_asked_for_it() {
    let mut driver = driver(Manner::Answer);
    driver.negotiate(EVENT_IDX);
    let (memory, ring) = driver.ring(0);
    ring.set_used_event(memory, 2);
    for expected in [false, false, true, false] {
        driver.send(0, &[Buffer::Write(1)]);
        assert_eq!(driver.take_interrupt(), expected);
    }
    let (memory, ring) = driver.ring(0);
    assert_eq!(ring.available_event(memory), 4, "the next one is told of");
}

#[test]
fn a_descriptor_calls_with_a_driver_and_without_one() {
    let probe = Probe::new(Manner::Answer);
    let (seen, call) = (probe.seen.clone(), probe.call.clone());
    let mut driver = Driver::new(probe);
    call.write(1).unwrap();
    driver.run();
    driver.negotiate(0);
    call.write(1).unwrap();
    driver.run();
    assert_eq!(seen.calls.load(Ordering::SeqCst), 2);
}

#[test]
fn a_restored_device_goes_on_where_the_saved_one_was() {
    let mut driver = driver(Manner::Answer);
    driver.negotiate(EVENT_IDX | 1 << FEATURE);
    for _ in 0..20 {
        driver.send(0, &[Buffer::Write(8)]);
    }
    assert_eq!(driver.used(0).len(), 20);
    let pending = driver.add(0, &[Buffer::Write(8)]);
    let mut driver = driver.migrate(Probe::new(Manner::Answer));
    driver.run();
    assert_eq!(driver.used(0), [(pending.head, 8)]);
    assert!(driver.take_interrupt());
    // Chains that were kept are given back first, and taken again.
    driver.negotiate(0);
    let mut driver = driver.migrate(Probe::new(Manner::Keep));
    let kept: Vec<_> = (0..3)
        .map(|_| driver.send(0, &[Buffer::Write(4)]))
        .collect();
    assert_eq!(driver.used(0), []);
    assert_eq!(driver.device.save(), Err(SaveError::Busy(3)));
    let mut driver = driver.migrate(Probe::new(Manner::Answer));
    driver.run();
    let expected: Vec<_> = kept.iter().map(|request| (request.head, 4)).collect();
    assert_eq!(driver.used(0), expected);
}

#[test]
fn a_device_is_saved_and_restored_in_every_state_of_negotiation_and_broken() {
    let mut fresh = driver(Manner::Answer);
    fresh = fresh.migrate(Probe::new(Manner::Answer));
    fresh.begin(1 << FEATURE);
    fresh = fresh.migrate(Probe::new(Manner::Answer));
    fresh.enable_queue(8);
    fresh = fresh.migrate(Probe::new(Manner::Answer));
    fresh.driver_ok();
    fresh.run();
    let (memory, ring) = fresh.ring(0);
    ring.make_available(memory, 0xffff);
    fresh.notify(0);
    fresh.run();
    assert!(fresh.is_broken());
    let reason = fresh.counters().broken;
    assert!(reason.is_some());
    fresh = fresh.migrate(Probe::new(Manner::Answer));
    assert!(fresh.is_broken());
    assert_eq!(fresh.counters().broken, reason);
}

#[test]
fn a_state_that_makes_no_sense_is_refused_and_the_device_is_as_new() {
    let mut saved = driver(Manner::Answer);
    saved.negotiate(0);
    let good = saved.device.save().unwrap();
    let with = |change: &dyn Fn(&mut VirtioState)| {
        let mut state = good.clone();
        change(&mut state);
        state
    };
    let bad = [
        with(&|state| state.status = DRIVER_OK),
        with(&|state| state.status |= 1 << 4),
        with(&|state| state.driver_features = 0),
        with(&|state| state.driver_features |= 1 << 40),
        with(&|state| state.queues.truncate(1)),
        with(&|state| state.queues[0].size = 3),
        with(&|state| state.queues[0].size = QUEUE_SIZE * 2),
        with(&|state| state.queues[1].descriptors = !15),
        with(&|state| state.queues[1].available = 0),
        with(&|state| state.queues[1].used = 1),
    ];
    for state in bad {
        let new = driver(Manner::Answer);
        let error = new.device.restore(state.clone()).unwrap_err();
        assert!(matches!(error, RestoreError::Invalid(_)), "{state:?}");
        let mut new = new;
        assert_eq!(new.status(), 0);
        new.negotiate(0);
    }
    let other = r#"{"kind":"rng","status":0,"what":1}"#;
    assert!(serde_json::from_str::<VirtioState>(other).is_err());
}

#[test]
fn control_registers_are_accessed_whole_or_not_at_all() {
    let mut driver = driver(Manner::Answer);
    driver.negotiate(0);
    let before = driver.counter("refused_accesses");
    let mut count = 0;
    for offset in 0..0x100 {
        for width in [1, 2, 4, 8] {
            if width == 4 && offset % 4 == 0 {
                continue;
            }
            let mut data = vec![0; width];
            driver.device.read(offset, &mut data);
            assert_eq!(data, vec![0xff; width], "{offset:#x}");
            driver.device.write(offset, &vec![0; width]);
            count += 2;
        }
    }
    assert_eq!(driver.counter("refused_accesses"), before + count);
    let request = driver.send(0, &[Buffer::Write(3)]);
    assert_eq!(driver.used(0), [(request.head, 3)], "it never noticed");
}
