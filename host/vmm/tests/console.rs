//! A guest's virtio console on the real `/dev/kvm`.

#[allow(dead_code)]
mod machine;

use machine::{boot, config, exit, is_readable, until};
use roost_model::GuestExit;
use roost_vmm::{ConsoleConfig, ConsolePort, ConsoleSize, DeviceConfig, VmConfig};

fn with_console(kernel: &[u8], console: ConsoleConfig) -> VmConfig {
    VmConfig {
        devices: DeviceConfig {
            console: Some(console),
            ..DeviceConfig::default()
        },
        ..config(kernel)
    }
}

fn until_said(port: &ConsolePort, text: &str) {
    let said = || String::from_utf8_lossy(&port.read(0, usize::MAX).bytes).into_owned();
    until(text, || said().ends_with(text));
}

#[test]
fn what_is_typed_reaches_the_guest_and_what_it_says_the_host_with_the_terminals_size() {
    let console = ConsoleConfig::default();
    let vm = boot(with_console(roost_guests::VIRTIO_CONSOLE, console));
    let port = vm.console(0).unwrap();
    until_said(port, "who is there?\n");
    assert!(port.is_open());
    until("who waits for output is told", || {
        is_readable(&port.output_fd())
    });

    assert_eq!(port.write_input(b"me"), 2);
    until_said(port, "me at 80x24\n");
    let size = ConsoleSize {
        columns: 132,
        rows: 50,
    };
    port.resize(size).unwrap();
    vm.pause().unwrap();
    assert_eq!(port.write_input(b"still me"), 8);
    assert_eq!(port.received(), 2, "nobody works");
    vm.resume().unwrap();
    until_said(port, "still me at 132x50\n");
    port.write_input(b"q");
    assert_eq!(exit(&vm), GuestExit::Reset);
    vm.stop();
    assert_eq!(port.received(), 11);
    let said = "who is there?\nme at 80x24\nstill me at 132x50\nq at 132x50\n";
    assert_eq!(port.read(0, usize::MAX).bytes, said.as_bytes());
    assert_eq!(vm.device_counters()[0].broken, None);
}

#[test]
fn a_vm_has_the_ports_that_were_configured_and_who_waits_is_told_of_its_end() {
    let console = ConsoleConfig {
        ports: vec!["org.example.agent".to_owned()],
        ..ConsoleConfig::default()
    };
    let vm = boot(with_console(roost_guests::BURN, console));
    let port = vm.console(1).unwrap();
    assert_eq!(port.name(), Some("org.example.agent"));
    assert!(vm.console(2).is_none());
    assert!(!is_readable(&port.output_fd()));
    vm.stop();
    assert!(is_readable(&port.output_fd()));
    let without = boot(config(roost_guests::RESET));
    assert!(without.console(0).is_none());
}
