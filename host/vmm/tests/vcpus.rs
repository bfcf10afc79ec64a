//! Several vCPUs end as one. The threads are looked for in the whole process, so this is a test of
//! its own.

#[allow(dead_code)]
mod machine;

use std::fs;

use machine::{boot, config, exit, until};
use roost_model::GuestExit;
use roost_vmm::{ControlError, VmConfig};

fn vcpu_threads() -> usize {
    fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|name| ["vcpu0", "vcpu1", "vcpu2"].contains(&name.trim_end()))
        .count()
}

#[test]
fn when_the_guest_ends_on_one_vcpu_the_others_end_by_themselves() {
    // Two ticks, so that the others have long been waiting inside KVM for their start-up.
    let vm = boot(VmConfig {
        vcpus: 3,
        cmdline: "ticks=2".to_owned(),
        ..config(roost_guests::HELLO)
    });
    until("all threads have their names", || vcpu_threads() == 3);
    assert_eq!(exit(&vm), GuestExit::Reset);
    // Nobody calls stop or pause, which would call them out of the guest.
    until("every vCPU thread has ended", || vcpu_threads() == 0);
    assert_eq!(vm.pause(), Err(ControlError::Exited(GuestExit::Reset)));
}
