//! Devices in the memory hole, and how a vCPU's access finds them.

use std::sync::Arc;

/// Where the window of devices begins, in the hole below 4 GiB; one page for each device.
const WINDOW: u64 = 0xd000_0000;
/// Bytes of a device's window.
pub(crate) const DEVICE_BYTES: u64 = 0x1000;
/// Interrupt lines for devices, of the I/O APIC's 24. Not among them: 0 to 4 (timer, keyboard, PIC
/// cascade, serial ports), 8 (clock), 9 (ACPI), 12 (mouse) and 13 (FPU), which kernels may claim.
const LINES: [u32; 15] = [5, 6, 7, 10, 11, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23];
/// Most devices that a VM can have: one for each line, since edge-triggered lines are not shared.
pub(crate) const MAX_DEVICES: usize = LINES.len();

/// A device's place in the machine, as the guest is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MmioNode {
    /// Guest-physical address of its registers.
    pub(crate) base: u64,
    /// Bytes of its registers.
    pub(crate) size: u64,
    /// Its interrupt, a pin of the I/O APIC: edge-triggered, active high, not shared.
    pub(crate) gsi: u32,
}

/// The places of the first `count` devices, of which there are at most [`MAX_DEVICES`].
pub(crate) fn nodes(count: usize) -> Vec<MmioNode> {
    let bases = (0..).map(|n| WINDOW + n * DEVICE_BYTES);
    let node = |(base, gsi): (u64, &u32)| MmioNode {
        base,
        size: DEVICE_BYTES,
        gsi: *gsi,
    };
    bases.zip(&LINES).take(count).map(node).collect()
}

/// A device on the bus. Offsets are inside of its window; an access has 1 to 8 bytes and does not
/// cross the window's end.
pub(crate) trait MmioDevice: Send + Sync {
    fn read(&self, offset: u64, data: &mut [u8]);
    fn write(&self, offset: u64, data: &[u8]);
}

/// The devices of a VM, by address. It is fixed when the VM is built, so looking up takes no lock.
#[derive(Default)]
pub(crate) struct MmioBus {
    slots: Box<[Slot]>,
}

struct Slot {
    base: u64,
    size: u64,
    device: Arc<dyn MmioDevice>,
}

impl MmioBus {
    /// Places must not overlap.
    pub(crate) fn new(devices: impl IntoIterator<Item = (MmioNode, Arc<dyn MmioDevice>)>) -> Self {
        let slot = |(node, device): (MmioNode, _)| Slot {
            base: node.base,
            size: node.size,
            device,
        };
        let mut slots: Box<[_]> = devices.into_iter().map(slot).collect();
        slots.sort_unstable_by_key(|slot| slot.base);
        Self { slots }
    }

    /// Reads `data` at guest-physical `address`. Where no device is, all ones are read.
    pub(crate) fn read(&self, address: u64, data: &mut [u8]) {
        match self.find(address, data.len()) {
            Some((device, offset)) => device.read(offset, data),
            None => data.fill(u8::MAX),
        }
    }

    /// Writes `data` at guest-physical `address`. Where no device is, it goes nowhere.
    pub(crate) fn write(&self, address: u64, data: &[u8]) {
        if let Some((device, offset)) = self.find(address, data.len()) {
            device.write(offset, data);
        }
    }

    /// The device that has all of the range.
    fn find(&self, address: u64, bytes: usize) -> Option<(&dyn MmioDevice, u64)> {
        let after = self.slots.partition_point(|slot| slot.base <= address);
        let slot = self.slots.get(after.checked_sub(1)?)?;
        let offset = address - slot.base;
        let end = offset.checked_add(bytes as u64)?;
        (end <= slot.size).then_some((&*slot.device, offset))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Memory(Mutex<Vec<(u64, Vec<u8>)>>);

    impl MmioDevice for Memory {
        fn read(&self, offset: u64, data: &mut [u8]) {
            data.fill(offset as u8);
        }

        fn write(&self, offset: u64, data: &[u8]) {
            self.0.lock().unwrap().push((offset, data.to_vec()));
        }
    }

    fn bus(count: usize) -> (MmioBus, Vec<Arc<Memory>>) {
        let devices: Vec<_> = (0..count).map(|_| Arc::new(Memory::default())).collect();
        let slots = nodes(count).into_iter().zip(devices.clone());
        // The order in which they come does not matter.
        let slots: Vec<_> = slots.rev().map(|(n, d)| (n, d as _)).collect();
        (MmioBus::new(slots), devices)
    }

    #[test]
    fn each_device_gets_its_own_accesses_at_offsets_in_its_window() {
        let (bus, devices) = bus(3);
        for (n, device) in devices.iter().enumerate() {
            let base = WINDOW + n as u64 * DEVICE_BYTES;
            bus.write(base + 0x50, &[n as u8; 4]);
            assert_eq!(*device.0.lock().unwrap(), [(0x50, vec![n as u8; 4])]);
            let mut data = [0; 8];
            bus.read(base + 0xff8, &mut data);
            assert_eq!(data, [0xf8; 8]);
        }
    }

    #[test]
    fn everything_else_reads_as_all_ones_and_ignores_writes() {
        let (bus, devices) = bus(2);
        let end = WINDOW + 2 * DEVICE_BYTES;
        for address in [
            0,
            WINDOW - 1,
            WINDOW - 4,
            end - 1,
            end,
            u64::MAX,
            u64::MAX - 3,
        ] {
            for width in [2, 4, 8] {
                let mut data = vec![0; width];
                bus.read(address, &mut data);
                assert_eq!(data, vec![u8::MAX; width], "{address:#x}");
                bus.write(address, &data);
            }
        }
        assert!(
            devices
                .iter()
                .all(|device| device.0.lock().unwrap().is_empty())
        );
        let mut byte = [0];
        MmioBus::default().read(WINDOW, &mut byte);
        assert_eq!(byte, [u8::MAX]);
    }

    #[test]
    fn no_two_devices_share_a_place_or_a_line_and_there_is_an_end() {
        let nodes = super::nodes(MAX_DEVICES);
        for pair in nodes.windows(2) {
            assert_eq!(pair[0].base + pair[0].size, pair[1].base);
            assert!(pair[0].gsi < pair[1].gsi);
        }
        assert!(nodes.iter().all(|node| node.gsi < 24 && node.gsi > 4));
        assert_eq!(super::nodes(MAX_DEVICES + 1), nodes);
    }
}
