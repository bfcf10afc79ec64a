//! What a driver must not do: it is answered or ignored, counted, and costs nothing but itself.

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_MRG_RXBUF,
};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes as _, GuestAddress};

use super::*;
use crate::devices::virtio::test_driver::{INDIRECT, NEXT, WRITE};

/// Where there is memory for an indirect table, and for what it describes.
const TABLE: u64 = 0x20_0000;
const DATA: u64 = 0x30_0000;

/// The device still does what it is for.
fn assert_works(driver: &mut Driver, peer: &Peer) {
    assert!(!driver.is_broken(), "{:?}", driver.counters().broken);
    driver.used(RECEIVE);
    let buffer = driver.send(RECEIVE, &[Buffer::Write(1526)]);
    peer.send(&packet(60, 77));
    driver.run();
    let last = driver.used(RECEIVE).pop();
    assert_eq!(last, Some((buffer.head, 72)));
    assert_eq!(received(driver, &buffer, 72), (1, packet(60, 77)));
    transmit(driver, &packet(60, 78));
    assert_eq!(peer.receive().unwrap()[12..], packet(60, 78));
}

/// Makes a chain available that is one indirect table of `pieces`.
fn add_indirect(driver: &mut Driver, queue: u16, pieces: &[(u64, u32, u16)]) {
    for (n, (address, bytes, flags)) in (0..).zip(pieces) {
        let next = if n + 1 < pieces.len() { NEXT } else { 0 };
        let descriptor = Descriptor::new(*address, *bytes, flags | next, n as u16 + 1);
        let at = GuestAddress(TABLE + 16 * n as u64);
        driver.memory.write_obj(descriptor, at).unwrap();
    }
    let (memory, ring) = driver.ring(queue);
    let table = Descriptor::new(TABLE, 16 * pieces.len() as u32, INDIRECT, 0);
    ring.set_descriptor(memory, 255, table);
    ring.make_available(memory, 255);
}

