use std::io::Write as _;
use std::time::Duration;

use super::guest::{Guest, Socket, pattern, read, read_all};
use crate::devices::virtio::vsock::packet::Op;

#[test]
fn a_program_of_the_host_reaches_a_port_of_the_guest_and_is_echoed() {
    let mut guest = Guest::new();
    let mut client = guest.client();
    client.write_all(b"CONNECT 5000\n").unwrap();
    let mut socket = guest.accept();
    assert_eq!(socket.guest_port, 5000);
    assert_eq!(socket.host_port, 1 << 30);
    assert_eq!(read(&mut client, 14), b"OK 1073741824\n");

    client.write_all(b"hello").unwrap();
    let packet = guest.next();
    assert_eq!((packet.op(), &*packet.payload), (Op::Data, &b"hello"[..]));
    guest.write(&mut socket, &packet.payload);
    assert_eq!(read(&mut client, 5), b"hello");
    assert_eq!(guest.driver.counter("connections"), 1);
    assert_eq!(guest.driver.counter("received_bytes"), 5);
    assert_eq!(guest.driver.counter("transmitted_bytes"), 5);
    assert_eq!(guest.driver.counter("received_packets"), 2);
    assert_eq!(guest.driver.counter("transmitted_packets"), 2);
    assert!(guest.driver.take_interrupt());
}

#[test]
fn what_is_written_behind_the_line_waits_for_the_guest_to_accept() {
    let mut guest = Guest::new();
    let mut client = guest.client();
    client.write_all(b"CONNECT 1\nearly").unwrap();
    let socket = guest.accept();
    let packet = guest.next();
    assert!(socket.is_of(&packet));
    assert_eq!(packet.payload, b"early");
    assert_eq!(read(&mut client, 3), b"OK ");
}

#[test]
fn a_guest_that_refuses_ends_the_program_of_the_hosts_connection() {
    let mut guest = Guest::new();
    let mut client = guest.client();
    client.write_all(b"CONNECT 9\n").unwrap();
    let request = guest.next();
    let socket = Socket::new(request.header.src_port, 9);
    guest.send_op(&socket, Op::Reset);
    assert_eq!(read_all(&mut client), b"");
    guest.expect_nothing();
}

#[test]
fn a_guest_that_does_not_answer_is_given_up() {
    let mut guest = Guest::with(0, 4096, |limits| {
        limits.answer_patience = Duration::from_millis(1);
    });
    let mut client = guest.client();
    client.write_all(b"CONNECT 9\n").unwrap();
    // Without a buffer it was not even asked.
    guest
        .driver
        .run_until("the connection is given up", |driver| {
            driver.counter("connections") == 1
        });
    assert_eq!(guest.wait_for_end(client), b"");
    guest.post(4);
    guest.expect_nothing();

    let mut client = guest.client();
    client.write_all(b"CONNECT 9\n").unwrap();
    let request = guest.next();
    assert_eq!(request.op(), Op::Request);
    let socket = Socket::new(request.header.src_port, 9);
    assert_eq!(guest.wait_for_end(client), b"");
    guest.expect(&socket, Op::Reset);
    // It comes too late.
    guest.send_op(&socket, Op::Response);
    guest.expect(&socket, Op::Reset);
}

#[test]
fn a_program_that_says_nothing_or_something_else_is_sent_away() {
    let mut guest = Guest::with(4, 4096, |limits| {
        limits.handshake_patience = Duration::from_millis(1);
    });
    let mut wrong = guest.client();
    wrong.write_all(b"GET / HTTP/1.1\n").unwrap();
    assert_eq!(guest.wait_for_end(wrong), b"");
    let silent = guest.client();
    assert_eq!(guest.wait_for_end(silent), b"");
    let mut slow = guest.client();
    slow.write_all(b"CONNECT ").unwrap();
    assert_eq!(guest.wait_for_end(slow), b"");
    drop(guest.client());
    guest.driver.run();
    assert_eq!(guest.driver.counter("rejected_connections"), 4);
    guest.expect_nothing();
}

#[test]
fn a_program_that_goes_before_the_guest_answers_leaves_nothing_behind() {
    let mut guest = Guest::new();
    let mut client = guest.client();
    client.write_all(b"CONNECT 7\n").unwrap();
    let request = guest.next();
    drop(client);
    let socket = Socket::new(request.header.src_port, 7);
    guest.expect(&socket, Op::Reset);
    guest.send_op(&socket, Op::Response);
    guest.expect(&socket, Op::Reset);
}

#[test]
fn more_programs_than_can_be_heard_at_once_are_heard_one_after_the_other() {
    let mut guest = Guest::with(32, 64, |limits| limits.handshakes = 2);
    let silent = [guest.client(), guest.client()];
    guest.driver.run();
    let mut waiting: Vec<_> = (0..5).map(|_| guest.client()).collect();
    for client in &mut waiting {
        client.write_all(b"CONNECT 3\n").unwrap();
    }
    guest.expect_nothing();
    drop(silent);
    for _ in 0..5 {
        guest.accept();
    }
    for mut client in waiting {
        assert_eq!(read(&mut client, 3), b"OK ");
    }
}

#[test]
fn the_same_port_of_the_guest_is_reached_by_several_at_once_and_nothing_is_mixed_up() {
    let mut guest = Guest::new();
    let mut ends: Vec<_> = (0..8_u32)
        .map(|n| {
            let mut client = guest.client();
            client.write_all(b"CONNECT 1\n").unwrap();
            let socket = guest.accept();
            assert_eq!(socket.host_port, (1 << 30) + n);
            read(&mut client, 14);
            (client, socket)
        })
        .collect();
    for (n, (client, _)) in (0..).zip(&mut ends) {
        client.write_all(&pattern(n, 100)).unwrap();
    }
    for _ in 0..ends.len() {
        let packet = guest.next();
        let at = ends
            .iter()
            .position(|(_, socket)| socket.is_of(&packet))
            .unwrap();
        assert_eq!(packet.payload, pattern(at as u32, 100));
        guest.write(&mut ends[at].1.clone(), &packet.payload);
    }
    for (n, (client, _)) in (0..).zip(&mut ends) {
        assert_eq!(read(client, 100), pattern(n, 100));
    }
}
