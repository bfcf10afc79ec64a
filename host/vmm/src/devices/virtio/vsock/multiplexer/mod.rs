//! All connections of a VM: which there are, which of them have something for the guest, and which
//! have a deadline.
//!
//! * `guest.rs`: packets from the guest
//! * `host.rs`: what happens at sockets of the host, and what does not happen in time
//! * `receive.rs`: packets to the guest, from one connection after the other
//!
//! Everything is bounded: connections and handshakes in number, each connection by its credit, and
//! what is due to the guest by a few flags in each connection. Bytes for the guest stay in the
//! host's sockets until the guest has credit and buffers for them.

mod flow;
mod guest;
mod host;
mod receive;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::flow::{Flow, Key};
use super::config::Limits;
use super::counters::VsockCounters;
use super::deadlines::Deadlines;
use super::dial::Dial;
use super::ports::Ports;
use super::stream::{Scratch, Stream};
use crate::devices::virtio::EventSources;

/// Sockets get tokens from here on; lower ones are the device's own.
pub(super) const FIRST_TOKEN: u32 = 16;
/// Most packets of no connection that wait to be refused. Beyond, the guest has to find out by
/// itself.
const MAX_REFUSALS: usize = 256;

/// A packet that belongs to no connection, to be answered with an RST.
#[derive(Debug, Clone, Copy)]
struct Refusal {
    /// Where the guest sent it.
    dst_cid: u64,
    key: Key,
    kind: u16,
}

/// See the module.
pub(super) struct Multiplexer {
    guest_cid: u32,
    limits: Limits,
    dial: Dial,
    counters: Arc<VsockCounters>,
    sources: Option<EventSources>,
    /// The time of the call that is under way.
    now: Instant,
    /// By token.
    flows: HashMap<u32, Flow>,
    /// The tokens of connections that the guest knows.
    keys: HashMap<Key, u32>,
    /// Sockets whose first line has not come yet, by token.
    handshakes: HashMap<u32, UnixStream>,
    /// Connections that may have something for the guest, the next one first, each once.
    ready: VecDeque<u32>,
    refusals: VecDeque<Refusal>,
    ports: Ports,
    /// By token; the device's own too.
    pub(super) deadlines: Deadlines,
    next_token: u32,
    scratch: Scratch,
}

impl Multiplexer {
    pub(super) fn new(
        guest_cid: u32,
        limits: Limits,
        dial: Dial,
        ports: Ports,
        counters: Arc<VsockCounters>,
    ) -> Self {
        Self {
            guest_cid,
            limits,
            dial,
            counters,
            sources: None,
            now: Instant::now(),
            flows: HashMap::new(),
            keys: HashMap::new(),
            handshakes: HashMap::new(),
            ready: VecDeque::new(),
            refusals: VecDeque::new(),
            ports,
            deadlines: Deadlines::default(),
            next_token: FIRST_TOKEN,
            scratch: Scratch::default(),
        }
    }

    /// Sockets are watched by `sources` from here on.
    pub(super) fn attach(&mut self, sources: EventSources) {
        self.sources = Some(sources);
    }

    /// A call begins at `now`.
    pub(super) fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    pub(super) fn now(&self) -> Instant {
        self.now
    }

    pub(super) fn guest_cid(&self) -> u32 {
        self.guest_cid
    }

    /// The port at which the next connection of the host is tried.
    pub(super) fn next_port(&self) -> u32 {
        self.ports.next()
    }

    /// Goes on with other ports; there must be no connections.
    pub(super) fn set_ports(&mut self, ports: Ports) {
        self.ports = ports;
    }

    /// Whether another program of the host may begin a handshake.
    pub(super) fn has_room_for_handshake(&self) -> bool {
        self.handshakes.len() < self.limits.handshakes
    }