#[test]
fn buffers_to_receive_that_are_readable_or_too_short_come_back_unused() {
    for features in [&[][..], &[VIRTIO_NET_F_MRG_RXBUF]] {
        let (mut driver, peer) = network(features);
        peer.send(&packet(60, 1));
        let bad: [&[Buffer<'_>]; 5] = [
            &[Buffer::Read(b"read this")],
            &[Buffer::Read(b"and this"), Buffer::Write(2000)],
            &[Buffer::Write(11)],
            &[Buffer::Write(5), Buffer::Write(6)],
            &[Buffer::Write(0)],
        ];
        for buffers in bad {
            let request = driver.send(RECEIVE, buffers);
            assert_eq!(driver.used(RECEIVE), [(request.head, 0)], "{buffers:?}");
        }
        assert_eq!(driver.counter("rx_bad_buffers"), 5);
        let good = driver.send(RECEIVE, &[Buffer::Write(1526)]);
        assert_eq!(driver.used(RECEIVE), [(good.head, 72)]);
        assert_works(&mut driver, &peer);
    }
}

#[test]
fn a_ring_full_of_one_byte_buffers_to_be_merged_comes_back_unused() {
    let (mut driver, peer) = network(&[
        VIRTIO_NET_F_MRG_RXBUF,
        VIRTIO_NET_F_GUEST_CSUM,
        VIRTIO_NET_F_GUEST_TSO4,
    ]);
    peer.send(&packet(1000, 1));
    for _ in 0..10 {
        for _ in 0..256 {
            driver.add(RECEIVE, &[Buffer::Write(1)]);
        }
        driver.notify(RECEIVE);
        driver.run();
        let used = driver.used(RECEIVE);
        assert_eq!(used.len(), 256);
        assert!(used.iter().all(|(_, bytes)| *bytes == 0));
    }
    let good = driver.send(RECEIVE, &[Buffer::Write(1526)]);
    assert_eq!(driver.used(RECEIVE), [(good.head, 1012)]);
    assert_works(&mut driver, &peer);
}

#[test]
fn the_shortest_buffers_there_may_be_take_a_packet_together() {
    let (mut driver, peer) = network(&[VIRTIO_NET_F_MRG_RXBUF]);
    let buffers: Vec<_> = (0..200)
        .map(|_| driver.add(RECEIVE, &[Buffer::Write(12)]))
        .collect();
    driver.notify(RECEIVE);
    driver.run();
    let sent = packet(1500, 1);
    peer.send(&sent);
    driver.run();
    let used = driver.used(RECEIVE);
    assert_eq!(used.len(), 126);
    let bytes: Vec<_> = buffers
        .iter()
        .take(126)
        .flat_map(|b| driver.received(b))
        .collect();
    assert_eq!(bytes[10..12], [126, 0]);
    assert!(bytes[12..] == sent);
}

#[test]
fn a_bad_buffer_behind_good_ones_waits_for_them_and_survives_a_pause() {
    let (mut driver, peer) = network(&[VIRTIO_NET_F_MRG_RXBUF]);
    let first = driver.add(RECEIVE, &[Buffer::Write(200)]);
    let second = driver.add(RECEIVE, &[Buffer::Write(200)]);
    let bad = driver.add(RECEIVE, &[Buffer::Write(3)]);
    let third = driver.send(RECEIVE, &[Buffer::Write(1526)]);
    for _ in 0..3 {
        driver.device.quiesce();
        driver.device.save().unwrap();
        driver.device.resume();
        driver.run();
    }
    peer.send(&packet(300, 1));
    peer.send(&packet(600, 2));
    driver.run();
    let expected = [
        (first.head, 200),
        (second.head, 112),
        (bad.head, 0),
        (third.head, 612),
    ];
    assert_eq!(driver.used(RECEIVE), expected);
    assert_eq!(received(&driver, &third, 612), (1, packet(600, 2)));
}

#[test]
fn buffers_of_as_many_pieces_as_there_may_be_are_used() {
    let indirect = VIRTIO_RING_F_INDIRECT_DESC;
    for features in [&[indirect][..], &[indirect, VIRTIO_NET_F_MRG_RXBUF]] {
        let (mut driver, peer) = network(features);
        let pieces: Vec<_> = (0..1024).map(|n| (DATA + 32 * n, 2, WRITE)).collect();
        add_indirect(&mut driver, RECEIVE, &pieces);
        driver.notify(RECEIVE);
        driver.run();
        let sent = packet(1500, 3);
        peer.send(&sent);
        driver.run();
        assert_eq!(driver.used(RECEIVE), [(255, 1512)]);
        let bytes: Vec<_> = pieces
            .iter()
            .flat_map(|(at, ..)| driver.bytes(*at, 2))
            .collect();
        assert!(bytes[12..1512] == sent);
        assert_works(&mut driver, &peer);
    }
}

#[test]
fn a_buffer_of_many_pieces_behind_another_waits_until_it_fits() {
    let (mut driver, peer) = network(&[VIRTIO_RING_F_INDIRECT_DESC, VIRTIO_NET_F_MRG_RXBUF]);
    let first = driver.add(RECEIVE, &[Buffer::Write(100)]);
    let pieces: Vec<_> = (0..1024).map(|n| (DATA + 32 * n, 2, WRITE)).collect();
    add_indirect(&mut driver, RECEIVE, &pieces);
    driver.notify(RECEIVE);
    for seed in [1, 2] {
        peer.send(&packet(80, seed));
    }
    driver.run();
    assert_eq!(driver.used(RECEIVE), [(first.head, 92), (255, 92)]);
    assert_works(&mut driver, &peer);
}

#[test]
fn what_is_no_packet_is_not_sent() {
    let (mut driver, peer) = network(&[]);
    let long = packet(MAX_PACKET_BYTES - 11, 1);
    let good = packet(60, 1);
    let asks_for_checksum = [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0];
    let cases: [(&str, &[Buffer<'_>]); 8] = [
        ("tx_dropped_malformed", &[Buffer::Read(b"")]),
        ("tx_dropped_malformed", &[Buffer::Read(&PLAIN)]),
        (
            "tx_dropped_malformed",
            &[Buffer::Read(&PLAIN), Buffer::Read(&good[..13])],
        ),
        ("tx_dropped_malformed", &[Buffer::Write(100)]),
        (
            "tx_dropped_malformed",
            &[Buffer::Read(&PLAIN), Buffer::Read(&good), Buffer::Write(1)],
        ),
        (
            "tx_dropped_malformed",
            &[Buffer::Read(&asks_for_checksum), Buffer::Read(&good)],
        ),
        (
            "tx_dropped_too_long",
            &[Buffer::Read(&PLAIN), Buffer::Read(&long)],
        ),
        ("tx_dropped_spoofed", &[Buffer::Read(&[0xff; 600])]),
    ];
    for (counter, buffers) in cases {
        let before = driver.counter(counter);
        let request = driver.send(TRANSMIT, buffers);
        assert_eq!(driver.used(TRANSMIT), [(request.head, 0)], "{buffers:?}");
        assert_eq!(driver.counter(counter), before + 1, "{buffers:?}");
        assert_eq!(peer.receive(), None);
    }
    assert_works(&mut driver, &peer);
}

#[test]
fn a_packet_of_more_pieces_than_the_kernel_takes_is_dropped() {
    let (mut driver, peer) = network(&[VIRTIO_RING_F_INDIRECT_DESC]);
    let good = packet(1100, 1);
    driver
        .memory
        .write_slice(&good, GuestAddress(DATA + 12))
        .unwrap();
    // The headers and what follows are cut so that one piece becomes two.
    let mut pieces = vec![(DATA, 27, 0)];
    pieces.extend((27..1050).map(|n| (DATA + n, 1, 0)));
    assert_eq!(pieces.len(), 1024);
    add_indirect(&mut driver, TRANSMIT, &pieces);
    driver.notify(TRANSMIT);
    driver.run();
    assert_eq!(driver.used(TRANSMIT), [(255, 0)]);
    assert_eq!(driver.counter("tx_dropped_refused"), 1);
    pieces.pop();
    add_indirect(&mut driver, TRANSMIT, &pieces);
    driver.notify(TRANSMIT);
    driver.run();
    assert_eq!(peer.receive().unwrap()[12..], good[..1037]);
}

#[test]
fn a_chain_that_overlaps_itself_beyond_any_packet_is_dropped() {
    let (mut driver, peer) = network(&[VIRTIO_RING_F_INDIRECT_DESC]);
    let pieces = vec![(DATA, 1000, 0); 1000];
    add_indirect(&mut driver, TRANSMIT, &pieces);
    driver.notify(TRANSMIT);
    driver.run();
    assert_eq!(driver.counter("tx_dropped_too_long"), 1);
    assert_eq!(driver.used(TRANSMIT), [(255, 0)]);
    assert_works(&mut driver, &peer);
}

#[test]
fn a_storm_of_notifications_does_nothing() {
    let (mut driver, peer) = network(&[]);
    peer.send(&packet(60, 1));
    for n in 0..20_000_u16 {
        driver.notify(n % 4);
        driver.run();
    }
    assert_eq!(driver.used(RECEIVE), []);
    assert_eq!(driver.used(TRANSMIT), []);
    driver.send(RECEIVE, &[Buffer::Write(1526)]);
    assert_works(&mut driver, &peer);
}

#[test]
fn a_driver_that_enables_one_queue_only_uses_that_one() {
    let (tap, peer) = link();
    let mut driver = Driver::new(Net::new(NetConfig::new(tap, MAC)).unwrap());
    driver.begin(0);
    driver.enable_queue(16);
    driver.driver_ok();
    driver.notify(TRANSMIT);
    peer.send(&packet(60, 1));
    driver.run();
    let buffer = driver.send(RECEIVE, &[Buffer::Write(1526)]);
    assert_eq!(driver.used(RECEIVE), [(buffer.head, 72)]);
    assert!(!driver.is_broken());
}
