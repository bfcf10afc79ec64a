//! RSDP, XSDT, FADT and MADT, and where each is in the block.

use acpi_tables::Aml;
use acpi_tables::fadt::{FADT, FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;

use super::{AcpiError, dsdt};
use crate::boot::layout;
use crate::devices::mmio::MmioNode;
use crate::devices::ports;

/// Who made the tables, as they name it themselves.
const OEM: [u8; 6] = *b"ROOST ";
/// Which machine they are for.
const OEM_TABLE: [u8; 8] = *b"ROOSTVM ";
/// Their revision.
const OEM_REVISION: u32 = 1;
/// The FADT's "hypervisor vendor identity".
const HYPERVISOR: [u8; 8] = *b"ROOST\0\0\0";
/// Tables begin at multiples of this: a cache line.
const ALIGNMENT: usize = 64;
/// From revision 2 on, integers in AML have 64 bits.
const DSDT_REVISION: u8 = 2;
/// An empty table: its header.
const HEADER_BYTES: u32 = 36;

/// Where every processor finds its local APIC after a reset (Intel's SDM, volume 3A, 12.4.1).
const LOCAL_APIC: u32 = 0xfee0_0000;
/// Where KVM's I/O APIC is (`IOAPIC_DEFAULT_BASE_ADDRESS`, arch/x86/kvm/ioapic.h).
const IO_APIC: u32 = 0xfec0_0000;
/// The number that KVM's I/O APIC has after a reset, and its first interrupt.
const IO_APIC_ID: u8 = 0;

/// `IAPC_BOOT_ARCH` (ACPI 6.5, table 5.11): there is a keyboard controller at 0x60 and 0x64; there
/// is neither VGA nor a bus that signals interrupts by messages.
const BOOT_ARCHITECTURE: u16 = 1 << 1 | 1 << 2 | 1 << 3;

/// The tables as one block for [`layout::ACPI`], which the RSDP begins.
pub(super) fn build(vcpus: u8, nodes: &[MmioNode]) -> Result<Vec<u8>, AcpiError> {
    let mut block = vec![0; Rsdp::len()];
    let dsdt = place(&mut block, &definition_block(vcpus, nodes)?);
    let fadt = place(&mut block, &fadt(dsdt));
    let madt = place(&mut block, &madt(vcpus));
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    for table in [fadt, madt] {
        xsdt.add_entry(table);
    }
    let xsdt = place(&mut block, &xsdt);
    let rsdp = bytes(&Rsdp::new(OEM, xsdt));
    if let Some(start) = block.get_mut(..rsdp.len()) {
        start.copy_from_slice(&rsdp);
    }
    Ok(block)
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// Appends a table; returns its guest-physical address.
fn place(block: &mut Vec<u8>, table: &dyn Aml) -> u64 {
    block.resize(block.len().next_multiple_of(ALIGNMENT), 0);
    let address = layout::ACPI + block.len() as u64;
    table.to_aml_bytes(block);
    address
}

fn definition_block(vcpus: u8, nodes: &[MmioNode]) -> Result<Sdt, AcpiError> {
    let mut table = Sdt::new(
        *b"DSDT",
        HEADER_BYTES,
        DSDT_REVISION,
        OEM,
        OEM_TABLE,
        OEM_REVISION,
    );
    table.append_slice(&dsdt::body(vcpus, nodes)?);
    Ok(table)
}

fn fadt(dsdt: u64) -> FADT {
    let port = |address: u16| {
        let address = u64::from(address);
        GAS::new(
            AddressSpace::SystemIo,
            8,
            0,
            AccessSize::ByteAccess,
            address,
        )
    };
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        // `WBINVD` works; there are no fixed buttons and no clock that wakes the machine.
        .flag(Flags::Wbinvd)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless);
    fadt.iapc_boot_arch = BOOT_ARCHITECTURE.into();
    fadt.reset_reg = port(ports::RESET_CONTROL);
    fadt.reset_value = ports::RESET_NOW;
    fadt.sleep_control_reg = port(ports::SLEEP_CONTROL);
    fadt.sleep_status_reg = port(ports::SLEEP_STATUS);
    fadt.hypervisor_vendor_identity = u64::from_le_bytes(HYPERVISOR).into();
    fadt.finalize()
}

fn madt(vcpus: u8) -> MADT {
    let local = LocalInterruptController::Address(LOCAL_APIC);
    let mut madt = MADT::new(OEM, OEM_TABLE, OEM_REVISION, local);
    for id in 0..vcpus {
        // The processor's `_UID` and its APIC id are both its index.
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(IO_APIC_ID, IO_APIC, 0));
    madt
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table at guest-physical `address`, after its length and checksum were found right.
    fn table<'a>(block: &'a [u8], address: u64, signature: &[u8; 4]) -> &'a [u8] {
        let at = usize::try_from(address - layout::ACPI).unwrap();
        let rest = &block[at..];
        assert_eq!(&rest[..4], signature);
        let length = u32::from_le_bytes(rest[4..8].try_into().unwrap()) as usize;
        let table = &rest[..length];
        assert_eq!(sum(table), 0, "{}", signature.escape_ascii());
        assert_eq!(&table[10..24], b"ROOST ROOSTVM ");
        table
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    fn address(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    fn nodes(count: u32) -> Vec<MmioNode> {
        let node = |n: u32| MmioNode {
            base: 0xd000_0000 + u64::from(n) * 0x1000,
            size: 0x1000,
            gsi: 5 + n,
        };
        (0..count).map(node).collect()
    }

    /// The tables by following the pointers as a guest does: FADT, MADT, DSDT.
    fn follow(block: &[u8]) -> [&[u8]; 3] {
        assert_eq!(&block[..8], b"RSD PTR ");
        assert_eq!((sum(&block[..20]), sum(&block[..36])), (0, 0));
        assert_eq!(block[15], 2, "with a 64-bit pointer");
        let xsdt = table(block, address(block, 24), b"XSDT");
        assert_eq!(xsdt.len(), 36 + 2 * 8, "two tables");
        let fadt = table(block, address(xsdt, 36), b"FACP");
        let madt = table(block, address(xsdt, 44), b"APIC");
        let dsdt = table(block, address(fadt, 140), b"DSDT");
        [fadt, madt, dsdt]
    }

    #[test]
    fn every_table_is_found_from_the_rsdp_and_has_a_right_length_and_checksum() {
        for vcpus in [1, 2, 32, 254] {
            for count in [0, 1, 15] {
                let block = build(vcpus, &nodes(count)).unwrap();
                follow(&block);
                assert!(block.len() as u64 <= layout::ACPI_BYTES, "{}", block.len());
            }
        }
    }

    #[test]
    fn the_fadt_is_hardware_reduced_and_names_the_registers_for_reset_and_power_off() {
        let block = build(1, &[]).unwrap();
        let [fadt, ..] = follow(&block);
        // Offsets of ACPI 6.5, table 5.9.
        assert_eq!(fadt.len(), 276);
        assert_eq!((fadt[8], fadt[131]), (6, 5));
        let flags = u32::from_le_bytes(fadt[112..116].try_into().unwrap());
        assert_ne!(flags & 1 << 20, 0, "hardware-reduced");
        assert_ne!(flags & 1 << 10, 0, "the reset register is supported");
        assert_ne!(flags & 1 << 4, 0, "no fixed power button");
        let register = |at: usize| (fadt[at..at + 4].to_vec(), address(fadt, at + 4));
        let byte_port = vec![1, 8, 0, 1];
        assert_eq!(register(116), (byte_port.clone(), 0xcf9));
        assert_eq!(fadt[128], 6);
        let sleep = u64::from(ports::SLEEP_CONTROL);
        assert_eq!(register(244), (byte_port.clone(), sleep));
        let status = u64::from(ports::SLEEP_STATUS);
        assert_eq!(register(256), (byte_port, status));
    }

    #[test]
    fn the_madt_has_a_local_apic_for_each_vcpu_and_kvms_io_apic() {
        let block = build(32, &[]).unwrap();
        let [_, madt, _] = follow(&block);
        assert_eq!(madt[36..40], 0xfee0_0000_u32.to_le_bytes());
        let mut rest = &madt[44..];
        for id in 0..32 {
            assert_eq!(rest[..8], [0, 8, id, id, 1, 0, 0, 0]);
            rest = &rest[8..];
        }
        assert_eq!(rest, [1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
    }

    #[test]
    fn a_device_that_a_fixed_memory_range_cannot_name_is_refused() {
        for (base, size) in [
            (1 << 32, 0x1000),
            (0xffff_f000, 0x1001),
            (0xd000_0000, 0),
            (u64::MAX, 2),
        ] {
            let node = MmioNode { base, size, gsi: 5 };
            let refusal = build(1, &[node]).unwrap_err();
            assert_eq!(refusal, AcpiError::Node { base, size });
        }
    }
}
