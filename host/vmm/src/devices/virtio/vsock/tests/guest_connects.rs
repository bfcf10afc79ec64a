use std::io::Write as _;

use super::guest::{Guest, Socket, read, read_all};
use crate::devices::virtio::vsock::packet::{Header, Op};

#[test]
fn a_guest_reaches_a_program_of_the_host_and_is_echoed() {
    let mut guest = Guest::new();
    let listener = guest.listen(52);
    let mut socket = Socket::new(52, 1023);
    let mut program = guest.connect(&listener, &mut socket);
    assert_eq!(socket.host_room, 64 << 10);
    guest.write(&mut socket, b"hello");
    assert_eq!(read(&mut program, 5), b"hello");
    program.write_all(b"world").unwrap();
    let packet = guest.next();
    assert!(socket.is_of(&packet));
    assert_eq!((packet.op(), &*packet.payload), (Op::Data, &b"world"[..]));
    assert_eq!(guest.driver.counter("connections"), 1);
}

#[test]
fn a_port_where_nobody_listens_refuses() {
    let mut guest = Guest::new();
    let socket = Socket::new(1, 1);
    guest.send_op(&socket, Op::Request);
    guest.expect(&socket, Op::Reset);
    // Somebody was there, and has gone.
    drop(guest.listen(2));
    let socket = Socket::new(2, 1);
    guest.send_op(&socket, Op::Request);
    guest.expect(&socket, Op::Reset);
    assert_eq!(guest.driver.counter("rejected_connections"), 2);
    assert_eq!(guest.driver.counter("connections"), 0);
}

#[test]
fn a_second_request_on_the_same_ports_resets_the_first() {
    let mut guest = Guest::new();
    let listener = guest.listen(5);
    let mut socket = Socket::new(5, 6);
    let mut program = guest.connect(&listener, &mut socket);
    guest.send_op(&socket, Op::Request);
    guest.expect(&socket, Op::Reset);
    assert_eq!(read_all(&mut program), b"");
    // Then the ports are free.
    guest.connect(&listener, &mut socket);
}

#[test]
fn payload_before_the_answer_resets() {
    let mut guest = Guest::with(0, 4096, |_| {});
    let listener = guest.listen(5);
    let mut socket = Socket::new(5, 6);
    guest.send_op(&socket, Op::Request);
    guest.write(&mut socket, b"too early");
    guest.post(4);
    guest.expect(&socket, Op::Reset);
    guest.expect_nothing();
    assert_eq!(read_all(&mut listener.accept().unwrap().0), b"");
}

#[test]
fn another_destination_than_the_host_and_another_type_than_a_stream_are_refused() {
    let mut guest = Guest::new();
    let _listener = guest.listen(5);
    let socket = Socket::new(5, 6);
    let request = socket.header(Op::Request);
    for (dst_cid, kind) in [(3, 1), (0, 1), (u64::MAX, 1), (2, 0), (2, 2), (2, u16::MAX)] {
        let wrong = Header {
            dst_cid,
            kind,
            ..request
        };
        guest.send(&wrong, &[]);
        let reset = guest.expect(&socket, Op::Reset);
        assert_eq!((reset.header.src_cid, reset.header.kind), (dst_cid, kind));
        let wrong = Header {
            op: Op::Reset as u16,
            ..wrong
        };
        guest.send(&wrong, &[]);
        guest.expect_nothing();
    }
    assert_eq!(guest.driver.counter("violations"), 12);
    assert_eq!(guest.driver.counter("connections"), 0);
}

#[test]
fn somebody_elses_packets_are_dropped() {
    let mut guest = Guest::new();
    let listener = guest.listen(5);
    let mut socket = Socket::new(5, 6);
    let _program = guest.connect(&listener, &mut socket);
    for src_cid in [0, 2, 51, 53, 52 | 1 << 32, u64::MAX] {
        for op in [Op::Request, Op::Reset] {
            let wrong = Header {
                src_cid,
                ..socket.header(op)
            };
            guest.send(&wrong, &[]);
        }
    }
    guest.expect_nothing();
    assert_eq!(guest.driver.counter("dropped_packets"), 12);
    guest.send_op(&socket, Op::CreditRequest);
    guest.expect(&socket, Op::CreditUpdate);
}
