use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::thread;

use proptest::prelude::*;

use super::guest::{Guest, Socket, is_readable, pattern, read};
use crate::devices::virtio::vsock::packet::{Header, Op};

fn connected(guest: &mut Guest, room: u32) -> (UnixStream, Socket) {
    let listener = guest.listen(5);
    let mut socket = Socket {
        room,
        ..Socket::new(5, 6)
    };
    let program = guest.connect(&listener, &mut socket);
    (program, socket)
}

/// A program on the host and one in the guest send `bytes` each, at once, over buffers as small as
/// is given; both read what they are sent in pieces.
fn transfer(bytes: usize, buffers: u16, buffer_bytes: u32, guest_room: u32, host_room: u32) {
    let mut guest = Guest::with(buffers, buffer_bytes, |limits| {
        limits.buffer_bytes = host_room;
    });
    let (mut program, mut socket) = connected(&mut guest, guest_room);
    let mut writer = program.try_clone().unwrap();
    let _stays_open = program.try_clone().unwrap();
    let writing = thread::spawn(move || writer.write_all(&pattern(1, bytes)));
    let reading = thread::spawn(move || {
        let mut data = Vec::new();
        let mut piece = [0; 3000];
        while data.len() < bytes {
            let read = program.read(&mut piece).unwrap();
            assert_ne!(read, 0);
            data.extend_from_slice(&piece[..read]);
        }
        data
    });
    let (to_send, mut received) = (pattern(2, bytes), Vec::new());
    let mut sent = 0;
    while received.len() < bytes || sent < bytes {
        guest.receive();
        let mut has_changed = !guest.inbox.is_empty();
        for packet in std::mem::take(&mut guest.inbox) {
            assert!(socket.is_of(&packet));
            socket.learn(&packet);
            match packet.op() {
                Op::Data => {
                    received.extend_from_slice(&packet.payload);
                    let buffered = received.len() as u32 - socket.passed;
                    assert!(buffered <= guest_room, "more than there was credit for");
                }
                Op::CreditRequest | Op::CreditUpdate => {}
                op => panic!("{op:?}"),
            }
        }
        // It tells of what it read when half of its buffer is empty.
        if received.len() as u32 - socket.passed >= guest_room / 2 {
            socket.passed = received.len() as u32;
            guest.send_op(&socket, Op::CreditUpdate);
            has_changed = true;
        }
        let credit = socket.credit() as usize;
        let piece = credit.min(bytes - sent).min(10_000);
        if piece > 0 {
            guest.write(&mut socket, &to_send[sent..sent + piece]);
            sent += piece;
            has_changed = true;
        }
        if !has_changed {
            let before = guest.driver.counter("received_packets");
            guest.driver.run_until("something comes", |driver| {
                driver.counter("received_packets") > before
            });
        }
    }
    assert!(received == pattern(1, bytes), "what the guest received");
    writing.join().unwrap().unwrap();
    let read = guest.while_running(move || reading.join().unwrap());
    assert!(read == to_send, "what the program received");
    assert_eq!(guest.driver.counter("violations"), 0);
    assert_eq!(guest.driver.counter("transmitted_bytes"), bytes as u64);
    assert_eq!(guest.driver.counter("received_bytes"), bytes as u64);
}

#[test]
fn a_mebibyte_goes_both_ways_at_once_over_the_usual_buffers() {
    transfer(1 << 20, 32, 4096, 256 << 10, 64 << 10);
}

#[test]
fn a_mebibyte_goes_both_ways_at_once_over_tiny_buffers() {
    transfer(1 << 20, 2, 1000, 3000, 4096);
}

#[test]
fn credit_of_a_few_bytes_is_enough_to_get_everything_across() {
    transfer(5000, 1, 7, 5, 4096);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn every_byte_arrives_whatever_the_buffers_are(
        buffers in 1u16..20,
        buffer_bytes in 20u32..5000,
        guest_room in 20u32..100_000,
        host_room in 4096u32..100_000,
    ) {
        transfer(60_000, buffers, buffer_bytes, guest_room, host_room);
    }
}

#[test]
fn a_guest_that_ignores_its_credit_is_reset() {
    let mut guest = Guest::new();
    let (_program, mut socket) = connected(&mut guest, 1000);
    // The program does not read: its socket is full at some time, and then our buffer.
    for _ in 0..1000 {
        guest.write(&mut socket, &[7; 60_000]);
        guest.receive();
        if let Some(packet) = guest.inbox.pop_back().filter(|p| p.op() == Op::Reset) {
            assert!(socket.is_of(&packet));
            assert_eq!(guest.driver.counter("violations"), 1);
            return;
        }
    }
    panic!("60 MB were taken");
}

