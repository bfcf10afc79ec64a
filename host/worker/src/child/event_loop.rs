//! The worker's one thread beside the vCPUs': waits for whatever happens first.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::connection::{Connection, Phase};
use super::worker::{Outcome, Worker};
use crate::guest::Guest;
use crate::limits::{BUILD_FAILURE_LINGER, FAREWELL_DEADLINE, MAX_CONNECTIONS};
use crate::protocol::{HostMessage, Response, WorkerMessage};

/// How long no connection is accepted after the kernel could not make one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(crate) struct EventLoop {
    control: UnixListener,
    worker: Worker,
    pub(super) connections: Vec<Connection>,
    /// No connection is accepted before.
    accept_after: Option<Instant>,
    /// The process ends when everything is sent, or then.
    ends: Option<Instant>,
}

/// What is ready after waiting.
#[derive(Default)]
pub(super) struct Ready {
    control: bool,
    exit: bool,
    output: bool,
    /// Ports of the console with new output.
    ports: Vec<usize>,
    /// By the connection's index.
    connections: Vec<bool>,
}

#[cfg(any(test, fuzzing))]
impl Ready {
    /// All of so many connections.
    pub(super) fn connections(count: usize) -> Self {
        Self {
            connections: vec![true; count],
            ..Self::default()
        }
    }
}

impl EventLoop {
    pub(crate) fn new(control: UnixListener, worker: Worker) -> io::Result<Self> {
        control.set_nonblocking(true)?;
        Ok(Self {
            control,
            worker,
            connections: Vec::new(),
            accept_after: None,
            ends: None,
        })
    }

