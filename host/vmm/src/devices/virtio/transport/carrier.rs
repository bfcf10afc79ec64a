//! A device behind its registers: what the vCPUs and the device thread call.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio_bindings::virtio_mmio::{
    VIRTIO_MMIO_CONFIG, VIRTIO_MMIO_CONFIG_GENERATION, VIRTIO_MMIO_INTERRUPT_ACK,
    VIRTIO_MMIO_INTERRUPT_STATUS, VIRTIO_MMIO_QUEUE_NOTIFY,
};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::inner::Inner;
use super::registers::{Effect, Registers};
use super::state::{SaveError, VirtioState};
use crate::devices::mmio::MmioDevice;
use crate::devices::virtio::{
    Active, CounterSet, DeviceCounters, DeviceError, DeviceKind, DeviceStatus, EventSources,
    GuestMemory, Interrupt, RestoreError, VirtioDevice, Virtqueue,
};

/// Where the configuration space begins.
const CONFIG: u64 = VIRTIO_MMIO_CONFIG as u64;

/// A device on the MMIO bus. What needs no lock is outside of `inner`: a guest that acknowledges an
/// interrupt does not wait for the device.
pub(crate) struct VirtioMmio {
    kind: DeviceKind,
    number: usize,
    interrupt: Arc<Interrupt>,
    /// The eventfd behind `interrupt`, to be connected to its GSI.
    line: EventFd,
    /// One for each queue, signalled when it is to get a turn.
    queue_events: Box<[EventFd]>,
    status: DeviceStatus,
    counters: Arc<dyn CounterSet>,
    inner: Mutex<Inner>,
}

impl VirtioMmio {
    /// A device that is named after its kind and `number`, and watches its descriptors by `sources`.
    pub(crate) fn new(
        mut device: Box<dyn VirtioDevice>,
        number: usize,
        memory: GuestMemory,
        sources: EventSources,
    ) -> io::Result<Self> {
        let kind = device.kind();
        let line = EventFd::new(EFD_NONBLOCK)?;
        let interrupt = Arc::new(Interrupt::new(line.try_clone()?));
        device.attach(sources)?;
        let queue_events = device
            .queues()
            .iter()
            .map(|_| EventFd::new(EFD_NONBLOCK))
            .collect::<io::Result<_>>()?;
        Ok(Self {
            kind,
            number,
            interrupt,
            line,
            queue_events,
            status: DeviceStatus::default(),
            counters: device.counters(),
            inner: Mutex::new(Inner {
                kind,
                registers: Registers::new(kind, device.features(), device.queues()),
                device,
                memory,
                active: None,
            }),
        })
    }

    pub(crate) fn kind(&self) -> DeviceKind {
        self.kind
    }

    /// The eventfd that raises the interrupt.
    pub(crate) fn line(&self) -> &EventFd {
        &self.line
    }

    /// The eventfds by which the queues are notified, in their order.
    pub(crate) fn queue_events(&self) -> &[EventFd] {
        &self.queue_events
    }

    /// What it has counted, and whether it is broken. Waits for no lock of the device's.
    pub(crate) fn counters(&self) -> DeviceCounters {
        let mut counters = self.status.read(self.interrupt.raised());
        counters.extend(self.counters.read());
        DeviceCounters {
            device: format!("{}{}", self.kind.name(), self.number),
            broken: self.status.broken(),
            counters,
        }
    }

    /// Queue `queue` gets a turn.
    pub(crate) fn queue_ready(&self, queue: u16) {
        // Drained first: what is notified from here on is another turn's.
        if let Some(event) = self.queue_events.get(usize::from(queue)) {
            let _ = event.read();
        }
        self.status.notifications.fetch_add(1, Ordering::Relaxed);
        self.turn(&mut self.inner(), |device, active| {
            let enabled = active.filter(|active| active.has_queue(queue));
            enabled.map_or(Ok(()), |active| device.notify(queue, active))
        });
    }

    /// The descriptor that the device watches as `token` is ready.
    pub(crate) fn source_ready(&self, token: u32, events: EventSet) {
        self.turn(&mut self.inner(), |device, active| {
            device.event(token, events, active)
        });
    }

    /// Finishes what is under way; see [`VirtioDevice::quiesce`].
    pub(crate) fn quiesce(&self) {
        self.turn(&mut self.inner(), |device, active| device.quiesce(active));
    }

    /// Goes on after [`Self::quiesce`]: what came meanwhile is looked at.
    pub(crate) fn resume(&self) {
        self.notify_enabled(&self.inner());
    }

