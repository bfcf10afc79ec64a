//! CPU templates: what of the host's processor a guest is shown.
//!
//! A template is a table of masks. [`always`] is applied whatever the template; [`v2`] leaves a
//! guest no more than what it can find on every host that it may be moved to.

mod always;
mod v2;

use kvm_bindings::{CpuId, kvm_cpuid_entry2};
use roost_model::CpuTemplate;

/// A register of CPUID's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum CpuidRegister {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// A row of a template: the bits of a register that a guest is shown at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuidMask {
    /// The leaf.
    pub function: u32,
    /// Its subleaf; `None`: all of them.
    pub index: Option<u32>,
    /// The register.
    pub register: CpuidRegister,
    /// The bits that stay as the host has them. All others read as 0.
    pub keeps: u32,
    /// Why.
    pub why: &'static str,
}

/// The host has not what a template promises.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this host's CPU can't be shown as {template}: it has no {missing}")]
pub struct CpuTemplateError {
    /// The template.
    pub template: &'static str,
    /// The first feature that is missing.
    pub missing: &'static str,
}

/// A template's name, as in a spec.
const fn name(template: CpuTemplate) -> &'static str {
    match template {
        CpuTemplate::Host => "host",
        CpuTemplate::X8664V2 => "x86-64-v2",
    }
}

/// The masks that a template applies, with their reasons.
pub fn cpuid_masks(template: CpuTemplate) -> impl Iterator<Item = &'static CpuidMask> {
    let own: &[CpuidMask] = match template {
        CpuTemplate::Host => &[],
        CpuTemplate::X8664V2 => &v2::MASKS,
    };
    always::MASKS.iter().chain(own)
}

/// Takes from `cpuid` what the template doesn't show.
pub(crate) fn apply(template: CpuTemplate, cpuid: &mut CpuId) -> Result<(), CpuTemplateError> {
    if template == CpuTemplate::X8664V2 {
        if let Some(missing) = v2::missing(cpuid.as_slice()) {
            let template = name(template);
            return Err(CpuTemplateError { template, missing });
        }
        cpuid.retain(|entry| v2::shows(entry.function));
        let first = cpuid.as_mut_slice().iter_mut();
        for entry in first.filter(|entry| entry.function == 0) {
            entry.eax = entry.eax.min(v2::MAX_LEAF);
        }
    }
    for entry in cpuid.as_mut_slice() {
        for mask in cpuid_masks(template) {
            mask.apply(entry);
        }
    }
    Ok(())
}

impl CpuidMask {
    fn apply(&self, entry: &mut kvm_cpuid_entry2) {
        let is_subleaf = self.index.is_none_or(|index| index == entry.index);
        if self.function == entry.function && is_subleaf {
            *self.register.of(entry) &= self.keeps;
        }
    }
}

impl CpuidRegister {
    fn value(self, entry: &kvm_cpuid_entry2) -> u32 {
        match self {
            Self::Eax => entry.eax,
            Self::Ebx => entry.ebx,
            Self::Ecx => entry.ecx,
            Self::Edx => entry.edx,
        }
    }

    fn of(self, entry: &mut kvm_cpuid_entry2) -> &mut u32 {
        match self {
            Self::Eax => &mut entry.eax,
            Self::Ebx => &mut entry.ebx,
            Self::Ecx => &mut entry.ecx,
            Self::Edx => &mut entry.edx,
        }
    }
}

