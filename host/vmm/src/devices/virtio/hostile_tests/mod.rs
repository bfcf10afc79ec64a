//! What a hostile driver does to queues and chains: the device breaks with a reason and comes back
//! with a reset, or nothing happens at all.

mod chains;
mod every_device;
mod queues;
mod random;

use virtio_bindings::virtio_mmio::VIRTIO_MMIO_INTERRUPT_STATUS;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes as _, GuestAddress};

use super::ChainError;
use super::test_driver::{Buffer, Driver, Manner, Probe};

const INDIRECT_DESC: u64 = 1 << VIRTIO_RING_F_INDIRECT_DESC;
/// Where there is memory for buffers.
const BUFFER: u64 = 0x20_0000;
/// Where there is memory for an indirect table.
const TABLE: u64 = 0x30_0000;

fn descriptor(address: u64, bytes: u32, flags: u16, next: u16) -> Descriptor {
    Descriptor::new(address, bytes, flags, next)
}

/// Sends the chain that begins at the first of `descriptors`, with `table` as an indirect table in
/// memory. The device is as new.
fn send(features: u64, descriptors: &[Descriptor], table: &[Descriptor]) -> Driver {
    let mut driver = Driver::new(Probe::new(Manner::Answer));
    driver.negotiate(features);
    for (n, entry) in (0..).zip(table) {
        let address = GuestAddress(TABLE + 16 * n);
        driver.memory.write_obj(*entry, address).unwrap();
    }
    let (memory, ring) = driver.ring(0);
    for (n, entry) in (0..).zip(descriptors) {
        ring.set_descriptor(memory, n, *entry);
    }
    ring.make_available(memory, 0);
    driver.notify(0);
    driver.run();
    driver
}

/// The device must be broken for `reason`, silent, and work again after a reset.
fn assert_broken(mut driver: Driver, reason: &str) {
    assert!(driver.is_broken(), "not broken: {reason}");
    assert_eq!(driver.counters().broken.as_deref(), Some(reason));
    assert_eq!(driver.counter("broke"), 1);
    assert_eq!(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS) & 2, 2);
    assert_eq!(driver.used(0), []);
    driver.add(0, &[Buffer::Write(1)]);
    driver.notify(0);
    driver.run();
    assert_eq!(driver.used(0), [], "a broken device does nothing");
    driver.negotiate(0);
    let request = driver.send(0, &[Buffer::Write(5)]);
    assert_eq!(driver.used(0), [(request.head, 5)]);
}

fn assert_chain(driver: Driver, error: ChainError) {
    assert_broken(driver, &error.to_string());
}
