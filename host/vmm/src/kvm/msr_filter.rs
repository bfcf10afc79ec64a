//! Which model-specific registers a guest reaches.
//!
//! KVM asks the filter before it looks at an access. What is not in the table below is a general
//! protection fault in the guest, and leaves no line in the host's log, which a guest could fill
//! otherwise. Left out are: the performance counters, branch records and processor trace, which
//! tell about neighbours; microcode, power, temperature and frequency; nested virtualization, SGX
//! and SMM; other hypervisors' registers. The x2APIC's registers can't be filtered, and belong to
//! the guest.

use kvm_bindings::kvm_enable_cap;
use kvm_ioctls::{
    Cap, MsrExitReason, MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VmFd,
};

use super::{KvmError, Request as _};

/// First and last of registers that a guest may read and write. Names as in Linux'
/// arch/x86/include/asm/msr-index.h and arch/x86/include/uapi/asm/kvm_para.h.
const ALLOWED: [(u32, u32); 42] = [
    (0x10, 0x10),               // IA32_TSC
    (0x11, 0x12),               // KVM's clock, the old numbers
    (0x17, 0x17),               // IA32_PLATFORM_ID
    (0x1b, 0x1b),               // IA32_APICBASE
    (0x2a, 0x2a),               // IA32_EBL_CR_POWERON
    (0x3b, 0x3b),               // IA32_TSC_ADJUST
    (0x48, 0x49),               // IA32_SPEC_CTRL, IA32_PRED_CMD
    (0x8b, 0x8b),               // IA32_UCODE_REV
    (0xce, 0xcf),               // PLATFORM_INFO, IA32_CORE_CAPS
    (0xe1, 0xe1),               // IA32_UMWAIT_CONTROL
    (0xfe, 0xfe),               // MTRRcap
    (0x10a, 0x10b),             // IA32_ARCH_CAPABILITIES, IA32_FLUSH_CMD
    (0x122, 0x122),             // IA32_TSX_CTRL
    (0x140, 0x140),             // MISC_FEATURES_ENABLES
    (0x174, 0x176),             // IA32_SYSENTER_*
    (0x179, 0x17b),             // IA32_MCG_*
    (0x1a0, 0x1a0),             // IA32_MISC_ENABLE
    (0x1c4, 0x1c5),             // IA32_XFD, IA32_XFD_ERR
    (0x1d9, 0x1d9),             // IA32_DEBUGCTL: single-stepping by branches
    (0x200, 0x21f),             // MTRRphysBase*, MTRRphysMask*
    (0x250, 0x250),             // MTRRfix64K
    (0x258, 0x259),             // MTRRfix16K
    (0x268, 0x26f),             // MTRRfix4K
    (0x277, 0x277),             // IA32_CR_PAT
    (0x2ff, 0x2ff),             // MTRRdefType
    (0x400, 0x47f),             // IA32_MC*
    (0x6a0, 0x6a8),             // IA32_*_CET, IA32_PL*_SSP
    (0x6e0, 0x6e0),             // IA32_TSC_DEADLINE
    (0xda0, 0xda0),             // IA32_XSS
    (0x4b56_4d00, 0x4b56_4d08), // KVM's clock, steal time, asynchronous faults, EOI, polling
    (0xc000_0080, 0xc000_0084), // EFER, STAR, LSTAR, CSTAR, SYSCALL_MASK
    (0xc000_0100, 0xc000_0103), // FS_BASE, GS_BASE, KERNEL_GS_BASE, TSC_AUX
    (0xc001_0010, 0xc001_0010), // AMD64_SYSCFG
    (0xc001_0015, 0xc001_0015), // K7_HWCR
    (0xc001_001f, 0xc001_001f), // AMD64_NB_CFG
    (0xc001_0055, 0xc001_0055), // K8_INT_PENDING_MSG
    (0xc001_0058, 0xc001_0058), // FAM10H_MMIO_CONF_BASE
    (0xc001_0112, 0xc001_0113), // K8_TSEG_ADDR, K8_TSEG_MASK
    (0xc001_011f, 0xc001_011f), // AMD64_VIRT_SPEC_CTRL
    (0xc001_0140, 0xc001_0141), // AMD64_OSVW_*
    (0xc001_1020, 0xc001_1023), // AMD64_LS_CFG, IC_CFG, DC_CFG, TW_CFG
    (0xc001_1029, 0xc001_102a), // AMD64_DE_CFG, AMD64_BU_CFG2
];

