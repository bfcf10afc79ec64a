//! The device and how the transport sees it.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use vmm_sys_util::epoll::EventSet;

use super::config::{ConsoleConfig, ConsoleConfigError, ConsoleSize};
use super::control::Message;
use super::counters::ConsoleCounters;
use super::port::ConsolePort;
use super::state::{ConsoleState, PortState};
use super::{MAX_PORTS, TERMINAL, feature};
use crate::devices::output::Signal;
use crate::devices::virtio::{
    Active, Clock, CounterSet, DeviceError, DeviceKind, DeviceState, EventSources, Monotonic,
    QueueLimits, RateLimiter, RestoreError, VirtioDevice, read_config,
};

/// Input and output in turns. Linux writes up to 32 KiB at once, or a pipe, which has at most
/// 1 MiB (`pipe-max-size`).
const BYTES: QueueLimits = QueueLimits {
    max_size: 64,
    max_chain_bytes: 1 << 20,
};
/// Linux gives a page for each message.
const MESSAGES: QueueLimits = QueueLimits {
    max_size: 64,
    max_chain_bytes: 64 << 10,
};
/// Those of the terminal, the control queues, and those of the other ports (section 5.3.2).
const QUEUES: [QueueLimits; 2 * (MAX_PORTS + 1)] = {
    let mut queues = [BYTES; 2 * (MAX_PORTS + 1)];
    queues[super::control::TO_DRIVER as usize] = MESSAGES;
    queues[super::control::FROM_DRIVER as usize] = MESSAGES;
    queues
};

/// The queue of a port's input. Only of ports that there are.
pub(super) fn receive_queue(port: usize) -> u16 {
    match port {
        TERMINAL => 0,
        // Behind the control queues.
        port => 2 * port as u16 + 2,
    }
}

/// The queue of a port's output.
pub(super) fn transmit_queue(port: usize) -> u16 {
    receive_queue(port) + 1
}

/// The console.
pub(crate) struct Console {
    pub(super) ports: Vec<Port>,
    pub(super) wake: Arc<Signal>,
    /// Whether the driver has said that it is ready for ports.
    pub(super) is_ready: bool,
    /// The terminal's size when the driver last had reason to look.
    pub(super) told_size: ConsoleSize,
    pub(super) counters: Arc<ConsoleCounters>,
}

/// A port, on the device's side.
pub(super) struct Port {
    pub(super) host: Arc<ConsolePort>,
    pub(super) limiter: RateLimiter,
    /// Whether the driver uses it.
    pub(super) is_ready: bool,
    /// Messages about it that the driver is still to get.
    pub(super) owed: BTreeSet<Message>,
}

impl Port {
    /// As before there was one.
    pub(super) fn forget_driver(&mut self) {
        self.is_ready = false;
        self.owed.clear();
        self.host.set_open(false);
    }
}

impl Console {
    /// # Errors
    /// The ports make no sense, or there are no more descriptors.
    pub(crate) fn new(config: ConsoleConfig) -> Result<Self, ConsoleConfigError> {
        Self::with_clock(config, || Box::new(Monotonic::default()))
    }

    pub(super) fn with_clock(
        config: ConsoleConfig,
        clock: impl Fn() -> Box<dyn Clock>,
    ) -> Result<Self, ConsoleConfigError> {
        config.check()?;
        let ConsoleConfig { size, ports } = config;
        let wake = Arc::new(Signal::new()?);
        let mut hosts = vec![ConsolePort::terminal(size, Arc::clone(&wake))?];
        for name in ports {
            hosts.push(ConsolePort::stream(name, Arc::clone(&wake))?);
        }
        let limits = hosts.iter().map(|host| Arc::clone(&host.limits));
        let counters = Arc::new(ConsoleCounters::new(limits.collect()));
        let port = |host: ConsolePort| Port {
            limiter: RateLimiter::new(Arc::clone(&host.limits), clock()),
            host: Arc::new(host),
            is_ready: false,
            owed: BTreeSet::new(),
        };
        Ok(Self {
            ports: hosts.into_iter().map(port).collect(),
            wake,
            is_ready: false,
            told_size: size,
            counters,
        })
    }

