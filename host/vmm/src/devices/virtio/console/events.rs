//! What the device does when a queue or a descriptor calls.

use std::io;

use vmm_sys_util::epoll::EventSet;

use super::control::{FROM_DRIVER, TO_DRIVER};
use super::device::{Console, receive_queue, transmit_queue};
use super::{TERMINAL, feature};
use crate::devices::virtio::{Active, DeviceError, EventSources};

/// The host changed something, or a turn ended before all was done.
const WAKE: u32 = 0;
/// The timer of port 0's limit; the others' follow.
const TIMERS: u32 = 1;

impl Console {
    pub(super) fn watch(&self, sources: &EventSources) -> io::Result<()> {
        sources.add(&*self.wake, WAKE, EventSet::IN)?;
        for (token, port) in (TIMERS..).zip(&self.ports) {
            sources.add(&port.limiter, token, EventSet::IN)?;
        }
        Ok(())
    }

    pub(super) fn on_queue(&mut self, queue: u16, active: &mut Active) -> Result<(), DeviceError> {
        let is_multiport = active.has(feature::MULTIPORT);
        match queue {
            TO_DRIVER if is_multiport => return self.send_messages(active),
            FROM_DRIVER if is_multiport => return self.take_messages(active),
            _ => {}
        }
        for number in self.usable(active) {
            if queue == receive_queue(number) {
                return self.give(number, active);
            }
            if queue == transmit_queue(number) {
                return self.take(number, active);
            }
        }
        Ok(())
    }

    pub(super) fn on_descriptor(
        &mut self,
        token: u32,
        active: Option<&mut Active>,
    ) -> Result<(), DeviceError> {
        if token == WAKE {
            self.wake.take();
            return active.map_or(Ok(()), |active| self.look_at_all(active));
        }
        let number = (token - TIMERS) as usize;
        if let Some(port) = self.ports.get_mut(number) {
            port.limiter.on_timer();
        }
        match active {
            Some(active) if self.usable(active).contains(&number) => self.take(number, active),
            _ => Ok(()),
        }
    }

    fn look_at_all(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        self.tell_size(active);
        self.send_messages(active)?;
        for number in self.usable(active) {
            self.give(number, active)?;
            self.take(number, active)?;
        }
        Ok(())
    }

    /// The ports that the driver can know of.
    fn usable(&self, active: &Active) -> std::ops::Range<usize> {
        match active.has(feature::MULTIPORT) {
            true => 0..self.ports.len(),
            false => TERMINAL..TERMINAL + 1,
        }
    }
}
