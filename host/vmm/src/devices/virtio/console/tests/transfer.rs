//! Output and input.

use super::super::port::INPUT_QUEUE_BYTES;
use super::*;
use crate::devices::OUTPUT_RING_BYTES;

fn is_readable(port: &ConsolePort) -> bool {
    let mut count = [0; 8];
    rustix::io::read(port.output_fd(), &mut count).is_ok()
}

#[test]
fn output_has_positions_and_wakes_its_reader_once_for_a_turn() {
    let (mut driver, ports) = console(&[], SIZE);
    let port = &ports[0];
    assert!(!is_readable(port));
    let requests: Vec<_> = [&b"hello, "[..], b"", b"world"]
        .iter()
        .map(|piece| {
            driver
                .add(1, &[Buffer::Read(piece), Buffer::Read(b"!")])
                .head
        })
        .collect();
    driver.notify(1);
    driver.run();
    let used: Vec<_> = requests.iter().map(|head| (*head, 0)).collect();
    assert_eq!(driver.used(1), used);
    assert_eq!(output(port), b"hello, !!world!");
    let chunk = port.read(8, 3);
    assert_eq!((chunk.offset, &*chunk.bytes), (8, &b"!wo"[..]));
    assert_eq!(port.end(), 15);
    assert!(is_readable(port));
    assert!(!is_readable(port));
    assert_eq!(driver.counter("output_bytes"), 15);
    assert_eq!(driver.counter("output_requests"), 3);
}

#[test]
fn each_port_has_its_own_output_and_input() {
    let (mut driver, ports) = open_console(&["a", "b", "c"]);
    for (number, port) in ports.iter().enumerate() {
        let text = format!("port {number}");
        driver.send(transmit_queue(number), &[Buffer::Read(text.as_bytes())]);
        assert_eq!(port.write_input(text.as_bytes()), 6);
    }
    driver.run();
    for (number, port) in ports.iter().enumerate() {
        let text = format!("port {number}").into_bytes();
        assert_eq!(output(port), text);
        let request = driver.send(receive_queue(number), &[Buffer::Write(64)]);
        assert_eq!(input(&mut driver, number, &[request]), text);
        assert_eq!(port.received(), 6);
    }
    let names: Vec<_> = ports.iter().map(|port| port.name()).collect();
    assert_eq!(names, [None, Some("a"), Some("b"), Some("c")]);
}

#[test]
fn input_waits_for_buffers_in_a_bounded_queue_and_arrives_in_order() {
    let (mut driver, ports) = console(&[], SIZE);
    let sent: Vec<u8> = (0..=250).cycle().take(INPUT_QUEUE_BYTES + 999).collect();
    assert_eq!(ports[0].write_input(&sent), INPUT_QUEUE_BYTES);
    assert_eq!(ports[0].write_input(b"more"), 0, "the writer must wait");
    driver.run();
    let mut got = Vec::new();
    for bytes in [1, 0, 7, 4096, 4096, 1 << 19] {
        let request = driver.send(0, &[Buffer::Write(bytes), Buffer::Write(bytes / 2)]);
        got.extend(input(&mut driver, 0, &[request]));
    }
    assert!(got == sent[..INPUT_QUEUE_BYTES]);
    assert_eq!(ports[0].received(), INPUT_QUEUE_BYTES as u64);
    assert_eq!(driver.counter("input_bytes"), INPUT_QUEUE_BYTES as u64);
    assert_eq!(ports[0].write_input(b"more"), 4);
}

#[test]
fn buffers_wait_for_input_and_are_used_as_soon_as_there_is_some() {
    let (mut driver, ports) = console(&[], SIZE);
    let requests: Vec<_> = (0..3).map(|_| driver.add(0, &[Buffer::Write(4)])).collect();
    driver.notify(0);
    driver.run();
    assert_eq!(driver.used(0), [], "there is no input");
    ports[0].write_input(b"abcdef");
    driver.run();
    assert_eq!(input(&mut driver, 0, &requests), b"abcdef");
    ports[0].write_input(b"g");
    driver.run();
    assert_eq!(input(&mut driver, 0, &requests), b"g");
    assert!(driver.take_interrupt());
}

#[test]
fn input_waits_until_the_guest_opens_the_port() {
    let (mut driver, ports) = console(&["agent"], SIZE | MULTIPORT);
    ports[1].write_input(b"early");
    let request = driver.send(receive_queue(1), &[Buffer::Write(64)]);
    tell(&mut driver, NO_PORT, DEVICE_READY, 1);
    tell(&mut driver, 1, PORT_READY, 1);
    driver.run();
    assert_eq!(driver.used(receive_queue(1)), []);
    tell(&mut driver, 1, PORT_OPEN, 1);
    assert_eq!(input(&mut driver, 1, &[request]), b"early");
    tell(&mut driver, 1, PORT_OPEN, 0);
    let request = driver.send(receive_queue(1), &[Buffer::Write(64)]);
    ports[1].write_input(b"late");
    driver.run();
    assert_eq!(driver.used(receive_queue(1)), []);
    tell(&mut driver, 1, PORT_OPEN, 1);
    assert_eq!(input(&mut driver, 1, &[request]), b"late");
}

#[test]
fn a_driver_without_the_multiport_protocol_has_the_terminal_and_nothing_else() {
    let (mut driver, ports) = console(&["agent"], SIZE);
    assert!(ports[0].is_open() && !ports[1].is_open());
    ports[0].write_input(b"in");
    let request = driver.send(0, &[Buffer::Write(8)]);
    driver.send(1, &[Buffer::Read(b"out")]);
    assert_eq!(input(&mut driver, 0, &[request]), b"in");
    assert_eq!(output(&ports[0]), b"out");
    // The other queues are none, whatever is put there.
    let ready = message(NO_PORT, DEVICE_READY, 1);
    for queue in 2..6 {
        driver.send(queue, &[Buffer::Read(&ready), Buffer::Write(64)]);
        assert_eq!(driver.used(queue), []);
    }
    assert_eq!(ports[1].end(), 0);
    assert!(!driver.is_broken());
}

#[test]
fn a_storm_of_output_keeps_the_last_bytes_and_their_position() {
    let (mut driver, ports) = console(&[], SIZE);
    ports[0].set_output_limit(None);
    let piece: Vec<u8> = (0..=252).cycle().take(500_000).collect();
    for _ in 0..20 {
        driver.send(1, &[Buffer::Read(&piece)]);
    }
    let chunk = ports[0].read(0, usize::MAX);
    assert_eq!(ports[0].end(), 10_000_000);
    assert_eq!(chunk.offset, 10_000_000 - OUTPUT_RING_BYTES as u64);
    assert!(chunk.bytes == piece[500_000 - OUTPUT_RING_BYTES..]);
}
