//! What happens at sockets of the host, and what does not happen in time.

use std::os::unix::net::UnixStream;

use vmm_sys_util::epoll::EventSet;

use super::Multiplexer;
use super::flow::{Flow, Key};
use crate::devices::virtio::vsock::connection::Connection;
use crate::devices::virtio::vsock::counters::VsockCounters;
use crate::devices::virtio::vsock::handshake::{self, Line};

impl Multiplexer {
    /// A program of the host connected; it says next to which port it wants.
    pub(in super::super) fn greet(&mut self, socket: UnixStream) {
        let token = self.new_token();
        let watched = socket
            .set_nonblocking(true)
            .and_then(|()| self.watch(&socket, token));
        if watched.is_err() {
            return VsockCounters::add(&self.counters.rejected, 1);
        }
        self.handshakes.insert(token, socket);
        if let Some(at) = self.now.checked_add(self.limits.handshake_patience) {
            self.deadlines.set(token, at);
        }
    }

    /// A socket has something to tell, unless `token` is one of a moment ago.
    pub(in super::super) fn socket_ready(&mut self, token: u32, events: EventSet) {
        let is_gone = events.intersects(EventSet::HANG_UP | EventSet::ERROR);
        if let Some(socket) = self.handshakes.get(&token) {
            let line = match is_gone {
                true => Line::Wrong,
                false => handshake::read(socket),
            };
            return match line {
                Line::Connect(port) => self.connect_to_guest(token, port),
                Line::Unfinished => {}
                Line::Wrong => self.give_up(token),
            };
        }
        let Some(flow) = self.flows.get_mut(&token) else {
            return;
        };
        if let Some(stream) = &mut flow.stream
            && (is_gone || events.contains(EventSet::IN))
        {
            stream.set_has_input();
        }
        match is_gone {
            true => flow.host_takes_no_more(),
            false => flow.flush(),
        }
        self.settle(token);
    }

    fn connect_to_guest(&mut self, token: u32, port: u32) {
        self.deadlines.clear(token);
        let Some(socket) = self.handshakes.remove(&token) else {
            return;
        };
        if let Some(host) = self.port_to(port) {
            let key = Key { host, guest: port };
            let connection = Connection::requested_by_host(self.limits.buffer_bytes);
            self.insert(token, Flow::new(key, connection, socket, true));
        } else {
            self.unwatch(&socket);
            VsockCounters::add(&self.counters.rejected, 1);
        }
    }

    /// Allocates a port for another connection to `port` of the guest, if there may be another.
    fn port_to(&mut self, port: u32) -> Option<u32> {
        if self.is_full() {
            return None;
        }
        let is_taken = |host| self.keys.contains_key(&Key { host, guest: port });
        // A connection may take one of its own and one that the guest chose.
        let tries = self.flows.len().saturating_mul(2).saturating_add(1);
        self.ports.allocate(is_taken, tries)
    }

    /// Ends what was to happen by now and has not.
    pub(in super::super) fn expire(&mut self) {
        while let Some(token) = self.deadlines.take_over(self.now) {
            self.give_up(token);
        }
    }

    /// Ends a handshake or a connection.
    pub(super) fn give_up(&mut self, token: u32) {
        if let Some(socket) = self.handshakes.remove(&token) {
            self.deadlines.clear(token);
            self.unwatch(&socket);
            VsockCounters::add(&self.counters.rejected, 1);
        }
        if let Some(flow) = self.flows.get_mut(&token) {
            flow.connection.reset();
            self.settle(token);
        }
    }
}
