use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_MRG_RXBUF,
};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;

use super::*;

/// Features of a driver that receives segments to be merged.
const LARGE: [u32; 3] = [
    VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_NET_F_GUEST_CSUM,
    VIRTIO_NET_F_GUEST_TSO4,
];

#[test]
fn a_packet_goes_into_one_buffer_whatever_its_parts() {
    let (mut driver, peer) = network(&[]);
    let buffer = driver.add(
        RECEIVE,
        &[Buffer::Write(5), Buffer::Write(20), Buffer::Write(1501)],
    );
    driver.notify(RECEIVE);
    driver.run();
    assert_eq!(driver.used(RECEIVE), [], "there is nothing to receive");
    peer.send(&packet(1000, 1));
    driver.run();
    assert_eq!(driver.used(RECEIVE), [(buffer.head, 1012)]);
    assert_eq!(received(&driver, &buffer, 1012), (1, packet(1000, 1)));
    assert!(driver.take_interrupt());
    assert_eq!(driver.counter("rx_packets"), 1);
    assert_eq!(driver.counter("rx_bytes"), 1000);
}

#[test]
fn the_header_that_the_network_wrote_reaches_the_driver() {
    let (mut driver, peer) = network(&LARGE);
    let buffer = driver.send(RECEIVE, &[Buffer::Write(1526)]);
    let header = [1, 1, 66, 0, 0xa8, 5, 34, 0, 16, 0, 0xee, 0xee];
    peer.send_raw(&[&header[..], &packet(100, 1)].concat());
    driver.run();
    let bytes = driver.received(&buffer);
    assert_eq!(bytes[..10], header[..10]);
    assert_eq!(bytes[10..12], [1, 0]);
}

#[test]
fn the_largest_packet_is_spread_over_buffers_that_are_merged() {
    let (mut driver, peer) = network(&LARGE);
    let sizes = [1526, 4096, 12, 100, 65536, 1526];
    let buffers: Vec<_> = sizes
        .iter()
        .map(|size| driver.add(RECEIVE, &[Buffer::Write(*size)]))
        .collect();
    driver.notify(RECEIVE);
    driver.run();
    let sent = packet(MAX_PACKET_BYTES - 12, 5);
    peer.send(&sent);
    driver.run();
    let used = driver.used(RECEIVE);
    let lengths = [1526, 4096, 12, 100, 65562 - 1526 - 4096 - 12 - 100];
    let heads = buffers.iter().map(|buffer| buffer.head);
    assert_eq!(used, heads.zip(lengths).collect::<Vec<_>>());
    let mut all: Vec<u8> = Vec::new();
    for (buffer, length) in buffers.iter().zip(lengths) {
        all.extend(&driver.received(buffer)[..length as usize]);
    }
    assert_eq!(all[10..12], [5, 0]);
    assert!(all[12..] == sent);

    // The one that is left takes the next.
    peer.send(&packet(60, 6));
    driver.run();
    assert_eq!(driver.used(RECEIVE), [(buffers[5].head, 72)]);
    assert_eq!(received(&driver, &buffers[5], 72), (1, packet(60, 6)));
}

#[test]
fn a_packet_that_exactly_fills_its_buffers_is_whole() {
    let (mut driver, peer) = network(&LARGE);
    let first = driver.add(RECEIVE, &[Buffer::Write(100)]);
    let second = driver.send(RECEIVE, &[Buffer::Write(100)]);
    peer.send(&packet(188, 1));
    driver.run();
    assert_eq!(
        driver.used(RECEIVE),
        [(first.head, 100), (second.head, 100)]
    );
    let (count, start) = received(&driver, &first, 100);
    assert_eq!(count, 2);
    assert_eq!([start, driver.received(&second)].concat(), packet(188, 1));
}

#[test]
fn a_packet_that_is_longer_than_its_buffers_is_dropped_and_the_buffers_stay() {
    for features in [&[][..], &LARGE[..]] {
        let (mut driver, peer) = network(features);
        let buffer = driver.send(RECEIVE, &[Buffer::Write(100)]);
        peer.send(&packet(89, 1));
        peer.send(&packet(88, 2));
        driver.run();
        assert_eq!(driver.used(RECEIVE), [(buffer.head, 100)]);
        assert_eq!(received(&driver, &buffer, 100), (1, packet(88, 2)));
        assert_eq!(driver.counter("rx_dropped_too_long"), 1);
        assert_eq!(driver.counter("rx_packets"), 1);
    }
}

#[test]
fn while_there_are_no_buffers_packets_wait_in_order_and_the_device_rests() {
    let (mut driver, peer) = network(&[]);
    for n in 0..20 {
        peer.send(&packet(60, n));
    }
    // It would not come to rest if it looked at the link.
    driver.run();
    assert_eq!(driver.counter("rx_packets"), 0);
    let turns = driver.counter("notifications");
    for n in 0..20 {
        let buffer = driver.send(RECEIVE, &[Buffer::Write(1526)]);
        assert_eq!(driver.used(RECEIVE), [(buffer.head, 72)]);
        assert_eq!(received(&driver, &buffer, 72), (1, packet(60, n)));
    }
    assert_eq!(driver.counter("notifications"), turns + 20);
    assert!(driver.counter("rx_no_buffers") >= 20);
}

#[test]
fn a_driver_that_waits_for_event_indices_is_told_of_merged_buffers() {
    let features = [LARGE[0], LARGE[1], LARGE[2], VIRTIO_RING_F_EVENT_IDX];
    let (mut driver, peer) = network(&features);
    for _ in 0..200 {
        driver.add(RECEIVE, &[Buffer::Write(100)]);
    }
    driver.notify(RECEIVE);
    driver.run();
    driver.take_interrupt();
    let mut used = 0;
    for event in [0, 7, 14, 20] {
        // An interrupt when the buffer of this number is used, and 5 at a time are.
        let (memory, ring) = driver.ring(RECEIVE);
        ring.set_used_event(memory, event);
        let mut interrupted = false;
        while used <= event {
            assert!(!interrupted, "too early");
            peer.send(&packet(450, 1));
            driver.run();
            used += 5;
            interrupted = driver.take_interrupt();
        }
        assert!(interrupted, "buffer {event} was used");
    }
}

#[test]
fn what_came_before_the_driver_was_ready_is_thrown_away() {
    let (tap, peer) = link();
    let mut driver = Driver::new(Net::new(NetConfig::new(tap, MAC)).unwrap());
    for n in 0..5 {
        peer.send(&packet(1000, n));
    }
    driver.run();
    driver.negotiate(0);
    let buffer = driver.send(RECEIVE, &[Buffer::Write(1526)]);
    assert_eq!(driver.used(RECEIVE), []);
    assert_eq!(driver.counter("rx_dropped_stale"), 5);
    peer.send(&packet(60, 9));
    driver.run();
    assert_eq!(received(&driver, &buffer, 72), (1, packet(60, 9)));
}

#[test]
fn what_is_too_short_for_a_packet_is_dropped() {
    let (mut driver, peer) = network(&[]);
    let buffer = driver.send(RECEIVE, &[Buffer::Write(1526)]);
    for bytes in [1, 11, 12, 25] {
        peer.send_raw(&vec![0; bytes]);
    }
    peer.send(&packet(14, 1));
    driver.run();
    assert_eq!(driver.used(RECEIVE), [(buffer.head, 26)]);
    assert_eq!(driver.counter("rx_dropped_malformed"), 4);
}
