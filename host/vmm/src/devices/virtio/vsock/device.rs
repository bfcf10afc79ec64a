//! The device and how the transport sees it.

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Instant;

use vmm_sys_util::epoll::EventSet;

use super::config::{FIRST_CID, LAST_CID, Limits, VsockConfig, VsockConfigError};
use super::counters::VsockCounters;
use super::deadlines::Timer;
use super::dial::Dial;
use super::multiplexer::Multiplexer;
use super::ports::Ports;
use super::state::VsockState;
use crate::devices::virtio::{
    Active, CounterSet, DeviceError, DeviceKind, DeviceState, EventSources, QueueLimits,
    RestoreError, VirtioDevice, read_config,
};

/// Packets to the guest.
pub(super) const RECEIVE: u16 = 0;
/// Packets from the guest.
pub(super) const TRANSMIT: u16 = 1;
/// News that are about no connection.
pub(super) const EVENTS: u16 = 2;

/// A packet has at most as much payload as the other end buffers, and Linux sends 64 KiB at most.
/// Buffers for packets to the guest are as large as the driver likes.
const QUEUES: [QueueLimits; 3] = [
    QueueLimits {
        max_size: 256,
        max_chain_bytes: 1 << 20,
    },
    QueueLimits {
        max_size: 256,
        max_chain_bytes: 1 << 20,
    },
    QueueLimits {
        max_size: 64,
        max_chain_bytes: 4 << 10,
    },
];

/// `VIRTIO_VSOCK_F_STREAM`: stream sockets are supported.
const F_STREAM: u32 = 0;

/// The socket device.
pub(crate) struct Vsock {
    pub(super) counters: Arc<VsockCounters>,
    pub(super) multiplexer: Multiplexer,
    pub(super) listener: UnixListener,
    /// Whether the listener is watched.
    pub(super) is_listening: bool,
    pub(super) timer: Timer,
    pub(super) sources: Option<EventSources>,
    /// Whether the guest is to be told that all connections are gone.
    pub(super) owes_reset: bool,
    /// Since when the VM is paused.
    pub(super) paused: Option<Instant>,
}

impl Vsock {
    /// Makes a device, which takes over what is in `config`.
    ///
    /// # Errors
    /// The configuration makes no sense.
    pub(crate) fn new(config: VsockConfig) -> Result<Self, VsockConfigError> {
        let limits = Limits::new(config.limits)?;
        Self::with_limits(config, limits)
    }

    pub(super) fn with_limits(
        config: VsockConfig,
        limits: Limits,
    ) -> Result<Self, VsockConfigError> {
        let VsockConfig {
            guest_cid,
            listener,
            directory,
            prefix,
            limits: _,
        } = config;
        if !is_guest_cid(guest_cid) {
            return Err(VsockConfigError::Cid(guest_cid));
        }
        let dial = Dial::new(directory, prefix).ok_or(VsockConfigError::Prefix)?;
        let host = |what| move |source| VsockConfigError::Host { what, source };
        listener
            .set_nonblocking(true)
            .map_err(host("preparing the listener"))?;
        let timer = Timer::new().map_err(host("making a timer"))?;
        let counters = Arc::new(VsockCounters::default());
        let ports = Ports::default();
        Ok(Self {
            multiplexer: Multiplexer::new(guest_cid, limits, dial, ports, Arc::clone(&counters)),
            counters,
            listener,
            is_listening: false,
            timer,
            sources: None,
            owes_reset: false,
            paused: None,
        })
    }
}

fn is_guest_cid(cid: u32) -> bool {
    (FIRST_CID..=LAST_CID).contains(&cid)
}

impl VirtioDevice for Vsock {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Vsock
    }

    fn features(&self) -> u64 {
        1 << F_STREAM
    }

    fn queues(&self) -> &[QueueLimits] {
        &QUEUES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let guest_cid = u64::from(self.multiplexer.guest_cid());
        read_config(&guest_cid.to_le_bytes(), offset, data);
    }

    fn attach(&mut self, sources: EventSources) -> io::Result<()> {
        sources.add(&self.timer, super::events::TIMER, EventSet::IN)?;
        self.multiplexer.attach(sources.clone());
        self.sources = Some(sources);
        Ok(())
    }

    fn activate(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        self.begin();
        self.finish(active)
    }

    fn notify(&mut self, queue: u16, active: &mut Active) -> Result<(), DeviceError> {
        self.begin();
        match queue {
            TRANSMIT => self.transmit(active)?,
            EVENTS => self.tell_reset(active)?,
            // Filled below, as after anything that happens.
            _ => {}
        }
        self.finish(active)
    }

    fn event(
        &mut self,
        token: u32,
        events: EventSet,
        active: Option<&mut Active>,
    ) -> Result<(), DeviceError> {
        // Without a driver nothing is watched but a timer that is not set.
        let Some(active) = active else { return Ok(()) };
        self.begin();
        self.source_ready(token, events);
        self.finish(active)
    }

    fn reset(&mut self) {
        self.multiplexer.clear();
        self.owes_reset = false;
        self.paused = None;
        self.stop_listening();
        // What can't be set does nothing: no deadline is left.
        let _ = self.timer.set(None, self.multiplexer.now());
    }

    fn quiesce(&mut self, _active: Option<&mut Active>) -> Result<(), DeviceError> {
        // No chain is held between two calls. What comes meanwhile stays in the sockets.
        self.paused.get_or_insert_with(Instant::now);
        Ok(())
    }

    fn counters(&self) -> Arc<dyn CounterSet> {
        self.counters.clone()
    }

    fn save(&self) -> DeviceState {
        DeviceState::Vsock(VsockState {
            guest_cid: self.multiplexer.guest_cid(),
            next_port: self.multiplexer.next_port(),
        })
    }

    fn restore(
        &mut self,
        state: DeviceState,
        active: Option<&mut Active>,
    ) -> Result<(), RestoreError> {
        let DeviceState::Vsock(state) = state else {
            return Err(RestoreError::Kind(DeviceKind::Vsock.name()));
        };
        let VsockState {
            guest_cid,
            next_port,
        } = state;
        let invalid = |what: String| RestoreError::Invalid(what);
        if !is_guest_cid(guest_cid) {
            return Err(invalid(format!("a guest with context id {guest_cid}")));
        }
        let ports = Ports::new(next_port)
            .ok_or_else(|| invalid(format!("port {next_port} for the host's connections")))?;
        self.multiplexer.clear();
        self.multiplexer.set_ports(ports);
        self.owes_reset = active.is_some();
        Ok(())
    }
}
