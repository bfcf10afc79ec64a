//! Control messages (virtio 1.2, section 5.3.6.2).
//!
//! ```text
//!    driver                      device
//!    DEVICE_READY 1 ──────────▶
//!                   ◀────────── PORT_ADD                  for each port
//!    PORT_READY 1   ──────────▶
//!                   ◀────────── CONSOLE_PORT, PORT_NAME, PORT_OPEN 1, RESIZE     as they apply
//!    PORT_OPEN 0, 1 ──────────▶                           as something in the guest has it open
//!                   ◀────────── RESIZE                    when the size changes
//! ```
//!
//! The host always listens, so to the driver every port is open on the other end.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::ConsoleSize;
use super::device::{Console, Port};
use super::{TERMINAL, feature};
use crate::devices::virtio::{Active, Chain, DeviceError};

/// The queue of messages to the driver.
pub(super) const TO_DRIVER: u16 = 2;
/// The queue of messages from the driver.
pub(super) const FROM_DRIVER: u16 = 3;

/// Events, from the driver and to it.
const DEVICE_READY: u16 = 0;
const PORT_ADD: u16 = 1;
const PORT_READY: u16 = 3;
const CONSOLE_PORT: u16 = 4;
const RESIZE: u16 = 5;
const PORT_OPEN: u16 = 6;
const PORT_NAME: u16 = 7;

/// Bytes of a message without what follows it: port, event, value.
const HEADER_BYTES: usize = 8;

/// What the driver is to be told about a port, in the order in which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Message {
    /// It is there.
    Add,
    /// It is a terminal.
    Terminal,
    /// What it is called.
    Name,
    /// The host listens.
    Open,
    /// The terminal's size.
    Size,
}

impl Message {
    /// What the driver is told about a port that it can use.
    pub(super) fn of_ready_port(port: &Port, has_size: bool) -> BTreeSet<Self> {
        let is_terminal = port.host.size().is_some();
        [
            (Self::Terminal, is_terminal),
            (Self::Name, port.host.name().is_some()),
            (Self::Open, true),
            (Self::Size, is_terminal && has_size),
        ]
        .into_iter()
        .filter_map(|(message, applies)| applies.then_some(message))
        .collect()
    }

    /// The message as the driver gets it.
    fn to_bytes(self, number: usize, port: &Port) -> Vec<u8> {
        let (event, value) = match self {
            Self::Add => (PORT_ADD, 1),
            Self::Terminal => (CONSOLE_PORT, 1),
            Self::Name => (PORT_NAME, 1),
            Self::Open => (PORT_OPEN, 1),
            Self::Size => (RESIZE, 0),
        };
        let mut bytes = Vec::from((number as u32).to_le_bytes());
        bytes.extend(u16::to_le_bytes(event));
        bytes.extend(u16::to_le_bytes(value));
        match self {
            Self::Name => bytes.extend(port.host.name().unwrap_or_default().as_bytes()),
            Self::Size => {
                let ConsoleSize { columns, rows } = port.host.size().unwrap_or_default();
                bytes.extend(columns.to_le_bytes());
                bytes.extend(rows.to_le_bytes());
            }
            Self::Add | Self::Terminal | Self::Open => {}
        }
        bytes
    }
}

impl Console {
    /// Gives the driver what it is owed, as far as it has buffers.
    pub(super) fn send_messages(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        if !active.has(feature::MULTIPORT) {
            return Ok(());
        }
        let Some(queue) = active.queue(TO_DRIVER) else {
            return Ok(());
        };
        for (number, port) in self.ports.iter_mut().enumerate() {
            while let Some(message) = port.owed.first().copied() {
                let Some(chain) = queue.pop()? else {
                    return Ok(());
                };
                let bytes = message.to_bytes(number, port);
                let written = match chain.writer().write_all(&bytes) {
                    Ok(()) => {
                        port.owed.remove(&message);
                        self.counters.sent.add(1);
                        bytes.len() as u32
                    }
                    // The next one may be larger.
                    Err(_) => {
                        self.counters.bad_buffers.add(1);
                        0
                    }
                };
                queue.complete(chain, written)?;
            }
        }
        Ok(())
    }

    /// Follows what the driver says.
    pub(super) fn take_messages(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        let has_size = active.has(feature::SIZE);
        let Some(queue) = active.queue(FROM_DRIVER) else {
            return Ok(());
        };
        while let Some(chain) = queue.pop()? {
            let counter = match self.follow(&chain, has_size) {
                Some(()) => &self.counters.received,
                None => &self.counters.refused,
            };
            counter.add(1);
            queue.complete(chain, 0)?;
        }
        // What was opened can be given what waited for it.
        for number in 0..self.ports.len() {
            self.give(number, active)?;
        }
        self.send_messages(active)
    }

    /// Follows one message; `None`: it makes no sense.
    fn follow(&mut self, chain: &Chain, has_size: bool) -> Option<()> {
        let mut header = [0; HEADER_BYTES];
        chain.reader().read_exact(&mut header).ok()?;
        let [n0, n1, n2, n3, e0, e1, v0, v1] = header;
        let event = u16::from_le_bytes([e0, e1]);
        let is_positive = u16::from_le_bytes([v0, v1]) != 0;
        if event == DEVICE_READY {
            self.set_ready(is_positive);
            return Some(());
        }
        let number = u32::from_le_bytes([n0, n1, n2, n3]) as usize;
        let port = self.ports.get_mut(number).filter(|_| self.is_ready)?;
        match event {
            PORT_READY => {
                port.is_ready = is_positive;
                match is_positive {
                    true => port.owed.extend(Message::of_ready_port(port, has_size)),
                    false => {
                        port.forget_driver();
                        self.counters.failures.add(1);
                    }
                }
            }
            PORT_OPEN if port.is_ready => port.host.set_open(is_positive),
            _ => return None,
        }
        Some(())
    }

    /// The driver can use ports, or can't.
    fn set_ready(&mut self, is_ready: bool) {
        self.is_ready = is_ready;
        for port in &mut self.ports {
            port.forget_driver();
            if is_ready {
                port.owed.insert(Message::Add);
            }
        }
        self.counters.failures.add((!is_ready).into());
    }

    /// Tells the driver of a size that it does not know.
    pub(super) fn tell_size(&mut self, active: &Active) {
        let size = self.size();
        if self.told_size == size {
            return;
        }
        self.told_size = size;
        if !active.has(feature::SIZE) {
            return;
        }
        active.config_changed();
        if let Some(port) = self.ports.get_mut(TERMINAL).filter(|port| port.is_ready) {
            port.owed.insert(Message::Size);
        }
    }
}
