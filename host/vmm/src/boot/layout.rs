//! Where things are in guest-physical memory before the kernel runs.
//!
//! What a kernel reads once is below the EBDA, in memory that the memory map calls usable: a
//! kernel has copied or used it up before it hands that memory out. What it comes back to, the ACPI
//! tables and the generation id, is where a PC has its BIOS, and not usable.

/// The GDT: 4 entries.
pub(crate) const GDT: u64 = 0x500;
/// An empty IDT.
pub(crate) const IDT: u64 = 0x520;
/// `hvm_start_info` (PVH).
pub(crate) const PVH_INFO: u64 = 0x6000;
/// `boot_params`, the "zero page" of the Linux boot protocol: one page.
pub(crate) const ZERO_PAGE: u64 = 0x7000;
/// Initial stack pointer; it grows down into the page below.
pub(crate) const BOOT_STACK: u64 = 0x8ff0;
/// Page tables: one page each of PML4, PDPT and PD.
pub(crate) const PML4: u64 = 0x9000;
/// See [`PML4`].
pub(crate) const PDPT: u64 = 0xa000;
/// See [`PML4`].
pub(crate) const PD: u64 = 0xb000;
/// `hvm_memmap_table_entry` array (PVH).
pub(crate) const PVH_MEMMAP: u64 = 0xc000;
/// `hvm_modlist_entry` array (PVH).
pub(crate) const PVH_MODULES: u64 = 0xd000;
/// The kernel's command line, zero-terminated.
pub(crate) const CMDLINE: u64 = 0x2_0000;
/// Longest command line, bytes, with its zero: `COMMAND_LINE_SIZE` of x86 Linux.
pub(crate) const CMDLINE_BYTES: usize = 2048;
/// End of low memory: the extended BIOS data area begins here on a PC.
pub(crate) const LOW_MEMORY_END: u64 = 0x9_fc00;
/// The ACPI tables. They begin with the RSDP, which is where a kernel that was not told of it looks
/// (ACPI 6.5, 5.2.5.1).
pub(crate) const ACPI: u64 = 0xe_0000;
/// Room for them, bytes.
pub(crate) const ACPI_BYTES: u64 = GENERATION_ID - ACPI;
/// The page that begins with the VM's generation id.
pub(crate) const GENERATION_ID: u64 = 0xf_f000;
/// Where a processor of a PC starts in real mode: F000:FFF0, 16 bytes below 1 MiB.
pub(crate) const RESET_VECTOR: u64 = 0xf_fff0;
/// Where memory goes on above the legacy hole; kernels are loaded at or above it.
pub(crate) const HIGH_MEMORY: u64 = 0x10_0000;
/// Kernels end here at the latest: the page tables that they start with map this much.
pub(crate) const KERNEL_END: u64 = 0x4000_0000;
/// Memory stops here and goes on at 4 GiB: the APICs and devices are between.
pub(crate) const HOLE_START: u64 = 0xc000_0000;
/// See [`HOLE_START`].
pub(crate) const HOLE_END: u64 = 0x1_0000_0000;
/// A page for the page table of KVM's real-mode emulation, outside of all memory slots.
pub(crate) const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
/// Three pages for the TSS of KVM's real-mode emulation, outside of all memory slots.
pub(crate) const KVM_TSS: usize = 0xfffb_d000;

/// Ranges of guest memory (start, bytes) for a VM of `memory_bytes`.
pub(crate) fn ranges(memory_bytes: u64) -> Vec<(u64, u64)> {
    match memory_bytes.checked_sub(HOLE_START) {
        None | Some(0) => vec![(0, memory_bytes)],
        Some(rest) => vec![(0, HOLE_START), (HOLE_END, rest)],
    }
}

/// What a range of memory is for, by the number that it has in the e820 map and in PVH's
/// (ACPI 6.5, table 15.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum MemoryKind {
    Usable = 1,
    Reserved = 2,
    Acpi = 3,
}

/// Ranges (start, bytes, what for) as the guest is told.
pub(crate) fn memory_map(memory_bytes: u64) -> Vec<(u64, u64, MemoryKind)> {
    let mut map = vec![
        (0, LOW_MEMORY_END, MemoryKind::Usable),
        (ACPI, ACPI_BYTES, MemoryKind::Acpi),
        (
            GENERATION_ID,
            HIGH_MEMORY - GENERATION_ID,
            MemoryKind::Reserved,
        ),
    ];
    for (start, bytes) in ranges(memory_bytes) {
        let from = start.max(HIGH_MEMORY);
        let bytes = (start + bytes).saturating_sub(from);
        map.push((from, bytes, MemoryKind::Usable));
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_past_three_gib_goes_on_above_four() {
        assert_eq!(ranges(HOLE_START), [(0, HOLE_START)]);
        assert_eq!(
            ranges(HOLE_START + 4096),
            [(0, HOLE_START), (HOLE_END, 4096)]
        );
        let map = memory_map(8 << 30);
        let usable = map.iter().filter(|range| range.2 == MemoryKind::Usable);
        let total: u64 = usable.map(|(_, bytes, _)| bytes).sum();
        assert_eq!(total, (8 << 30) - (HIGH_MEMORY - LOW_MEMORY_END));
    }

    #[test]
    fn ranges_are_in_order_do_not_overlap_and_leave_the_hole_out() {
        for memory_bytes in [2 << 20, HOLE_START, HOLE_START + 4096, 1 << 40] {
            let map = memory_map(memory_bytes);
            let ends = map.iter().map(|(start, bytes, _)| (*start, start + bytes));
            let ends: Vec<_> = ends.collect();
            assert!(
                ends.windows(2).all(|pair| pair[0].1 <= pair[1].0),
                "{map:x?}"
            );
            let in_hole = |(start, end): &(u64, u64)| *start < HOLE_END && *end > HOLE_START;
            assert!(!ends.iter().any(in_hole), "{map:x?}");
        }
    }
}
