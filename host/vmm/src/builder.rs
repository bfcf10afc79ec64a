//! Building a VM: from validated resources to a paused machine, in one line of steps.

use std::fs::File;
use std::io;
use std::sync::Arc;

use kvm_bindings::CpuId;
use kvm_ioctls::VmFd;
use roost_model::{CpuTemplate, GuestExit, MemoryBacking};
use vm_memory::GuestMemoryError;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::acpi::{self, AcpiError};
use crate::boot::{self, Entry, KernelError, LoadError};
use crate::devices::{
    Assembly, Buses, DeviceConfig, DeviceConfigError, PortInterrupts, Ports, SerialPort,
    generation_id, lines, mmio,
};
use crate::kvm::cpu_template::{self, CpuTemplateError};
use crate::kvm::memory::MemoryError;
use crate::kvm::run::Run;
use crate::kvm::{KvmError, Request as _, cpuid, machine, memory, msrs, registers, vcpu};
use crate::vm::{Parts, Vm};

/// What a VM is made of.
#[derive(Debug)]
pub struct VmConfig {
    /// Number of vCPUs, 1 to 254: APIC ids are 8 bits, and two are taken.
    pub vcpus: u32,
    /// Guest memory, bytes, a multiple of 4096.
    pub memory_bytes: u64,
    /// The kernel's command line, at most 2047 bytes, or what a bzImage says.
    pub cmdline: String,
    /// The kernel: an ELF `vmlinux` or a bzImage.
    pub kernel: File,
    /// The initial RAM disk.
    pub initrd: Option<File>,
    /// The virtio devices.
    pub devices: DeviceConfig,
    /// What else can be chosen.
    pub machine: MachineOptions,
}

/// What can be chosen about the machine and has a default.
#[derive(Debug, Clone, Default)]
pub struct MachineOptions {
    /// Where guest memory comes from.
    pub memory_backing: MemoryBacking,
    /// KVM logs which pages the guest writes, for [`Vm::take_dirty_pages`]. The first write to each
    /// page then costs an exit.
    pub log_dirty_pages: bool,
    /// What of the host's processor the guest is shown.
    pub cpu_template: CpuTemplate,
    /// The VM's generation id; `None`: a random one. See [`Vm::set_generation_id`].
    pub generation_id: Option<[u8; 16]>,
}

/// What this host's KVM could do for a VM. What it could not is no error: an operator may want to
/// know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvmFeatures {
    /// The guest reaches only the model-specific registers that are on a list
    /// (`KVM_CAP_X86_MSR_FILTER`).
    pub msr_filter: bool,
    /// What the guest tries on registers that KVM doesn't know stays out of the host's log
    /// (`KVM_CAP_X86_USER_SPACE_MSR`).
    pub quiet_unknown_msrs: bool,
    /// The guest has KVM's clock.
    pub kvm_clock: bool,
    /// The guest's local APIC timers have TSC-deadline mode.
    pub tsc_deadline: bool,
}

