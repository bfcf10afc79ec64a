//! The first vCPU's registers at a kernel's first instruction.

use kvm_bindings::{kvm_fpu, kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use super::{KvmError, Request as _};
use crate::boot::layout;
use crate::boot::{Entry, Protocol};

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// Page-table entry: present, writable.
const PRESENT_WRITABLE: u64 = 3;
/// Page-directory entry: a 2 MiB page.
const LARGE_PAGE: u64 = 1 << 7;
/// Entries of a page table.
const ENTRIES: u64 = 512;
/// RFLAGS bit 1 is always set.
const RFLAGS_RESERVED: u64 = 2;

/// The local APIC's LINT0 and LINT1 entries, byte offsets in its registers.
const LVT_LINT0: usize = 0x350;
/// See [`LVT_LINT0`].
const LVT_LINT1: usize = 0x360;
/// Delivery modes, bits 10-8 of an LVT entry.
const DELIVER_EXTINT: u32 = 7 << 8;
/// See [`DELIVER_EXTINT`].
const DELIVER_NMI: u32 = 4 << 8;

/// Descriptor-table entries: null, code, data, TSS. Selectors are 8 times the index.
const CODE: u16 = 1;
/// See [`CODE`].
const DATA: u16 = 2;
/// See [`CODE`].
const TSS: u16 = 3;

/// Writes the descriptor tables and page tables that `protocol` starts with.
pub(crate) fn write_tables(
    memory: &GuestMemoryMmap,
    protocol: Protocol,
) -> Result<(), GuestMemoryError> {
    let segments = segments(protocol);
    let gdt = [
        0,
        descriptor(&segments.code),
        descriptor(&segments.data),
        descriptor(&segments.tss),
    ];
    write_table(memory, layout::GDT, gdt.into_iter())?;
    write_table(memory, layout::IDT, [0].into_iter())?;
    if protocol == Protocol::Linux64 {
        // The first GiB, one to one.
        write_table(
            memory,
            layout::PML4,
            [layout::PDPT | PRESENT_WRITABLE].into_iter(),
        )?;
        write_table(
            memory,
            layout::PDPT,
            [layout::PD | PRESENT_WRITABLE].into_iter(),
        )?;
        let pages = (0..ENTRIES).map(|page| page << 21 | LARGE_PAGE | PRESENT_WRITABLE);
        write_table(memory, layout::PD, pages)?;
    }
    Ok(())
}

fn write_table(
    memory: &GuestMemoryMmap,
    address: u64,
    entries: impl Iterator<Item = u64>,
) -> Result<(), GuestMemoryError> {
    let bytes: Vec<u8> = entries.flat_map(u64::to_le_bytes).collect();
    memory.write_slice(&bytes, GuestAddress(address))
}

/// Sets the registers of the vCPU that starts at `entry`.
pub(crate) fn set(vcpu: &VcpuFd, entry: Entry) -> Result<(), KvmError> {
    let mut sregs = vcpu.get_sregs().request("KVM_GET_SREGS")?;
    set_special(&mut sregs, entry.protocol);
    vcpu.set_sregs(&sregs).request("KVM_SET_SREGS")?;
    let mut regs = kvm_regs {
        rip: entry.address,
        rflags: RFLAGS_RESERVED,
        ..Default::default()
    };
    match entry.protocol {
        Protocol::Linux64 => {
            regs.rsp = layout::BOOT_STACK;
            regs.rbp = layout::BOOT_STACK;
            regs.rsi = layout::ZERO_PAGE;
        }
        Protocol::Pvh => regs.rbx = layout::PVH_INFO,
    }
    vcpu.set_regs(&regs).request("KVM_SET_REGS")?;
    // FPU as after FNINIT, SSE exceptions masked.
    let fpu = kvm_fpu {
        fcw: 0x37f,
        mxcsr: 0x1f80,
        ..Default::default()
    };
    vcpu.set_fpu(&fpu).request("KVM_SET_FPU")
}

/// Connects the legacy interrupt controller and NMI to the local APIC, as a BIOS does.
pub(crate) fn set_lapic(vcpu: &VcpuFd) -> Result<(), KvmError> {
    let mut lapic = vcpu.get_lapic().request("KVM_GET_LAPIC")?;
    for (offset, mode) in [(LVT_LINT0, DELIVER_EXTINT), (LVT_LINT1, DELIVER_NMI)] {
        for (register, byte) in lapic.regs[offset..].iter_mut().zip(mode.to_le_bytes()) {
            *register = byte as _;
        }
    }
    vcpu.set_lapic(&lapic).request("KVM_SET_LAPIC")
}

struct Segments {
    code: kvm_segment,
    data: kvm_segment,
    tss: kvm_segment,
}

fn segments(protocol: Protocol) -> Segments {
    let long = protocol == Protocol::Linux64;
    let flat = |index: u16, type_: u8| kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector: index * 8,
        type_,
        present: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    Segments {
        // Execute/read, accessed; 64-bit, or 32-bit by default.
        code: kvm_segment {
            l: u8::from(long),
            db: u8::from(!long),
            ..flat(CODE, 0xb)
        },
        // Read/write, accessed.
        data: kvm_segment {
            db: 1,
            ..flat(DATA, 0x3)
        },
        // Busy TSS.
        tss: kvm_segment {
            s: 0,
            g: 0,
            limit: 0x67,
            ..flat(TSS, 0xb)
        },
    }
}

/// A segment as an 8-byte descriptor (Intel's SDM, volume 3A, section 3.4.5).
fn descriptor(segment: &kvm_segment) -> u64 {
    let limit = u64::from(if segment.g == 1 {
        segment.limit >> 12
    } else {
        segment.limit
    });
    let access = u64::from(segment.type_)
        | u64::from(segment.s) << 4
        | u64::from(segment.dpl) << 5
        | u64::from(segment.present) << 7;
    let flags = u64::from(segment.l) << 1 | u64::from(segment.db) << 2 | u64::from(segment.g) << 3;
    (limit & 0xffff)
        | (segment.base & 0xff_ffff) << 16
        | access << 40
        | (limit >> 16 & 0xf) << 48
        | flags << 52
        | (segment.base >> 24 & 0xff) << 56
}

fn set_special(sregs: &mut kvm_sregs, protocol: Protocol) {
    let Segments { code, data, tss } = segments(protocol);
    sregs.cs = code;
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = tss;
    sregs.gdt.base = layout::GDT;
    sregs.gdt.limit = 4 * 8 - 1;
    sregs.idt.base = layout::IDT;
    sregs.idt.limit = 7;
    match protocol {
        Protocol::Linux64 => {
            sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
            sregs.cr3 = layout::PML4;
            sregs.cr4 = CR4_PAE;
            sregs.efer = EFER_LME | EFER_LMA;
        }
        Protocol::Pvh => {
            sregs.cr0 = CR0_PE | CR0_ET;
            sregs.cr4 = 0;
            sregs.efer = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_the_flat_ones_of_the_manual() {
        let Segments { code, data, .. } = segments(Protocol::Linux64);
        assert_eq!(descriptor(&code), 0x00af_9b00_0000_ffff);
        assert_eq!(descriptor(&data), 0x00cf_9300_0000_ffff);
        assert_eq!(
            descriptor(&segments(Protocol::Pvh).code),
            0x00cf_9b00_0000_ffff
        );
    }
}
