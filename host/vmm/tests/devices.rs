//! What guests do to virtio devices on the real `/dev/kvm`.

#[allow(dead_code)]
mod machine;

use machine::{boot, config, exit, output};
use roost_model::GuestExit;
use roost_vmm::{DeviceConfig, DeviceCounters, VmConfig};

fn with_rng(kernel: &[u8]) -> VmConfig {
    VmConfig {
        devices: DeviceConfig {
            rng: true,
            ..DeviceConfig::default()
        },
        ..config(kernel)
    }
}

fn counter(device: &DeviceCounters, name: &str) -> u64 {
    let counters = &device.counters;
    counters.iter().find(|c| c.name == name).unwrap().value
}

#[test]
fn a_guest_gets_random_bytes_and_gets_them_again_after_it_reset_the_device() {
    let vm = boot(with_rng(roost_guests::VIRTIO_RNG));
    let output = output(&vm, "rng ok\n");
    assert_eq!(output.matches("got 32 bytes: ").count(), 3, "{output}");
    for complaint in ["no rng", "no interrupt", "not random"] {
        assert!(!output.contains(complaint), "{output}");
    }
    assert_eq!(exit(&vm), GuestExit::Reset);
    vm.stop();
    let [rng] = &vm.device_counters()[..] else {
        panic!("one device: {:?}", vm.device_counters());
    };
    assert_eq!((&*rng.device, &rng.broken), ("rng0", &None));
    assert_eq!(counter(rng, "entropy_bytes"), 96);
    assert_eq!(counter(rng, "interrupts"), 3);
    assert_eq!(counter(rng, "refused_accesses"), 0);
}

#[test]
fn the_worst_that_a_guest_does_to_a_device_hurts_neither_the_vm_nor_the_device() {
    let vm = boot(with_rng(roost_guests::HOSTILE));
    let output = output(&vm, "survived\n");
    assert!(!output.contains("wrong: "), "{output}");
    assert_eq!(exit(&vm), GuestExit::Reset);
    vm.stop();
    let rng = &vm.device_counters()[0];
    assert_eq!(rng.broken, None, "its driver reset it");
    // 12 places outside of memory, one odd one, 8 chains and rings.
    assert!(counter(rng, "broke") >= 21, "{rng:?}");
    assert!(counter(rng, "refused_accesses") > 1000, "{rng:?}");
}

#[test]
fn a_vm_with_devices_pauses_goes_on_and_stops_however_often() {
    let vm = boot(with_rng(roost_guests::HOSTILE));
    output(&vm, "nothing touched\n");
    for _ in 0..50 {
        vm.pause().unwrap();
        let counters = vm.device_counters();
        std::thread::yield_now();
        assert_eq!(vm.device_counters(), counters, "nobody works");
        vm.resume().unwrap();
    }
    output(&vm, "survived\n");
    vm.stop();
    vm.stop();
}

#[test]
fn a_vm_without_devices_reads_all_ones_where_they_would_be() {
    let vm = boot(config(roost_guests::VIRTIO_RNG));
    output(&vm, "no rng\n");
    assert_eq!(vm.device_counters(), []);
}
