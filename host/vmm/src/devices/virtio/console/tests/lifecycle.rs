//! Pause, save, restore, reset.

use super::super::state::ConsoleState;
use super::*;
use crate::devices::virtio::{DeviceState, RestoreError, VirtioDevice as _};

#[test]
fn a_conversation_goes_on_where_it_was_after_a_restore() {
    let (mut driver, _) = console(&["agent"], SIZE | MULTIPORT);
    tell(&mut driver, NO_PORT, DEVICE_READY, 1);
    tell(&mut driver, 1, PORT_READY, 1);
    tell(&mut driver, 1, PORT_OPEN, 1);
    // Two of the four messages that it is owed.
    let mut mailbox = Mailbox::default();
    mailbox.give(&mut driver, 2);
    let added = message(1, PORT_ADD, 1);
    assert_eq!(mailbox.take(&mut driver), [message(0, PORT_ADD, 1), added]);

    let device = Console::new(config(&["agent"])).unwrap();
    let ports = device.ports();
    let mut driver = driver.migrate(device);
    driver.run();
    mailbox.give(&mut driver, 8);
    let named = [&message(1, PORT_NAME, 1)[..], b"agent"].concat();
    assert_eq!(mailbox.take(&mut driver), [named, message(1, PORT_OPEN, 1)]);
    assert!(ports[1].is_open() && !ports[0].is_open());
    ports[1].write_input(b"hello");
    let request = driver.send(receive_queue(1), &[Buffer::Write(64)]);
    assert_eq!(input(&mut driver, 1, &[request]), b"hello");
    driver.send(transmit_queue(1), &[Buffer::Read(b"world")]);
    assert_eq!(output(&ports[1]), b"world");
    tell(&mut driver, 0, PORT_READY, 1);
    assert_eq!(mailbox.take(&mut driver).len(), 3);
}

#[test]
fn output_that_waits_for_the_limit_is_taken_after_a_restore() {
    let (mut driver, ports) = console(&[], SIZE);
    for _ in 0..8 {
        driver.add(1, &[Buffer::Read(&[1; 300 << 10])]);
    }
    driver.notify(1);
    driver.run();
    let (end, used) = (ports[0].end(), driver.used(1).len());
    assert_eq!(end, used as u64 * (300 << 10));
    assert!(used < 8, "it is held back");
    let device = Console::new(config(&[])).unwrap();
    let ports = device.ports();
    ports[0].set_output_limit(None);
    let driver = driver.migrate(device);
    driver.run();
    assert_eq!(ports[0].end() + end, 8 * (300 << 10));
}

#[test]
fn a_size_that_the_driver_was_not_told_of_is_told_after_the_restore() {
    let size = ConsoleSize {
        columns: 7,
        rows: 5,
    };
    let (driver, ports) = console(&[], SIZE);
    ports[0].resize(size).unwrap();
    // Not a single turn: the device thread is held already.
    let device = Console::new(config(&[])).unwrap();
    let ports = device.ports();
    let driver = driver.migrate(device);
    driver.take_interrupt();
    driver.run();
    assert!(driver.take_interrupt());
    assert_eq!(driver.config(0, 4), [7, 0, 5, 0]);
    assert_eq!(ports[0].size(), Some(size));
}

#[test]
fn a_reset_closes_the_ports_and_keeps_what_is_the_hosts() {
    let (mut driver, ports) = open_console(&["agent"]);
    driver.send(transmit_queue(1), &[Buffer::Read(b"old")]);
    ports[1].write_input(b"typed");
    driver.reset();
    driver.reset();
    driver.run();
    assert!(!ports[0].is_open() && !ports[1].is_open());
    driver.negotiate(SIZE | MULTIPORT);
    tell(&mut driver, 1, PORT_OPEN, 1);
    assert!(!ports[1].is_open(), "it must introduce itself again");
    open_all(&mut driver, 2, 1);
    let request = driver.send(receive_queue(1), &[Buffer::Write(64)]);
    assert_eq!(input(&mut driver, 1, &[request]), b"typed");
    driver.send(transmit_queue(1), &[Buffer::Read(b" new")]);
    assert_eq!(output(&ports[1]), b"old new");
}

#[test]
fn a_state_of_another_console_is_refused() {
    let saved = |names: &[&str]| match Console::new(config(names)).unwrap().save() {
        DeviceState::Console(state) => state,
        other => panic!("{other:?}"),
    };
    let restore = |state| {
        let mut device = Console::new(config(&["agent"])).unwrap();
        device.restore(DeviceState::Console(state), None)
    };
    assert_eq!(restore(saved(&["agent"])), Ok(()));
    let invalid = |what: &str| Err(RestoreError::Invalid(what.to_owned()));
    assert_eq!(restore(saved(&[])), invalid("another number of ports"));
    assert_eq!(
        restore(saved(&["a", "b"])),
        invalid("another number of ports")
    );
    assert_eq!(
        restore(saved(&["other"])),
        invalid("another name of a port")
    );
    let mut state = saved(&["agent"]);
    state.ports[1]
        .owed
        .insert(super::super::control::Message::Size);
    assert_eq!(
        restore(state),
        invalid("messages that are not for this port")
    );

    let text = serde_json::to_string(&saved(&["agent"])).unwrap();
    assert!(serde_json::from_str::<ConsoleState>(&text).is_ok());
    let more = text.replacen('{', r#"{"more":1,"#, 1);
    assert!(serde_json::from_str::<ConsoleState>(&more).is_err());
    let mut device = Console::new(config(&[])).unwrap();
    let other = DeviceState::Rng(crate::devices::virtio::rng::RngState {});
    assert_eq!(
        device.restore(other, None),
        Err(RestoreError::Kind("console"))
    );
}
