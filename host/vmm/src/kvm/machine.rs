//! A VM with its memory and interrupt controllers.

use std::fs::File;
use std::os::fd::{FromRawFd as _, IntoRawFd as _};

use kvm_bindings::{
    KVM_API_VERSION, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_PIT_SPEAKER_DUMMY,
    kvm_irqchip, kvm_pit_config,
};
use kvm_ioctls::{IoEventAddress, Kvm, VmFd};
use virtio_bindings::virtio_mmio::VIRTIO_MMIO_QUEUE_NOTIFY;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::errno;
use vmm_sys_util::eventfd::EventFd;

use super::msr_filter::{self, MsrControl};
use super::{KvmError, Request as _, memory};
use crate::boot::layout;
use crate::devices::mmio::MmioNode;

/// Takes over an open `/dev/kvm`.
pub(crate) fn open(kvm: File) -> Result<Kvm, KvmError> {
    // SAFETY: the descriptor is ours and open, and nobody else closes it.
    let kvm = unsafe { Kvm::from_raw_fd(kvm.into_raw_fd()) };
    if u32::try_from(kvm.get_api_version()) != Ok(KVM_API_VERSION) {
        return Err(errno::Error::new(libc::ENOTTY)).request("KVM_GET_API_VERSION");
    }
    Ok(kvm)
}

/// Whether VMs can be made with `kvm`, an open `/dev/kvm`: makes one and lets go of it.
///
/// # Errors
/// The request that the kernel refused.
pub fn check_kvm(kvm: &File) -> Result<(), KvmError> {
    let kvm = open(kvm.try_clone().request("dup")?)?;
    kvm.create_vm().request("KVM_CREATE_VM").map(drop)
}

/// Creates a VM with `memory`, an in-kernel interrupt controller and timer, and interrupt lines
/// that are raised by writing to an eventfd. Says what KVM let us do about registers.
pub(crate) fn create(
    kvm: &Kvm,
    memory: &GuestMemoryMmap,
    log_dirty_pages: bool,
    interrupts: &[(&EventFd, u32)],
) -> Result<(VmFd, MsrControl), KvmError> {
    let vm = kvm.create_vm().request("KVM_CREATE_VM")?;
    // Before anything else: later the kernel waits for readers of what is then in use, which has
    // been seen to cost 14 ms.
    let msrs = msr_filter::install(&vm)?;
    // Memory first: the other order has been seen to cost 10 ms.
    memory::register(&vm, memory, log_dirty_pages)?;
    vm.set_identity_map_address(layout::KVM_IDENTITY_MAP)
        .request("KVM_SET_IDENTITY_MAP_ADDR")?;
    vm.set_tss_address(layout::KVM_TSS)
        .request("KVM_SET_TSS_ADDR")?;
    vm.create_irq_chip().request("KVM_CREATE_IRQCHIP")?;
    let pit = kvm_pit_config {
        flags: KVM_PIT_SPEAKER_DUMMY,
        ..Default::default()
    };
    vm.create_pit2(pit).request("KVM_CREATE_PIT2")?;
    mask_pics(&vm)?;
    for (interrupt, line) in interrupts {
        vm.register_irqfd(interrupt, *line).request("KVM_IRQFD")?;
    }
    Ok((vm, msrs))
}

/// Masks every input of the two legacy interrupt controllers, as firmware leaves them. Each line
/// reaches them beside the I/O APIC, and a kernel that takes a hardware-reduced machine at its word
/// never sets them up.
fn mask_pics(vm: &VmFd) -> Result<(), KvmError> {
    for chip_id in [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE] {
        let mut chip = kvm_irqchip {
            chip_id,
            ..Default::default()
        };
        vm.get_irqchip(&mut chip).request("KVM_GET_IRQCHIP")?;
        chip.chip.pic.imr = u8::MAX;
        vm.set_irqchip(&chip).request("KVM_SET_IRQCHIP")?;
    }
    Ok(())
}

/// Connects a virtio device at `node`: its interrupt `line`, and an event for each of its queues.
pub(crate) fn connect(
    vm: &VmFd,
    node: &MmioNode,
    line: &EventFd,
    queues: &[EventFd],
) -> Result<(), KvmError> {
    vm.register_irqfd(line, node.gsi).request("KVM_IRQFD")?;
    let address = IoEventAddress::Mmio(node.base + u64::from(VIRTIO_MMIO_QUEUE_NOTIFY));
    for (queue, event) in (0_u32..).zip(queues) {
        // Where KVM does not do it, a notification is an exit, and the transport signals the event.
        let _ = vm.register_ioevent(event, &address, queue);
    }
    Ok(())
}
