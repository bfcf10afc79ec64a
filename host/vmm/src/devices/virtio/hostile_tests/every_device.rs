//! What must hold of every device, whatever its driver does. A device that is added is added to
//! [`for_every_device`].

use std::collections::BTreeSet;
use std::path::Path;

use arbitrary::{Arbitrary as _, Unstructured};
use virtio_bindings::virtio_mmio::*;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes as _, GuestAddress};

use super::{BUFFER, INDIRECT_DESC, TABLE, descriptor};
use crate::devices::mmio::MmioDevice as _;
use crate::devices::virtio::balloon::BalloonBench;
use crate::devices::virtio::block::BlockBench;
use crate::devices::virtio::console::ConsoleBench;
use crate::devices::virtio::fuzz::Subject;
use crate::devices::virtio::net::NetBench;
use crate::devices::virtio::rng::RngBench;
use crate::devices::virtio::test_driver::{
    DRIVER_OK, Driver, FEATURES_OK, INDIRECT, NEEDS_RESET, NEXT, OUTSIDE, WRITE,
};
use crate::devices::virtio::vsock::VsockBench;

/// Calls `$check::<Bench>(name)` for every device.
macro_rules! for_every_device {
    ($check:ident) => {
        $check::<BalloonBench>("balloon");
        $check::<BlockBench>("block");
        $check::<ConsoleBench>("console");
        $check::<NetBench>("net");
        $check::<RngBench>("rng");
        $check::<VsockBench>("vsock");
    };
}

/// A device with everything that it can have, and its driver.
fn bench<S: Subject>() -> (S, Driver) {
    let config = S::Config::arbitrary(&mut Unstructured::new(&[0xff; 64])).unwrap();
    let mut bench = S::new(&config);
    let driver = Driver::new(bench.device());
    (bench, driver)
}

/// Negotiates without any feature and uses the device.
fn assert_works<S: Subject>(bench: &mut S, driver: &mut Driver) {
    driver.negotiate(0);
    bench.works(driver);
}

fn queues(driver: &Driver) -> u16 {
    let is_there = |queue: &u32| driver.queue_size(*queue) > 0;
    (0..).take_while(is_there).count() as u16
}

#[test]
fn no_device_is_left_out() {
    fn name<S: Subject>(name: &'static str) {
        let (_, driver) = bench::<S>();
        assert_eq!(driver.counters().device, format!("{name}0"));
        NAMES.with_borrow_mut(|names| names.insert(name));
    }
    thread_local! {
        static NAMES: std::cell::RefCell<BTreeSet<&'static str>> = const {
            std::cell::RefCell::new(BTreeSet::new())
        };
    }
    for_every_device!(name);
    let virtio = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/devices/virtio");
    let folders = std::fs::read_dir(virtio).unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        let is_device = path.join("device.rs").exists();
        is_device.then(|| path.file_name().unwrap().to_str().unwrap().to_owned())
    });
    let folders: BTreeSet<_> = folders.collect();
    let names = NAMES.take().into_iter().map(str::to_owned).collect();
    assert_eq!(folders, names);
}

/// Chains that no device may take, by what is wrong with them: descriptors, a table at [`TABLE`],
/// and what was negotiated.
fn bad_chains() -> Vec<(&'static str, Vec<Descriptor>, Vec<Descriptor>, u64)> {
    let plain = |chain: Vec<_>| (chain, Vec::new(), 0);
    let list = [
        (
            "a loop",
            plain(vec![
                descriptor(BUFFER, 8, NEXT, 1),
                descriptor(BUFFER, 8, NEXT, 0),
            ]),
        ),
        (
            "itself",
            plain(vec![descriptor(BUFFER, 8, WRITE | NEXT, 0)]),
        ),
        (
            "past the table",
            plain(vec![descriptor(BUFFER, 8, NEXT, u16::MAX)]),
        ),
        (
            "outside of memory",
            plain(vec![descriptor(OUTSIDE, 8, 0, 0)]),
        ),
        (
            "in part outside",
            plain(vec![descriptor(OUTSIDE - 4, 8, WRITE, 0)]),
        ),
        (
            "around the end of addresses",
            plain(vec![descriptor(u64::MAX - 3, 8, 0, 0)]),
        ),
        (
            "more bytes than there are",
            plain(vec![
                descriptor(0, u32::MAX, WRITE | NEXT, 1),
                descriptor(0, u32::MAX, WRITE, 0),
            ]),
        ),
        (
            "readable behind writable",
            plain(vec![
                descriptor(BUFFER, 8, WRITE | NEXT, 1),
                descriptor(BUFFER, 8, 0, 0),
            ]),
        ),
        (
            "a table that was not negotiated",
            (
                vec![descriptor(TABLE, 16, INDIRECT, 0)],
                vec![descriptor(BUFFER, 8, 0, 0)],
                0,
            ),
        ),
        (
            "a table in a table",
            (
                vec![descriptor(TABLE, 16, INDIRECT, 0)],
                vec![descriptor(TABLE, 16, INDIRECT, 0)],
                INDIRECT_DESC,
            ),
        ),
        (
            "a table of no descriptors",
            (
                vec![descriptor(TABLE, 0, INDIRECT, 0)],
                Vec::new(),
                INDIRECT_DESC,
            ),
        ),
        (
            "a table that is a loop",
            (
                vec![descriptor(TABLE, 32, INDIRECT, 0)],
                vec![
                    descriptor(BUFFER, 1, NEXT, 1),
                    descriptor(BUFFER, 1, NEXT, 0),
                ],
                INDIRECT_DESC,
            ),
        ),
    ];
    list.map(|(name, (chain, table, features))| (name, chain, table, features))
        .into()
}

