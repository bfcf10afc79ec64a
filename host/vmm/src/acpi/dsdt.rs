//! The devices of the machine, in AML.

use acpi_tables::Aml;
use acpi_tables::aml::{
    And, Arg, Device, EISAName, Field, FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule,
    IO, If, Interrupt, Local, Memory32Fixed, Method, Name, Notify, OpRegion, OpRegionSpace,
    Package, Path, ResourceTemplate, Return, Scope, Store, ZERO,
};

use super::AcpiError;
use crate::boot::layout;
use crate::devices::mmio::MmioNode;
use crate::devices::{events, lines, ports, power};

/// What a device or a button tells its driver when it has something to say (ACPI 6.5, 5.6.6).
const NOTIFY: u8 = 0x80;
/// `_STA`: present, enabled, shown, working.
const PRESENT: u8 = 0xf;

/// The DSDT without its header.
pub(super) fn body(vcpus: u8, nodes: &[MmioNode]) -> Result<Vec<u8>, AcpiError> {
    let mut devices = Vec::new();
    for index in 0..vcpus {
        processor(index, &mut devices);
    }
    serial(&mut devices);
    keyboard(&mut devices);
    clock(&mut devices);
    power_button(&mut devices);
    generation_id(&mut devices);
    event_device(&mut devices);
    panic_device(&mut devices);
    for (index, node) in nodes.iter().enumerate() {
        virtio(index, *node, &mut devices)?;
    }
    let mut body = Scope::raw(Path::new("\\_SB_"), devices);
    let off = Package::new(vec![&power::SLEEP_TYPE_S5, &ZERO, &ZERO, &ZERO]);
    Name::new(Path::new("\\_S5_"), &off).to_aml_bytes(&mut body);
    Ok(body)
}

fn name(name: &str, value: &dyn Aml) -> Name {
    Name::new(Path::new(name), value)
}

/// Edge-triggered, active high, not shared: as an irqfd raises it.
fn interrupt(line: u32) -> Interrupt {
    Interrupt::new(true, true, false, false, line)
}

fn resources(each: Vec<&dyn Aml>) -> Name {
    name("_CRS", &ResourceTemplate::new(each))
}

/// `bytes` ports from `first` on.
fn io(first: u16, bytes: u8) -> IO {
    IO::new(first, first, 1, bytes)
}

/// "Processor Device" (ACPI 6.5, 8.4). Its `_UID` is the one in the MADT.
fn processor(index: u8, sink: &mut Vec<u8>) {
    Device::new(
        Path::new(&format!("C{index:03X}")),
        vec![&name("_HID", &"ACPI0007"), &name("_UID", &index)],
    )
    .to_aml_bytes(sink);
}

/// COM1: a 16550A.
fn serial(sink: &mut Vec<u8>) {
    let resources = resources(vec![
        &io(ports::COM1, ports::COM1_BYTES),
        &interrupt(lines::SERIAL),
    ]);
    Device::new(
        Path::new("COM1"),
        vec![
            &name("_HID", &EISAName::new("PNP0501")),
            &name("_UID", &ZERO),
            &name("_DDN", &"COM1"),
            &resources,
        ],
    )
    .to_aml_bytes(sink);
}

/// The i8042, as the keyboard that it has.
fn keyboard(sink: &mut Vec<u8>) {
    let resources = resources(vec![
        &io(ports::I8042_DATA, 1),
        &io(ports::I8042_COMMAND, 1),
        &interrupt(lines::KEYBOARD),
    ]);
    Device::new(
        Path::new("PS2K"),
        vec![&name("_HID", &EISAName::new("PNP0303")), &resources],
    )
    .to_aml_bytes(sink);
}

/// The clock, whose alarm is not connected: it has no interrupt.
fn clock(sink: &mut Vec<u8>) {
    let resources = resources(vec![&io(ports::RTC_INDEX, 2)]);
    Device::new(
        Path::new("RTC_"),
        vec![&name("_HID", &EISAName::new("PNP0B00")), &resources],
    )
    .to_aml_bytes(sink);
}

fn power_button(sink: &mut Vec<u8>) {
    Device::new(
        Path::new("PWRB"),
        vec![&name("_HID", &EISAName::new("PNP0C0C"))],
    )
    .to_aml_bytes(sink);
}

/// "Virtual Machine Generation ID" (Microsoft, 2012): `ADDR` is where its 16 bytes are, in halves.
fn generation_id(sink: &mut Vec<u8>) {
    let low = layout::GENERATION_ID as u32;
    let high = (layout::GENERATION_ID >> 32) as u32;
    Device::new(
        Path::new("VGEN"),
        vec![
            &name("_HID", &"VMGENCTR"),
            &name("_CID", &"VM_Gen_Counter"),
            &name("_DDN", &"VM_Gen_Counter"),
            &name("ADDR", &Package::new(vec![&low, &high])),
        ],
    )
    .to_aml_bytes(sink);
}