/// Why a VM could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Not as many vCPUs can be made.
    #[error("{0} vCPUs can't be made; 1 to 254 can")]
    Vcpus(u32),
    /// Not that much memory can be made.
    #[error("{0} bytes of memory can't be made; a multiple of 4096 from 2 MiB to 1 TiB can")]
    Memory(u64),
    /// The kernel image is refused.
    #[error("the kernel: {0}")]
    Kernel(#[from] KernelError),
    /// The devices can't be made.
    #[error(transparent)]
    Devices(#[from] DeviceConfigError),
    /// The guest could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The machine can't be described to the guest.
    #[error(transparent)]
    Acpi(#[from] AcpiError),
    /// The host's processor can't be shown as the template says.
    #[error(transparent)]
    CpuTemplate(#[from] CpuTemplateError),
    /// There is no such memory.
    #[error(transparent)]
    Map(#[from] MemoryError),
    /// The host gives no random numbers.
    #[error("a random generation id could not be made: {0}")]
    Random(#[from] getrandom::Error),
    /// Guest memory could not be written.
    #[error("guest memory could not be written: {0}")]
    Write(#[from] GuestMemoryError),
    /// KVM refused something.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// No more descriptors, most likely.
    #[error("an eventfd, an epoll instance or a thread could not be made: {0}")]
    EventFd(#[from] io::Error),
}

impl BuildError {
    /// What the kernel said, where it refused something that every VM needs.
    #[must_use]
    pub fn io_error(&self) -> Option<&io::Error> {
        match self {
            Self::Map(error) => error.io_error(),
            Self::Kvm(error) => Some(&error.source),
            Self::EventFd(error) => Some(error),
            _ => None,
        }
    }
}

/// Highest number of vCPUs with 8-bit APIC ids: 255 is broadcast, one is the I/O APIC's.
const MAX_VCPUS: u32 = 254;
/// Least memory that the boot structures and any kernel fit into.
const MIN_MEMORY_BYTES: u64 = 2 << 20;
/// Most memory, which also keeps every sum of addresses far from overflowing.
const MAX_MEMORY_BYTES: u64 = 1 << 40;
/// Size of a page.
const PAGE: u64 = 4096;

/// Everything that a built VM consists of.
pub(crate) fn build(kvm: File, config: VmConfig) -> Result<Vm, BuildError> {
    let VmConfig {
        vcpus,
        memory_bytes,
        cmdline,
        kernel,
        initrd,
        devices,
        machine: options,
    } = config;
    let count = u8::try_from(vcpus)
        .ok()
        .filter(|n| *n > 0 && u32::from(*n) <= MAX_VCPUS);
    let count = count.ok_or(BuildError::Vcpus(vcpus))?;
    if !(MIN_MEMORY_BYTES..=MAX_MEMORY_BYTES).contains(&memory_bytes)
        || !memory_bytes.is_multiple_of(PAGE)
    {
        return Err(BuildError::Memory(memory_bytes));
    }
    let image = boot::read_kernel(&kernel)?;
    let devices = devices.make()?;
    let nodes = mmio::nodes(devices.devices.len());

    let kvm = machine::open(kvm)?;
    let memory = Arc::new(memory::map(memory_bytes, options.memory_backing)?);
    let entry = boot::load(
        &memory,
        memory_bytes,
        &image,
        &kernel,
        initrd.as_ref(),
        &cmdline,
    )?;
    registers::write_tables(&memory, entry.protocol)?;

    acpi::write(&memory, count, &nodes)?;
    boot::firmware::write(&memory)?;
    generation_id::write(&memory, new_generation_id(options.generation_id)?)?;

    let interrupt = EventFd::new(EFD_NONBLOCK)?;
    let others = PortInterrupts {
        keyboard: EventFd::new(EFD_NONBLOCK)?,
        events: EventFd::new(EFD_NONBLOCK)?,
    };
    let interrupts = [
        (&interrupt, lines::SERIAL),
        (&others.keyboard, lines::KEYBOARD),
        (&others.events, lines::EVENTS),
    ];
    let (vm, msrs) = machine::create(&kvm, &memory, options.log_dirty_pages, &interrupts)?;
    let serial = Arc::new(SerialPort::new(interrupt)?);
    let devices = Assembly::new(devices, nodes, &memory)?;
    for (node, device) in devices.placed() {
        machine::connect(&vm, &node, device.line(), device.queue_events())?;
    }
    let buses = Arc::new(Buses {
        ports: Ports::new(Arc::clone(&serial), others),
        mmio: devices.bus(),
    });
    let run = Arc::new(Run::new(EventFd::new(EFD_NONBLOCK)?));
    let mut supported = cpuid::supported(&kvm)?;
    cpu_template::apply(options.cpu_template, &mut supported)?;
    let features = KvmFeatures {
        msr_filter: msrs.filtered,
        quiet_unknown_msrs: msrs.unknown_exit,
        kvm_clock: cpuid::has_kvm_clock(&supported),
        tsc_deadline: cpuid::has_tsc_deadline(&supported),
    };
    let vcpus = (0..count)
        .map(|index| new_vcpu(&vm, &supported, index, count, entry))
        .collect::<Result<Vec<_>, KvmError>>()?;
    let vcpus = vcpu::start(vcpus, &buses, &run)?;
    let devices = devices
        .start(on_device_failure(&run, &vcpus))
        .inspect_err(|_| run.end(GuestExit::Stopped))?;
    let parts = Parts {
        vcpus,
        run,
        serial,
        buses,
        devices,
        features,
        vm,
        memory,
    };
    Ok(Vm::new(parts))
}

fn new_generation_id(chosen: Option<[u8; 16]>) -> Result<[u8; 16], BuildError> {
    if let Some(id) = chosen {
        return Ok(id);
    }
    let mut id = [0; 16];
    getrandom::fill(&mut id)?;
    Ok(id)
}

/// The device thread can't go on: the VM ends.
fn on_device_failure(run: &Arc<Run>, vcpus: &[vcpu::Vcpu]) -> impl FnOnce(String) + Send + 'static {
    let run = Arc::clone(run);
    let kickers: Vec<_> = vcpus.iter().map(vcpu::Vcpu::kicker).collect();
    move |detail| {
        run.end(GuestExit::Unexpected { detail });
        kickers.iter().for_each(vcpu::Kicker::kick);
    }
}

fn new_vcpu(
    vm: &VmFd,
    supported: &CpuId,
    index: u8,
    count: u8,
    entry: Entry,
) -> Result<kvm_ioctls::VcpuFd, KvmError> {
    let vcpu = vm
        .create_vcpu(u64::from(index))
        .request("KVM_CREATE_VCPU")?;
    let cpuid = cpuid::for_vcpu(supported.clone(), index, count)?;
    vcpu.set_cpuid2(&cpuid).request("KVM_SET_CPUID2")?;
    msrs::set(&vcpu)?;
    registers::set_lapic(&vcpu)?;
    // The others wait for INIT and SIPI, as after a reset.
    if index == 0 {
        registers::set(&vcpu, entry)?;
    }
    Ok(vcpu)
}
