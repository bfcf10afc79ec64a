//! Every target runs what is kept of its findings and some inputs that are the same each time, and
//! none is forgotten.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::TARGETS;

/// Inputs of a target beside those that are kept.
const INPUTS: u64 = 300;
/// Most bytes of one.
const INPUT_BYTES: u64 = 2048;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// Names in a folder, without their endings.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    entries.map(|entry| stem(entry.unwrap().path())).collect()
}

/// A generator of numbers that is the same each time (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, count: u64) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

fn smoke(name: &str) {
    let (_, run) = TARGETS.iter().find(|target| target.0 == name).unwrap();
    let corpus = folder().join("corpus").join(name);
    let mut kept = 0;
    for entry in fs::read_dir(&corpus).unwrap() {
        run(&fs::read(entry.unwrap().path()).unwrap());
        kept += 1;
    }
    assert!(kept > 0, "no input of {name} is kept");
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    for _ in 0..INPUTS {
        let bytes = numbers.next() % INPUT_BYTES;
        run(&numbers.bytes(bytes));
    }
}

macro_rules! smoke {
    ($($name:ident),*) => {
        $(
            #[test]
            fn $name() {
                smoke(stringify!($name));
            }
        )*

        #[test]
        fn every_target_is_run() {
            let run = BTreeSet::from([$(stringify!($name)),*]);
            assert_eq!(run, TARGETS.iter().map(|target| target.0).collect());
        }
    };
}

smoke!(
    balloon, block, console, kernel, net, ports, rng, transport, vsock
);

/// A device is a folder with a `device.rs`.
#[test]
fn every_device_has_a_target() {
    let virtio = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/devices/virtio");
    let devices = fs::read_dir(virtio).unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        path.join("device.rs").exists().then_some(path)
    });
    let devices: Vec<_> = devices.collect();
    assert!(devices.len() >= 6, "{devices:?}");
    for device in devices {
        let name = device.file_name().unwrap().to_str().unwrap();
        assert!(
            TARGETS.iter().any(|target| target.0 == name),
            "{name} has no fuzz target"
        );
    }
}

/// Those of the control protocol are of `roost-worker`, and its tests run them.
#[test]
fn every_target_is_a_program_that_fuzzes() {
    let mut targets: BTreeSet<_> = TARGETS.iter().map(|target| target.0.to_owned()).collect();
    targets.extend(["from_host", "from_worker"].map(str::to_owned));
    assert_eq!(names(&folder().join("fuzz_targets")), targets);
    let manifest = fs::read_to_string(folder().join("Cargo.toml")).unwrap();
    let bins = manifest
        .lines()
        .filter_map(|line| line.strip_prefix("name = \""));
    let bins = bins.map(|line| line.trim_end_matches('"').to_owned());
    let mut bins: BTreeSet<_> = bins.collect();
    assert!(bins.remove("roost-fuzz"), "the package");
    assert_eq!(bins, targets);
}

#[test]
fn what_is_kept_is_of_targets_that_there_are_and_small() {
    let corpus = folder().join("corpus");
    assert_eq!(names(&corpus), names(&folder().join("fuzz_targets")));
    let mut bytes = 0;
    for target in fs::read_dir(corpus).unwrap() {
        for entry in fs::read_dir(target.unwrap().path()).unwrap() {
            bytes += entry.unwrap().metadata().unwrap().len();
        }
    }
    assert!(bytes < 1 << 20, "{bytes} bytes are kept");
}
