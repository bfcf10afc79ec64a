use std::io::Write as _;

use super::guest::{Guest, Socket, pattern, read, read_all};
use crate::devices::virtio::vsock::packet::Op;

/// Half of 1,000.
const HALF: u32 = 500;

#[test]
fn a_thousand_connections_of_both_directions_work_at_once() {
    let mut guest = Guest::with(64, 4096, |_| {});
    let listener = guest.listen(5);
    let mut ends = Vec::new();
    for port in 0..HALF {
        let mut socket = Socket::new(5, port);
        ends.push((guest.connect(&listener, &mut socket), socket));
        let mut client = guest.client();
        client.write_all(b"CONNECT 99\n").unwrap();
        let socket = guest.accept();
        read(&mut client, 14);
        ends.push((client, socket));
    }
    assert_eq!(guest.driver.counter("connections"), u64::from(2 * HALF));
    for (n, (program, socket)) in (0..).zip(&mut ends) {
        program.write_all(&pattern(n, 10)).unwrap();
        guest.write(socket, &pattern(n + 7, 10));
    }
    guest.receive();
    assert_eq!(guest.inbox.len(), ends.len());
    for packet in std::mem::take(&mut guest.inbox) {
        // A program's end is found by its ports, as a guest does.
        let at = ends.iter().position(|(_, socket)| socket.is_of(&packet));
        assert_eq!(packet.payload, pattern(at.unwrap() as u32, 10));
    }
    for (n, (program, socket)) in (0..).zip(&mut ends) {
        assert_eq!(read(program, 10), pattern(n + 7, 10));
        guest.shut_down(socket, true, true);
        assert_eq!(read_all(program), b"");
    }
    guest.receive();
    assert_eq!(guest.inbox.len(), ends.len());
    assert!(guest.inbox.iter().all(|packet| packet.op() == Op::Reset));
}

#[test]
fn connections_beyond_the_limit_are_refused_in_both_directions_until_there_is_room() {
    let mut guest = Guest::with(32, 4096, |limits| limits.connections = 10);
    let listener = guest.listen(5);
    let mut ends = Vec::new();
    for port in 0..10 {
        let mut socket = Socket::new(5, port);
        ends.push((guest.connect(&listener, &mut socket), socket));
    }
    let one_more = Socket::new(5, 10);
    guest.send_op(&one_more, Op::Request);
    guest.expect(&one_more, Op::Reset);
    let mut client = guest.client();
    client.write_all(b"CONNECT 4\n").unwrap();
    guest.expect_nothing();
    assert_eq!(read_all(&mut client), b"");
    assert_eq!(guest.driver.counter("rejected_connections"), 2);

    let (_program, closed) = ends.pop().unwrap();
    guest.send_op(&closed, Op::Reset);
    guest.send_op(&one_more, Op::Request);
    guest.expect(&one_more, Op::Response);
}
