//! The scenarios of the rig: their names, their limits, and what each one is given.
//!
//! A scenario is a hidden command of ours that drives a guest from a few files. The same command
//! runs on a machine with hardware virtualization and as a job of the emulated machine.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::initramfs::Initramfs;
use super::machine::Job;
use super::packages::Kernel;
use super::{devices, platform, roots};
use crate::{process, workspace};

/// A scenario.
pub(super) struct Scenario {
    /// Of the command, of the job, and for `--only`.
    pub(super) name: &'static str,
    /// What its command can be told to do alone. Each is a job of its own in the emulated machine,
    /// so that what fails there once does not have to be done whole again. None: it has no parts.
    parts: &'static [&'static str],
    /// Of a job, inside the emulated machine.
    limit: Duration,
    /// It makes network interfaces, and gets a network namespace where it would share one.
    network: bool,
    /// What its command is given.
    files: fn(&Workshop<'_>) -> Result<Vec<Given>>,
}

/// Every scenario, in the order in which they run.
pub(super) const SCENARIOS: [Scenario; 3] = [
    Scenario {
        name: "linux-guest",
        parts: &[],
        limit: Duration::from_secs(420),
        network: false,
        files: |workshop| {
            let guest = roots::guest_initramfs(workshop.folder)?;
            Ok(vec![
                workshop.roost()?,
                workshop.kernel(),
                Given::file("--initrd", guest, "guest.cpio"),
            ])
        },
    },
    Scenario {
        name: "platform",
        parts: &platform::PART_NAMES,
        limit: Duration::from_secs(180),
        network: false,
        files: |workshop| {
            let guest = roots::platform_initramfs(workshop.folder, workshop.kernel)?;
            Ok(vec![
                workshop.vmm()?,
                workshop.kernel(),
                Given::file("--initrd", guest, "platform.cpio"),
            ])
        },
    },
    Scenario {
        name: "devices",
        parts: &devices::PART_NAMES,
        limit: Duration::from_secs(420),
        network: true,
        files: |workshop| {
            let initrd = roots::devices_initramfs(workshop.folder, workshop.kernel)?;
            let image = roots::devices_image(workshop.folder, workshop.kernel)?;
            Ok(vec![
                workshop.roost()?,
                workshop.kernel(),
                Given::file("--initrd", initrd, "devices.cpio"),
                Given::file("--image", image, "devices.ext4"),
            ])
        },
    },
];

/// Where `cargo xtask bench boot` measures the stock kernel. It asserts nothing, so it is none of
/// [`SCENARIOS`].
pub(super) const BOOT_TIMES: Scenario = Scenario {
    name: "boot-times",
    parts: &[],
    limit: Duration::from_secs(3600),
    network: false,
    files: |workshop| {
        let guest = roots::guest_initramfs(workshop.folder)?;
        Ok(vec![
            workshop.roost()?,
            workshop.vmm()?,
            workshop.kernel(),
            Given::file("--initrd", guest, "guest.cpio"),
        ])
    },
};

/// The scenarios called `names`; none named: all.
pub(super) fn chosen(names: &[String]) -> Vec<&'static Scenario> {
    SCENARIOS
        .iter()
        .filter(|scenario| names.is_empty() || names.iter().any(|name| name == scenario.name))
        .collect()
}

/// A file that a scenario's command is given.
pub(super) struct Given {
    option: &'static str,
    path: PathBuf,
    /// What it is called in the emulated machine.
    name: &'static str,
    /// It is run, so it needs its shared libraries.
    program: bool,
}

impl Given {
    fn file(option: &'static str, path: PathBuf, name: &'static str) -> Self {
        Self {
            option,
            path,
            name,
            program: false,
        }
    }

    fn program(option: &'static str, path: PathBuf, name: &'static str) -> Self {
        Self {
            program: true,
            ..Self::file(option, path, name)
        }
    }
}

/// Where the files of scenarios are made.
pub(super) struct Workshop<'a> {
    pub(super) folder: &'a Path,
    pub(super) kernel: &'a Kernel,
    roost: OnceCell<PathBuf>,
    vmm: OnceCell<PathBuf>,
}

impl<'a> Workshop<'a> {
    /// With this roost binary; `None`: one is built when a scenario needs it.
    pub(super) fn new(folder: &'a Path, kernel: &'a Kernel, roost: Option<&Path>) -> Self {
        Self {
            folder,
            kernel,
            roost: roost.map_or_else(OnceCell::new, |path| path.to_owned().into()),
            vmm: OnceCell::new(),
        }
    }

