//! A driver for tests: it uses a device through its registers and rings as a guest would, in this
//! process, and gives the device thread's turns itself.
//!
//! ```ignore
//! let mut driver = Driver::new(Rng::default());
//! driver.negotiate(0);                              // reset … DRIVER_OK, all queues
//! let request = driver.send(0, &[Buffer::Write(16)]);
//! assert_eq!(driver.used(0), [(request.head, 16)]);
//! assert_eq!(driver.received(&request).len(), 16);
//! assert!(driver.take_interrupt());
//! ```
//!
//! Hostile tests write descriptors, rings and registers directly.

mod probe;
mod ring;

use std::sync::Arc;
use std::time::{Duration, Instant};

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_mmio::*;
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

#[cfg(test)]
pub(crate) use self::probe::{FEATURE, MAX_CHAIN_BYTES, QUEUE_SIZE};
pub(crate) use self::probe::{Manner, Probe, Seen};
pub(crate) use self::ring::{Buffer, INDIRECT, NEXT, Request, Ring, WRITE};
use super::{DeviceCounters, GuestMemory, VirtioDevice, VirtioMmio, VirtioState};
use crate::devices::event_loop::EventLoop;
use crate::devices::mmio::MmioDevice as _;

/// Guest memory: a region for rings and buffers, and one above 4 GiB, as in a large VM.
pub(crate) const LOW_BYTES: usize = 8 << 20;
/// See [`LOW_BYTES`].
pub(crate) const HIGH: u64 = 1 << 32;
/// See [`LOW_BYTES`].
pub(crate) const HIGH_BYTES: usize = 1 << 20;
/// The first address behind the low region: nothing is there.
pub(crate) const OUTSIDE: u64 = LOW_BYTES as u64;
/// Rings are from here, a part of this size for each queue.
const RINGS: u64 = 0x1_0000;
/// See [`RINGS`].
const RING_BYTES: u64 = 0x1_0000;
/// Buffers are from here to the end of the low region, then from the start again.
const BUFFERS: u64 = 0x40_0000;
/// Longest that a device may take for anything that does not come from the driver.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const ACKNOWLEDGE: u32 = 1;
pub(crate) const DRIVER: u32 = 2;
pub(crate) const DRIVER_OK: u32 = 4;
pub(crate) const FEATURES_OK: u32 = 8;
pub(crate) const NEEDS_RESET: u32 = 64;

/// The driver of one device.
pub(crate) struct Driver {
    pub(crate) memory: GuestMemory,
    pub(crate) device: Arc<VirtioMmio>,
    event_loop: EventLoop,
    line: EventFd,
    rings: Vec<Ring>,
    next_buffer: u64,
}

impl Driver {
    /// Connects `device` to memory and an event loop of its own. It is not reset or negotiated.
    pub(crate) fn new(device: impl VirtioDevice + 'static) -> Self {
        let regions = [
            (GuestAddress(0), LOW_BYTES),
            (GuestAddress(HIGH), HIGH_BYTES),
        ];
        Self::with_memory(device, GuestMemoryMmap::from_ranges(&regions).unwrap())
    }

    /// The same with memory from elsewhere, which has at least the same regions.
    pub(crate) fn with_memory(
        device: impl VirtioDevice + 'static,
        memory: GuestMemoryMmap,
    ) -> Self {
        let memory = Arc::new(memory);
        let mut event_loop = EventLoop::new().unwrap();
        let sources = event_loop.next_sources();
        let device = VirtioMmio::new(Box::new(device), 0, Arc::clone(&memory), sources).unwrap();
        let device = Arc::new(device);
        event_loop.add(Arc::clone(&device)).unwrap();
        Self {
            memory,
            line: device.line().try_clone().unwrap(),
            device,
            event_loop,
            rings: Vec::new(),
            next_buffer: BUFFERS,
        }
    }

    /// Reads a control register.
    pub(crate) fn read(&self, register: u32) -> u32 {
        let mut data = [0; 4];
        self.device.read(register.into(), &mut data);
        u32::from_le_bytes(data)
    }

    /// Writes a control register.
    pub(crate) fn write(&self, register: u32, value: u32) {
        self.device.write(register.into(), &value.to_le_bytes());
    }

    /// Reads the configuration space.
    pub(crate) fn config(&self, offset: u64, bytes: usize) -> Vec<u8> {
        let mut data = vec![0xa5; bytes];
        let base = u64::from(VIRTIO_MMIO_CONFIG);
        self.device.read(base + offset, &mut data);
        data
    }

    /// Writes the configuration space.
    pub(crate) fn write_config(&self, offset: u64, data: &[u8]) {
        self.device
            .write(u64::from(VIRTIO_MMIO_CONFIG) + offset, data);
    }

    pub(crate) fn status(&self) -> u32 {
        self.read(VIRTIO_MMIO_STATUS)
    }

    /// Whether the device asks to be reset.
    pub(crate) fn is_broken(&self) -> bool {
        self.status() & NEEDS_RESET != 0
    }

