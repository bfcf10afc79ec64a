//! What guests do on the real `/dev/kvm`.

mod machine;

use machine::{boot, config, exit, output, output_past, until};
use roost_model::{Counters, CpuTemplate, GuestExit, MemoryBacking};
use roost_vmm::{BuildError, ControlError, MachineOptions, OUTPUT_RING_BYTES, Vm, VmConfig};

#[test]
fn a_guest_finds_its_command_line_and_its_memory() {
    let cmdline = "color=blue ticks=2".to_owned();
    let vm = boot(VmConfig {
        cmdline,
        ..config(roost_guests::HELLO)
    });
    let output = output(&vm, "tick 2\n");
    assert!(output.contains("cmdline: color=blue ticks=2\n"), "{output}");
    assert!(output.contains("memory: 128 MiB\n"), "{output}");
    assert_eq!(exit(&vm), GuestExit::Reset);
}

#[test]
fn a_pvh_kernel_finds_the_same() {
    let cmdline = "ticks=1".to_owned();
    let vm = boot(VmConfig {
        cmdline,
        ..config(roost_guests::HELLO_PVH)
    });
    let output = output(&vm, "tick 1\n");
    assert!(output.contains("cmdline: ticks=1\n"), "{output}");
    assert!(output.contains("memory: 128 MiB\n"), "{output}");
    assert_eq!(exit(&vm), GuestExit::Reset);
}

#[test]
fn more_than_three_gib_is_all_there() {
    let vm = boot(VmConfig {
        memory_bytes: 5 << 30,
        ..config(roost_guests::HELLO)
    });
    assert!(output(&vm, "tick 1").contains("memory: 5120 MiB\n"));
}

#[test]
fn a_paused_guest_prints_nothing_uses_no_time_and_goes_on_where_it_was() {
    let vm = boot(config(roost_guests::STORM));
    output(&vm, "0123456789abcdef");
    vm.pause().unwrap();
    assert!(vm.is_paused());
    // The threads' CPU time is left out: they are out of the guest, but may not sleep yet.
    let seen = || Counters {
        vcpu_cpu_ns: 0,
        ..vm.counters()
    };
    let (end, counters) = (vm.serial().end(), seen());
    // Nothing runs that could change them: pause returns when every vCPU is out of the guest.
    for _ in 0..100 {
        std::thread::yield_now();
        assert_eq!((vm.serial().end(), seen()), (end, counters));
    }
    vm.resume().unwrap();
    let chunk = vm.serial().read(end, 0);
    assert_eq!(chunk.offset, end);
    output_past(&vm, end);
    assert!(vm.counters().running_ns > counters.running_ns);
}

#[test]
fn pause_and_resume_are_never_lost_however_fast_they_come() {
    let vm = boot(config(roost_guests::BURN));
    for _ in 0..200 {
        vm.pause().unwrap();
        assert!(vm.is_paused());
        vm.resume().unwrap();
    }
    vm.stop();
    assert_eq!(vm.exit(), Some(GuestExit::Stopped));
}

#[test]
fn a_triple_fault_is_told_from_a_reset() {
    let vm = boot(config(roost_guests::TRIPLE_FAULT));
    assert_eq!(exit(&vm), GuestExit::TripleFault);
    assert_eq!(
        vm.resume(),
        Err(ControlError::Exited(GuestExit::TripleFault))
    );
    vm.stop();
    assert_eq!(
        vm.exit(),
        Some(GuestExit::TripleFault),
        "the first end counts"
    );
}

#[test]
fn input_reaches_the_guest_and_comes_back() {
    let vm = boot(config(roost_guests::ECHO));
    output(&vm, "ready\n");
    let text = "a line that is longer than the sixty-four bytes of the UART's own queue of input\n";
    assert_eq!(vm.serial().write_input(text.as_bytes()), text.len());
    output(&vm, text);
    assert_eq!(vm.counters().serial_rx_bytes, text.len() as u64);
}

#[test]
fn cpu_time_and_exits_are_counted_and_final_after_stop() {
    let vm = boot(VmConfig {
        cmdline: "ticks=1".into(),
        ..config(roost_guests::HELLO)
    });
    exit(&vm);
    vm.stop();
    let counters = vm.counters();
    assert!(counters.vcpu_cpu_ns > 0, "{counters:?}");
    assert!(counters.running_ns > 0, "{counters:?}");
    assert_eq!(counters.serial_tx_bytes, vm.serial().end());
    assert!(
        counters.exits.io_out > counters.serial_tx_bytes,
        "each byte is an exit: {counters:?}"
    );
    assert_eq!(vm.counters(), counters);
}

#[test]
fn a_storm_of_output_is_bounded_and_its_position_is_right() {
    let vm = boot(config(roost_guests::STORM));
    output_past(&vm, OUTPUT_RING_BYTES as u64 + 4096);
    vm.pause().unwrap();
    let chunk = vm.serial().read(0, usize::MAX);
    assert_eq!(chunk.bytes.len(), OUTPUT_RING_BYTES);
    assert_eq!(chunk.offset + chunk.bytes.len() as u64, vm.serial().end());
    // The guest repeats 64 bytes, so each byte's position tells what it is.
    let line = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n";
    for (position, byte) in (chunk.offset..).zip(&chunk.bytes) {
        assert_eq!(*byte, line[(position % 64) as usize]);
    }
}