    /// Closes everything, and tells nobody.
    pub(super) fn clear(&mut self) {
        for socket in std::mem::take(&mut self.handshakes).into_values() {
            self.unwatch(&socket);
        }
        for flow in std::mem::take(&mut self.flows).into_values() {
            if let Some(stream) = flow.stream {
                self.unwatch(&stream);
            }
        }
        self.ports.release_all();
        self.keys = HashMap::new();
        self.ready = VecDeque::new();
        self.refusals = VecDeque::new();
        self.deadlines = Deadlines::default();
        self.scratch = Scratch::default();
    }

    /// Time stood still for `by`, and events may have been lost: all sockets report anew.
    pub(super) fn resume(&mut self, by: Duration) {
        self.deadlines.postpone(by);
        let Some(sources) = &self.sources else { return };
        let mut lost = Vec::new();
        for (token, socket) in &self.handshakes {
            if sources.modify(socket, *token, Stream::INPUT).is_err() {
                lost.push(*token);
            }
        }
        for (token, flow) in &self.flows {
            let Some(stream) = &flow.stream else { continue };
            if sources.modify(stream, *token, flow.interest).is_err() {
                lost.push(*token);
            }
        }
        for token in lost {
            self.give_up(token);
        }
    }

    fn watch(&self, socket: &impl AsRawFd, token: u32) -> io::Result<()> {
        let unconnected = || io::Error::from(io::ErrorKind::NotConnected);
        let sources = self.sources.as_ref().ok_or_else(unconnected)?;
        sources.add(socket, token, Stream::INPUT)
    }

    fn unwatch(&self, socket: &impl AsRawFd) {
        if let Some(sources) = &self.sources {
            // What is closed next is not watched any more in any case.
            let _ = sources.remove(socket);
        }
    }

    /// A token that nothing has.
    fn new_token(&mut self) -> u32 {
        loop {
            let token = self.next_token;
            self.next_token = token.checked_add(1).unwrap_or(FIRST_TOKEN);
            if !self.flows.contains_key(&token) && !self.handshakes.contains_key(&token) {
                return token;
            }
        }
    }

    fn is_full(&self) -> bool {
        self.flows.len() >= self.limits.connections
    }

    /// Adds a connection whose socket is watched as `token`. The key must be free.
    fn insert(&mut self, token: u32, flow: Flow) {
        self.keys.insert(flow.key, token);
        self.flows.insert(token, flow);
        VsockCounters::add(&self.counters.connections, 1);
        self.settle(token);
    }

    /// Sees to all that follows from a change of a connection.
    fn settle(&mut self, token: u32) {
        let Some(flow) = self.flows.get_mut(&token) else {
            return;
        };
        flow.end_directions();
        if let (Some(stream), Some(sources)) = (&flow.stream, &self.sources) {
            let interest = stream.interest();
            if interest != flow.interest {
                match sources.modify(stream, token, interest) {
                    Ok(()) => flow.interest = interest,
                    Err(_) => flow.connection.reset(),
                }
            }
        }
        if flow.connection.needs_no_host()
            && let (Some(stream), Some(sources)) = (flow.stream.take(), &self.sources)
        {
            let _ = sources.remove(&stream);
        }
        let key = flow.key;
        if flow.connection.is_unknown_to_guest() && self.keys.get(&key) == Some(&token) {
            self.keys.remove(&key);
        }
        let wait = flow.connection.waits_for();
        if wait != flow.wait {
            flow.wait = wait;
            match wait.map(|wait| self.now.checked_add(self.limits.patience(wait))) {
                Some(Some(at)) => self.deadlines.set(token, at),
                _ => self.deadlines.clear(token),
            }
        }
        if flow.connection.is_over() {
            return self.remove(token);
        }
        if flow.has_work() && !flow.is_queued {
            flow.is_queued = true;
            self.ready.push_back(token);
        }
    }

    fn remove(&mut self, token: u32) {
        self.deadlines.clear(token);
        let Some(flow) = self.flows.remove(&token) else {
            return;
        };
        if flow.is_queued {
            self.ready.retain(|queued| *queued != token);
        }
        if flow.owns_port {
            self.ports.release(flow.key.host);
        }
    }
}
