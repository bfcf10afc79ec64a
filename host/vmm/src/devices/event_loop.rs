//! Waits for what was notified and gives each queue and descriptor of all devices of a VM a turn.

use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::virtio::{EventSources, VirtioMmio, Wakeup};

/// Events that are taken from the kernel at once.
const BATCH: usize = 16;

/// What [`super::device_thread`] waits with, and for whom.
pub(crate) struct EventLoop {
    epoll: Arc<Epoll>,
    devices: Vec<Arc<VirtioMmio>>,
}

impl EventLoop {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: Arc::new(Epoll::new()?),
            devices: Vec::new(),
        })
    }

    /// Where the next device that is added registers its descriptors.
    pub(crate) fn next_sources(&self) -> EventSources {
        EventSources::new(Arc::clone(&self.epoll), self.devices.len() as u16)
    }

    /// Serves `device` from here on.
    pub(crate) fn add(&mut self, device: Arc<VirtioMmio>) -> io::Result<()> {
        let number = self.devices.len() as u16;
        for (queue, event) in (0..).zip(device.queue_events()) {
            let wakeup = Wakeup::Queue {
                device: number,
                queue,
            };
            self.watch(event, wakeup, EventSet::IN)?;
        }
        self.devices.push(device);
        Ok(())
    }

    pub(super) fn watch(
        &self,
        event: &EventFd,
        wakeup: Wakeup,
        events: EventSet,
    ) -> io::Result<()> {
        let events = EpollEvent::new(events, wakeup.into());
        self.epoll
            .ctl(ControlOperation::Add, event.as_raw_fd(), events)
    }

    /// Waits at most `timeout_ms` (-1: for ever) and gives turns to all that is ready, as long as
    /// `goes_on`. Returns how many there were.
    pub(crate) fn turn(&self, timeout_ms: i32, goes_on: impl Fn() -> bool) -> io::Result<usize> {
        let mut events = [EpollEvent::default(); BATCH];
        let count = match self.epoll.wait(timeout_ms, &mut events) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            result => result?,
        };
        for event in events.iter().take(count) {
            if !goes_on() {
                break;
            }
            match Wakeup::from(event.data()) {
                Wakeup::Control => {}
                Wakeup::Queue { device, queue } => {
                    if let Some(device) = self.devices.get(usize::from(device)) {
                        device.queue_ready(queue);
                    }
                }
                Wakeup::Source { device, token } => {
                    if let Some(device) = self.devices.get(usize::from(device)) {
                        device.source_ready(token, event.event_set());
                    }
                }
            }
        }
        Ok(count)
    }

    /// All devices finish what they have.
    pub(super) fn quiesce(&self) {
        self.devices.iter().for_each(|device| device.quiesce());
    }
}