#[test]
fn a_chain_that_makes_no_sense_breaks_the_device_until_it_is_reset() {
    fn check<S: Subject>(device: &str) {
        for (what, chain, table, features) in bad_chains() {
            let (mut bench, mut driver) = bench::<S>();
            let mut broken = 0;
            for queue in 0..queues(&driver) {
                driver.negotiate(driver.offered() & !INDIRECT_DESC | features);
                for (n, entry) in (0..).zip(&table) {
                    let at = GuestAddress(TABLE + 16 * n);
                    driver.memory.write_obj(*entry, at).unwrap();
                }
                let (memory, ring) = driver.ring(queue);
                for (n, entry) in (0..).zip(&chain) {
                    ring.set_descriptor(memory, n, *entry);
                }
                ring.make_available(memory, 0);
                driver.notify(queue);
                driver.run();
                if driver.is_broken() {
                    broken += 1;
                    assert!(driver.counters().broken.is_some(), "{device}: {what}");
                    assert_eq!(driver.used(queue), [], "{device}: {what}");
                }
            }
            // A queue that the device has nothing for is not looked at.
            assert!(broken > 0, "{device} takes {what}");
            assert_works(&mut bench, &mut driver);
        }
    }
    for_every_device!(check);
}

#[test]
fn rings_that_make_no_sense_break_the_device_until_it_is_reset() {
    fn check<S: Subject>(device: &str) {
        let (mut bench, mut driver) = bench::<S>();
        let attacks = [
            ("an index far ahead", true),
            ("a head past the table", false),
        ];
        for (what, runs_ahead) in attacks {
            let mut broken = 0;
            for queue in 0..queues(&driver) {
                driver.negotiate(driver.offered());
                let (memory, ring) = driver.ring(queue);
                match runs_ahead {
                    true => ring.set_available_index(memory, 30_000),
                    false => ring.make_available(memory, u16::MAX),
                }
                driver.notify(queue);
                driver.run();
                broken += u32::from(driver.is_broken());
            }
            assert!(broken > 0, "{device} takes {what}");
            assert_works(&mut bench, &mut driver);
        }
        for queue in 0..queues(&driver) {
            for register in [
                VIRTIO_MMIO_QUEUE_DESC_LOW,
                VIRTIO_MMIO_QUEUE_AVAIL_LOW,
                VIRTIO_MMIO_QUEUE_USED_LOW,
            ] {
                for address in [OUTSIDE, BUFFER + 1, u64::MAX - 15] {
                    driver.begin(0);
                    driver.write(VIRTIO_MMIO_QUEUE_SEL, queue.into());
                    driver.write(VIRTIO_MMIO_QUEUE_NUM, 16);
                    driver.write(VIRTIO_MMIO_QUEUE_AVAIL_LOW, BUFFER as u32);
                    driver.write(register, address as u32);
                    driver.write(register + 4, (address >> 32) as u32);
                    driver.write(VIRTIO_MMIO_QUEUE_READY, 1);
                    assert!(driver.is_broken(), "{device}: {register:#x} {address:#x}");
                }
            }
        }
        assert_works(&mut bench, &mut driver);
    }
    for_every_device!(check);
}