/// "Generic Event Device" (ACPI 6.5, 5.6.9). Reading its status port tells what happened since it
/// was last read.
fn event_device(sink: &mut Vec<u8>) {
    let resources = resources(vec![&interrupt(lines::EVENTS)]);
    let region = OpRegion::new(
        Path::new("EVTR"),
        OpRegionSpace::SystemIO,
        &ports::EVENTS,
        &1_u8,
    );
    let status = byte_field("EVTR", *b"EVTS");
    let tell = |event: &'static u8, device: &str| Told {
        event,
        device: Path::new(device),
    };
    Device::new(
        Path::new("GED_"),
        vec![
            &name("_HID", &"ACPI0013"),
            &resources,
            &region,
            &status,
            &Method::new(
                Path::new("_EVT"),
                1,
                true,
                vec![
                    &Store::new(&Local(0), &Path::new("EVTS")),
                    &tell(&events::POWER_BUTTON, "\\_SB_.PWRB"),
                    &tell(&events::GENERATION_ID, "\\_SB_.VGEN"),
                ],
            ),
        ],
    )
    .to_aml_bytes(sink);
}

/// `If (Local0 & event) { Notify (device, 0x80) }`
struct Told {
    event: &'static u8,
    device: Path,
}

impl Aml for Told {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        let happened = And::new(&ZERO, &Local(0), self.event);
        let notify = Notify::new(&self.device, &NOTIFY);
        If::new(&happened, vec![&notify]).to_aml_bytes(sink);
    }
}

/// The panic device of QEMU (docs/specs/pvpanic.rst), with its methods to read and write the port.
fn panic_device(sink: &mut Vec<u8>) {
    let resources = resources(vec![&io(ports::PANIC, 1)]);
    let region = OpRegion::new(
        Path::new("PEOR"),
        OpRegionSpace::SystemIO,
        &ports::PANIC,
        &1_u8,
    );
    let field = byte_field("PEOR", *b"PEPT");
    let port = Path::new("PEPT");
    let answer = Return::new(&port);
    let store = Store::new(&port, &Arg(0));
    Device::new(
        Path::new("PEVT"),
        vec![
            &name("_HID", &"QEMU0001"),
            &name("_STA", &PRESENT),
            &resources,
            &region,
            &field,
            &Method::new(Path::new("RDPT"), 0, false, vec![&answer]),
            &Method::new(Path::new("WRPT"), 1, false, vec![&store]),
        ],
    )
    .to_aml_bytes(sink);
}

/// A region's only byte.
fn byte_field(region: &str, name: [u8; 4]) -> Field {
    Field::new(
        Path::new(region),
        FieldAccessType::Byte,
        FieldLockRule::NoLock,
        FieldUpdateRule::Preserve,
        vec![FieldEntry::Named(name, 8)],
    )
}