    /// What it must know to go on elsewhere. Only while it is quiesced.
    ///
    /// # Errors
    /// Chains are under way.
    #[cfg_attr(
        not(any(test, fuzzing)),
        expect(dead_code, reason = "tests hold it until a VM's snapshot uses it")
    )]
    pub(crate) fn save(&self) -> Result<VirtioState, SaveError> {
        VirtioState::of(&self.inner(), &self.interrupt, self.status.broken())
    }

    /// Takes over what was saved, before the VM runs.
    ///
    /// # Errors
    /// The state is not one of this device, or makes no sense. The device is as it was.
    #[cfg_attr(
        not(any(test, fuzzing)),
        expect(dead_code, reason = "tests hold it until a VM's snapshot uses it")
    )]
    pub(crate) fn restore(&self, state: VirtioState) -> Result<(), RestoreError> {
        let mut inner = self.inner();
        let (status, generation) = (state.interrupt_status, state.config_generation);
        let broken = state.broken.clone();
        state.restore(&mut inner, &self.interrupt)?;
        let live = inner.active.is_some();
        self.interrupt.restore(status, generation, live);
        self.status.set_broken(broken);
        Ok(())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the device do something, then raises its interrupt and sees to the next turn.
    fn turn(
        &self,
        inner: &mut Inner,
        act: impl FnOnce(&mut dyn VirtioDevice, Option<&mut Active>) -> Result<(), DeviceError>,
    ) {
        if let Some(active) = &mut inner.active {
            active.begin_turn();
        }
        let done = act(&mut *inner.device, inner.active.as_mut());
        let signalled = done.and_then(|()| match &mut inner.active {
            Some(active) => active.signal().map_err(DeviceError::from),
            None => Ok(()),
        });
        if let Err(error) = signalled {
            return self.break_device(inner, &error);
        }
        if let Some(active) = &inner.active {
            active
                .unfinished()
                .for_each(|queue| self.notify(queue.into()));
        }
    }

    /// The device does nothing until its driver resets it.
    fn break_device(&self, inner: &mut Inner, reason: &DeviceError) {
        inner.active = None;
        inner.device.reset();
        inner.registers.status.set_needs_reset();
        self.status.broke.fetch_add(1, Ordering::Relaxed);
        self.status.set_broken(Some(reason.to_string()));
        self.interrupt.config_changed();
    }

    fn reset(&self, inner: &mut Inner) {
        inner.active = None;
        inner.device.reset();
        inner.registers.reset();
        self.interrupt.set_live(false);
        self.status.resets.fetch_add(1, Ordering::Relaxed);
        self.status.set_broken(None);
    }

    fn activate(&self, inner: &mut Inner) {
        match inner.make_active(&self.interrupt) {
            Ok(active) => inner.active = Some(active),
            Err(error) => return self.break_device(inner, &error.into()),
        }
        self.interrupt.set_live(true);
        self.turn(inner, |device, active| match active {
            Some(active) => device.activate(active),
            None => Ok(()),
        });
        self.notify_enabled(inner);
    }

    fn notify_enabled(&self, inner: &Inner) {
        if let Some(active) = &inner.active {
            let enabled = active.queues().flatten().map(Virtqueue::index);
            enabled.for_each(|queue| self.notify(queue.into()));
        }
    }

    /// Signals a queue, if there is one of that number.
    fn notify(&self, queue: u32) {
        match self.queue_events.get(queue as usize) {
            // It can fail only when the counter is full, and then it is readable.
            Some(event) => drop(event.write(1)),
            None => self.refuse(),
        }
    }

    fn refuse(&self) {
        self.status.refused.fetch_add(1, Ordering::Relaxed);
    }

    fn read_register(&self, register: u32) -> u32 {
        match register {
            VIRTIO_MMIO_INTERRUPT_STATUS => self.interrupt.status(),
            VIRTIO_MMIO_CONFIG_GENERATION => self.interrupt.generation(),
            register => self.inner().registers.read(register),
        }
    }

    fn write_register(&self, register: u32, value: u32) {
        match register {
            // Where KVM signals queues by itself, this is not reached.
            VIRTIO_MMIO_QUEUE_NOTIFY => self.notify(value),
            VIRTIO_MMIO_INTERRUPT_ACK => self.interrupt.acknowledge(value),
            register => {
                let mut inner = self.inner();
                match inner.registers.write(register, value) {
                    Effect::Done => {}
                    Effect::Refused => self.refuse(),
                    Effect::Reset => self.reset(&mut inner),
                    Effect::Activate => self.activate(&mut inner),
                    Effect::Enabled(queue) => {
                        if let Err(error) = inner.make_queue(queue) {
                            self.break_device(&mut inner, &error.into());
                        }
                    }
                }
            }
        }
    }
}

/// The register at `offset`: control registers are accessed whole, and nothing else is.
fn register(offset: u64, bytes: usize) -> Option<u32> {
    let is_whole = bytes == 4 && offset.is_multiple_of(4);
    u32::try_from(offset).ok().filter(|_| is_whole)
}

impl MmioDevice for VirtioMmio {
    fn read(&self, offset: u64, data: &mut [u8]) {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            data.fill(0);
            return self.inner().device.read_config(offset, data);
        }
        match register(offset, data.len()) {
            Some(register) => data.copy_from_slice(&self.read_register(register).to_le_bytes()),
            None => {
                self.refuse();
                data.fill(u8::MAX);
            }
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            return self.inner().device.write_config(offset, data);
        }
        match (register(offset, data.len()), data.try_into()) {
            (Some(register), Ok(bytes)) => self.write_register(register, u32::from_le_bytes(bytes)),
            _ => self.refuse(),
        }
    }
}
