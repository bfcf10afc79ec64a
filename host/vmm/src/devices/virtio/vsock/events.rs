//! What the device does when a queue or a descriptor calls.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use vmm_sys_util::epoll::EventSet;

use super::device::{EVENTS, RECEIVE, TRANSMIT, Vsock};
use crate::devices::virtio::{Active, DeviceError};

/// Programs of the host connect.
const LISTENER: u32 = 0;
/// A deadline is over.
pub(super) const TIMER: u32 = 1;
/// Most programs of the host that are accepted at a time.
const ACCEPTS: usize = 64;
/// How long the listener is left alone when the host has no descriptors or memory for another
/// socket.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET`, as it is in the queue.
const TRANSPORT_RESET: [u8; 4] = 0_u32.to_le_bytes();

impl Vsock {
    /// A call begins.
    pub(super) fn begin(&mut self) {
        let now = Instant::now();
        self.multiplexer.set_now(now);
        if let Some(since) = self.paused.take() {
            self.multiplexer
                .resume(now.saturating_duration_since(since));
        }
    }

    /// Everything that follows from anything that happened: packets to the guest, whether to
    /// accept, and until when to wait.
    pub(super) fn finish(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        if let Some(queue) = active.queue(RECEIVE) {
            self.multiplexer.receive(queue)?;
        }
        let accepts =
            self.multiplexer.has_room_for_handshake() && !self.multiplexer.deadlines.has(LISTENER);
        match accepts {
            true => self.listen()?,
            false => self.stop_listening(),
        }
        let (next, now) = (self.multiplexer.deadlines.next(), self.multiplexer.now());
        self.timer.set(next, now).map_err(host("setting a timer"))
    }

    fn listen(&mut self) -> Result<(), DeviceError> {
        if let (false, Some(sources)) = (self.is_listening, &self.sources) {
            let added = sources.add(&self.listener, LISTENER, EventSet::IN);
            added.map_err(host("watching the listener"))?;
            self.is_listening = true;
        }
        Ok(())
    }

    pub(super) fn stop_listening(&mut self) {
        if let (true, Some(sources)) = (self.is_listening, &self.sources) {
            // It is watched, so it can be watched no more.
            let _ = sources.remove(&self.listener);
        }
        self.is_listening = false;
    }

    /// Takes packets of the guest.
    pub(super) fn transmit(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        let Some(queue) = active.queue(TRANSMIT) else {
            return Ok(());
        };
        while let Some(chain) = queue.pop()? {
            self.multiplexer.transmit(&chain);
            queue.complete(chain, 0)?;
        }
        Ok(())
    }

    /// Tells a guest that was restored that its connections are gone.
    pub(super) fn tell_reset(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        if let (true, Some(queue)) = (self.owes_reset, active.queue(EVENTS))
            && let Some(chain) = queue.pop()?
        {
            chain.writer().write_all(&TRANSPORT_RESET)?;
            queue.complete(chain, TRANSPORT_RESET.len() as u32)?;
            self.owes_reset = false;
        }
        Ok(())
    }

    pub(super) fn source_ready(&mut self, token: u32, events: EventSet) {
        match token {
            LISTENER => self.accept(),
            TIMER => {
                self.timer.fired();
                self.multiplexer.expire();
            }
            token => self.multiplexer.socket_ready(token, events),
        }
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTS {
            if !self.multiplexer.has_room_for_handshake() {
                return;
            }
            match self.listener.accept() {
                Ok((socket, _)) => self.multiplexer.greet(socket),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return,
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                    _ => {
                        let later = self.multiplexer.now().checked_add(ACCEPT_PAUSE);
                        if let Some(later) = later {
                            self.multiplexer.deadlines.set(LISTENER, later);
                        }
                        return;
                    }
                },
            }
        }
    }
}

fn host(what: &'static str) -> impl FnOnce(std::io::Error) -> DeviceError {
    move |source| DeviceError::Host { what, source }
}
