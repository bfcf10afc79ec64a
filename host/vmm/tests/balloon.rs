//! A guest's balloon on the real `/dev/kvm`: memory that it gives leaves the host.

#[allow(dead_code)]
mod machine;

use std::fs;

use machine::{boot, config, exit, output, until};
use roost_model::{GuestExit, MemoryBacking};
use roost_vmm::{BalloonConfig, BalloonError, DeviceConfig, Vm, VmConfig};

/// What the guest uses and gives.
const GIVEN_BYTES: u64 = 8 << 20;

fn with_balloon(memory_bytes: u64) -> VmConfig {
    let mut config = VmConfig {
        memory_bytes,
        devices: DeviceConfig {
            balloon: Some(BalloonConfig::default()),
            ..DeviceConfig::default()
        },
        ..config(roost_guests::VIRTIO_BALLOON)
    };
    // So that its memory is a mapping of its own in this process.
    config.machine.memory_backing = MemoryBacking::Memfd;
    config
}

/// Memory of this process in the one mapping of `bytes` bytes, KiB.
fn resident_kib(bytes: u64) -> u64 {
    let maps = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = maps.lines().skip_while(|line| {
        let range = line
            .split(' ')
            .next()
            .and_then(|range| range.split_once('-'));
        let number = |text| u64::from_str_radix(text, 16).ok();
        let range = range.and_then(|(start, end)| Some((number(start)?, number(end)?)));
        range.is_none_or(|(start, end)| end - start != bytes)
    });
    let rss = lines.find_map(|line| line.strip_prefix("Rss:")).unwrap();
    rss.trim().trim_end_matches(" kB").parse().unwrap()
}

fn counter(vm: &Vm, name: &str) -> u64 {
    let counters = &vm.device_counters()[0].counters;
    counters.iter().find(|c| c.name == name).unwrap().value
}

#[test]
fn memory_that_a_guest_gives_leaves_the_host_and_comes_back_empty() {
    // A size that no other mapping has.
    let memory_bytes = (72 << 20) + 4096;
    let vm = boot(with_balloon(memory_bytes));
    output(&vm, "used\n");
    let used = resident_kib(memory_bytes);
    assert!(used * 1024 > GIVEN_BYTES, "{used} KiB");

    vm.set_balloon(8).unwrap();
    output(&vm, "given\n");
    assert_eq!(counter(&vm, "inflated_pages"), GIVEN_BYTES / 4096);
    assert_eq!(counter(&vm, "discarded_bytes"), GIVEN_BYTES);
    let given = used - resident_kib(memory_bytes);
    // The guest has begun to use a page or two elsewhere.
    assert!(
        (GIVEN_BYTES - 0x1_0000..=GIVEN_BYTES).contains(&(given * 1024)),
        "{given} KiB"
    );
    until("the guest said so", || {
        vm.balloon_statistics().unwrap().actual_bytes == GIVEN_BYTES
    });
    let statistics = vm.balloon_statistics().unwrap();
    assert_eq!(statistics.target_bytes, GIVEN_BYTES);
    assert_eq!(statistics.guest, None, "it sends no statistics");

    vm.set_balloon(0).unwrap();
    let output = output(&vm, "balloon ok\n");
    assert!(
        output.contains("2048 pages empty, 0 as they were\n"),
        "{output}"
    );
    assert_eq!(exit(&vm), GuestExit::Reset);
    assert!(resident_kib(memory_bytes) >= used, "it uses them again");
}

#[test]
fn a_guest_is_not_asked_for_more_memory_than_it_has_or_without_a_balloon() {
    let vm = Vm::build(machine::kvm(), with_balloon(80 << 20)).unwrap();
    let refused = vm.set_balloon(81).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "81 MiB can't be taken from a guest of 80"
    );
    vm.set_balloon(80).unwrap();
    assert_eq!(vm.balloon_statistics().unwrap().target_bytes, 80 << 20);

    let vm = Vm::build(machine::kvm(), config(roost_guests::HELLO)).unwrap();
    let refused = vm.set_balloon(1).unwrap_err();
    assert!(matches!(refused, BalloonError::None(_)), "{refused}");
    assert!(vm.balloon_statistics().is_err());
    assert!(vm.set_balloon_statistics_interval(None).is_err());
}
