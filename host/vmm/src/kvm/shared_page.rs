//! `struct kvm_run`, as threads other than the vCPU's own see it.

use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicU8, Ordering};

use kvm_bindings::kvm_run;
use kvm_ioctls::VcpuFd;

use super::{KvmError, Request as _};

/// A second mapping of the page that a vCPU shares with KVM; `VcpuFd` holds the first.
pub(super) struct SharedPage(*mut kvm_run);

// SAFETY: it is shared for `immediate_exit` alone, which is accessed atomically; the one other
// access is by the vCPU's own thread.
unsafe impl Send for SharedPage {}
// SAFETY: as above.
unsafe impl Sync for SharedPage {}

impl SharedPage {
    pub(super) fn map(vcpu: &VcpuFd) -> Result<Self, KvmError> {
        // SAFETY: a fresh shared mapping of the first page of the vCPU's descriptor, which holds
        // the whole structure; nothing is overwritten, and the kernel checks the rest.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<kvm_run>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                vcpu.as_raw_fd(),
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error()).request("mmap of struct kvm_run");
        }
        Ok(Self(page.cast()))
    }

    /// Makes `KVM_RUN` return at once (1), or not (0). From any thread.
    pub(super) fn set_immediate_exit(&self, value: u8) {
        // SAFETY: the page is mapped until `self` is dropped; the field is one byte, and the
        // kernel reads it as such.
        let field = unsafe { AtomicU8::from_ptr(&raw mut (*self.0).immediate_exit) };
        field.store(value, Ordering::SeqCst);
    }

    /// Width in bytes of one item of the port access that `KVM_RUN` returned for; string
    /// instructions deliver several. Only by the vCPU's own thread, right after such an exit.
    pub(super) fn port_width(&self) -> usize {
        // SAFETY: the page is mapped until `self` is dropped, and KVM, which is not running, has
        // filled this member of the union; any value is a number.
        let width = unsafe { (&raw const (*self.0).__bindgen_anon_1.io.size).read() };
        usize::from(width).max(1)
    }
}

impl Drop for SharedPage {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this size, and used by nobody else.
        unsafe { libc::munmap(self.0.cast(), size_of::<kvm_run>()) };
    }
}
