//! The x86-64 psABI's level 2 (System V ABI for x86-64, table 3.1). Bits as in Intel's SDM, volume
//! 2A, "CPUID", and AMD's APM, volume 3, appendix E.

use kvm_bindings::kvm_cpuid_entry2;

use super::CpuidRegister::{Eax, Ebx, Ecx, Edx};
use super::{CpuidMask, CpuidRegister, bits};

const fn keeps(
    function: u32,
    index: u32,
    register: CpuidRegister,
    keeps: u32,
    why: &'static str,
) -> CpuidMask {
    CpuidMask {
        function,
        index: Some(index),
        register,
        keeps,
        why,
    }
}

const LEVEL: &str = "the level's instructions; hides AVX, FMA, AES and all that came later";
const SAFE: &str = "hides what came later, but nothing that keeps a guest's kernel safe";
const LATER: &str = "hides what came later";

/// FPU to CX8, APIC, SEP to PSE36, CLFSH, MMX, FXSR, SSE, SSE2, SS, HTT.
const BASE_EDX: u32 = bits([
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26, 27, 28,
]);
/// The same bits where AMD repeats them, and SYSCALL, NX, RDTSCP, long mode.
const EXTENDED_EDX: u32 = bits([
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 20, 23, 24, 27, 29,
]);

pub(super) const MASKS: [CpuidMask; 15] = [
    // SSE3, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, POPCNT; x2APIC, TSC deadline, hypervisor.
    keeps(0x1, 0, Ecx, bits([0, 9, 13, 19, 20, 21, 23, 24, 31]), LEVEL),
    keeps(0x1, 0, Edx, BASE_EDX, LEVEL),
    // LAHF and SAHF; CmpLegacy and the topology leaf, which tell cores from threads.
    keeps(0x8000_0001, 0, Ecx, bits([0, 1, 22]), LEVEL),
    keeps(0x8000_0001, 0, Edx, EXTENDED_EDX, LEVEL),
    // Of leaf 7 the subleaves 0 to 2.
    keeps(0x7, 0, Ebx, bits([7, 20]), SAFE), // SMEP, SMAP
    keeps(0x7, 0, Ecx, 0, LATER),
    // MD_CLEAR, IBRS, STIBP, L1D_FLUSH, ARCH_CAPABILITIES, SSBD.
    keeps(0x7, 0, Edx, bits([10, 26, 27, 28, 29, 31]), SAFE),
    keeps(0x7, 1, Eax, 0, LATER),
    keeps(0x7, 1, Ebx, 0, LATER),
    keeps(0x7, 1, Ecx, 0, LATER),
    keeps(0x7, 1, Edx, 0, LATER),
    // PSFD, IPRED_CTRL, RRSBA_CTRL, DDPD_U, BHI_CTRL, MCDT_NO.
    keeps(0x7, 2, Edx, bits([0, 1, 2, 3, 4, 5]), SAFE),
    // IBPB, IBRS, STIBP and their hints, SSBD in both forms and that there is no need, PSFD, BTC_NO.
    keeps(
        0x8000_0008,
        0,
        Ebx,
        bits([12, 14, 15, 16, 17, 18, 19, 24, 25, 26, 28, 29]),
        SAFE,
    ),
    // LFENCE serializes, null selectors clear, SBPB, IBPB_BRTYPE, SRSO_NO.
    keeps(0x8000_0021, 0, Eax, bits([2, 6, 27, 28, 29]), SAFE),
    // Constant rate of the TSC.
    keeps(
        0x8000_0007,
        0,
        Edx,
        bits([8]),
        "the clock; hides power management",
    ),
];

/// What the level promises, beside what every x86-64 processor has.
const PROMISED: [(u32, CpuidRegister, u8, &str); 7] = [
    (0x1, Ecx, 0, "SSE3"),
    (0x1, Ecx, 9, "SSSE3"),
    (0x1, Ecx, 13, "CMPXCHG16B"),
    (0x1, Ecx, 19, "SSE4.1"),
    (0x1, Ecx, 20, "SSE4.2"),
    (0x1, Ecx, 23, "POPCNT"),
    (0x8000_0001, Ecx, 0, "LAHF and SAHF in long mode"),
];

/// The first promise that `host` can't keep.
pub(super) fn missing(host: &[kvm_cpuid_entry2]) -> Option<&'static str> {
    let has = |function, register: CpuidRegister, bit: u8| {
        let mut leaves = host.iter().filter(|entry| entry.function == function);
        leaves.any(|entry| register.value(entry) & 1 << bit != 0)
    };
    PROMISED
        .iter()
        .find(|(function, register, bit, _)| !has(*function, *register, *bit))
        .map(|(.., name)| *name)
}

/// The highest basic leaf that is shown.
pub(super) const MAX_LEAF: u32 = 0xb;

/// Leaves that are shown: identity, features, caches, topology, power states that there are none
/// of, KVM's own, sizes of addresses.
pub(super) fn shows(function: u32) -> bool {
    matches!(
        function,
        0x0..=0x2
            | 0x4..=0x7
            | 0xb
            | 0x4000_0000..=0x4000_00ff
            | 0x8000_0000..=0x8000_0008
            | 0x8000_001d
            | 0x8000_001e
            | 0x8000_0021
    )
}
