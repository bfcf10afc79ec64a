//! The console between a driver in this process and the host's ends of its ports.

mod configuration;
mod conversation;
mod hostile;
mod lifecycle;
mod limits;
mod transfer;

use std::sync::Arc;

use super::control::{FROM_DRIVER, TO_DRIVER};
use super::device::{receive_queue, transmit_queue};
use super::{Console, ConsoleConfig, ConsolePort, ConsoleSize, feature};
use crate::devices::virtio::test_driver::{Buffer, Driver, Request};

const SIZE: u64 = 1 << feature::SIZE;
const MULTIPORT: u64 = 1 << feature::MULTIPORT;

/// Events (virtio 1.2, section 5.3.6.2).
const DEVICE_READY: u16 = 0;
const PORT_ADD: u16 = 1;
const PORT_REMOVE: u16 = 2;
const PORT_READY: u16 = 3;
const CONSOLE_PORT: u16 = 4;
const RESIZE: u16 = 5;
const PORT_OPEN: u16 = 6;
const PORT_NAME: u16 = 7;
/// The port that a message about the device is for.
const NO_PORT: u32 = u32::MAX;

fn config(names: &[&str]) -> ConsoleConfig {
    ConsoleConfig {
        size: ConsoleSize {
            columns: 100,
            rows: 30,
        },
        ports: names.iter().map(|name| (*name).to_owned()).collect(),
    }
}

/// A driver of a console with these ports beside the terminal, and the hosts' ends.
fn console(names: &[&str], features: u64) -> (Driver, Vec<Arc<ConsolePort>>) {
    let device = Console::new(config(names)).unwrap();
    let ports = device.ports();
    let mut driver = Driver::new(device);
    driver.negotiate(features);
    (driver, ports)
}

/// A control message, as the driver sends and receives it.
fn message(port: u32, event: u16, value: u16) -> Vec<u8> {
    let [event, value] = [event.to_le_bytes(), value.to_le_bytes()];
    [&port.to_le_bytes()[..], &event, &value].concat()
}

fn tell(driver: &mut Driver, port: u32, event: u16, value: u16) {
    driver.send(FROM_DRIVER, &[Buffer::Read(&message(port, event, value))]);
}

/// The driver's buffers for messages.
#[derive(Default)]
struct Mailbox(Vec<Request>);

impl Mailbox {
    fn give(&mut self, driver: &mut Driver, buffers: usize) {
        for _ in 0..buffers {
            let request = driver.add(TO_DRIVER, &[Buffer::Write(128)]);
            self.0.push(request);
        }
        driver.notify(TO_DRIVER);
        driver.run();
    }

    /// The messages that came since the last call.
    fn take(&mut self, driver: &mut Driver) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        for (head, written) in driver.used(TO_DRIVER) {
            let at = self.0.iter().position(|request| request.head == head);
            let request = self.0.remove(at.unwrap());
            let mut bytes = driver.received(&request);
            bytes.truncate(written as usize);
            messages.push(bytes);
        }
        messages
    }
}

/// A driver that has introduced itself, with all ports ready and open.
fn open_console(names: &[&str]) -> (Driver, Vec<Arc<ConsolePort>>) {
    let (mut driver, ports) = console(names, SIZE | MULTIPORT);
    open_all(&mut driver, ports.len(), 1);
    (driver, ports)
}

/// Introduces the driver and opens all ports. There are so many messages about the size.
fn open_all(driver: &mut Driver, ports: usize, sizes: usize) {
    tell(driver, NO_PORT, DEVICE_READY, 1);
    for port in 0..ports as u32 {
        tell(driver, port, PORT_READY, 1);
        tell(driver, port, PORT_OPEN, 1);
    }
    let mut mailbox = Mailbox::default();
    // Each port is added, a terminal or named, and open. No buffer is left.
    let messages = 3 * ports + sizes;
    mailbox.give(driver, messages);
    assert_eq!(mailbox.take(driver).len(), messages);
}

/// All output that is kept.
fn output(port: &ConsolePort) -> Vec<u8> {
    port.read(0, usize::MAX).bytes
}

/// What a port's buffers were filled with since the last call.
fn input(driver: &mut Driver, port: usize, requests: &[Request]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (head, written) in driver.used(receive_queue(port)) {
        let request = requests.iter().find(|request| request.head == head);
        let received = driver.received(request.unwrap());
        bytes.extend(&received[..written as usize]);
    }
    bytes
}
