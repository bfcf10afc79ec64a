//! One virtual machine on KVM: memory, vCPU threads, boot protocols, a serial port,
//! virtio devices.
//!
//! A [`Vm`] is built paused from descriptors that the caller opened, runs one thread for each
//! vCPU and one for all devices, and reports how its guest ended as a [`roost_model::GuestExit`]. It knows no async
//! runtime, no network, no store and no policy, and keeps nothing global but a signal handler
//! that does nothing, without which a vCPU thread can't be called out of the guest. Nothing that a guest
//! does makes it panic.
//!
//! [`roost_model::GuestExit::Halt`] is reported where KVM reports it. With KVM's own interrupt
//! controller, which every VM has, a `hlt` never leaves the kernel: a guest that halts for good
//! with interrupts off just idles, and costs nothing but its memory, until it is stopped.
//!
//! ```no_run
//! use std::fs::File;
//! let kvm = File::options().read(true).write(true).open("/dev/kvm")?;
//! let config = roost_vmm::VmConfig {
//!     vcpus: 1,
//!     memory_bytes: 128 << 20,
//!     cmdline: "console=ttyS0".to_owned(),
//!     kernel: File::open("vmlinux")?,
//!     initrd: None,
//!     devices: roost_vmm::DeviceConfig { rng: true, ..Default::default() },
//!     machine: roost_vmm::MachineOptions::default(),
//! };
//! let vm = roost_vmm::Vm::build(kvm, config)?;
//! vm.resume()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod acpi;
mod boot;
mod builder;
mod counters;
mod devices;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod kvm;
mod vm;

pub use acpi::AcpiError;
pub use boot::{
    InitrdError, KernelError, KernelFormat, KernelInfo, LoadError, MAX_KERNEL_BYTES, check_initrd,
    inspect_kernel,
};
pub use builder::{BuildError, KvmFeatures, MachineOptions, VmConfig};
pub use devices::virtio::balloon::{BalloonConfig, BalloonStatistics, GuestStatistics};
pub use devices::virtio::console::{
    ConsoleConfig, ConsoleConfigError, ConsolePort, ConsoleSize, NotATerminal,
};
pub use devices::virtio::net::{NetConfig, NetConfigError, NetLimits};
pub use devices::virtio::{Counter, DeviceCounters, RateLimit, RateLimits};
pub use devices::{
    BaseImage, BaseName, DiskConfig, DiskError, DiskFormat, IoEngine, create_qcow2, disk_bytes,
};
pub use devices::{DeviceConfig, DeviceConfigError, OUTPUT_RING_BYTES, SerialChunk, SerialPort};
pub use devices::{VsockConfig, VsockConfigError, VsockLimits};
pub use kvm::KvmError;
pub use kvm::cpu_template::{CpuTemplateError, CpuidMask, CpuidRegister, cpuid_masks};
pub use kvm::machine::check_kvm;
pub use kvm::memory::MemoryError;
pub use vm::{BalloonError, ControlError, NoSuchDevice, Vm};