#[test]
fn a_vm_with_several_vcpus_starts_on_the_first_and_stops_as_one() {
    let vm = boot(VmConfig {
        vcpus: 4,
        ..config(roost_guests::BURN)
    });
    output(&vm, "burning\n");
    vm.pause().unwrap();
    vm.resume().unwrap();
    vm.stop();
    assert_eq!(vm.exit(), Some(GuestExit::Stopped));
}

#[test]
fn a_built_vm_has_not_run() {
    let vm = Vm::build(machine::kvm(), config(roost_guests::STORM)).unwrap();
    assert!(vm.is_paused());
    // Its threads exist, which took CPU time; nothing else has happened.
    let counters = Counters {
        vcpu_cpu_ns: 0,
        ..vm.counters()
    };
    assert_eq!(counters, Counters::default());
}

#[test]
fn a_burning_guest_costs_cpu_time_that_is_counted_while_it_runs() {
    let vm = boot(config(roost_guests::BURN));
    output(&vm, "burning\n");
    let before = vm.counters();
    until("CPU time grows", || {
        vm.counters().vcpu_cpu_ns > before.vcpu_cpu_ns + 1_000_000
    });
    vm.stop();
    let end = vm.counters();
    assert!(end.vcpu_cpu_ns > before.vcpu_cpu_ns + 1_000_000);
    assert_eq!(vm.counters(), end, "it is kept when the threads are gone");
}

#[test]
fn a_vm_is_paused_from_a_thread_that_blocks_the_signal() {
    // vCPU threads inherit the mask of the thread that builds the VM.
    let signal = vmm_sys_util::signal::SIGRTMIN();
    vmm_sys_util::signal::block_signal(signal).unwrap();
    let vm = boot(config(roost_guests::BURN));
    output(&vm, "burning\n");
    vm.pause().unwrap();
    assert!(vm.is_paused());
}

#[test]
fn dropping_a_running_vm_ends_its_threads() {
    let vm = boot(config(roost_guests::BURN));
    output(&vm, "burning\n");
    let ended = vm.exit_fd().try_clone_to_owned().unwrap();
    drop(vm);
    assert!(machine::is_readable(&ended));
}

#[test]
fn a_guest_in_shared_memory_runs_the_same() {
    let vm = boot(VmConfig {
        memory_bytes: 5 << 30,
        machine: MachineOptions {
            memory_backing: MemoryBacking::Memfd,
            ..MachineOptions::default()
        },
        ..config(roost_guests::HELLO)
    });
    assert!(output(&vm, "tick 1").contains("memory: 5120 MiB\n"));
}

#[test]
fn a_cpu_template_is_shown_or_refused_with_what_the_host_lacks() {
    let machine = MachineOptions {
        cpu_template: CpuTemplate::X8664V2,
        ..MachineOptions::default()
    };
    let config = VmConfig {
        machine,
        ..config(roost_guests::HELLO)
    };
    match Vm::build(machine::kvm(), config) {
        Ok(vm) => {
            vm.resume().unwrap();
            output(&vm, "tick 1");
        }
        Err(BuildError::CpuTemplate(error)) => assert!(!error.missing.is_empty()),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn buttons_and_keys_of_a_vm_that_has_ended_are_refused() {
    let vm = boot(config(roost_guests::BURN));
    output(&vm, "burning\n");
    // This guest listens to neither; it goes on.
    vm.press_power_button().unwrap();
    vm.ctrl_alt_delete().unwrap();
    vm.set_generation_id([7; 16]).unwrap();
    assert_eq!(vm.exit(), None);
    vm.stop();
    let ended = Err(ControlError::Exited(GuestExit::Stopped));
    assert_eq!(vm.press_power_button(), ended);
    assert_eq!(vm.ctrl_alt_delete(), ended);
    assert_eq!(vm.set_generation_id([8; 16]), ended);
}

#[test]
fn the_pages_that_a_guest_writes_are_logged_each_time_anew_if_that_is_asked_for() {
    let machine = MachineOptions {
        log_dirty_pages: true,
        ..MachineOptions::default()
    };
    let vm = boot(VmConfig {
        machine,
        ..config(roost_guests::HELLO)
    });
    output(&vm, "tick 1\n");
    vm.pause().unwrap();
    let first = vm.take_dirty_pages().unwrap();
    assert!(first.is_sorted(), "{first:x?}");
    assert!((1..64).contains(&first.len()), "{first:x?}");
    let is_page = |page: &u64| page.is_multiple_of(4096) && *page < 128 << 20;
    assert!(first.iter().all(is_page), "{first:x?}");
    // A guest that stands still writes nothing, and one that goes on uses its stack.
    assert!(vm.take_dirty_pages().unwrap().is_empty());
    let end = vm.serial().end();
    vm.resume().unwrap();
    output_past(&vm, end + 8);
    vm.pause().unwrap();
    let next = vm.take_dirty_pages().unwrap();
    assert!(
        !next.is_empty() && next.iter().all(|page| first.contains(page)),
        "{next:x?}"
    );

    let vm = boot(config(roost_guests::HELLO));
    assert!(vm.take_dirty_pages().is_err());
}