    /// All feature bits that the device offers.
    pub(crate) fn offered(&self) -> u64 {
        let half = |select| {
            self.write(VIRTIO_MMIO_DEVICE_FEATURES_SEL, select);
            u64::from(self.read(VIRTIO_MMIO_DEVICE_FEATURES))
        };
        half(0) | half(1) << 32
    }

    /// Resets the device and forgets all requests.
    pub(crate) fn reset(&mut self) {
        self.write(VIRTIO_MMIO_STATUS, 0);
        assert_eq!(self.status(), 0);
        self.rings.clear();
    }

    /// From a reset to `FEATURES_OK`, taking `features` (a mask) and `VIRTIO_F_VERSION_1`.
    pub(crate) fn begin(&mut self, features: u64) {
        self.reset();
        self.write(VIRTIO_MMIO_STATUS, ACKNOWLEDGE);
        self.write(VIRTIO_MMIO_STATUS, ACKNOWLEDGE | DRIVER);
        self.write_features(features | 1 << VIRTIO_F_VERSION_1);
        self.write(VIRTIO_MMIO_STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
    }

    /// Writes the driver's features as they are.
    pub(crate) fn write_features(&self, features: u64) {
        self.write(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
        self.write(VIRTIO_MMIO_DRIVER_FEATURES, features as u32);
        self.write(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
        self.write(VIRTIO_MMIO_DRIVER_FEATURES, (features >> 32) as u32);
    }

    /// Most descriptors of a queue; 0: there is no such queue.
    pub(crate) fn queue_size(&self, queue: u32) -> u16 {
        self.write(VIRTIO_MMIO_QUEUE_SEL, queue);
        self.read(VIRTIO_MMIO_QUEUE_NUM_MAX) as u16
    }

    /// Descriptors of each queue that was enabled since the last reset.
    pub(crate) fn sizes(&self) -> Vec<u16> {
        self.rings.iter().map(|ring| ring.size).collect()
    }

    /// Configures and enables the next queue with `size` descriptors.
    pub(crate) fn enable_queue(&mut self, size: u16) {
        let index = self.rings.len();
        let ring = Ring::new(RINGS + index as u64 * RING_BYTES, size);
        self.write(VIRTIO_MMIO_QUEUE_SEL, index as u32);
        self.write(VIRTIO_MMIO_QUEUE_NUM, size.into());
        for (low, high, address) in [
            (
                VIRTIO_MMIO_QUEUE_DESC_LOW,
                VIRTIO_MMIO_QUEUE_DESC_HIGH,
                ring.descriptors,
            ),
            (
                VIRTIO_MMIO_QUEUE_AVAIL_LOW,
                VIRTIO_MMIO_QUEUE_AVAIL_HIGH,
                ring.available,
            ),
            (
                VIRTIO_MMIO_QUEUE_USED_LOW,
                VIRTIO_MMIO_QUEUE_USED_HIGH,
                ring.used,
            ),
        ] {
            self.write(low, address as u32);
            self.write(high, (address >> 32) as u32);
        }
        ring.clear(&self.memory);
        self.rings.push(ring);
        self.write(VIRTIO_MMIO_QUEUE_READY, 1);
        assert_eq!(self.read(VIRTIO_MMIO_QUEUE_READY), 1);
    }

    pub(crate) fn driver_ok(&self) {
        let status = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
        self.write(VIRTIO_MMIO_STATUS, status);
    }

    /// Everything from a reset to a device that works, with all its queues at their full size.
    pub(crate) fn negotiate(&mut self, features: u64) {
        self.begin(features);
        assert_ne!(self.status() & FEATURES_OK, 0, "the features were refused");
        for queue in 0.. {
            match self.queue_size(queue) {
                0 => break,
                size => self.enable_queue(size),
            }
        }
        self.driver_ok();
        self.run();
        assert!(!self.is_broken(), "{:?}", self.counters());
    }

    /// Makes a request available; the device is not told yet. Buffers to be read come first.
    pub(crate) fn add(&mut self, queue: u16, buffers: &[Buffer<'_>]) -> Request {
        let placed: Vec<_> = buffers.iter().map(|buffer| self.place(buffer)).collect();
        self.rings[usize::from(queue)].add(&self.memory, &placed)
    }

    /// [`Self::add`], [`Self::notify`], [`Self::run`].
    pub(crate) fn send(&mut self, queue: u16, buffers: &[Buffer<'_>]) -> Request {
        let request = self.add(queue, buffers);
        self.notify(queue);
        self.run();
        request
    }

    /// Puts a buffer into memory: its address, bytes and writability.
    pub(crate) fn place(&mut self, buffer: &Buffer<'_>) -> (u64, u32, bool) {
        let (bytes, writable) = match buffer {
            Buffer::Read(data) => (data.len() as u64, false),
            Buffer::Write(bytes) => (u64::from(*bytes), true),
        };
        if self.next_buffer + bytes > LOW_BYTES as u64 {
            self.next_buffer = BUFFERS;
        }
        let address = self.next_buffer;
        self.next_buffer += bytes.next_multiple_of(16);
        if let Buffer::Read(data) = buffer {
            self.memory
                .write_slice(data, GuestAddress(address))
                .unwrap();
        }
        (address, bytes as u32, writable)
    }

    /// Where the next buffer is placed, if there is room.
    pub(crate) fn next_buffer(&self) -> u64 {
        self.next_buffer
    }

    /// Tells the device of a queue's new requests, by its register.
    pub(crate) fn notify(&self, queue: u16) {
        self.write(VIRTIO_MMIO_QUEUE_NOTIFY, queue.into());
    }

    /// Gives a turn to everything that is ready now.
    pub(crate) fn turn(&self) {
        self.event_loop.turn(0, || true).unwrap();
    }

    /// Takes what is ready from the kernel and gives it no turn, as when the VM is paused at that
    /// moment. What is edge-triggered does not come again by itself.
    pub(crate) fn lose_events(&self) {
        self.event_loop.turn(0, || false).unwrap();
    }

    /// Gives turns until nothing is ready.
    pub(crate) fn run(&self) {
        let until = Instant::now() + PATIENCE;
        while self.event_loop.turn(0, || true).unwrap() > 0 {
            assert!(Instant::now() < until, "the device does not come to rest");
        }
    }

    /// Gives turns, and waits for them, until `condition` holds.
    pub(crate) fn run_until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !condition(self) {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited in vain until {what}");
            self.event_loop
                .turn(left.as_millis() as i32, || true)
                .unwrap();
        }
    }

    /// What the device has given back on `queue` since the last call: heads and bytes written.
    pub(crate) fn used(&mut self, queue: u16) -> Vec<(u16, u32)> {
        self.rings[usize::from(queue)].take_used(&self.memory)
    }

    /// The buffers of `request` that are the device's to write, whole, one after the other.
    pub(crate) fn received(&self, request: &Request) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (address, length) in &request.writable {
            bytes.extend(self.bytes(*address, *length as usize));
        }
        bytes
    }

    /// Guest memory.
    pub(crate) fn bytes(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory
            .read_slice(&mut bytes, GuestAddress(address))
            .unwrap();
        bytes
    }

    /// The ring of a queue, for what a driver must not do.
    pub(crate) fn ring(&mut self, queue: u16) -> (&GuestMemory, &mut Ring) {
        (&self.memory, &mut self.rings[usize::from(queue)])
    }

    /// Whether the interrupt was raised since the last call; its causes are acknowledged.
    pub(crate) fn take_interrupt(&self) -> bool {
        let causes = self.read(VIRTIO_MMIO_INTERRUPT_STATUS);
        self.write(VIRTIO_MMIO_INTERRUPT_ACK, causes);
        self.line.read().is_ok()
    }

    pub(crate) fn counters(&self) -> DeviceCounters {
        self.device.counters()
    }

    /// The counter of this name.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let counters = self.counters().counters;
        let counter = counters.iter().find(|counter| counter.name == name);
        counter.unwrap_or_else(|| panic!("no counter {name}")).value
    }

    /// Pauses, saves, and restores into `device`, which has the same memory and takes over the
    /// rings as they are.
    pub(crate) fn migrate(self, device: impl VirtioDevice + 'static) -> Self {
        self.migrate_to(|| device)
    }

    /// [`Self::migrate`] into the device that `make` returns, which is made when the old one and
    /// all that it had is gone.
    pub(crate) fn migrate_to<D: VirtioDevice + 'static>(self, make: impl FnOnce() -> D) -> Self {
        let (driver, restored) = self.migrate_changed(make, |_| {});
        restored.unwrap();
        driver
    }

    /// [`Self::migrate_to`] with a state that somebody changed, and whether it was taken over. One
    /// that was not changed must be the same when it is saved again; one that is refused must leave
    /// the device as it was.
    pub(crate) fn migrate_changed<D: VirtioDevice + 'static>(
        self,
        make: impl FnOnce() -> D,
        change: impl FnOnce(&mut serde_json::Value),
    ) -> (Self, Result<(), String>) {
        self.device.quiesce();
        let saved = self.device.save().unwrap();
        let mut state = serde_json::to_value(&saved).unwrap();
        change(&mut state);
        let mut event_loop = EventLoop::new().unwrap();
        let sources = event_loop.next_sources();
        drop((self.device, self.event_loop));
        let new = VirtioMmio::new(Box::new(make()), 0, Arc::clone(&self.memory), sources).unwrap();
        let fresh = new.save().unwrap();
        let restored = match serde_json::from_value::<VirtioState>(state) {
            Ok(state) => {
                let is_changed = state != saved;
                let restored = new.restore(state).map_err(|error| error.to_string());
                let now = new.save().unwrap();
                match restored {
                    Ok(()) if is_changed => {}
                    Ok(()) => assert_eq!(now, saved, "what was restored is what was saved"),
                    Err(_) => assert_eq!(now, fresh, "what was refused changed nothing"),
                }
                restored
            }
            Err(error) => Err(error.to_string()),
        };
        let new = Arc::new(new);
        event_loop.add(Arc::clone(&new)).unwrap();
        new.resume();
        let driver = Self {
            memory: self.memory,
            line: new.line().try_clone().unwrap(),
            device: new,
            event_loop,
            rings: self.rings,
            next_buffer: self.next_buffer,
        };
        (driver, restored)
    }
}
