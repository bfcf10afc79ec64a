//! The host-side descriptors that the device thread watches for a device.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// What woke the device thread, as it is kept in an epoll event's 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wakeup {
    /// Somebody wants the thread itself.
    Control,
    /// A queue of the device with this index was notified.
    Queue {
        /// Which device.
        device: u16,
        /// Its queue.
        queue: u16,
    },
    /// A descriptor of the device is ready.
    Source {
        /// Which device.
        device: u16,
        /// The number that the device gave it.
        token: u32,
    },
}

const TAG_CONTROL: u64 = 0;
const TAG_QUEUE: u64 = 1;
const TAG_SOURCE: u64 = 2;

impl From<Wakeup> for u64 {
    fn from(wakeup: Wakeup) -> Self {
        let pack = |tag: u64, device: u16, number: u32| {
            tag << 48 | Self::from(device) << 32 | Self::from(number)
        };
        match wakeup {
            Wakeup::Control => pack(TAG_CONTROL, 0, 0),
            Wakeup::Queue { device, queue } => pack(TAG_QUEUE, device, queue.into()),
            Wakeup::Source { device, token } => pack(TAG_SOURCE, device, token),
        }
    }
}

impl From<u64> for Wakeup {
    fn from(data: u64) -> Self {
        let (device, number) = ((data >> 32) as u16, data as u32);
        match data >> 48 {
            TAG_QUEUE => Self::Queue {
                device,
                queue: number as u16,
            },
            TAG_SOURCE => Self::Source {
                device,
                token: number,
            },
            _ => Self::Control,
        }
    }
}

/// Registers descriptors of one device with the device thread; usable from any thread.
///
/// A descriptor is identified by a token of the device's choice, which comes back in
/// [`super::VirtioDevice::event`]. Remove it before closing it.
#[derive(Clone)]
pub(crate) struct EventSources {
    epoll: Arc<Epoll>,
    device: u16,
}

impl EventSources {
    pub(crate) fn new(epoll: Arc<Epoll>, device: u16) -> Self {
        Self { epoll, device }
    }

    /// Watches `fd` for `events`, level-triggered unless they say otherwise.
    pub(crate) fn add(&self, fd: &impl AsRawFd, token: u32, events: EventSet) -> io::Result<()> {
        self.control(ControlOperation::Add, fd, token, events)
    }

    /// Watches `fd` for other events; none (`EventSet::empty()`) still reports errors and hang-ups.
    pub(crate) fn modify(&self, fd: &impl AsRawFd, token: u32, events: EventSet) -> io::Result<()> {
        self.control(ControlOperation::Modify, fd, token, events)
    }

    /// Watches `fd` no more.
    pub(crate) fn remove(&self, fd: &impl AsRawFd) -> io::Result<()> {
        self.control(ControlOperation::Delete, fd, 0, EventSet::empty())
    }

    fn control(
        &self,
        operation: ControlOperation,
        fd: &impl AsRawFd,
        token: u32,
        events: EventSet,
    ) -> io::Result<()> {
        let wakeup = Wakeup::Source {
            device: self.device,
            token,
        };
        let event = EpollEvent::new(events, wakeup.into());
        self.epoll.ctl(operation, fd.as_raw_fd(), event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wakeup_survives_the_way_through_epoll() {
        for wakeup in [
            Wakeup::Control,
            Wakeup::Queue {
                device: 18,
                queue: u16::MAX,
            },
            Wakeup::Source {
                device: u16::MAX,
                token: u32::MAX,
            },
        ] {
            assert_eq!(Wakeup::from(u64::from(wakeup)), wakeup);
        }
    }
}