    /// The host's ends of all ports, in their order.
    pub(crate) fn ports(&self) -> Vec<Arc<ConsolePort>> {
        let ports = self.ports.iter();
        ports.map(|port| Arc::clone(&port.host)).collect()
    }

    /// The terminal's size.
    pub(super) fn size(&self) -> ConsoleSize {
        let size = self.ports.get(TERMINAL).and_then(|port| port.host.size());
        size.unwrap_or_default()
    }
}

impl VirtioDevice for Console {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Console
    }

    fn features(&self) -> u64 {
        1 << feature::SIZE | u64::from(self.ports.len() > 1) << feature::MULTIPORT
    }

    fn queues(&self) -> &[QueueLimits] {
        let count = match self.ports.len() {
            0 | 1 => 2,
            ports => 2 * (ports + 1),
        };
        QUEUES.get(..count).unwrap_or_default()
    }

    /// Columns, rows and the number of ports (section 5.3.4).
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let size = self.size();
        let [c0, c1] = size.columns.to_le_bytes();
        let [r0, r1] = size.rows.to_le_bytes();
        let [p0, p1, p2, p3] = (self.ports.len() as u32).to_le_bytes();
        read_config(&[c0, c1, r0, r1, p0, p1, p2, p3], offset, data);
    }

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {
        self.counters.refused_writes.add(1);
    }

    fn attach(&mut self, sources: EventSources) -> io::Result<()> {
        self.watch(&sources)
    }

    fn activate(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        // Without control messages nobody says so.
        if !active.has(feature::MULTIPORT)
            && let Some(port) = self.ports.get(TERMINAL)
        {
            port.host.set_open(true);
        }
        // The driver may have looked before it was ready to be told.
        self.tell_size(active);
        Ok(())
    }

    fn notify(&mut self, queue: u16, active: &mut Active) -> Result<(), DeviceError> {
        self.on_queue(queue, active)
    }

    fn event(
        &mut self,
        token: u32,
        _events: EventSet,
        active: Option<&mut Active>,
    ) -> Result<(), DeviceError> {
        self.on_descriptor(token, active)
    }

    fn reset(&mut self) {
        self.is_ready = false;
        self.ports.iter_mut().for_each(Port::forget_driver);
        self.told_size = self.size();
    }

    // It holds no chain between two calls.

    fn counters(&self) -> Arc<dyn CounterSet> {
        self.counters.clone()
    }

    fn save(&self) -> DeviceState {
        let port = |port: &Port| PortState {
            name: port.host.name().map(str::to_owned),
            is_ready: port.is_ready,
            is_open: port.host.is_open(),
            owed: port.owed.clone(),
        };
        DeviceState::Console(ConsoleState {
            is_ready: self.is_ready,
            size: self.size(),
            told_size: self.told_size,
            ports: self.ports.iter().map(port).collect(),
        })
    }

    fn restore(
        &mut self,
        state: DeviceState,
        _active: Option<&mut Active>,
    ) -> Result<(), RestoreError> {
        let DeviceState::Console(state) = state else {
            return Err(RestoreError::Kind(DeviceKind::Console.name()));
        };
        let invalid = |what: &str| Err(RestoreError::Invalid(what.to_owned()));
        if state.ports.len() != self.ports.len() {
            return invalid("another number of ports");
        }
        for (port, state) in self.ports.iter().zip(&state.ports) {
            if port.host.name() != state.name.as_deref() {
                return invalid("another name of a port");
            }
            let mut possible = Message::of_ready_port(port, true);
            possible.insert(Message::Add);
            if !state.owed.is_subset(&possible) {
                return invalid("messages that are not for this port");
            }
        }
        for (port, state) in self.ports.iter_mut().zip(state.ports) {
            port.is_ready = state.is_ready;
            port.owed = state.owed;
            port.host.set_open(state.is_open);
        }
        if let Some(terminal) = self.ports.get(TERMINAL) {
            // It is one.
            let _ = terminal.host.set_size(state.size);
        }
        self.is_ready = state.is_ready;
        self.told_size = state.told_size;
        // What it was not told yet it is told when the VM goes on.
        self.wake.raise();
        Ok(())
    }
}
