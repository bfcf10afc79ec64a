//! The virtio devices of a VM, connected to each other's surroundings.

use std::io;
use std::sync::Arc;

use super::device_thread::DeviceThread;
use super::event_loop::EventLoop;
use super::mmio::{MmioBus, MmioDevice, MmioNode};
use super::virtio::{DeviceCounters, GuestMemory, VirtioMmio};
use super::{Controls, Made};

/// Devices that have their registers, and are not served yet.
pub(crate) struct Assembly {
    nodes: Vec<MmioNode>,
    devices: Vec<Arc<VirtioMmio>>,
    /// None if there is no device: then there is no thread either.
    event_loop: Option<EventLoop>,
    controls: Controls,
}

impl Assembly {
    /// Puts registers in front of each device and places them at `nodes`.
    pub(crate) fn new(made: Made, nodes: Vec<MmioNode>, memory: &GuestMemory) -> io::Result<Self> {
        let Made { devices, controls } = made;
        let mut assembly = Self {
            nodes,
            devices: Vec::with_capacity(devices.len()),
            event_loop: None,
            controls,
        };
        for device in devices {
            let kind = device.kind();
            let same = assembly.devices.iter().filter(|other| other.kind() == kind);
            let number = same.count();
            let event_loop = match &mut assembly.event_loop {
                Some(event_loop) => event_loop,
                none => none.insert(EventLoop::new()?),
            };
            let sources = event_loop.next_sources();
            let device = VirtioMmio::new(device, number, Arc::clone(memory), sources)?;
            let device = Arc::new(device);
            event_loop.add(Arc::clone(&device))?;
            assembly.devices.push(device);
        }
        Ok(assembly)
    }

    /// Each device with its place.
    pub(crate) fn placed(&self) -> impl Iterator<Item = (MmioNode, &Arc<VirtioMmio>)> {
        self.nodes.iter().copied().zip(&self.devices)
    }

    /// The bus with all of them.
    pub(crate) fn bus(&self) -> MmioBus {
        let slots = self.placed();
        MmioBus::new(slots.map(|(node, device)| (node, Arc::clone(device) as Arc<dyn MmioDevice>)))
    }

    /// Starts the device thread, held, where there are devices. `on_failure` is called on it if
    /// it can't go on.
    pub(crate) fn start(
        self,
        on_failure: impl FnOnce(String) + Send + 'static,
    ) -> io::Result<DeviceSet> {
        let thread = self
            .event_loop
            .map(|event_loop| event_loop.start(on_failure));
        Ok(DeviceSet {
            thread: thread.transpose()?,
            devices: self.devices,
            controls: Box::new(self.controls),
        })
    }
}

/// The devices of a VM and the thread that serves them.
pub(crate) struct DeviceSet {
    thread: Option<DeviceThread>,
    devices: Vec<Arc<VirtioMmio>>,
    controls: Box<Controls>,
}

impl DeviceSet {
    /// Returns when every device holds still. The vCPUs are held already.
    pub(crate) fn pause(&self) {
        self.thread.iter().for_each(DeviceThread::pause);
    }

    /// Lets the devices go on, before the vCPUs do.
    pub(crate) fn resume(&self) {
        if let Some(thread) = &self.thread {
            self.devices.iter().for_each(|device| device.resume());
            thread.resume();
        }
    }

    /// Ends the thread. The vCPUs are gone already.
    pub(crate) fn stop(&self) {
        self.thread.iter().for_each(DeviceThread::stop);
    }

    /// What the host controls them by.
    pub(crate) fn controls(&self) -> &Controls {
        &self.controls
    }

    /// What each has counted.
    pub(crate) fn counters(&self) -> Vec<DeviceCounters> {
        let devices = self.devices.iter();
        devices.map(|device| device.counters()).collect()
    }
}
