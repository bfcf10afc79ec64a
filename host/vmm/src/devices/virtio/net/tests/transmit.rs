use virtio_bindings::virtio_net::{VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_TSO4};

use super::*;

#[test]
fn packets_are_sent_as_they_are_in_order_and_counted() {
    let (mut driver, peer) = network(&[]);
    let sent: Vec<_> = (0..50).map(|n| packet(14 + 29 * n, n as u8)).collect();
    for packet in &sent {
        // However its parts are cut.
        let whole = [&PLAIN[..], packet].concat();
        let (a, rest) = whole.split_at(5);
        let (b, c) = rest.split_at(10);
        driver.add(
            TRANSMIT,
            &[Buffer::Read(a), Buffer::Read(b), Buffer::Read(c)],
        );
    }
    driver.notify(TRANSMIT);
    driver.run();
    for packet in &sent {
        assert_eq!(peer.receive().unwrap(), [&PLAIN[..], packet].concat());
    }
    assert_eq!(peer.receive(), None);
    assert_eq!(driver.used(TRANSMIT).len(), 50);
    assert!(driver.take_interrupt());
    assert_eq!(driver.counter("tx_packets"), 50);
    let bytes: usize = sent.iter().map(Vec::len).sum();
    assert_eq!(driver.counter("tx_bytes"), bytes as u64);
}

#[test]
fn a_packet_of_the_largest_size_passes_with_the_offloads_that_it_asks_for() {
    let (mut driver, peer) = network(&[VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_TSO4]);
    let header = [1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0, 7, 7];
    let packet = packet(MAX_PACKET_BYTES - 12, 1);
    driver.send(TRANSMIT, &[Buffer::Read(&header), Buffer::Read(&packet)]);
    let sent = peer.receive().unwrap();
    assert_eq!(sent[..12], [&header[..10], &[0, 0]].concat());
    assert!(sent[12..] == packet);
}

#[test]
fn packets_from_another_address_are_dropped_unless_spoofing_is_allowed() {
    for (anti_spoofing, passes) in [(true, false), (false, true)] {
        let (mut driver, peer) = network_with(&[], |config| config.anti_spoofing = anti_spoofing);
        let mut spoofed = packet(100, 1);
        spoofed[6..12].copy_from_slice(&OTHER);
        transmit(&mut driver, &spoofed);
        assert_eq!(peer.receive().is_some(), passes);
        assert_eq!(driver.counter("tx_dropped_spoofed"), u64::from(!passes));
        assert_eq!(driver.used(TRANSMIT).len(), 1);
        transmit(&mut driver, &packet(100, 1));
        assert!(peer.receive().is_some());
    }
}

#[test]
fn what_the_network_has_no_room_for_is_dropped_and_counted() {
    let (mut driver, peer) = network(&[]);
    let mut sent = 0;
    while driver.counter("tx_dropped_full") == 0 {
        transmit(&mut driver, &packet(1400, 1));
        sent += 1;
    }
    assert_eq!(driver.counter("tx_packets"), sent - 1);
    while peer.receive().is_some() {}
    transmit(&mut driver, &packet(1400, 2));
    assert!(peer.receive().is_some(), "it goes on");
}
