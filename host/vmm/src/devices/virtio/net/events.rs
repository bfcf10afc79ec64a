//! What the device does when a queue or a descriptor calls.

use std::io;

use vmm_sys_util::epoll::EventSet;

use super::device::Net;
use super::{RECEIVE, TRANSMIT};
use crate::devices::virtio::{Active, DeviceError, EventSources};

/// The TAP. Watched while there is a driver that can receive.
pub(super) const TAP: u32 = 0;
/// The timer of the limit of what is received. Watched always: it fires only if it was set.
const RECEIVE_TIMER: u32 = 1;
/// The timer of the limit of what is sent.
const TRANSMIT_TIMER: u32 = 2;

impl Net {
    pub(super) fn watch_timers(&self, sources: &EventSources) -> io::Result<()> {
        sources.add(&self.receive_limiter, RECEIVE_TIMER, EventSet::IN)?;
        sources.add(&self.transmit_limiter, TRANSMIT_TIMER, EventSet::IN)
    }

    pub(super) fn on_queue(&mut self, queue: u16, active: &mut Active) -> Result<(), DeviceError> {
        if std::mem::take(&mut self.must_tell_link) {
            active.config_changed();
        }
        match queue {
            // While the TAP is watched there are buffers, and more make no difference.
            RECEIVE if !self.is_watching => self.receive(active),
            TRANSMIT => self.transmit(active),
            _ => Ok(()),
        }
    }

    pub(super) fn on_descriptor(
        &mut self,
        token: u32,
        events: EventSet,
        active: Option<&mut Active>,
    ) -> Result<(), DeviceError> {
        match (token, active) {
            (TAP, Some(active)) => {
                self.receive(active)?;
                // Behind what was still to be read.
                match events.intersects(EventSet::ERROR | EventSet::HANG_UP) {
                    true => self.lose_link(active),
                    false => Ok(()),
                }
            }
            (TAP, None) => self.watch_tap(false),
            (RECEIVE_TIMER, active) => {
                self.receive_limiter.on_timer();
                active.map_or(Ok(()), |active| self.receive(active))
            }
            (TRANSMIT_TIMER, active) => {
                self.transmit_limiter.on_timer();
                active.map_or(Ok(()), |active| self.transmit(active))
            }
            _ => Ok(()),
        }
    }
}