#[test]
fn geometry_is_refused_where_it_is_none_and_does_not_change_under_a_device() {
    fn check<S: Subject>(device: &str) {
        let (mut bench, mut driver) = bench::<S>();
        let count = queues(&driver);
        driver.begin(0);
        for queue in 0..count {
            let most = u32::from(driver.queue_size(queue.into()));
            for size in [0, 3, 0x1_0000, 2 * most, u32::MAX] {
                driver.write(VIRTIO_MMIO_QUEUE_NUM, size);
                driver.write(VIRTIO_MMIO_QUEUE_READY, 1);
                let ready = driver.read(VIRTIO_MMIO_QUEUE_READY);
                assert_eq!(ready, 0, "{device}: queue {queue} of {size}");
            }
        }
        for select in [count.into(), 0xffff, 0x1_0000, u32::MAX] {
            assert_eq!(driver.queue_size(select), 0);
            driver.write(VIRTIO_MMIO_QUEUE_NUM, 8);
            driver.write(VIRTIO_MMIO_QUEUE_READY, 1);
            driver.write(VIRTIO_MMIO_QUEUE_NOTIFY, select);
            assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_READY), 0);
        }
        driver.negotiate(0);
        let refused = driver.counter("refused_accesses");
        let mut attacks = 0;
        for queue in 0..count {
            driver.write(VIRTIO_MMIO_QUEUE_SEL, queue.into());
            for register in [
                VIRTIO_MMIO_QUEUE_NUM,
                VIRTIO_MMIO_QUEUE_READY,
                VIRTIO_MMIO_QUEUE_DESC_LOW,
                VIRTIO_MMIO_QUEUE_AVAIL_HIGH,
                VIRTIO_MMIO_QUEUE_USED_LOW,
                VIRTIO_MMIO_DRIVER_FEATURES,
            ] {
                driver.write(register, 4);
                attacks += 1;
            }
            assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_READY), 1, "{device}");
        }
        assert_eq!(driver.counter("refused_accesses"), refused + attacks);
        bench.works(&mut driver);
    }
    for_every_device!(check);
}

#[test]
fn accesses_of_another_width_and_storms_of_notifications_do_nothing() {
    fn check<S: Subject>(device: &str) {
        let (mut bench, mut driver) = bench::<S>();
        driver.negotiate(0);
        let status = driver.status();
        for offset in 0..u64::from(VIRTIO_MMIO_CONFIG) {
            for width in [1, 2, 4, 8] {
                if width == 4 && offset % 4 == 0 {
                    continue;
                }
                let mut data = vec![0; width];
                driver.device.read(offset, &mut data);
                assert_eq!(data, vec![0xff; width], "{device}: {offset:#x}");
                driver.device.write(offset, &vec![0; width]);
            }
        }
        // The configuration space can be read and written in any width.
        for offset in 0..0x40 {
            for width in [1, 2, 4, 8] {
                assert_eq!(driver.config(offset, width).len(), width);
            }
        }
        assert_eq!(driver.status(), status);
        let turns = driver.counter("notifications");
        let count = queues(&driver);
        for n in 0..100_000_u32 {
            driver.notify((n % u32::from(count)) as u16);
        }
        driver.run();
        assert!(
            driver.counter("notifications") <= turns + u64::from(count),
            "{device}"
        );
        bench.works(&mut driver);
    }
    for_every_device!(check);
}

#[test]
fn what_is_saved_is_what_is_saved_after_it_was_restored_in_every_state() {
    fn check<S: Subject>(device: &str) {
        let (mut bench, mut driver) = bench::<S>();
        // Each migration compares, see `Driver::migrate_to`.
        driver = driver.migrate_to(|| bench.device());
        assert_eq!(driver.status(), 0, "{device}");
        driver.begin(driver.offered());
        driver = driver.migrate_to(|| bench.device());
        assert_ne!(driver.status() & FEATURES_OK, 0, "{device}");
        driver.enable_queue(4);
        driver = driver.migrate_to(|| bench.device());
        driver.driver_ok();
        driver.run();
        driver = driver.migrate_to(|| bench.device());
        assert_ne!(driver.status() & DRIVER_OK, 0, "{device}");
        driver.negotiate(0);
        driver = driver.migrate_to(|| bench.device());
        bench.works(&mut driver);
        driver = driver.migrate_to(|| bench.device());
        driver.begin(0);
        driver.write(VIRTIO_MMIO_QUEUE_SEL, 0);
        driver.write(VIRTIO_MMIO_QUEUE_NUM, 4);
        driver.write(VIRTIO_MMIO_QUEUE_USED_LOW, 1);
        driver.write(VIRTIO_MMIO_QUEUE_READY, 1);
        driver = driver.migrate_to(|| bench.device());
        assert_ne!(driver.status() & NEEDS_RESET, 0, "{device}: still broken");
        assert_works(&mut bench, &mut driver);
    }
    for_every_device!(check);
}
