use proptest::prelude::*;
use virtio_queue::desc::split::Descriptor;

use super::guest::{Guest, Socket, read, read_all};
use crate::devices::virtio::test_driver::{Buffer, NEXT, OUTSIDE};
use crate::devices::virtio::vsock::device::{RECEIVE, TRANSMIT};
use crate::devices::virtio::vsock::packet::{HEADER_BYTES, Header, Op};

#[test]
fn a_length_beyond_the_chain_resets() {
    let mut guest = Guest::new();
    let listener = guest.listen(5);
    for len in [11, 1 << 20, u32::MAX] {
        let mut socket = Socket::new(5, 6);
        let mut program = guest.connect(&listener, &mut socket);
        let header = Header {
            len,
            ..socket.header(Op::Data)
        };
        guest.send_raw(&[Buffer::Read(&header.encode()), Buffer::Read(b"ten bytes.")]);
        guest.expect(&socket, Op::Reset);
        assert_eq!(read_all(&mut program), b"");
        // Nor does it begin a connection.
        let request = Header {
            len,
            ..socket.header(Op::Request)
        };
        guest.send_raw(&[Buffer::Read(&request.encode())]);
        guest.expect(&socket, Op::Reset);
    }
    assert!(!guest.driver.is_broken());
    assert_eq!(guest.driver.counter("violations"), 6);
}

#[test]
fn a_packet_may_lie_in_any_pieces_and_in_more_than_it_has_bytes() {
    let mut guest = Guest::new();
    let listener = guest.listen(5);
    let mut socket = Socket::new(5, 6);
    let mut program = guest.connect(&listener, &mut socket);
    let header = Header {
        len: 5,
        ..socket.header(Op::Data)
    };
    let bytes = [&header.encode()[..], b"hello and what is not part of it"].concat();
    for size in [1, 3, 43, 44, 45, 48, 100] {
        let pieces: Vec<_> = bytes.chunks(size).map(Buffer::Read).collect();
        guest.send_raw(&pieces);
        assert_eq!(read(&mut program, 5), b"hello", "pieces of {size}");
    }
    guest.expect_nothing();
}

#[test]
fn a_part_of_a_header_is_dropped() {
    let mut guest = Guest::new();
    let header = Socket::new(5, 6).header(Op::Request).encode();
    for bytes in 0..HEADER_BYTES {
        guest.send_raw(&[Buffer::Read(&header[..bytes])]);
    }
    guest.send_raw(&[Buffer::Write(100)]);
    guest.expect_nothing();
    assert!(!guest.driver.is_broken());
    assert_eq!(guest.driver.counter("dropped_packets"), 45);
}

#[test]
fn a_buffer_without_room_for_payload_breaks_the_device_until_it_is_reset() {
    let mut guest = Guest::with(0, 0, |_| {});
    let listener = guest.listen(5);
    guest.post(1);
    guest.send_op(&Socket::new(5, 6), Op::Request);
    assert!(guest.driver.is_broken());
    assert_eq!(read_all(&mut listener.accept().unwrap().0), b"");
    guest.boot(0);
    assert!(!guest.driver.is_broken());
}

#[test]
fn a_loop_of_descriptors_breaks_the_device_and_closes_its_connections() {
    for queue in [RECEIVE, TRANSMIT] {
        let mut guest = Guest::with(1, 100, |_| {});
        let listener = guest.listen(5);
        let mut program = guest.connect(&listener, &mut Socket::new(5, 6));
        let (memory, ring) = guest.driver.ring(queue);
        for at in [200, 201] {
            ring.set_descriptor(memory, at, Descriptor::new(0x40_0000, 8, NEXT, at ^ 1));
        }
        // Behind what is there already.
        ring.make_available(memory, 200);
        guest.driver.notify(queue);
        guest.driver.run();
        // The receive queue is looked at when there is something to send.
        guest.send_op(&Socket::new(7, 7), Op::Data);
        guest.driver.notify(TRANSMIT);
        guest.driver.run();
        guest.send_op(&Socket::new(7, 7), Op::Data);
        assert!(guest.driver.is_broken(), "queue {queue}");
        assert_eq!(read_all(&mut program), b"");
    }
}

#[test]
fn a_chain_outside_of_memory_breaks_the_device() {
    let mut guest = Guest::new();
    let (memory, ring) = guest.driver.ring(TRANSMIT);
    ring.set_descriptor(memory, 9, Descriptor::new(OUTSIDE - 40, 44, 0, 0));
    ring.make_available(memory, 9);
    guest.driver.notify(TRANSMIT);
    guest.driver.run();
    assert!(guest.driver.is_broken());
}

