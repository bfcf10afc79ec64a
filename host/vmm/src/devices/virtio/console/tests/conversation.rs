//! Control messages.

use super::*;

const NEW_SIZE: ConsoleSize = ConsoleSize {
    columns: 0x0102,
    rows: 0x0304,
};

#[test]
fn a_driver_is_told_what_ports_there_are_and_what_they_are() {
    let (mut driver, ports) = console(&["agent"], SIZE | MULTIPORT);
    let mut mailbox = Mailbox::default();
    mailbox.give(&mut driver, 32);
    assert!(mailbox.take(&mut driver).is_empty(), "nobody asked");

    tell(&mut driver, NO_PORT, DEVICE_READY, 1);
    let added = [message(0, PORT_ADD, 1), message(1, PORT_ADD, 1)];
    assert_eq!(mailbox.take(&mut driver), added);

    tell(&mut driver, 1, PORT_READY, 1);
    let named = [&message(1, PORT_NAME, 1)[..], b"agent"].concat();
    assert_eq!(mailbox.take(&mut driver), [named, message(1, PORT_OPEN, 1)]);

    tell(&mut driver, 0, PORT_READY, 1);
    let sized = [&message(0, RESIZE, 0)[..], &[100, 0, 30, 0]].concat();
    let terminal = [message(0, CONSOLE_PORT, 1), message(0, PORT_OPEN, 1), sized];
    assert_eq!(mailbox.take(&mut driver), terminal);

    assert!(!ports[0].is_open() && !ports[1].is_open());
    tell(&mut driver, 1, PORT_OPEN, 1);
    assert!(!ports[0].is_open() && ports[1].is_open());
    tell(&mut driver, 1, PORT_OPEN, 0);
    assert!(!ports[1].is_open());
    assert_eq!(driver.counter("control_sent"), 7);
    assert_eq!(driver.counter("control_received"), 5);
    assert_eq!(driver.counter("control_refused"), 0);
    assert!(driver.take_interrupt());
}

#[test]
fn messages_wait_until_the_driver_has_buffers() {
    let (mut driver, _) = console(&["agent"], SIZE | MULTIPORT);
    tell(&mut driver, NO_PORT, DEVICE_READY, 1);
    tell(&mut driver, 0, PORT_READY, 1);
    let mut mailbox = Mailbox::default();
    let mut got = Vec::new();
    for _ in 0..5 {
        mailbox.give(&mut driver, 1);
        let messages = mailbox.take(&mut driver);
        assert_eq!(messages.len(), 1);
        got.extend(messages);
    }
    assert_eq!(got[0], message(0, PORT_ADD, 1));
    assert_eq!(got[4], message(1, PORT_ADD, 1));
}

#[test]
fn a_port_that_the_driver_can_not_use_is_left_alone() {
    let (mut driver, ports) = console(&["agent"], SIZE | MULTIPORT);
    let mut mailbox = Mailbox::default();
    mailbox.give(&mut driver, 32);
    tell(&mut driver, NO_PORT, DEVICE_READY, 1);
    tell(&mut driver, 1, PORT_READY, 0);
    assert_eq!(mailbox.take(&mut driver).len(), 2);
    tell(&mut driver, 1, PORT_OPEN, 1);
    assert!(!ports[1].is_open());
    assert_eq!(driver.counter("port_failures"), 1);
    assert_eq!(driver.counter("control_refused"), 1);
    tell(&mut driver, NO_PORT, DEVICE_READY, 0);
    assert_eq!(driver.counter("port_failures"), 2);
    assert!(mailbox.take(&mut driver).is_empty());
}

#[test]
fn a_new_size_is_told_by_a_message_and_in_the_configuration() {
    let (mut driver, ports) = open_console(&["agent"]);
    let mut mailbox = Mailbox::default();
    mailbox.give(&mut driver, 4);
    driver.take_interrupt();
    ports[0].resize(NEW_SIZE).unwrap();
    driver.run();
    let sized = [&message(0, RESIZE, 0)[..], &[2, 1, 4, 3]].concat();
    assert_eq!(mailbox.take(&mut driver), [sized]);
    assert!(driver.take_interrupt());
    assert_eq!(driver.config(0, 4), [2, 1, 4, 3]);
    ports[0].resize(NEW_SIZE).unwrap();
    driver.run();
    assert!(!driver.take_interrupt(), "it is no other");
    assert!(ports[1].resize(NEW_SIZE).is_err());
    assert_eq!((ports[0].size(), ports[1].size()), (Some(NEW_SIZE), None));
}

#[test]
fn however_often_the_size_changes_the_driver_is_told_the_last() {
    let (mut driver, ports) = open_console(&["agent"]);
    for columns in 0..1000 {
        ports[0].resize(ConsoleSize { columns, rows: 1 }).unwrap();
        driver.run();
    }
    let mut mailbox = Mailbox::default();
    mailbox.give(&mut driver, 4);
    let sized = [&message(0, RESIZE, 0)[..], &[0xe7, 3, 1, 0]].concat();
    assert_eq!(mailbox.take(&mut driver), [sized]);
}

#[test]
fn a_console_of_one_port_tells_its_size_in_the_configuration_only() {
    let (driver, ports) = console(&[], SIZE);
    driver.take_interrupt();
    ports[0].resize(NEW_SIZE).unwrap();
    driver.run();
    assert!(driver.take_interrupt());
    assert_eq!(driver.config(0, 4), [2, 1, 4, 3]);
}

#[test]
fn a_driver_that_does_not_want_the_size_is_not_told() {
    let (mut driver, ports) = console(&["agent"], MULTIPORT);
    open_all(&mut driver, 2, 0);
    let mut mailbox = Mailbox::default();
    mailbox.give(&mut driver, 4);
    driver.take_interrupt();
    ports[0].resize(NEW_SIZE).unwrap();
    driver.run();
    assert!(!driver.take_interrupt());
    assert!(mailbox.take(&mut driver).is_empty());
}

#[test]
fn a_size_that_changes_while_the_driver_starts_is_not_missed() {
    let device = Console::new(config(&[])).unwrap();
    let ports = device.ports();
    let mut driver = Driver::new(device);
    driver.begin(SIZE);
    assert_eq!(driver.config(0, 2), [100, 0]);
    ports[0].resize(NEW_SIZE).unwrap();
    driver.run();
    driver.enable_queue(16);
    driver.enable_queue(16);
    driver.driver_ok();
    assert!(driver.take_interrupt());
}
