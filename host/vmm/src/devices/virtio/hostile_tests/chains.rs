//! Descriptor chains.

use super::{BUFFER, INDIRECT_DESC, TABLE, assert_chain, descriptor, send};
use crate::devices::virtio::test_driver::{
    Driver, HIGH, HIGH_BYTES, INDIRECT, MAX_CHAIN_BYTES, Manner, NEXT, OUTSIDE, Probe, QUEUE_SIZE,
    WRITE,
};
use crate::devices::virtio::{ChainError, MAX_SEGMENTS};

#[test]
fn loops_of_every_length_are_found() {
    for length in 1..=QUEUE_SIZE {
        let chain: Vec<_> = (1..=length)
            .map(|next| descriptor(BUFFER, 1, NEXT, next % length))
            .collect();
        assert_chain(send(0, &chain, &[]), ChainError::Loop(QUEUE_SIZE));
    }
    let table = [
        descriptor(BUFFER, 1, NEXT, 1),
        descriptor(BUFFER, 1, NEXT, 1),
    ];
    let chain = [descriptor(TABLE, 32, INDIRECT, 0)];
    assert_chain(send(INDIRECT_DESC, &chain, &table), ChainError::Loop(2));
}

#[test]
fn the_longest_chain_that_is_none_is_taken() {
    let chain: Vec<_> = (1..=QUEUE_SIZE)
        .map(|next| {
            descriptor(
                BUFFER,
                2,
                WRITE | if next < QUEUE_SIZE { NEXT } else { 0 },
                next,
            )
        })
        .collect();
    let mut driver = send(0, &chain, &[]);
    assert_eq!(driver.used(0), [(0, 2 * u32::from(QUEUE_SIZE))]);
}

#[test]
fn numbers_past_the_table_are_refused() {
    for next in [QUEUE_SIZE, u16::MAX] {
        let error = ChainError::Index {
            index: next,
            size: QUEUE_SIZE,
        };
        let chain = [descriptor(BUFFER, 1, NEXT, next)];
        assert_chain(send(0, &chain, &[]), error);
        let mut driver = Driver::new(Probe::new(Manner::Answer));
        driver.negotiate(0);
        let (memory, ring) = driver.ring(0);
        ring.make_available(memory, next);
        driver.notify(0);
        driver.run();
        assert_chain(driver, error);
    }
    let table = [descriptor(BUFFER, 1, NEXT, 2), descriptor(BUFFER, 1, 0, 0)];
    let chain = [descriptor(TABLE, 32, INDIRECT, 0)];
    let error = ChainError::Index { index: 2, size: 2 };
    assert_chain(send(INDIRECT_DESC, &chain, &table), error);
}

#[test]
fn indirect_tables_are_one_deep_last_negotiated_and_whole() {
    let plain = [descriptor(BUFFER, 7, WRITE, 0)];
    let chain = [
        descriptor(BUFFER, 3, NEXT, 1),
        descriptor(TABLE, 16, INDIRECT | WRITE, 0),
    ];
    let mut good = send(INDIRECT_DESC, &chain, &plain);
    assert_eq!(good.used(0), [(0, 7)]);
    assert_chain(send(0, &chain, &plain), ChainError::IndirectNotNegotiated);

    let nested = [descriptor(TABLE, 16, INDIRECT, 0)];
    let once = [descriptor(TABLE, 16, INDIRECT, 0)];
    let nested = send(INDIRECT_DESC, &once, &nested);
    assert_chain(nested, ChainError::NestedIndirect);

    let early = [
        descriptor(TABLE, 16, INDIRECT | NEXT, 1),
        descriptor(BUFFER, 1, 0, 0),
    ];
    let early = send(INDIRECT_DESC, &early, &plain);
    assert_chain(early, ChainError::IndirectWithNext);

    let most = MAX_SEGMENTS as u32 * 16;
    for bytes in [0, 1, 15, 17, most + 16, u32::MAX, !15] {
        let chain = [descriptor(TABLE, bytes, INDIRECT, 0)];
        let driver = send(INDIRECT_DESC, &chain, &plain);
        assert_chain(driver, ChainError::IndirectBytes(bytes));
    }
    for address in [OUTSIDE, OUTSIDE - 8, u64::MAX - 15, u64::MAX] {
        let chain = [descriptor(address, 16, INDIRECT, 0)];
        let error = ChainError::OutsideMemory { address, bytes: 16 };
        assert_chain(send(INDIRECT_DESC, &chain, &[]), error);
    }
}

#[test]
fn buffers_outside_of_memory_are_refused_whole_or_in_part() {
    let high_end = HIGH + HIGH_BYTES as u64;
    for (address, bytes) in [
        (OUTSIDE, 1),
        (OUTSIDE - 1, 2),
        (HIGH - 1, 2),
        (high_end - 10, 11),
        (high_end, 1),
        (u64::MAX, 1),
        (u64::MAX - 1, 4),
        (u64::MAX - 15, MAX_CHAIN_BYTES),
    ] {
        let error = ChainError::OutsideMemory { address, bytes };
        for flags in [0, WRITE] {
            let chain = [descriptor(address, bytes, flags, 0)];
            assert_chain(send(0, &chain, &[]), error);
        }
    }
    let chain = [descriptor(high_end - 10, 10, WRITE, 0)];
    assert_eq!(send(0, &chain, &[]).used(0), [(0, 10)]);
}

#[test]
fn descriptors_that_overlap_count_each_time_and_nothing_exceeds_the_cap() {
    let error = ChainError::Bytes(MAX_CHAIN_BYTES);
    let half = MAX_CHAIN_BYTES / 2;
    let twice = |bytes| {
        [
            descriptor(BUFFER, half, WRITE | NEXT, 1),
            descriptor(BUFFER, bytes, WRITE, 0),
        ]
    };
    let mut fits = send(0, &twice(half), &[]);
    assert_eq!(fits.used(0), [(0, MAX_CHAIN_BYTES)]);
    for bytes in [half + 1, u32::MAX, u32::MAX - half + 1] {
        assert_chain(send(0, &twice(bytes), &[]), error);
    }
    let mixed = [
        descriptor(BUFFER, MAX_CHAIN_BYTES, NEXT, 1),
        descriptor(BUFFER, 1, WRITE, 0),
    ];
    assert_chain(send(0, &mixed, &[]), error);
    let chain = [descriptor(TABLE, 32, INDIRECT, 0)];
    let table = [
        descriptor(BUFFER, half, NEXT, 1),
        descriptor(BUFFER, half + 1, 0, 0),
    ];
    assert_chain(send(INDIRECT_DESC, &chain, &table), error);
}

#[test]
fn readable_buffers_come_before_writable_ones() {
    let chain = [
        descriptor(BUFFER, 1, WRITE | NEXT, 1),
        descriptor(BUFFER, 1, 0, 0),
    ];
    assert_chain(send(0, &chain, &[]), ChainError::Order);
}
