//! What a driver may not do.

use virtio_queue::desc::split::Descriptor;

use super::*;
use crate::devices::virtio::ChainError;
use crate::devices::virtio::test_driver::{NEXT, OUTSIDE};

#[test]
fn control_messages_that_make_no_sense_are_counted_and_answered() {
    let (mut driver, ports) = console(&["agent"], SIZE | MULTIPORT);
    let mut refused = 0;
    let mut refuse = |driver: &mut Driver, buffers: &[Buffer<'_>]| {
        driver.send(FROM_DRIVER, buffers);
        refused += 1;
        assert_eq!(driver.counter("control_refused"), refused);
        assert_eq!(driver.used(FROM_DRIVER).len(), 1);
        assert!(!driver.is_broken());
    };
    // Too early.
    for event in [PORT_READY, PORT_OPEN] {
        refuse(&mut driver, &[Buffer::Read(&message(0, event, 1))]);
    }
    tell(&mut driver, NO_PORT, DEVICE_READY, 1);
    driver.used(FROM_DRIVER);
    refuse(&mut driver, &[Buffer::Read(&message(0, PORT_OPEN, 1))]);
    // Truncated, or not to be read.
    let whole = message(0, PORT_READY, 1);
    for bytes in 0..8 {
        refuse(&mut driver, &[Buffer::Read(&whole[..bytes])]);
    }
    refuse(&mut driver, &[Buffer::Write(4096)]);
    // Of ports that are not there.
    for port in [2, 4, 0xffff, 0x1_0000, u32::MAX - 1, u32::MAX] {
        for event in [PORT_READY, PORT_OPEN] {
            refuse(&mut driver, &[Buffer::Read(&message(port, event, 1))]);
        }
    }
    // What only a device says, or nobody.
    for event in [
        PORT_ADD,
        PORT_REMOVE,
        CONSOLE_PORT,
        RESIZE,
        PORT_NAME,
        8,
        u16::MAX,
    ] {
        refuse(&mut driver, &[Buffer::Read(&message(0, event, 1))]);
    }
    assert!(!ports[0].is_open() && !ports[1].is_open());
    // One with more behind it, in pieces, is a message all the same.
    let (start, end) = whole.split_at(3);
    driver.send(
        FROM_DRIVER,
        &[
            Buffer::Read(start),
            Buffer::Read(end),
            Buffer::Read(&[7; 1000]),
        ],
    );
    assert_eq!(driver.counter("control_refused"), refused);
    assert_eq!(driver.counter("control_received"), 2);
}

#[test]
fn a_driver_that_asks_without_end_and_takes_no_answer_is_owed_each_once() {
    let (mut driver, ports) = console(&["agent"], SIZE | MULTIPORT);
    for round in 0..500 {
        tell(&mut driver, NO_PORT, DEVICE_READY, 1);
        for port in 0..2 {
            tell(&mut driver, port, PORT_READY, 1);
        }
        let size = ConsoleSize {
            columns: round,
            rows: 1,
        };
        ports[0].resize(size).unwrap();
    }
    let mut mailbox = Mailbox::default();
    mailbox.give(&mut driver, 64);
    // Added, terminal, open, size; added, name, open.
    assert_eq!(mailbox.take(&mut driver).len(), 7);
    assert_eq!(driver.counter("control_refused"), 0);
}

#[test]
fn buffers_too_small_for_a_message_are_given_back_and_the_message_is_not_lost() {
    let (mut driver, _) = console(&["agent"], SIZE | MULTIPORT);
    tell(&mut driver, NO_PORT, DEVICE_READY, 1);
    for buffer in [Buffer::Write(7), Buffer::Write(0), Buffer::Read(&[0; 64])] {
        let request = driver.send(TO_DRIVER, &[buffer]);
        assert_eq!(driver.used(TO_DRIVER), [(request.head, 0)]);
    }
    assert_eq!(driver.counter("bad_buffers"), 3);
    let mut mailbox = Mailbox::default();
    mailbox.give(&mut driver, 2);
    let added = [message(0, PORT_ADD, 1), message(1, PORT_ADD, 1)];
    assert_eq!(mailbox.take(&mut driver), added);
}

