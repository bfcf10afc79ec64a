use std::io::{ErrorKind, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::guest::{Guest, Socket, pattern, read, read_all};
use crate::devices::virtio::vsock::packet::{Done, Op};

fn connected(guest: &mut Guest) -> (UnixStream, Socket) {
    let listener = guest.listen(5);
    let mut socket = Socket::new(5, 6);
    let program = guest.connect(&listener, &mut socket);
    (program, socket)
}

fn expect_shutdown(guest: &mut Guest, socket: &Socket, receiving: bool, sending: bool) {
    let packet = guest.expect(socket, Op::Shutdown);
    let told = Done::from_flags(packet.header.flags);
    assert_eq!(told, Done { receiving, sending });
}

#[test]
fn a_program_that_ends_its_direction_can_still_be_sent_to() {
    let mut guest = Guest::new();
    let (mut program, mut socket) = connected(&mut guest);
    program.write_all(b"question").unwrap();
    program.shutdown(Shutdown::Write).unwrap();
    assert_eq!(guest.next().payload, b"question");
    expect_shutdown(&mut guest, &socket, false, true);
    guest.write(&mut socket, b"answer");
    assert_eq!(read(&mut program, 6), b"answer");
    guest.shut_down(&socket, true, true);
    assert_eq!(read_all(&mut program), b"");
    guest.expect(&socket, Op::Reset);
    guest.expect_nothing();
}

#[test]
fn a_guest_that_ends_its_direction_can_still_be_sent_to() {
    let mut guest = Guest::new();
    let (mut program, mut socket) = connected(&mut guest);
    guest.write(&mut socket, b"question");
    guest.shut_down(&socket, false, true);
    assert_eq!(read_all(&mut program), b"question");
    program.write_all(b"answer").unwrap();
    assert_eq!(guest.next().payload, b"answer");
    drop(program);
    // Its own direction is over already, but it does not take anything any more either.
    let mut told = Done::default();
    while !told.both() {
        let packet = guest.expect(&socket, Op::Shutdown);
        told = Done::from_flags(packet.header.flags);
    }
    guest.send_op(&socket, Op::Reset);
    guest.expect_nothing();
}

#[test]
fn a_guest_that_receives_no_more_ends_the_programs_direction() {
    let mut guest = Guest::new();
    let (mut program, mut socket) = connected(&mut guest);
    guest.shut_down(&socket, true, false);
    let error = program.write_all(b"to nobody").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    guest.write(&mut socket, b"last words");
    assert_eq!(read(&mut program, 10), b"last words");
    guest.expect_nothing();
}

#[test]
fn payload_after_the_guest_ended_its_direction_resets() {
    let mut guest = Guest::new();
    let (mut program, mut socket) = connected(&mut guest);
    guest.shut_down(&socket, false, true);
    guest.write(&mut socket, b"one more thing");
    guest.expect(&socket, Op::Reset);
    assert_eq!(read_all(&mut program), b"");
    assert_eq!(guest.driver.counter("violations"), 1);
}

#[test]
fn all_that_a_program_sent_before_it_went_arrives_before_the_end() {
    let mut guest = Guest::with(1, 100, |_| {});
    let (mut program, socket) = connected(&mut guest);
    let data = pattern(1, 1234);
    program.write_all(&data).unwrap();
    drop(program);
    let mut received = Vec::new();
    let mut told = Done::default();
    while !told.both() {
        let packet = guest.next();
        assert!(socket.is_of(&packet));
        match packet.op() {
            Op::Data => {
                assert!(!told.sending, "payload after the end");
                received.extend(packet.payload);
            }
            _ => told = Done::from_flags(packet.header.flags),
        }
    }
    assert_eq!(received, data);
    guest.shut_down(&socket, true, true);
    guest.expect(&socket, Op::Reset);
}

#[test]
fn a_guest_that_does_not_close_in_time_is_reset() {
    let mut guest = Guest::with(8, 100, |limits| {
        limits.close_patience = Duration::from_millis(1);
    });
    let (program, socket) = connected(&mut guest);
    drop(program);
    expect_shutdown_both(&mut guest, &socket);
    assert!(socket.is_of(&guest.wait_for(Op::Reset)));
    // It is forgotten.
    guest.send_op(&socket, Op::CreditRequest);
    guest.expect(&socket, Op::Reset);
}

fn expect_shutdown_both(guest: &mut Guest, socket: &Socket) {
    let mut told = Done::default();
    while !told.both() {
        told = Done::from_flags(guest.expect(socket, Op::Shutdown).header.flags);
    }
}

#[test]
fn a_program_that_went_without_reading_everything_resets() {
    let mut guest = Guest::new();
    let (program, mut socket) = connected(&mut guest);
    guest.write(&mut socket, b"unread");
    drop(program);
    guest.receive();
    let last = guest.inbox.pop_back().unwrap();
    assert_eq!(last.op(), Op::Reset);
    assert!(socket.is_of(&last));
}

#[test]
fn a_program_that_reads_no_more_is_not_written_to_and_the_guest_is_told() {
    let mut guest = Guest::new();
    let (mut program, mut socket) = connected(&mut guest);
    program.shutdown(Shutdown::Read).unwrap();
    guest.write(&mut socket, b"who reads this");
    expect_shutdown(&mut guest, &socket, true, false);
    // What was under way is taken and thrown away, however much it is.
    for _ in 0..3 {
        guest.write(&mut socket, &[0; 60_000]);
    }
    guest.expect_nothing();
    program.write_all(b"but I write").unwrap();
    assert_eq!(guest.next().payload, b"but I write");
}

/// Sends all that there is credit for and more than the socket takes; returns how much.
fn stuff(guest: &mut Guest, socket: &mut Socket) -> usize {
    let start = socket.sent;
    while socket.credit() > 0 {
        let piece = pattern(socket.sent, socket.credit().min(40_000) as usize);
        guest.write(socket, &piece);
        guest.receive();
        while let Some(packet) = guest.inbox.pop_front() {
            assert_eq!(packet.op(), Op::CreditUpdate);
            socket.learn(&packet);
        }
    }
    (socket.sent - start) as usize
}

#[test]
fn a_guest_that_closes_is_answered_when_the_program_has_taken_everything() {
    let mut guest = Guest::new();
    let (mut program, mut socket) = connected(&mut guest);
    let sent = stuff(&mut guest, &mut socket);
    guest.shut_down(&socket, true, true);
    guest.expect_nothing();
    let mut read_bytes = 0;
    while read_bytes < sent {
        read_bytes += read(&mut program, (sent - read_bytes).min(30_000)).len();
        guest.driver.run();
    }
    assert_eq!(read_all(&mut program), b"");
    guest.expect(&socket, Op::Reset);
}

#[test]
fn a_guest_that_closes_and_goes_leaves_what_it_sent_to_the_program() {
    let mut guest = Guest::new();
    let (program, mut socket) = connected(&mut guest);
    let sent = stuff(&mut guest, &mut socket);
    guest.shut_down(&socket, true, true);
    guest.send_op(&socket, Op::Reset);
    guest.expect_nothing();
    // It may use the ports again at once.
    std::fs::remove_file(guest.directory.path().join("v_5")).unwrap();
    let _listener = guest.listen(5);
    let again = Socket::new(5, 6);
    guest.send_op(&again, Op::Request);
    guest.expect(&again, Op::Response);
    assert_eq!(guest.wait_for_end(program).len(), sent);
    guest.send_op(&again, Op::CreditRequest);
    guest.expect(&again, Op::CreditUpdate);
}

#[test]
fn what_a_guest_left_to_a_program_that_does_not_take_it_is_given_up() {
    let mut guest = Guest::with(8, 4096, |limits| {
        limits.connections = 1;
        limits.drain_patience = Duration::from_millis(1);
    });
    let (_program, mut socket) = connected(&mut guest);
    stuff(&mut guest, &mut socket);
    guest.shut_down(&socket, true, true);
    guest.send_op(&socket, Op::Reset);
    let _listener = guest.listen(8);
    let another = Socket::new(8, 7);
    guest.send_op(&another, Op::Request);
    guest.expect(&another, Op::Reset);
    // It counts as a connection until the deadline.
    loop {
        guest.send_op(&another, Op::Request);
        if guest.next().op() == Op::Response {
            break;
        }
    }
}

#[test]
fn a_reset_of_the_guest_ends_it_at_once() {
    let mut guest = Guest::new();
    let (mut program, socket) = connected(&mut guest);
    guest.send_op(&socket, Op::Reset);
    assert_eq!(read_all(&mut program), b"");
    guest.expect_nothing();
    guest.send_op(&socket, Op::Data);
    guest.expect(&socket, Op::Reset);
}
