//! What guests do to virtio devices on the real `/dev/kvm`.

#[allow(dead_code)]
mod machine;

use std::fs::File;
use std::os::unix::net::{UnixDatagram, UnixListener};

use machine::{boot, config, exit, file, output};
use roost_model::GuestExit;
use roost_vmm::{
    BalloonConfig, ConsoleConfig, DeviceConfig, DeviceCounters, DiskConfig, DiskFormat, IoEngine,
    NetConfig, RateLimits, VmConfig, VsockConfig, VsockLimits,
};

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
fn the_worst_that_a_guest_does_to_any_device_hurts_neither_the_vm_nor_another_device() {
    let folder = tempfile::tempdir().unwrap();
    let (tap, _network) = UnixDatagram::pair().unwrap();
    let disk = file(&[0; 1 << 16]);
    // No device is left out: they are named one by one.
    let devices = DeviceConfig {
        rng: true,
        net: vec![NetConfig::new(
            File::from(std::os::fd::OwnedFd::from(tap)),
            [2, 0, 0, 0, 0, 7],
        )],
        disks: vec![DiskConfig {
            id: "disk".to_owned(),
            file: disk,
            format: DiskFormat::Raw,
            base: None,
            read_only: false,
            engine: IoEngine::Auto,
            limits: RateLimits::default(),
        }],
        vsock: Some(VsockConfig {
            guest_cid: 3,
            listener: UnixListener::bind(folder.path().join("v")).unwrap(),
            directory: File::open(folder.path()).unwrap().into(),
            prefix: "v".to_owned(),
            limits: VsockLimits::default(),
        }),
        balloon: Some(BalloonConfig {
            free_page_reporting: true,
            ..BalloonConfig::default()
        }),
        console: Some(ConsoleConfig {
            ports: vec!["agent".to_owned()],
            ..ConsoleConfig::default()
        }),
    };
    let vm = boot(VmConfig {
        devices,
        ..config(roost_guests::HOSTILE_DEVICES)
    });
    let output = output(&vm, "survived\n");
    assert!(!output.contains("wrong: "), "{output}");
    assert!(output.contains("devices: 6\n"), "{output}");
    assert!(!output.contains(" broke 0 times"), "{output}");
    assert_eq!(exit(&vm), GuestExit::Reset);
    vm.stop();
    for device in vm.device_counters() {
        // Four rings outside of memory, eight chains and rings.
        assert!(counter(&device, "broke") >= 12, "{device:?}");
    }
    assert_eq!(vm.device_counters()[0].broken, None, "its driver reset it");
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