#[test]
fn a_guest_that_keeps_to_its_credit_is_held_up_by_a_program_that_does_not_read() {
    let mut guest = Guest::new();
    let (mut program, mut socket) = connected(&mut guest, 1000);
    while socket.credit() > 0 {
        let piece = socket.credit().min(9_999) as usize;
        let piece = pattern(socket.sent, piece);
        guest.write(&mut socket, &piece);
        // Small steps are not told by themselves.
        guest.send_op(&socket, Op::CreditRequest);
        socket.learn(&guest.wait_for(Op::CreditUpdate));
        guest.receive();
        for packet in std::mem::take(&mut guest.inbox) {
            socket.learn(&packet);
        }
    }
    let full = socket.sent;
    // As soon as the program reads there is credit again, without being asked for.
    guest.while_running(move || read(&mut program, full as usize));
    socket.learn(&guest.expect(&socket, Op::CreditUpdate));
    assert!(socket.credit() >= 16 << 10);
}

#[test]
fn a_guest_that_does_not_read_leaves_everything_in_the_programs_socket() {
    let mut guest = Guest::with(4, 4096, |_| {});
    let (mut program, mut socket) = connected(&mut guest, 10_000);
    program.set_nonblocking(true).unwrap();
    let mut written = 0;
    let mut fill = |guest: &mut Guest, program: &mut UnixStream| {
        while let Ok(bytes) = program.write(&[1; 10_000]) {
            written += bytes;
            guest.receive();
        }
        written
    };
    fill(&mut guest, &mut program);
    // Exactly its buffer's size, and one question for more.
    let packets = std::mem::take(&mut guest.inbox);
    let bytes: usize = packets.iter().map(|packet| packet.payload.len()).sum();
    let asks = packets.iter().filter(|p| p.op() == Op::CreditRequest);
    assert_eq!((bytes, asks.count()), (10_000, 1));
    // The program is held up: nothing is read ahead of the guest.
    let after = fill(&mut guest, &mut program);
    guest.expect_nothing();
    socket.passed = 10_000;
    guest.send_op(&socket, Op::CreditUpdate);
    guest.receive();
    let bytes: usize = guest.inbox.iter().map(|packet| packet.payload.len()).sum();
    assert_eq!(bytes, 10_000);
    assert!(after < 2 << 20, "{after} bytes went somewhere");
}

#[test]
fn a_buffer_that_the_guest_makes_smaller_is_not_sent_to_until_it_is_emptied() {
    let mut guest = Guest::new();
    let (mut program, mut socket) = connected(&mut guest, 1000);
    program.write_all(&[1; 900]).unwrap();
    assert_eq!(guest.next().payload.len(), 900);
    socket.room = 500;
    guest.send_op(&socket, Op::CreditUpdate);
    program.write_all(&[2; 100]).unwrap();
    guest.expect(&socket, Op::CreditRequest);
    socket.passed = 450;
    guest.send_op(&socket, Op::CreditUpdate);
    assert_eq!(guest.next().payload, [2; 50]);
}

#[test]
fn a_guest_that_passed_on_more_than_it_was_sent_is_reset() {
    let mut guest = Guest::new();
    let (mut program, mut socket) = connected(&mut guest, 1000);
    program.write_all(b"four").unwrap();
    guest.next();
    socket.passed = 5;
    guest.send_op(&socket, Op::CreditUpdate);
    guest.expect(&socket, Op::Reset);
    assert_eq!(guest.driver.counter("violations"), 1);
}

#[test]
fn connections_take_turns() {
    let mut guest = Guest::with(0, 100, |_| {});
    let listener = guest.listen(5);
    let mut ends = Vec::new();
    guest.post(1);
    for port in 0..5 {
        let mut socket = Socket::new(5, port);
        ends.push((guest.connect(&listener, &mut socket), socket));
    }
    // The last buffer is used up, so that all begin at once.
    guest.send_op(&Socket::new(6, 6), Op::CreditRequest);
    guest.inbox.clear();
    for (program, _) in &mut ends {
        program.write_all(&[1; 10_000]).unwrap();
    }
    guest.driver.run();
    guest.post(50);
    guest.take_in();
    for (_, socket) in &ends {
        let count = guest.inbox.iter().filter(|p| socket.is_of(p)).count();
        assert_eq!(count, 10);
    }
}

#[test]
fn payload_that_goes_nowhere_is_not_a_connection() {
    let mut guest = Guest::new();
    let socket = Socket::new(5, 6);
    let header: Header = socket.header(Op::Data);
    guest.send(&header, b"hello?");
    guest.expect(&socket, Op::Reset);
    assert_eq!(guest.driver.counter("transmitted_bytes"), 0);
}

#[test]
fn what_a_program_reads_was_sent_by_the_guest_and_nothing_else_wakes_it() {
    let mut guest = Guest::new();
    let (program, socket) = connected(&mut guest, 1000);
    guest.send_op(&socket, Op::CreditRequest);
    guest.expect(&socket, Op::CreditUpdate);
    guest.write(&mut socket.clone(), b"");
    assert!(!is_readable(&program));
}
