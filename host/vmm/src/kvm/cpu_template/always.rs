//! What no guest is shown. Bits as in Intel's SDM, volume 2A, "CPUID", and AMD's APM, volume 3,
//! appendix E.

use super::CpuidRegister::{Eax, Ebx, Ecx, Edx};
use super::{CpuidMask, CpuidRegister, bits};

const fn hides(
    function: u32,
    register: CpuidRegister,
    hidden: u32,
    why: &'static str,
) -> CpuidMask {
    CpuidMask {
        function,
        index: None,
        register,
        keeps: !hidden,
        why,
    }
}

const NESTED: &str = "nested virtualization is the largest attack surface of KVM";
const COUNTERS: &str = "counters and traces tell about neighbours, and can't be moved";
const ENCLAVES: &str = "enclaves and encrypted memory need the host's help, which there is not";
const ALLOCATION: &str = "caches and bandwidth are the host's to divide";

pub(super) const MASKS: [CpuidMask; 35] = [
    // VMX.
    hides(0x1, Ecx, bits([5]), NESTED),
    // SVM, and its leaf.
    hides(0x8000_0001, Ecx, bits([2]), NESTED),
    hides(0x8000_000a, Eax, u32::MAX, NESTED),
    hides(0x8000_000a, Ebx, u32::MAX, NESTED),
    hides(0x8000_000a, Ecx, u32::MAX, NESTED),
    hides(0x8000_000a, Edx, u32::MAX, NESTED),
    // PDCM: IA32_PERF_CAPABILITIES.
    hides(0x1, Ecx, bits([15]), COUNTERS),
    // IBS, LWP, PerfCtrExtCore, PerfCtrExtNB, PerfTsc, PerfCtrExtLLC.
    hides(0x8000_0001, Ecx, bits([10, 15, 23, 24, 27, 28]), COUNTERS),
    // Architectural performance monitoring.
    hides(0xa, Eax, u32::MAX, COUNTERS),
    hides(0xa, Ebx, u32::MAX, COUNTERS),
    hides(0xa, Ecx, u32::MAX, COUNTERS),
    hides(0xa, Edx, u32::MAX, COUNTERS),
    // AMD's: version 2, and instruction-based sampling.
    hides(0x8000_0022, Eax, u32::MAX, COUNTERS),
    hides(0x8000_0022, Ebx, u32::MAX, COUNTERS),
    hides(0x8000_0022, Ecx, u32::MAX, COUNTERS),
    hides(0x8000_0022, Edx, u32::MAX, COUNTERS),
    hides(0x8000_001b, Eax, u32::MAX, COUNTERS),
    // Processor trace and last-branch records, each with its leaf.
    hides(0x7, Ebx, bits([25]), COUNTERS),
    hides(0x14, Eax, u32::MAX, COUNTERS),
    hides(0x14, Ebx, u32::MAX, COUNTERS),
    hides(0x14, Ecx, u32::MAX, COUNTERS),
    hides(0x14, Edx, u32::MAX, COUNTERS),
    hides(0x7, Edx, bits([19]), COUNTERS),
    hides(0x1c, Eax, u32::MAX, COUNTERS),
    // SGX, its launch control, its leaf.
    hides(0x7, Ebx, bits([2]), ENCLAVES),
    hides(0x7, Ecx, bits([30]), ENCLAVES),
    hides(0x12, Eax, u32::MAX, ENCLAVES),
    hides(0x12, Ebx, u32::MAX, ENCLAVES),
    hides(0x12, Ecx, u32::MAX, ENCLAVES),
    hides(0x12, Edx, u32::MAX, ENCLAVES),
    // SME and SEV.
    hides(0x8000_001f, Eax, u32::MAX, ENCLAVES),
    // RDT: monitoring and allocation, each with its leaf.
    hides(0x7, Ebx, bits([12, 15]), ALLOCATION),
    hides(0xf, Edx, u32::MAX, ALLOCATION),
    hides(0x10, Ebx, u32::MAX, ALLOCATION),
    hides(0x8000_0020, Ebx, u32::MAX, ALLOCATION),
];
