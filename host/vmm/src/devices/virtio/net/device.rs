//! The device and how the transport sees it.

use std::io;
use std::sync::Arc;

use virtio_bindings::virtio_net::VIRTIO_NET_S_LINK_UP;
use vmm_sys_util::epoll::EventSet;

use super::RECEIVE;
use super::config::{NetConfig, NetConfigError, NetLimits};
use super::counters::NetCounters;
use super::features;
use super::link::{self, Link};
use super::rx_buffers::RxBuffers;
use super::state::NetState;
use crate::devices::virtio::{
    Active, Clock, CounterSet, DeviceError, DeviceKind, DeviceState, EventSources, LimitControl,
    Monotonic, QueueLimits, RateLimiter, RestoreError, VirtioDevice, read_config,
};

/// As many as a driver that merges buffers needs for a few packets of the largest size. A chain
/// may be longer than any packet, so that one that is can be dropped: drivers that do not merge
/// buffers give some that are larger than needed.
const QUEUES: [QueueLimits; 2] = [QueueLimits {
    max_size: 256,
    max_chain_bytes: 1 << 20,
}; 2];

/// Least MTU of an IPv4 network (RFC 791).
const LEAST_MTU: u16 = 68;
/// The group bit of a MAC address's first byte.
const GROUP: u8 = 1;
/// Most packets of before the driver was ready that are thrown away: twice what a TAP queues.
const MAX_STALE: u64 = 2000;

/// The network device.
pub(crate) struct Net {
    pub(super) link: Link,
    pub(super) mac: [u8; 6],
    pub(super) mtu: Option<u16>,
    pub(super) anti_spoofing: bool,
    features: u64,
    pub(super) receive_limiter: RateLimiter,
    pub(super) transmit_limiter: RateLimiter,
    pub(super) counters: Arc<NetCounters>,
    pub(super) sources: Option<EventSources>,
    /// Whether the device thread looks at the TAP.
    pub(super) is_watching: bool,
    pub(super) buffers: RxBuffers,
    /// Whether the TAP is there. Once it is not, it never is again.
    pub(super) link_up: bool,
    /// The state of the link is not what the driver was told when it was saved.
    pub(super) must_tell_link: bool,
}

/// The host's end of a network device.
#[derive(Debug, Clone)]
pub(crate) struct NetControl {
    receive: Arc<LimitControl>,
    transmit: Arc<LimitControl>,
}

impl NetControl {
    /// Changes the limits, from the next packet on.
    pub(crate) fn set_limits(&self, limits: NetLimits) {
        self.receive.set_limits(limits.receive);
        self.transmit.set_limits(limits.transmit);
    }
}

impl Net {
    /// # Errors
    /// The descriptor or the numbers make no sense.
    pub(crate) fn new(config: NetConfig) -> Result<Self, NetConfigError> {
        Self::with_clock(config, || Box::new(Monotonic::default()))
    }

    pub(super) fn with_clock(
        config: NetConfig,
        clock: impl Fn() -> Box<dyn Clock>,
    ) -> Result<Self, NetConfigError> {
        let [first, ..] = config.mac;
        if first & GROUP != 0 || config.mac == [0; 6] {
            return Err(NetConfigError::Mac);
        }
        if let Some(mtu) = config.mtu.filter(|mtu| *mtu < LEAST_MTU) {
            return Err(NetConfigError::Mtu(mtu));
        }
        let link = Link::new(config.tap)?;
        let control = |limits| {
            let control = LimitControl::new(limits).map_err(|source| NetConfigError::Host {
                what: "timerfd_create",
                source,
            });
            control.map(Arc::new)
        };
        let receive = control(config.limits.receive)?;
        let transmit = control(config.limits.transmit)?;
        let features =
            features::offered(config.mtu.is_some(), config.offloads, link.segments_udp());
        Ok(Self {
            link,
            mac: config.mac,
            mtu: config.mtu,
            anti_spoofing: config.anti_spoofing,
            features,
            counters: Arc::new(NetCounters::new(
                Arc::clone(&receive),
                Arc::clone(&transmit),
            )),
            receive_limiter: RateLimiter::new(receive, clock()),
            transmit_limiter: RateLimiter::new(transmit, clock()),
            sources: None,
            is_watching: false,
            buffers: RxBuffers::default(),
            link_up: true,
            must_tell_link: false,
        })
    }