    /// Runs until the worker is told to quit.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let patience = self
            .worker
            .build_failed()
            .then(|| Instant::now() + BUILD_FAILURE_LINGER);
        loop {
            let now = Instant::now();
            if self.advance(now, patience) {
                return Ok(());
            }
            let ready = self.wait(patience, now)?;
            self.handle(&ready, Instant::now());
        }
    }

    /// Sends what can be sent, and gives up who does not do its part in time. True: the process is
    /// to end.
    pub(super) fn advance(&mut self, now: Instant, patience: Option<Instant>) -> bool {
        self.tell(now);
        self.connections.retain_mut(|connection| {
            connection.flush(now).is_ok()
                && connection.due().is_none_or(|due| now < due)
                && (connection.phase() != Phase::Closing || connection.has_output())
        });
        self.worker.bury();
        self.is_over(now) || patience.is_some_and(|end| now >= end)
    }

    /// Whether the process was told to end, or has told why there is no guest, and everything
    /// that can be sent is sent.
    fn is_over(&self, now: Instant) -> bool {
        let serving = |connection: &&Connection| connection.phase() == Phase::Serving;
        let sent = !self
            .connections
            .iter()
            .filter(serving)
            .any(Connection::has_output);
        let told = self.worker.build_failed()
            && self
                .connections
                .iter()
                .any(|connection| connection.phase() == Phase::Serving);
        (self.ends.is_some() || told) && sent || self.ends.is_some_and(|end| now >= end)
    }

    /// Queues events that the host has not been told of on its connection.
    fn tell(&mut self, now: Instant) {
        for connection in &mut self.connections {
            if connection.phase() != Phase::Serving {
                continue;
            }
            for (sequence, event) in self.worker.events() {
                if *sequence > connection.told {
                    connection.told = *sequence;
                    let (sequence, event) = (*sequence, event.clone());
                    connection.queue(&WorkerMessage::Event { sequence, event }, now);
                }
            }
        }
    }

    fn wait(&self, patience: Option<Instant>, now: Instant) -> io::Result<Ready> {
        let guest = self.worker.guest();
        let accepts = self.connections.len() < MAX_CONNECTIONS
            && self.accept_after.is_none_or(|after| now >= after);
        let control = accepts.then(|| self.control.as_fd());
        let exit = guest.and_then(Guest::exit_fd);
        let watched = self
            .connections
            .iter()
            .any(|connection| connection.watching);
        let output = guest.filter(|_| watched).and_then(Guest::output_fd);

        let mut set = Vec::with_capacity(3 + self.connections.len());
        let mut slots = [None; 3];
        for (slot, fd) in slots.iter_mut().zip([control, exit, output]) {
            if let Some(fd) = fd {
                *slot = Some(set.len());
                set.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            }
        }
        let is_watched = |port: &usize| {
            let mut connections = self.connections.iter();
            connections.any(|connection| connection.watching_ports.contains(port))
        };
        let ports = 0..guest.map_or(0, Guest::console_count);
        let mut port_slots = Vec::new();
        for port in ports.filter(is_watched) {
            if let Some(fd) = guest.and_then(|guest| guest.console_fd(port)) {
                port_slots.push((port, set.len()));
                set.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            }
        }
        let first = set.len();
        for connection in &self.connections {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, connection.takes_input());
            flags.set(PollFlags::OUT, connection.has_output());
            set.push(PollFd::new(connection.stream(), flags));
        }
        let due = self
            .connections
            .iter()
            .filter_map(Connection::due)
            .chain(
                [
                    patience,
                    self.ends,
                    self.accept_after.filter(|after| now < *after),
                ]
                .into_iter()
                .flatten(),
            )
            .min();
        let more = self.connections.iter().any(Connection::has_waiting_input);
        let due = if more { Some(now) } else { due };
        let timeout = due.map(|due| timespec(due.saturating_duration_since(now)));
        match poll(&mut set, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Ready::default()),
            Err(error) => return Err(error.into()),
        }
        let is_ready = |slot: Option<usize>| {
            slot.and_then(|slot| set.get(slot))
                .is_some_and(|fd| !fd.revents().is_empty())
        };
        let [control, exit, output] = slots.map(is_ready);
        let ports = port_slots.into_iter();
        let ports = ports.filter(|(_, slot)| is_ready(Some(*slot)));
        let ports = ports.map(|(port, _)| port).collect();
        let connections = set
            .iter()
            .skip(first)
            .map(|fd| !fd.revents().is_empty())
            .collect();
        Ok(Ready {
            control,
            exit,
            output,
            ports,
            connections,
        })
    }

    pub(super) fn handle(&mut self, ready: &Ready, now: Instant) {
        if ready.exit {
            self.worker.settle();
        }
        if ready.output {
            self.announce_output(now);
        }
        for port in &ready.ports {
            self.announce_console(*port, now);
        }
        let mut ready_connections = ready.connections.iter();
        let mut greeted = None;
        let mut index = 0;
        while index < self.connections.len() {
            let is_ready = ready_connections.next().copied().unwrap_or_default();
            match self.converse(index, is_ready, now) {
                Ok(authenticated) => {
                    if authenticated {
                        greeted = Some(index);
                    }
                    index += 1;
                }
                // The peer is gone or broke the protocol. The guest does not mind.
                Err(Dropped) => {
                    self.connections.remove(index);
                }
            }
        }
        if let Some(newest) = greeted {
            self.replace_others(newest, now);
        }
        if ready.control {
            self.accept(now);
        }
    }

    /// Tells whoever watches that there is more output.
    fn announce_output(&mut self, now: Instant) {
        let Some(guest) = self.worker.guest() else {
            return;
        };
        if let Some(output) = guest.output_fd() {
            // An eventfd: reading resets it. It does not block; whether it was read is no matter.
            let _ = rustix::io::read(output, &mut [0; 8]);
        }
        let end = guest.serial_end();
        for connection in self
            .connections
            .iter_mut()
            .filter(|connection| connection.watching)
        {
            connection.watching = false;
            connection.queue(&WorkerMessage::SerialOutput { end }, now);
        }
    }

    /// Tells whoever watches a port of the console that there is more output.
    fn announce_console(&mut self, port: usize, now: Instant) {
        if let Some(output) = self.worker.guest().and_then(|guest| guest.console_fd(port)) {
            // As of the serial port.
            let _ = rustix::io::read(output, &mut [0; 8]);
        }
        for connection in &mut self.connections {
            if connection.watching_ports.remove(&port) {
                connection.queue(&WorkerMessage::ConsoleOutput { port }, now);
            }
        }
    }

    /// Reads and answers what a peer says. True if it has just proved to be the host.
    fn converse(&mut self, index: usize, is_ready: bool, now: Instant) -> Result<bool, Dropped> {
        let Self {
            connections,
            worker,
            ends,
            ..
        } = self;
        let connection = connections.get_mut(index).ok_or(Dropped)?;
        if is_ready && connection.takes_input() {
            connection.fill().map_err(|_| Dropped)?;
        }
        let mut authenticated = false;
        while let Some(message) = connection.next(now).map_err(|_| Dropped)? {
            match (connection.phase(), message) {
                (Phase::Greeting, HostMessage::Hello(hello)) => match worker.authenticate(&hello) {
                    Ok(welcome) => {
                        connection.authenticated();
                        connection.queue(&WorkerMessage::Welcome(welcome), now);
                        authenticated = true;
                    }
                    Err(reason) => {
                        connection.queue(&WorkerMessage::Refused { reason }, now);
                        connection.close();
                    }
                },
                (Phase::Serving, HostMessage::Request { id, request }) => {
                    let response = match worker.serve(request) {
                        Outcome::Respond(response) => response,
                        Outcome::Watch(response) => {
                            connection.watching = true;
                            response
                        }
                        Outcome::WatchConsole(port, response) => {
                            connection.watching_ports.insert(port);
                            response
                        }
                        Outcome::Quit => {
                            ends.get_or_insert(now + FAREWELL_DEADLINE);
                            Response::Done
                        }
                    };
                    connection.queue(&WorkerMessage::Response { id, response }, now);
                }
                _ => return Err(Dropped),
            }
        }
        Ok(authenticated)
    }

    /// Only the newest host is served: an older one is gone or about to be.
    fn replace_others(&mut self, newest: usize, now: Instant) {
        for (index, connection) in self.connections.iter_mut().enumerate() {
            if index != newest && connection.phase() == Phase::Serving {
                connection.queue(&WorkerMessage::Replaced, now);
                connection.close();
            }
        }
    }

    fn accept(&mut self, now: Instant) {
        self.accept_after = None;
        while self.connections.len() < MAX_CONNECTIONS {
            match self.control.accept() {
                Ok((stream, _)) => {
                    // One that can't be looked at, or is another user's, is closed unheard.
                    if let Ok(Some(connection)) = Connection::accept(stream, now) {
                        self.connections.push(connection);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // No descriptors, for instance. It may pass.
                Err(_) => {
                    self.accept_after = Some(now + ACCEPT_PAUSE);
                    break;
                }
            }
        }
    }
}

/// The peer is gone or broke the protocol.
struct Dropped;

fn timespec(duration: Duration) -> Timespec {
    // Rounded up, so that what is due then is due when the wait is over.
    let millis = duration.as_millis() + 1;
    Timespec {
        tv_sec: i64::try_from(millis / 1000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(millis % 1000).unwrap_or(0) * 1_000_000,
    }
}