/// First registers and numbers of the bitmaps that hold the table; a bitmap has at most 1536 bytes.
const WINDOWS: [(u32, u32); 4] = [
    (0, 0x1000),
    (0x4b56_4d00, 0x20),
    (0xc000_0080, 0x100),
    (0xc001_0000, 0x1200),
];

/// What KVM let us say about registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MsrControl {
    /// Only what is allowed is reached.
    pub(crate) filtered: bool,
    /// What KVM doesn't know comes to us, instead of into the host's log.
    pub(crate) unknown_exit: bool,
}

/// Installs the filter as far as KVM has one.
pub(crate) fn install(vm: &VmFd) -> Result<MsrControl, KvmError> {
    let filtered = vm.check_extension(Cap::X86MsrFilter);
    if filtered {
        let bitmaps: Vec<_> = WINDOWS.iter().map(|window| bitmap(*window)).collect();
        let ranges: Vec<_> = WINDOWS
            .iter()
            .zip(&bitmaps)
            .map(|((base, count), bitmap)| MsrFilterRange {
                flags: MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE,
                base: *base,
                msr_count: *count,
                bitmap,
            })
            .collect();
        vm.set_msr_filter(MsrFilterDefaultAction::DENY, &ranges)
            .request("KVM_X86_SET_MSR_FILTER")?;
    }
    let unknown_exit = vm.check_extension(Cap::X86UserSpaceMsr);
    if unknown_exit {
        let mut capability = kvm_enable_cap {
            cap: Cap::X86UserSpaceMsr as u32,
            ..Default::default()
        };
        capability.args[0] = u64::from(MsrExitReason::Unknown.bits());
        vm.enable_cap(&capability)
            .request("KVM_ENABLE_CAP(KVM_CAP_X86_USER_SPACE_MSR)")?;
    }
    Ok(MsrControl {
        filtered,
        unknown_exit,
    })
}

/// A window's bits: set where the register is allowed.
fn bitmap((base, count): (u32, u32)) -> Vec<u8> {
    let mut bitmap = vec![0; count.div_ceil(8) as usize];
    for register in ALLOWED.iter().flat_map(|(first, last)| *first..=*last) {
        let bit = register.wrapping_sub(base);
        if let Some(byte) = bitmap.get_mut((bit / 8) as usize) {
            *byte |= 1 << (bit % 8);
        }
    }
    bitmap
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_allowed(register: u32) -> bool {
        WINDOWS.iter().any(|window| {
            let bit = register.wrapping_sub(window.0);
            bit < window.1 && bitmap(*window)[(bit / 8) as usize] & 1 << (bit % 8) != 0
        })
    }

    #[test]
    fn the_bitmaps_hold_the_table_and_nothing_else() {
        let bits: u32 = WINDOWS
            .iter()
            .flat_map(|window| bitmap(*window))
            .map(u8::count_ones)
            .sum();
        let registers: u32 = ALLOWED.iter().map(|(first, last)| last - first + 1).sum();
        assert_eq!(bits, registers);
        for register in ALLOWED.iter().flat_map(|(first, last)| *first..=*last) {
            assert!(is_allowed(register), "{register:#x}");
        }
        assert!(WINDOWS.iter().all(|(_, count)| count.div_ceil(8) <= 1536));
    }

    #[test]
    fn counters_microcode_power_and_nested_virtualization_are_out_of_reach() {
        for register in [
            0x79,
            0xc1,
            0x186,
            0x38f,
            0x570,
            0x600,
            0x606,
            0x480,
            0x9e,
            0x3a,
            0xc001_0004,
            0xc001_0117,
            0xc001_0200,
            0x4000_0000,
        ] {
            assert!(!is_allowed(register), "{register:#x}");
        }
    }
}
