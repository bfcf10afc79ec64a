//! A VM on the real `/dev/kvm`, and waiting for what it does.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use roost_model::GuestExit;
use roost_vmm::{ControlError, DeviceConfig, MachineOptions, Vm, VmConfig};
use rustix::event::{PollFd, PollFlags, poll};

/// Longest that a guest may take for anything here: KVMs that interpret are slow.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn kvm() -> File {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .expect("these tests run guests: they need /dev/kvm, readable and writable")
}

pub(crate) fn file(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file.rewind().unwrap();
    file
}

pub(crate) fn config(kernel: &[u8]) -> VmConfig {
    VmConfig {
        vcpus: 1,
        memory_bytes: 128 << 20,
        cmdline: String::new(),
        kernel: file(kernel),
        initrd: None,
        devices: DeviceConfig::default(),
        machine: MachineOptions::default(),
    }
}

pub(crate) fn boot(config: VmConfig) -> Vm {
    let vm = Vm::build(kvm(), config).unwrap();
    // A guest that is quick may have ended by now.
    match vm.resume() {
        Ok(()) | Err(ControlError::Exited(_)) => vm,
    }
}

fn wait(fd: BorrowedFd<'_>, until: Instant) -> bool {
    let left = until.saturating_duration_since(Instant::now());
    let timeout = rustix::event::Timespec::try_from(left).unwrap();
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap() > 0
}

/// Output until it holds `text`.
pub(crate) fn output(vm: &Vm, text: &str) -> String {
    let until = Instant::now() + PATIENCE;
    loop {
        let output = String::from_utf8_lossy(&vm.serial().read(0, usize::MAX).bytes).into_owned();
        if output.contains(text) {
            return output;
        }
        assert!(more_output(vm, until), "no {text:?} in {output:?}");
    }
}

/// Waits until the guest has written more than `position` bytes.
pub(crate) fn output_past(vm: &Vm, position: u64) {
    let until = Instant::now() + PATIENCE;
    while vm.serial().end() <= position {
        assert!(more_output(vm, until), "no output past {position}");
    }
}

/// Blocks until there is more output; false: there was none in time. It does not spin: that takes
/// the port from the guest half of the time.
fn more_output(vm: &Vm, until: Instant) -> bool {
    let output = vm.serial().output_fd();
    let more = wait(output, until);
    if more {
        rustix::io::read(output, &mut [0; 8]).unwrap();
    }
    more && Instant::now() < until
}

/// Waits until `condition` holds. Others run in between.
pub(crate) fn until(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < until, "waited in vain until {what}");
        std::thread::yield_now();
    }
}

pub(crate) fn is_readable(fd: &impl AsFd) -> bool {
    wait(fd.as_fd(), Instant::now())
}

pub(crate) fn exit(vm: &Vm) -> GuestExit {
    assert!(
        wait(vm.exit_fd(), Instant::now() + PATIENCE),
        "the guest does not end"
    );
    vm.exit().unwrap()
}
