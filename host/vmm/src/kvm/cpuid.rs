//! CPUID: what KVM supports, with each vCPU's own identity in it.

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Kvm};
use vmm_sys_util::errno;

use super::{KvmError, Request as _};

/// Leaf 1 `ecx`: the local APIC's timer has TSC-deadline mode.
const TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1 `ecx`: a hypervisor is present.
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1 `edx`: the number of logical processors in `ebx` counts.
const MULTI_THREADED: u32 = 1 << 28;
/// `KVM_CPUID_FLAG_SIGNIFCANT_INDEX` (arch/x86/include/uapi/asm/kvm.h): the leaf has subleaves.
const HAS_SUBLEAVES: u32 = 1;
/// Extended topology, and its successors, which are left out: the first says all there is.
const TOPOLOGY: u32 = 0xb;
/// See [`TOPOLOGY`].
const TOPOLOGY_2: u32 = 0x1f;
/// See [`TOPOLOGY`]: AMD's.
const TOPOLOGY_AMD: u32 = 0x8000_0026;
/// Leaf 0x80000001 `ecx`, AMD: there are several cores, and no threads.
const CORES_NOT_THREADS: u32 = 1 << 1;
/// KVM's features (Documentation/virt/kvm/x86/cpuid.rst).
const KVM_FEATURES: u32 = 0x4000_0001;
/// `KVM_FEATURE_CLOCKSOURCE2` in `eax` of it.
const KVM_CLOCK: u32 = 1 << 3;

/// What KVM can show a guest.
pub(crate) fn supported(kvm: &Kvm) -> Result<CpuId, KvmError> {
    let mut cpuid = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .request("KVM_GET_SUPPORTED_CPUID")?;
    // KVM leaves these two to us: they depend on its own APIC being used.
    let apic = if kvm.check_extension(Cap::TscDeadlineTimer) {
        TSC_DEADLINE | HYPERVISOR
    } else {
        HYPERVISOR
    };
    let first = cpuid.as_mut_slice().iter_mut().find(|e| e.function == 1);
    if let Some(leaf) = first {
        leaf.ecx |= apic;
    }
    Ok(cpuid)
}

/// Whether a guest is shown KVM's clock.
pub(crate) fn has_kvm_clock(cpuid: &CpuId) -> bool {
    let mut all = cpuid.as_slice().iter();
    all.any(|entry| entry.function == KVM_FEATURES && entry.eax & KVM_CLOCK != 0)
}

/// Whether a guest is shown the local APIC timer's TSC-deadline mode.
pub(crate) fn has_tsc_deadline(cpuid: &CpuId) -> bool {
    let mut all = cpuid.as_slice().iter();
    all.any(|entry| entry.function == 1 && entry.ecx & TSC_DEADLINE != 0)
}

/// `cpuid` as vCPU `index` of `count` sees it: one package, one thread a core, APIC id = index.
pub(crate) fn for_vcpu(mut cpuid: CpuId, index: u8, count: u8) -> Result<CpuId, KvmError> {
    let has_topology = cpuid
        .as_slice()
        .iter()
        .any(|entry| entry.function == 0 && entry.eax >= TOPOLOGY);
    // The host's own levels are its own business.
    cpuid.retain(|entry| !matches!(entry.function, TOPOLOGY | TOPOLOGY_2 | TOPOLOGY_AMD));
    for entry in cpuid.as_mut_slice() {
        set_identity(entry, index, count);
    }
    if has_topology {
        for entry in topology(index, count) {
            cpuid
                .push(entry)
                .map_err(|_| errno::Error::new(libc::E2BIG))
                .request("KVM_SET_CPUID2")?;
        }
    }
    Ok(cpuid)
}

/// Bits of an APIC id that tell `count` cores apart.
fn core_bits(count: u8) -> u32 {
    u32::from(count).next_power_of_two().trailing_zeros()
}

