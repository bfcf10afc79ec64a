//! Unsafe code is where the design allows it, in the files that are named here, and each use says
//! why it is sound.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use architecture::{Target, members, root};

/// Crates that may have unsafe code: KVM, the jail, and mapping an artifact that we compiled.
const MAY: [&str; 3] = ["roost-vmm", "roost-worker", "roost-policy"];

/// Every file with unsafe code. A new one is added here with its review.
const FILES: [&str; 17] = [
    "host/policy/src/compile/artifact.rs",
    "host/vmm/src/counters.rs",
    "host/vmm/src/devices/virtio/balloon/discard.rs",
    "host/vmm/src/devices/virtio/block/backend/raw.rs",
    "host/vmm/src/devices/virtio/block/backend/ring.rs",
    "host/vmm/src/devices/virtio/block/backend/segments.rs",
    "host/vmm/src/devices/virtio/net/link.rs",
    "host/vmm/src/devices/virtio/net/rx_buffers.rs",
    "host/vmm/src/kvm/kick.rs",
    "host/vmm/src/kvm/machine.rs",
    "host/vmm/src/kvm/memory.rs",
    "host/vmm/src/kvm/shared_page.rs",
    "host/vmm/src/kvm/vcpu.rs",
    "host/vmm/src/vm.rs",
    "host/worker/src/child/detach.rs",
    "host/worker/src/readiness.rs",
    "host/worker/src/tap/create.rs",
];

#[test]
fn every_other_crate_forbids_unsafe_code() {
    for (name, member) in members() {
        if MAY.contains(&name.as_str()) {
            continue;
        }
        // Unsafe code in a test or a build script would still have to be in the list above.
        let is_checked = |target: &&Target| !["custom-build", "test"].contains(&&*target.kind);
        for target in member.targets.iter().filter(is_checked) {
            let text = fs::read_to_string(&target.root).unwrap();
            assert!(
                text.lines().any(|line| line == "#![forbid(unsafe_code)]"),
                "{} does not forbid unsafe code",
                target.root.display()
            );
        }
    }
}

#[test]
fn unsafe_code_is_in_the_listed_files_and_no_others() {
    let found: BTreeSet<_> = sources()
        .iter()
        .filter(|path| !uses(&fs::read_to_string(path).unwrap()).is_empty())
        .map(|path| {
            path.strip_prefix(root())
                .unwrap()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    assert_eq!(found, FILES.map(str::to_owned).into());
}

#[test]
fn every_use_of_unsafe_says_above_why_it_is_sound() {
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        for line in uses(&text) {
            assert!(
                is_explained(&text, line),
                "{}:{} has no SAFETY line right above",
                path.display(),
                line + 1
            );
        }
    }
}

/// Every Rust file of the repository, but for what cargo makes.
fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<_> = ["store", "host", "plugins", "tests", "examples", "xtask"]
        .map(|f| root().join(f))
        .into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name() != Some("target".as_ref()) {
                folders.push(path);
            } else if path.extension() == Some("rs".as_ref()) && !is_this(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// This file holds the words that it looks for.
fn is_this(path: &Path) -> bool {
    path.ends_with("tests/architecture/tests/unsafe_code.rs")
}

/// The lines, from 0, on which unsafe code begins.
fn uses(text: &str) -> Vec<usize> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| {
            let code = line.split("//").next().unwrap_or_default();
            [
                "unsafe {",
                "unsafe fn",
                "unsafe impl",
                "unsafe extern",
                "#[unsafe(",
            ]
            .iter()
            .any(|word| code.contains(word))
        })
        .map(|(number, _)| number)
        .collect()
}

/// Whether the comments and attributes right above `line` explain it. A statement may have begun
/// on a line before.
fn is_explained(text: &str, line: usize) -> bool {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    lines[..line]
        .iter()
        .rev()
        .take_while(|above| above.starts_with("//") || above.starts_with("#["))
        .any(|above| above.contains("SAFETY:") || above.contains("# Safety"))
}

#[test]
fn the_search_sees_what_it_is_meant_to_see() {
    let text = "// SAFETY: it is.\nunsafe { a() }\nunsafe { b() }\n// unsafe { c() }\n";
    assert_eq!(uses(text), [1, 2]);
    assert!(is_explained(text, 1));
    assert!(!is_explained(text, 2));
}
