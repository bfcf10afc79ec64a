//! The tests that need KVM, carried into the emulated machine.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::initramfs::Initramfs;
use super::machine::Job;
use crate::workspace::{self, Built};

/// Packages with tests that open `/dev/kvm`. Where the machine has none, these run in the rig and
/// the others as always.
pub(crate) const PACKAGES: [&str; 7] = [
    "roost-vmm",
    "roost-worker",
    "roost-engine",
    "roost-api",
    "roost",
    "roost-guests",
    "embed",
];

/// Those of them that are programs only: they have no examples in their documentation.
pub(crate) const PROGRAMS: [&str; 2] = ["roost", "embed"];

/// Tests of those packages that need no KVM but more of the repository than the machine gets. They
/// run as always.
pub(crate) const NO_KVM: [&str; 2] = ["authors_local", "compat"];

/// A test that needs KVM and the toolchains of authors at once, which the machine has not.
const TOOLCHAINS: &str = "authors";

/// Folders of the repository that tests read at run time.
const FIXTURES: [&str; 8] = [
    "wit",
    "plugins/target/components",
    "examples/systemd",
    "examples/vms",
    "docs",
    "host/engine/src",
    "host/vmm/fuzz",
    "host/vmm/src",
];

/// One test executable on an emulated CPU.
const LIMIT: Duration = Duration::from_secs(1500);

/// Builds the tests of `packages`, each `PACKAGE` or `PACKAGE:TEST`, and the programs that they
/// start.
pub(crate) fn build(packages: &[impl AsRef<str>]) -> Result<Vec<Built>> {
    let mut built = workspace::build_tests().context("the tests that need KVM do not build")?;
    for selection in packages {
        let selection = selection.as_ref();
        let is_there = built
            .iter()
            .any(|item| item.test && selects(selection, item));
        ensure!(is_there, "no tests are {selection}");
    }
    built.retain(|item| {
        let mut packages = packages.iter();
        packages.any(|selection| selects(selection.as_ref(), item))
    });
    Ok(built)
}

/// Whether `selection`, a package or `PACKAGE:TEST`, is about an executable. Of a package there are
/// always the programs that its tests start.
fn selects(selection: &str, item: &Built) -> bool {
    match selection.split_once(':') {
        Some((package, test)) => item.package == package && (item.name == test || !item.test),
        None => item.package == selection,
    }
}

/// Puts the executables into `root` and returns the jobs that run the tests.
pub(crate) fn stage(built: &[Built], root: &mut Initramfs) -> Result<Vec<Job>> {
    for folder in FIXTURES {
        root.copy_tree(&workspace::root().join(folder))?;
    }
    let mut jobs = Vec::new();
    for item in built {
        if item.name == TOOLCHAINS {
            eprintln!("  {TOOLCHAINS}: left out, it needs KVM and the authors' toolchains at once");
            continue;
        }
        if NO_KVM.contains(&item.name.as_str()) {
            continue;
        }
        // At the same place in the machine, because tests of a package know the place of its
        // programs since they were compiled.
        root.program(&item.executable, &item.executable)?;
        if item.test {
            jobs.push(Job {
                name: format!(
                    "{}.{}",
                    item.name,
                    item.executable
                        .file_name()
                        .and_then(|name| name.to_str())
                        .and_then(|name| name.rsplit_once('-'))
                        .map_or("test", |(_, hash)| hash)
                ),
                limit: LIMIT,
                directory: item.folder.clone(),
                command: vec![item.executable.to_string_lossy().into_owned()],
            });
        }
    }
    Ok(jobs)
}