#[test]
fn buffers_that_can_not_be_filled_are_given_back_and_the_input_is_not_lost() {
    let (mut driver, ports) = console(&[], SIZE);
    ports[0].write_input(b"input");
    for buffer in [Buffer::Read(&[0; 64]), Buffer::Write(0)] {
        let request = driver.send(0, &[buffer]);
        assert_eq!(driver.used(0), [(request.head, 0)]);
    }
    assert_eq!(driver.counter("bad_buffers"), 2);
    let request = driver.send(0, &[Buffer::Write(64)]);
    assert_eq!(input(&mut driver, 0, &[request]), b"input");
}

#[test]
fn output_that_is_not_to_be_read_is_none() {
    let (mut driver, ports) = console(&[], SIZE);
    let request = driver.send(1, &[Buffer::Write(1 << 16)]);
    assert_eq!(driver.used(1), [(request.head, 0)]);
    assert_eq!(ports[0].end(), 0);
    assert_eq!(driver.received(&request), vec![0; 1 << 16]);
}

#[test]
fn output_without_end_takes_turns_with_everything_else() {
    let (mut driver, ports) = open_console(&["agent"]);
    for port in &ports {
        port.set_output_limit(None);
    }
    driver.run();
    driver.used(transmit_queue(1));
    // All of one queue's descriptors, each with as much as a request may have.
    let (memory, ring) = driver.ring(transmit_queue(1));
    for _ in 0..64 {
        ring.add(memory, &[(0x40_0000, 1 << 20, false)]);
    }
    driver.notify(transmit_queue(1));
    for turn in 1..=10 {
        driver.turn();
        assert_eq!(
            ports[1].end(),
            turn << 20,
            "one request of the largest size"
        );
    }
    ports[0].write_input(b"x");
    let request = driver.add(0, &[Buffer::Write(1)]);
    driver.notify(0);
    driver.turn();
    assert_eq!(input(&mut driver, 0, &[request]), b"x");
    driver.run();
    assert_eq!(ports[1].end(), 64 << 20);
    assert_eq!(output(&ports[1]).len(), crate::devices::OUTPUT_RING_BYTES);
}

#[test]
fn requests_that_no_driver_makes_break_the_device_until_it_is_reset() {
    let loop_of_64 = |driver: &mut Driver| {
        let (memory, ring) = driver.ring(1);
        for n in 0..64 {
            ring.set_descriptor(memory, n, Descriptor::new(0x10_0000, 1, NEXT, (n + 1) % 64));
        }
        ring.make_available(memory, 0);
    };
    let of = |address: u64, bytes: u32| {
        move |driver: &mut Driver| {
            let (memory, ring) = driver.ring(1);
            ring.add(memory, &[(address, bytes, false)]);
        }
    };
    type Attack<'a> = Box<dyn Fn(&mut Driver) + 'a>;
    let attacks: [(Attack<'_>, ChainError); 3] = [
        (Box::new(loop_of_64), ChainError::Loop(64)),
        (Box::new(of(0, u32::MAX)), ChainError::Bytes(1 << 20)),
        (
            Box::new(of(OUTSIDE - 1, 2)),
            ChainError::OutsideMemory {
                address: OUTSIDE - 1,
                bytes: 2,
            },
        ),
    ];
    for (attack, error) in attacks {
        let (mut driver, ports) = open_console(&["agent"]);
        driver.send(1, &[Buffer::Read(b"before")]);
        attack(&mut driver);
        driver.notify(1);
        driver.run();
        assert_eq!(driver.counters().broken, Some(error.to_string()));
        assert!(!ports[0].is_open(), "there is no driver");
        driver.negotiate(SIZE | MULTIPORT);
        open_all(&mut driver, 2, 1);
        driver.send(1, &[Buffer::Read(b" and after")]);
        assert_eq!(output(&ports[0]), b"before and after");
    }
}