    /// With this build of the example `linux` of roost-vmm.
    pub(super) fn with_vmm(self, vmm: &Path) -> Self {
        Self {
            vmm: vmm.to_owned().into(),
            ..self
        }
    }

    fn vmm(&self) -> Result<Given> {
        let path = match self.vmm.get() {
            Some(path) => path.clone(),
            None => workspace::build_vmm_example(false)?,
        };
        Ok(Given::program("--vmm", path, "linux"))
    }

    fn roost(&self) -> Result<Given> {
        let path = match self.roost.get() {
            Some(path) => path.clone(),
            None => {
                let built = workspace::build_roost(false)?;
                self.roost.get_or_init(|| built).clone()
            }
        };
        Ok(Given::program("--roost", path, "roost"))
    }

    fn kernel(&self) -> Given {
        Given::file("--kernel", self.kernel.image.clone(), "vmlinuz")
    }
}

impl Scenario {
    /// Its command: the files that it is given, each at its `place`, and other `options`.
    fn command(
        &self,
        given: &[Given],
        place: impl Fn(&Given) -> PathBuf,
        options: &[String],
    ) -> Vec<String> {
        let mut words = vec![self.name.to_owned()];
        for file in given {
            words.push(file.option.to_owned());
            words.push(place(file).to_string_lossy().into_owned());
        }
        words.extend_from_slice(options);
        words
    }

    /// Runs it on this machine's KVM.
    ///
    /// # Errors
    /// Its files cannot be made, or it fails.
    pub(super) fn run_here(
        &self,
        workshop: &Workshop<'_>,
        times: u32,
        options: &[String],
    ) -> Result<()> {
        let given = (self.files)(workshop)?;
        // Our own file may have been replaced by a build meanwhile; what runs has not.
        let ours = format!("/proc/{}/exe", std::process::id());
        for _ in 0..times {
            let mut command = if self.network {
                in_a_network_of_its_own(&ours)
            } else {
                Command::new(&ours)
            };
            command.args(self.command(&given, |file| file.path.clone(), options));
            process::run(&mut command)?;
        }
        Ok(())
    }

    /// Puts its files into the emulated machine's `root`, and returns the jobs that run it there
    /// with our own program at `/rig/xtask`.
    ///
    /// # Errors
    /// Its files cannot be made or copied.
    pub(super) fn stage(
        &self,
        workshop: &Workshop<'_>,
        root: &mut Initramfs,
        times: u32,
        options: &[String],
    ) -> Result<Vec<Job>> {
        let given = (self.files)(workshop)?;
        let place = |file: &Given| Path::new("/rig").join(file.name);
        for file in &given {
            if file.program {
                root.program(&file.path, &place(file))?;
            } else {
                root.copy(&file.path, &place(file))?;
            }
        }
        let ours = vec!["/rig/xtask".to_owned()];
        let command = [ours, self.command(&given, place, options)].concat();
        let job = |number: u32, part: Option<&str>| Job {
            name: [
                Some(self.name.to_owned()),
                part.map(str::to_owned),
                (times > 1).then(|| number.to_string()),
            ]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join("-"),
            limit: self.limit,
            directory: "/rig".into(),
            command: match part {
                Some(part) => {
                    [command.as_slice(), &["--part".to_owned(), part.to_owned()]].concat()
                }
                None => command.clone(),
            },
        };
        Ok((1..=times)
            .flat_map(|number| match self.parts {
                [] => vec![job(number, None)],
                parts => parts.iter().map(|part| job(number, Some(part))).collect(),
            })
            .collect())
    }
}

/// `program` with network interfaces of its own, which it may make and which are gone with it:
/// this machine's are left alone, and nobody needs to be root.
fn in_a_network_of_its_own(program: &str) -> Command {
    let mut command = Command::new("unshare");
    command.arg("--net");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg("--").arg(program);
    command
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_scenario_is_a_hidden_command_and_its_name_chooses_it() {
        let commands = crate::Arguments::command();
        for scenario in SCENARIOS.iter().chain([&BOOT_TIMES]) {
            let command = commands.find_subcommand(scenario.name);
            assert!(
                command.is_some_and(|c| c.is_hide_set()),
                "{}",
                scenario.name
            );
        }
        for scenario in &SCENARIOS {
            let names: Vec<_> = chosen(&[scenario.name.to_owned()])
                .iter()
                .map(|scenario| scenario.name)
                .collect();
            assert_eq!(names, [scenario.name]);
        }
        assert_eq!(chosen(&[]).len(), SCENARIOS.len());
    }
}