#[test]
fn every_operation_at_every_wrong_time_resets_and_unknown_ones_too() {
    let mut guest = Guest::new();
    let listener = guest.listen(5);
    for op in [0, 1, 2, 8, 9, 255, 256, u16::MAX] {
        let mut socket = Socket::new(5, 6);
        let mut program = guest.connect(&listener, &mut socket);
        let header = Header {
            op,
            ..socket.header(Op::Data)
        };
        guest.send(&header, &[]);
        guest.expect(&socket, Op::Reset);
        assert_eq!(read_all(&mut program), b"", "operation {op}");
        // Of no connection, but for requests.
        if op != Op::Request as u16 {
            guest.send(&header, &[]);
            guest.expect(&socket, Op::Reset);
        }
    }
    assert!(!guest.driver.is_broken());
}

#[test]
fn refusals_are_bounded_while_the_guest_takes_none() {
    let mut guest = Guest::with(0, 4096, |_| {});
    for port in 0..1000 {
        guest.send_op(&Socket::new(1, port), Op::CreditRequest);
    }
    assert_eq!(guest.driver.counter("unanswered_packets"), 1000 - 256);
    guest.post(200);
    guest.receive();
    assert_eq!(guest.inbox.len(), 256);
    assert!(guest.inbox.iter().all(|packet| packet.op() == Op::Reset));
}

#[test]
fn a_guest_that_opens_and_resets_without_ever_receiving_uses_nothing_up() {
    let mut guest = Guest::with(0, 4096, |limits| limits.connections = 4);
    let listener = guest.listen(5);
    for port in 0..1000 {
        let socket = Socket::new(5, port);
        guest.send_op(&socket, Op::Request);
        let mut program = listener.accept().unwrap().0;
        guest.send_op(&socket, Op::Reset);
        assert_eq!(read_all(&mut program), b"");
    }
    assert_eq!(guest.driver.counter("connections"), 1000);
    assert_eq!(guest.driver.counter("rejected_connections"), 0);
    guest.post(4);
    guest.expect_nothing();
}

/// A header whose fields are often right.
fn header() -> impl Strategy<Value = Header> {
    let mostly = |right: u64| prop_oneof![9 => Just(right), 1 => any::<u64>()];
    (
        mostly(52),
        mostly(2),
        0u32..3,
        5u32..8,
        prop_oneof![4 => 0u32..3000, 1 => any::<u32>()],
        prop_oneof![9 => Just(1u16), 1 => any::<u16>()],
        prop_oneof![9 => 1u16..8, 1 => any::<u16>()],
        prop_oneof![9 => 0u32..4, 1 => any::<u32>()],
        prop_oneof![9 => 0u32..10_000, 1 => any::<u32>()],
        prop_oneof![9 => Just(0u32), 3 => 0u32..10_000, 1 => any::<u32>()],
    )
        .prop_map(|fields| {
            let (src_cid, dst_cid, src_port, dst_port, len, kind, op, flags, buf_alloc, fwd_cnt) =
                fields;
            Header {
                src_cid,
                dst_cid,
                src_port,
                dst_port,
                len,
                kind,
                op,
                flags,
                buf_alloc,
                fwd_cnt,
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    /// Whatever packets come: the device is not broken, and afterwards serves who keeps the rules.
    #[test]
    fn no_packets_break_the_device(
        packets in prop::collection::vec((header(), 0usize..3000), 1..60),
        buffers in 0u16..10,
    ) {
        let mut guest = Guest::with(buffers, 500, |limits| limits.connections = 6);
        let listeners = [guest.listen(5), guest.listen(6)];
        for (header, bytes) in &packets {
            let payload = vec![1; *bytes];
            let header = header.encode();
            let buffers = [Buffer::Read(&header), Buffer::Read(&payload)];
            guest.driver.send(TRANSMIT, &buffers[..1 + usize::from(*bytes > 0)]);
            guest.driver.used(TRANSMIT);
        }
        guest.driver.run();
        prop_assert!(!guest.driver.is_broken());
        guest.post(40);
        guest.receive();
        for port in 0..3 {
            for host in 5..8 {
                guest.send_op(&Socket::new(host, port), Op::Reset);
            }
        }
        guest.receive();
        guest.inbox.clear();
        for listener in &listeners {
            listener.set_nonblocking(true).unwrap();
            while listener.accept().is_ok() {}
            listener.set_nonblocking(false).unwrap();
        }
        let mut socket = Socket::new(5, 1);
        let mut program = guest.connect(&listeners[0], &mut socket);
        guest.write(&mut socket, b"still here");
        prop_assert_eq!(read(&mut program, 10), b"still here");
    }
}
