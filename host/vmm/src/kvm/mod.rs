//! What the kernel owns: the VM and its vCPUs, by KVM's ioctls. Devices never see one.

pub(crate) mod cpu_template;
pub(crate) mod cpuid;
mod kick;
pub(crate) mod machine;
pub(crate) mod memory;
pub(crate) mod msr_filter;
pub(crate) mod msrs;
pub(crate) mod registers;
pub(crate) mod run;
mod shared_page;
pub(crate) mod vcpu;

use vmm_sys_util::errno;

/// A request to KVM or the kernel that was refused.
#[derive(Debug, thiserror::Error)]
#[error("{request}: {source}")]
pub struct KvmError {
    /// Which, by its name in the kernel.
    pub request: &'static str,
    /// What the kernel said.
    pub source: std::io::Error,
}

/// Names the request that failed.
pub(crate) trait Request<T> {
    fn request(self, request: &'static str) -> Result<T, KvmError>;
}

impl<T> Request<T> for Result<T, errno::Error> {
    fn request(self, request: &'static str) -> Result<T, KvmError> {
        self.map_err(|error| KvmError {
            request,
            source: error.into(),
        })
    }
}

impl<T> Request<T> for std::io::Result<T> {
    fn request(self, request: &'static str) -> Result<T, KvmError> {
        self.map_err(|source| KvmError { request, source })
    }
}
