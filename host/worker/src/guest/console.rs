//! The ports of a guest's console, as long as it runs and after.

use std::os::fd::BorrowedFd;

use roost_vmm::{ConsolePort, ConsoleSize, SerialChunk, Vm};

use super::{Ended, Guest, Life, end_of, part};

/// What is left of a port when the guest has ended.
pub(super) struct Remains {
    name: Option<String>,
    tail: SerialChunk,
}

impl Remains {
    /// What a port printed, from position `from` on.
    #[cfg(any(test, fuzzing))]
    pub(super) const fn new(name: Option<String>, tail: SerialChunk) -> Self {
        Self { name, tail }
    }
}

/// There is no such port.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoPort {
    /// What can be asked for. None: there is no console.
    pub(crate) ports: Vec<String>,
}

/// Why the size of a port was not changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotResized {
    Ended,
    /// It is a stream of bytes.
    NotATerminal,
}

/// The ports of a VM, in their order.
pub(super) fn ports(vm: &Vm) -> impl Iterator<Item = &ConsolePort> {
    (0..).map_while(|index| vm.console(index))
}

/// Keeps what is to be known of the ports after the VM.
pub(super) fn remains(vm: &Vm) -> Vec<Remains> {
    let keep = |port: &ConsolePort| Remains {
        name: port.name().map(str::to_owned),
        tail: port.read(0, usize::MAX),
    };
    ports(vm).map(keep).collect()
}

impl Guest {
    /// The index of the port that is meant: by its index, or by its name if it has one.
    pub(crate) fn console(&self, wanted: &str) -> Result<usize, NoPort> {
        let names: Vec<Option<&str>> = match &self.life {
            Life::Alive(vm) => ports(vm).map(ConsolePort::name).collect(),
            Life::Ended { consoles, .. } => {
                let names = consoles.iter().map(|port| port.name.as_deref());
                names.collect()
            }
        };
        let by_index = wanted.parse().ok().filter(|index| *index < names.len());
        let by_name = || names.iter().position(|name| *name == Some(wanted));
        by_index.or_else(by_name).ok_or_else(|| {
            let say = |(index, name): (usize, &Option<&str>)| match name {
                Some(name) => (*name).to_owned(),
                None => index.to_string(),
            };
            NoPort {
                ports: names.iter().enumerate().map(say).collect(),
            }
        })
    }

    /// How many ports there are that may still say something.
    pub(crate) fn console_count(&self) -> usize {
        self.vm().map_or(0, |vm| ports(vm).count())
    }

    /// Output of a port from `from` on, bounded as that of the serial port.
    pub(crate) fn console_read(&self, port: usize, from: u64, max: usize) -> SerialChunk {
        let max = max.min(super::MAX_SERIAL_BYTES);
        let chunk = match &self.life {
            Life::Alive(vm) => vm.console(port).map(|port| port.read(from, max)),
            Life::Ended { consoles, .. } => {
                let port = consoles.get(port);
                port.map(|port| part(&port.tail, from, max))
            }
        };
        chunk.unwrap_or(SerialChunk {
            offset: 0,
            bytes: Vec::new(),
        })
    }

    /// Where the output of a port ends.
    pub(crate) fn console_end(&self, port: usize) -> u64 {
        match &self.life {
            Life::Alive(vm) => vm.console(port).map(ConsolePort::end),
            Life::Ended { consoles, .. } => consoles.get(port).map(|port| end_of(&port.tail)),
        }
        .unwrap_or_default()
    }

    /// Gives a port input; returns how many bytes there was room for.
    pub(crate) fn console_write(&self, port: usize, bytes: &[u8]) -> Result<usize, Ended> {
        let port = self.vm().and_then(|vm| vm.console(port)).ok_or(Ended)?;
        Ok(port.write_input(bytes))
    }

    /// Changes the size of a port that is a terminal.
    pub(crate) fn console_resize(&self, port: usize, size: ConsoleSize) -> Result<(), NotResized> {
        let port = self.vm().and_then(|vm| vm.console(port));
        let port = port.ok_or(NotResized::Ended)?;
        port.resize(size).map_err(|_| NotResized::NotATerminal)
    }

    /// Readable when the port has new output. Whoever reads it drains it.
    pub(crate) fn console_fd(&self, port: usize) -> Option<BorrowedFd<'_>> {
        let port = self.vm().and_then(|vm| vm.console(port))?;
        Some(port.output_fd())
    }
}
