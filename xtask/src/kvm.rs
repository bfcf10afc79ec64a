//! What the machine's KVM can do.

use std::fs::{self, OpenOptions};

/// The KVM of this machine.
pub(crate) enum Kvm {
    /// `/dev/kvm` on a CPU with VMX or SVM: runs any guest.
    Hardware,
    /// `/dev/kvm` without them: a software KVM, which runs our own small guests but no Linux.
    Software,
    /// No `/dev/kvm` that we may use; why.
    Unusable(String),
}

impl Kvm {
    /// Looks at this machine.
    pub(crate) fn detect() -> Self {
        if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/kvm") {
            return Self::Unusable(format!("/dev/kvm cannot be opened: {error}"));
        }
        let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        if flags
            .lines()
            .find(|line| line.starts_with("flags"))
            .is_some_and(|line| line.split_whitespace().any(|f| f == "vmx" || f == "svm"))
        {
            Self::Hardware
        } else {
            Self::Software
        }
    }
}
