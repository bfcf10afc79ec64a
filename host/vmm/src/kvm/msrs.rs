//! Model-specific registers as firmware would leave them.

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::VcpuFd;
use vmm_sys_util::errno;

use super::{KvmError, Request as _};

/// `IA32_MISC_ENABLE`, and its fast-strings bit (Intel's SDM, volume 4).
const MISC_ENABLE: u32 = 0x1a0;
/// See [`MISC_ENABLE`].
const FAST_STRINGS: u64 = 1;
/// `IA32_MTRR_DEF_TYPE`: enabled (bit 11), write-back (6).
const MTRR_DEF_TYPE: u32 = 0x2ff;
/// See [`MTRR_DEF_TYPE`].
const WRITE_BACK: u64 = 1 << 11 | 6;

/// Sets them. What a kernel sets itself (system-call entries, the TSC) is left at its reset value.
pub(crate) fn set(vcpu: &VcpuFd) -> Result<(), KvmError> {
    let entry = |index, data| kvm_msr_entry {
        index,
        data,
        ..Default::default()
    };
    let entries = [
        entry(MISC_ENABLE, FAST_STRINGS),
        entry(MTRR_DEF_TYPE, WRITE_BACK),
    ];
    let msrs = Msrs::from_entries(&entries)
        .map_err(|_| errno::Error::new(libc::E2BIG))
        .request("KVM_SET_MSRS")?;
    match vcpu.set_msrs(&msrs).request("KVM_SET_MSRS")? {
        count if count == entries.len() => Ok(()),
        _ => Err(errno::Error::new(libc::EINVAL)).request("KVM_SET_MSRS"),
    }
}