/// Leaves as in Intel's SDM, volume 2A, "CPUID", and AMD's APM, volume 3, appendix E.
fn set_identity(entry: &mut kvm_cpuid_entry2, index: u8, count: u8) {
    match entry.function {
        0x1 => {
            // Bits 31-24: initial APIC id; 23-16: logical processors.
            entry.ebx = (entry.ebx & 0xffff) | u32::from(index) << 24 | u32::from(count) << 16;
            if count > 1 {
                entry.edx |= MULTI_THREADED;
            } else {
                entry.edx &= !MULTI_THREADED;
            }
        }
        // Caches. Bits 31-26: highest core; 25-14: highest thread that shares it, of which all do
        // the last level and none the others.
        0x4 if entry.eax & 0x1f != 0 => {
            let highest = u32::from(count).next_power_of_two() - 1;
            let sharing = if entry.eax >> 5 & 7 >= 3 { highest } else { 0 };
            entry.eax = (entry.eax & 0x3fff) | highest.min(0x3f) << 26 | sharing << 14;
        }
        0x8000_0001 if count == 1 => entry.ecx &= !CORES_NOT_THREADS,
        // AMD's caches: the same, without the cores.
        0x8000_001d if entry.eax & 0x1f != 0 => {
            let last_level = entry.eax >> 5 & 7 >= 3;
            let sharing = if last_level { u32::from(count) - 1 } else { 0 };
            entry.eax = (entry.eax & 0x3fff) | sharing << 14;
        }
        // AMD. Bits 15-12: bits of a core's number; 7-0: highest core.
        0x8000_0008 => {
            let highest = u32::from(count) - u32::from(count > 0);
            entry.ecx = (entry.ecx & !0xf0ff) | core_bits(count) << 12 | highest;
        }
        // AMD: the APIC id; the core's number, of one thread; the node, of one.
        0x8000_001e => {
            (entry.eax, entry.ebx, entry.ecx) = (u32::from(index), u32::from(index), 0);
        }
        _ => {}
    }
}

/// The two levels of leaf 0xB: threads, one a core; and cores.
fn topology(index: u8, count: u8) -> [kvm_cpuid_entry2; 2] {
    let level = |number: u32, kind: u32, bits: u32, processors: u32| kvm_cpuid_entry2 {
        function: TOPOLOGY,
        index: number,
        flags: HAS_SUBLEAVES,
        eax: bits,
        ebx: processors,
        ecx: kind << 8 | number,
        edx: u32::from(index),
        ..Default::default()
    };
    [
        level(0, 1, 0, 1),
        level(1, 2, core_bits(count), u32::from(count)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, eax: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            eax,
            ..Default::default()
        }
    }

    #[test]
    fn each_vcpu_has_its_own_apic_id_in_every_leaf_that_names_one() {
        let host = [leaf(0, 0x1f), leaf(1, 0), leaf(0xb, 7), leaf(0x1f, 7)];
        let host = CpuId::from_entries(&host).unwrap();
        for index in 0..3 {
            let cpuid = for_vcpu(host.clone(), index, 3).unwrap();
            let entries = cpuid.as_slice();
            let of = |function| entries.iter().filter(move |e| e.function == function);
            assert_eq!(of(1).next().unwrap().ebx >> 16, u32::from(index) << 8 | 3);
            let levels: Vec<_> = of(0xb).map(|e| (e.eax, e.ebx, e.ecx, e.edx)).collect();
            let id = u32::from(index);
            assert_eq!(levels, [(0, 1, 0x100, id), (2, 3, 0x201, id)]);
            assert_eq!(of(0x1f).count(), 0);
        }
    }

    #[test]
    fn the_last_level_cache_is_shared_by_all_and_the_others_by_none() {
        let cache = |function, level: u32| kvm_cpuid_entry2 {
            index: level,
            ..leaf(function, level << 5 | 1 | 0x3f << 14)
        };
        for (function, sharing) in [(0x4, [0, 3]), (0x8000_001d, [0, 2])] {
            let host = [leaf(0, 4), cache(function, 1), cache(function, 3)];
            let host = CpuId::from_entries(&host).unwrap();
            let cpuid = for_vcpu(host, 0, 3).unwrap();
            let caches = cpuid.as_slice().iter().filter(|e| e.function == function);
            let found: Vec<_> = caches.map(|e| e.eax >> 14 & 0xfff).collect();
            assert_eq!(found, sharing, "{function:#x}");
        }
    }

    #[test]
    fn a_processor_without_the_topology_leaf_is_given_none() {
        let host = CpuId::from_entries(&[leaf(0, 7), leaf(1, 0)]).unwrap();
        let cpuid = for_vcpu(host, 0, 1).unwrap();
        assert_eq!(cpuid.as_slice().len(), 2);
    }
}