/// A virtio device by memory-mapped registers, as Linux knows it (drivers/virtio/virtio_mmio.c).
fn virtio(index: usize, node: MmioNode, sink: &mut Vec<u8>) -> Result<(), AcpiError> {
    let MmioNode { base, size, gsi } = node;
    let fits = size > 0 && base.checked_add(size).is_some_and(|end| end <= 1 << 32);
    let place = u32::try_from(base).ok().zip(u32::try_from(size).ok());
    let Some((start, bytes)) = place.filter(|_| fits) else {
        return Err(AcpiError::Node { base, size });
    };
    let resources = resources(vec![
        &Memory32Fixed::new(true, start, bytes),
        &interrupt(gsi),
    ]);
    // More than three digits would be more devices than a table has room for.
    let index = (index & 0xfff) as u16;
    Device::new(
        Path::new(&format!("V{index:03X}")),
        vec![
            &name("_HID", &"LNRO0005"),
            &name("_UID", &index),
            &resources,
        ],
    )
    .to_aml_bytes(sink);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::aml_reader::devices;
    use super::*;

    fn nodes() -> Vec<MmioNode> {
        let node = |n: u32| MmioNode {
            base: 0xd000_0000 + u64::from(n) * 0x1000,
            size: 0x1000,
            gsi: 16 + n,
        };
        (0..3).map(node).collect()
    }

    /// A string as AML has it.
    fn string(text: &str) -> Vec<u8> {
        [b"\x0d", text.as_bytes(), b"\0"].concat()
    }

    fn holds(bytes: &[u8], part: &[u8]) -> bool {
        bytes.windows(part.len()).any(|window| window == part)
    }

    #[test]
    fn every_processor_has_the_id_of_its_local_apic() {
        let all = devices(&body(254, &[]).unwrap());
        let processors: Vec<_> = all
            .values()
            .filter(|objects| objects.get("_HID") == Some(&string("ACPI0007")))
            .map(|objects| objects["_UID"].clone())
            .collect();
        let expected = (0..254).map(|index: u8| match index {
            0 | 1 => vec![index],
            index => vec![0x0a, index],
        });
        assert_eq!(processors, expected.collect::<Vec<_>>());
    }

    #[test]
    fn virtio_devices_have_their_memory_and_interrupt() {
        let all = devices(&body(1, &nodes()).unwrap());
        for (index, node) in nodes().iter().enumerate() {
            let objects = &all[&format!("\\_SB_.V{index:03X}")];
            assert_eq!(objects["_HID"], string("LNRO0005"));
            let resources = &objects["_CRS"];
            let base = (node.base as u32).to_le_bytes();
            let range = [&[0x86, 9, 0, 1][..], &base, &[0, 0x10, 0, 0]].concat();
            assert!(holds(resources, &range), "{resources:x?}");
            // Consumer, edge-triggered, active high, not shared; one number.
            let line = [&[0x89, 6, 0, 3, 1][..], &node.gsi.to_le_bytes()].concat();
            assert!(holds(resources, &line), "{resources:x?}");
        }
        assert!(!all.contains_key("\\_SB_.V003"));
    }

    #[test]
    fn the_platforms_devices_are_there_with_their_ports_and_interrupts() {
        let all = devices(&body(2, &nodes()).unwrap());
        let port = |first: u16, bytes: u8| {
            let [low, high] = first.to_le_bytes();
            vec![0x47, 1, low, high, low, high, 1, bytes]
        };
        let line = |number: u8| vec![0x89, 6, 0, 3, 1, number, 0, 0, 0];
        for (device, resources) in [
            ("COM1", vec![port(0x3f8, 8), line(4)]),
            ("PS2K", vec![port(0x60, 1), port(0x64, 1), line(1)]),
            ("RTC_", vec![port(0x70, 2)]),
            ("GED_", vec![line(9)]),
            ("PEVT", vec![port(0x505, 1)]),
        ] {
            let objects = &all[&format!("\\_SB_.{device}")];
            let expected = resources.concat();
            assert!(holds(&objects["_CRS"], &expected), "{device}: {objects:x?}");
        }
        assert_eq!(all["\\_SB_.GED_"]["_HID"], string("ACPI0013"));
        assert_eq!(all["\\_SB_.PEVT"]["_HID"], string("QEMU0001"));
        // PNP0C0C as an EISA id.
        let button = &all["\\_SB_.PWRB"]["_HID"];
        assert_eq!(*button, [0x0c, 0x41, 0xd0, 0x0c, 0x0c]);
        let off = &all[""]["\\_S5_"];
        assert_eq!(off[off.len() - 5..], [0x0a, 5, 0, 0, 0]);
    }

    #[test]
    fn the_generation_id_is_in_the_page_that_is_reserved_for_it() {
        let all = devices(&body(1, &[]).unwrap());
        let device = &all["\\_SB_.VGEN"];
        assert_eq!(device["_CID"], string("VM_Gen_Counter"));
        let mut package = vec![0x12, 8, 2, 0x0c];
        package.extend_from_slice(&(layout::GENERATION_ID as u32).to_le_bytes());
        package.push(0);
        assert_eq!(device["ADDR"], package);
    }

    #[test]
    fn an_event_notifies_its_device_and_no_other() {
        let all = devices(&body(1, &[]).unwrap());
        let method = &all["\\_SB_.GED_"]["_EVT"];
        for (event, device) in [
            (&[0x01][..], &b"\\._SB_PWRB"[..]),
            (&[0x0a, 0x02], b"\\._SB_VGEN"),
        ] {
            // And (Local0, event, ), then Notify (device, 0x80).
            let test = [&[0x7b, 0x60][..], event, &[0]].concat();
            assert!(holds(method, &test), "{method:x?}");
            let notify = [&[0x86][..], &dual(device), &[0x0a, 0x80]].concat();
            assert!(holds(method, &notify), "{method:x?}");
        }
    }

    /// `\.AAAABBBB` with the prefix of a name of two segments in the place of the dot.
    fn dual(name: &[u8]) -> Vec<u8> {
        let mut name = name.to_vec();
        name[1] = 0x2e;
        name
    }
}