/// The bits with these numbers.
const fn bits<const N: usize>(numbers: [u32; N]) -> u32 {
    let mut mask = 0;
    let mut at = 0;
    while at < N {
        mask |= 1 << numbers[at];
        at += 1;
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [CpuTemplate; 2] = [CpuTemplate::Host, CpuTemplate::X8664V2];

    fn everything() -> CpuId {
        let entry = |function, index| kvm_cpuid_entry2 {
            function,
            index,
            eax: u32::MAX,
            ebx: u32::MAX,
            ecx: u32::MAX,
            edx: u32::MAX,
            ..Default::default()
        };
        let leaves = (0..0x20).chain(0x8000_0000..0x8000_0028);
        let mut entries: Vec<_> = leaves.map(|function| entry(function, 0)).collect();
        entries.extend([entry(7, 1), entry(7, 2), entry(0xd, 1), entry(0xd, 2)]);
        entries.push(entry(0x4000_0001, 0));
        CpuId::from_entries(&entries).unwrap()
    }

    fn shown(template: CpuTemplate) -> CpuId {
        let mut cpuid = everything();
        apply(template, &mut cpuid).unwrap();
        cpuid
    }

    fn leaf(cpuid: &CpuId, function: u32) -> Option<kvm_cpuid_entry2> {
        let mut all = cpuid.as_slice().iter();
        all.find(|entry| entry.function == function).copied()
    }

    #[test]
    fn no_template_shows_nested_virtualization_or_counters() {
        for template in ALL {
            let cpuid = shown(template);
            let first = leaf(&cpuid, 1).unwrap();
            assert_eq!(first.ecx & 1 << 5, 0, "VMX in {template:?}");
            let extended = leaf(&cpuid, 0x8000_0001).unwrap();
            assert_eq!(extended.ecx & 1 << 2, 0, "SVM in {template:?}");
            for function in [0xa, 0x12, 0x14, 0x8000_000a, 0x8000_0022] {
                let hidden = leaf(&cpuid, function).unwrap_or_default();
                let registers = [hidden.eax, hidden.ebx, hidden.ecx, hidden.edx];
                assert_eq!(registers, [0; 4], "{function:#x} in {template:?}");
            }
        }
    }

    #[test]
    fn the_host_template_hides_nothing_else() {
        let cpuid = shown(CpuTemplate::Host);
        assert_eq!(cpuid.as_slice().len(), everything().as_slice().len());
        let first = leaf(&cpuid, 1).unwrap();
        assert_eq!(
            (first.ecx | 1 << 5 | 1 << 15, first.edx),
            (u32::MAX, u32::MAX)
        );
        let wide = leaf(&cpuid, 7).unwrap();
        assert_ne!(wide.ebx & bits([5, 16]), 0, "AVX2 and AVX-512");
    }

    #[test]
    fn level_2_shows_what_the_psabi_names_and_no_wide_vectors() {
        let cpuid = shown(CpuTemplate::X8664V2);
        let first = leaf(&cpuid, 1).unwrap();
        // SSE3, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, POPCNT; LAHF-SAHF.
        let level = bits([0, 9, 13, 19, 20, 23]);
        assert_eq!(first.ecx & level, level);
        assert_eq!(leaf(&cpuid, 0x8000_0001).unwrap().ecx & 1, 1);
        // FMA, XSAVE, OSXSAVE, AVX, F16C.
        assert_eq!(first.ecx & bits([12, 26, 27, 28, 29]), 0);
        // AVX2, BMI1, BMI2, AVX-512F; but SMEP and SMAP stay.
        let wide = leaf(&cpuid, 7).unwrap();
        assert_eq!(wide.ebx, bits([7, 20]));
        assert!(leaf(&cpuid, 0xd).is_none());
        assert_ne!(first.ecx & 1 << 24, 0, "TSC deadline");
        assert!(leaf(&cpuid, 0x4000_0001).is_some(), "KVM's own leaves");
    }

    #[test]
    fn a_host_without_level_2_is_refused_with_what_it_lacks() {
        let mut cpuid = everything();
        for entry in cpuid.as_mut_slice() {
            if entry.function == 1 {
                entry.ecx &= !(1 << 23);
            }
        }
        let error = apply(CpuTemplate::X8664V2, &mut cpuid).unwrap_err();
        assert_eq!(error.missing, "POPCNT");
        assert!(apply(CpuTemplate::Host, &mut cpuid).is_ok());
    }

    #[test]
    fn every_mask_has_a_reason_and_errors_name_templates_as_specs_do() {
        for template in ALL {
            assert!(cpuid_masks(template).all(|mask| !mask.why.is_empty()));
            assert_eq!(serde_json::to_value(template).unwrap(), name(template));
        }
    }
}
