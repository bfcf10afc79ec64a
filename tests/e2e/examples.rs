//! Every example of a VM is accepted by a host, and every kind of device has one, and a section of
//! the documentation.

#[allow(dead_code)]
#[path = "host.rs"]
mod host;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use host::Host;
use roost_model::{CpuTemplate, MemoryBacking, OnEnd, OnReset, VmSpec};

/// What a spec can have, by the name of its example, and whether `spec` has it.
///
/// Every field is named here, so that a new one needs a decision, and a new device an example.
fn contents(spec: &VmSpec) -> [(&'static str, bool); 8] {
    let VmSpec {
        name: _,
        tenant: _,
        labels: _,
        vcpus: _,
        memory_mib: _,
        kernel: _,
        initrd: _,
        cmdline: _,
        disks,
        networks,
        vsock,
        rng,
        balloon,
        console,
        console_ports,
        cpu_template,
        memory_backing,
        on_reset,
        on_end,
        serial_limit,
        boot_deadline_ms,
    } = spec;
    [
        ("disks", !disks.is_empty()),
        ("networks", !networks.is_empty()),
        ("vsock", *vsock),
        ("rng", *rng),
        ("balloon", balloon.is_some()),
        // The example of a console has ports beside its terminal.
        ("console", *console && !console_ports.is_empty()),
        ("serial", serial_limit.is_some()),
        (
            "machine",
            *cpu_template != CpuTemplate::default()
                || *memory_backing != MemoryBacking::default()
                || *on_reset != OnReset::default()
                || *on_end != OnEnd::default()
                || boot_deadline_ms.is_some(),
        ),
    ]
}

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The example's spec, as a host took it.
fn accepted(host: &Host, file: &Path) -> VmSpec {
    let record = host.roost(&["vm", "create", "--spec", file.to_str().unwrap()]);
    serde_json::from_value(record["spec"].clone()).unwrap()
}

#[test]
fn every_example_is_accepted_and_every_device_has_one_and_a_section() {
    let host = Host::start();
    let kernel = host.file("hello", roost_guests::HELLO);
    let image = host.file("image", &[7; 1 << 20]);
    for (file, tag) in [
        (&kernel, "linux:6.1"),
        (&image, "initrd:6.1"),
        (&image, "debian:12"),
    ] {
        host.roost(&["image", "push", file, "--tag", tag]);
    }
    let docs = fs::read_to_string(repository().join("docs/devices.md")).unwrap();

    let mut examples = BTreeSet::new();
    let mut kinds = BTreeSet::new();
    for entry in fs::read_dir(repository().join("examples/vms")).unwrap() {
        let file = entry.unwrap().path();
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("# "), "{name} does not say what it is");
        assert!(
            text.contains(&format!("roost vm create --spec {name}.yaml")),
            "{name} does not say how it is used"
        );
        let spec = accepted(&host, &file);
        assert_eq!(spec.name.as_str(), name);
        for (kind, is_there) in contents(&spec) {
            kinds.insert(kind.to_owned());
            assert_eq!(is_there, name == "all" || name == kind, "{kind} in {name}");
        }
        examples.insert(name);
    }
    for kind in &kinds {
        let section = format!("\n## {kind}\n");
        assert!(docs.to_lowercase().contains(&section), "no {section:?}");
        let link = format!("(../examples/vms/{kind}.yaml)");
        assert!(docs.contains(&link), "docs/devices.md has no {link}");
    }
    kinds.insert("all".to_owned());
    assert_eq!(examples, kinds, "the examples, and what needs one");
}
