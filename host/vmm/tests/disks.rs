//! Guests that use disks on the real `/dev/kvm`.

#[allow(dead_code)]
mod machine;

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use machine::{boot, config, exit, kvm, output};
use roost_model::GuestExit;
use roost_vmm::{
    BaseImage, BaseName, BuildError, DeviceConfig, DeviceConfigError, DiskConfig, DiskError,
    DiskFormat, IoEngine, RateLimits, Vm, VmConfig, create_qcow2,
};

/// Bytes of the shared image.
const BYTES: u64 = 1 << 20;

fn open(path: &Path, write: bool) -> File {
    let mut options = File::options();
    options.read(true).write(write).open(path).unwrap()
}

/// A shared image, which says so.
fn image(folder: &Path) {
    let file = File::create_new(folder.join("image")).unwrap();
    file.set_len(BYTES).unwrap();
    file.write_all_at(b"a shared image", 0).unwrap();
}

/// A VM's own disk over the shared image, made where it is not there yet.
fn over_image(folder: &Path, id: &str) -> DiskConfig {
    let image = folder.join("image");
    let path = folder.join(id);
    if !path.exists() {
        let mut options = File::options();
        let file = options.read(true).write(true).create_new(true).open(&path);
        let base = BaseName {
            path: image.to_str().unwrap(),
            format: DiskFormat::Raw,
        };
        create_qcow2(file.unwrap(), BYTES, Some(base)).unwrap();
    }
    DiskConfig {
        id: id.to_owned(),
        file: open(&path, true),
        format: DiskFormat::Qcow2,
        base: Some(BaseImage {
            file: open(&image, false),
            format: DiskFormat::Raw,
        }),
        read_only: false,
        engine: IoEngine::Auto,
        limits: RateLimits::default(),
    }
}

fn with_disks(disks: Vec<DiskConfig>) -> VmConfig {
    VmConfig {
        devices: DeviceConfig {
            disks,
            ..DeviceConfig::default()
        },
        ..config(roost_guests::VIRTIO_BLK)
    }
}

/// What the guest says until it resets.
fn run(disk: DiskConfig) -> String {
    let vm = boot(with_disks(vec![disk]));
    let output = output(&vm, "disk ok\n");
    assert!(!output.contains("wrong: "), "{output}");
    assert_eq!(exit(&vm), GuestExit::Reset);
    vm.stop();
    let [disk] = &vm.device_counters()[..] else {
        panic!("one device: {:?}", vm.device_counters());
    };
    assert_eq!((&*disk.device, &disk.broken), ("block0", &None));
    let counter = |name| disk.counters.iter().find(|c| c.name == name).unwrap().value;
    assert_eq!(
        (counter("reads"), counter("writes"), counter("flushes")),
        (2, 1, 1)
    );
    assert_eq!(counter("errors"), 4);
    output
}

#[test]
fn what_a_guest_wrote_is_there_at_its_next_boot_and_no_other_vm_over_the_same_image_sees_it() {
    let folder = tempfile::tempdir().unwrap();
    image(folder.path());
    let before = std::fs::read(folder.path().join("image")).unwrap();
    for (id, boots) in [("first", 0), ("first", 1), ("second", 0), ("first", 2)] {
        let output = run(over_image(folder.path(), id));
        let expected = format!("disk {id} has a shared image\nboot {boots}\n");
        assert!(output.contains(&expected), "{output}");
    }
    let after = std::fs::read(folder.path().join("image")).unwrap();
    assert!(before == after);
}

#[test]
fn a_raw_disk_is_used_by_io_uring_and_by_a_thread_alike() {
    let folder = tempfile::tempdir().unwrap();
    image(folder.path());
    for (engine, boots) in [(IoEngine::IoUring, 0), (IoEngine::Thread, 1)] {
        let output = run(DiskConfig {
            id: "raw".to_owned(),
            file: open(&folder.path().join("image"), true),
            format: DiskFormat::Raw,
            base: None,
            read_only: false,
            engine,
            limits: RateLimits::default(),
        });
        let expected = format!("disk raw has a shared image\nboot {boots}\n");
        assert!(output.contains(&expected), "{output}");
    }
}

#[test]
fn a_vm_is_not_built_with_a_disk_that_another_has_and_limits_are_for_disks_that_there_are() {
    let folder = tempfile::tempdir().unwrap();
    image(folder.path());
    let disk = |id| over_image(folder.path(), id);
    let vm = Vm::build(kvm(), with_disks(vec![disk("one"), disk("two")])).unwrap();
    assert!(vm.set_disk_limits("two", RateLimits::default()));
    assert!(!vm.set_disk_limits("three", RateLimits::default()));

    let refused = |disks| match Vm::build(kvm(), with_disks(disks)) {
        Ok(_) => panic!("it was built"),
        Err(BuildError::Devices(error)) => error,
        Err(error) => panic!("{error}"),
    };
    let error = refused(vec![disk("two")]);
    let text = error.to_string();
    assert!(
        matches!(
            error,
            DeviceConfigError::Disk {
                source: DiskError::InUse,
                ..
            }
        ),
        "{text}"
    );
    assert!(text.starts_with("disk two: "), "{text}");
    let mut same = disk("four");
    same.id = "three".to_owned();
    let error = refused(vec![disk("three"), same]);
    assert!(matches!(error, DeviceConfigError::SameId(id) if id == "three"));
}