    /// The host's end.
    pub(crate) fn control(&self) -> NetControl {
        NetControl {
            receive: Arc::clone(self.receive_limiter.control()),
            transmit: Arc::clone(self.transmit_limiter.control()),
        }
    }

    /// Tells the TAP what the driver can do by itself.
    fn set_offloads(&self, active: &Active) -> io::Result<()> {
        if !self.link_up {
            return Ok(());
        }
        match self.link.set_offloads(features::tap_offloads(active)) {
            // It is found out, and told, when the TAP is looked at.
            Err(error) if link::is_lost(&error) => Ok(()),
            result => result,
        }
    }
}

impl VirtioDevice for Net {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Net
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queues(&self) -> &[QueueLimits] {
        &QUEUES
    }

    /// `virtio_net_config` up to the MTU (section 5.1.4). There is one pair of queues.
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let [m0, m1, m2, m3, m4, m5] = self.mac;
        let status = match self.link_up {
            true => VIRTIO_NET_S_LINK_UP as u16,
            false => 0,
        };
        let [s0, s1] = status.to_le_bytes();
        let [p0, p1] = 1_u16.to_le_bytes();
        let [t0, t1] = self.mtu.unwrap_or(0).to_le_bytes();
        let config = [m0, m1, m2, m3, m4, m5, s0, s1, p0, p1, t0, t1];
        read_config(&config, offset, data);
    }

    fn attach(&mut self, sources: EventSources) -> io::Result<()> {
        self.watch_timers(&sources)?;
        self.sources = Some(sources);
        Ok(())
    }

    fn activate(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        self.set_offloads(active)
            .map_err(|source| DeviceError::Host {
                what: "TUNSETOFFLOAD",
                source,
            })?;
        // It is for nobody, or for a driver that negotiated something else.
        self.counters.rx_stale.add(self.link.discard(MAX_STALE));
        Ok(())
    }

    fn notify(&mut self, queue: u16, active: &mut Active) -> Result<(), DeviceError> {
        self.on_queue(queue, active)
    }

    fn event(
        &mut self,
        token: u32,
        events: EventSet,
        active: Option<&mut Active>,
    ) -> Result<(), DeviceError> {
        self.on_descriptor(token, events, active)
    }

    fn reset(&mut self) {
        self.buffers.clear();
        self.must_tell_link = false;
        // If it is not watched no more, the next event tries again.
        let _ = self.watch_tap(false);
    }

    fn quiesce(&mut self, active: Option<&mut Active>) -> Result<(), DeviceError> {
        if let Some(queue) = active.and_then(|active| active.queue(RECEIVE)) {
            self.buffers.give_back(queue);
        }
        self.watch_tap(false)
    }

    fn counters(&self) -> Arc<dyn CounterSet> {
        self.counters.clone()
    }

    fn save(&self) -> DeviceState {
        DeviceState::Net(NetState {
            mac: self.mac,
            mtu: self.mtu,
            link_up: self.link_up != self.must_tell_link,
        })
    }

    fn restore(
        &mut self,
        state: DeviceState,
        active: Option<&mut Active>,
    ) -> Result<(), RestoreError> {
        let DeviceState::Net(state) = state else {
            return Err(RestoreError::Kind(DeviceKind::Net.name()));
        };
        // What the driver was told must be what the network was told.
        if state.mac != self.mac {
            return Err(RestoreError::Invalid("another MAC address".to_owned()));
        }
        if state.mtu != self.mtu {
            return Err(RestoreError::Invalid("another MTU".to_owned()));
        }
        if let Some(active) = active {
            let set = self.set_offloads(active);
            set.map_err(|error| RestoreError::Invalid(format!("TUNSETOFFLOAD: {error}")))?;
        }
        self.must_tell_link = state.link_up != self.link_up;
        Ok(())
    }
}
