//! The devices of a VM on their way to it: what the host says of them, and what it opened for them.
//!
//! A worker opens nothing. The host opens files, TAPs and sockets and gives them to
//! [`crate::Launch`]; for a worker process they are taken apart into a [`DeviceList`], which goes
//! into its configuration, and descriptors, which go beside it in the same order.

use std::fs::File;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use roost_model::{
    Balloon, BalloonStatus, CpuTemplate, DeviceReport, DeviceStatus, MacAddress, MemoryBacking,
    Name, RateLimit, RateLimits,
};
use roost_vmm::{
    BalloonConfig, BaseImage, ConsoleConfig, DeviceConfig, DiskConfig, DiskFormat, MachineOptions,
    NetConfig, NetLimits, Vm, VsockConfig,
};
use serde::{Deserialize, Serialize};

/// How often a guest with a balloon is asked about its memory.
const BALLOON_STATISTICS: Duration = Duration::from_secs(5);

/// Most descriptors of all devices together: two for each disk, one for each network interface,
/// two for vsock.
pub(crate) const MAX_DESCRIPTORS: usize =
    2 * roost_model::limits::MAX_DISKS + roost_model::limits::MAX_NETWORKS + 2;

/// Prefix of the Unix sockets that a guest reaches through its vsock device, followed by `_` and
/// the port; and the name of the one by which programs of the host reach the guest.
pub const VSOCK_SOCKET: &str = "vsock.sock";

/// The devices of a VM.
#[derive(Debug, Default)]
pub struct Devices {
    /// In the order in which the guest finds them.
    pub disks: Vec<Disk>,
    /// In the order in which the guest finds them.
    pub networks: Vec<Network>,
    /// The socket device.
    pub vsock: Option<Vsock>,
    /// An entropy device.
    pub rng: bool,
    /// The balloon.
    pub balloon: Option<Balloon>,
    /// A console beside the serial port.
    pub console: bool,
    /// Names of the ports that the console has beside its terminal.
    pub console_ports: Vec<Name>,
}

/// A disk.
#[derive(Debug)]
pub struct Disk {
    /// The serial number that the guest reads.
    pub name: Name,
    /// Where its bytes are.
    pub backing: DiskBacking,
    /// How much may pass.
    pub limits: RateLimits,
}

/// Where the bytes of a disk are.
#[derive(Debug)]
pub enum DiskBacking {
    /// A raw image that many VMs may read; the guest can't write.
    Image(File),
    /// A raw file of the VM's own.
    Blank(File),
    /// A layer of the VM's own (qcow2) over a raw image that many VMs may read.
    Layer {
        /// What the guest wrote.
        layer: File,
        /// What was there before.
        image: File,
    },
}

/// A network interface.
#[derive(Debug)]
pub struct Network {
    /// The TAP.
    pub tap: File,
    /// The guest's address.
    pub mac: MacAddress,
    /// How much the guest may receive.
    pub rx_limits: RateLimits,
    /// How much it may send.
    pub tx_limits: RateLimits,
}

/// The socket device.
#[derive(Debug)]
pub struct Vsock {
    /// The guest's context id.
    pub cid: u32,
    /// Where programs of the host connect.
    pub listener: UnixListener,
    /// Where the sockets are that the guest can connect to.
    pub directory: OwnedFd,
}

/// What can be chosen about a machine and has a default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Which CPU the guest sees.
    pub cpu_template: CpuTemplate,
    /// Where its memory comes from.
    pub memory_backing: MemoryBacking,
    /// How much it may print on its serial port, bytes. Absent: what the serial port allows by
    /// itself.
    pub serial_limit: Option<RateLimit>,
}

impl Machine {
    pub(crate) fn options(&self) -> MachineOptions {
        MachineOptions {
            memory_backing: self.memory_backing,
            cpu_template: self.cpu_template,
            ..MachineOptions::default()
        }
    }

    /// What is set after a VM was built.
    pub(crate) fn apply(&self, vm: &Vm) {
        if let Some(serial) = self.serial_limit {
            vm.serial().set_output_limit(Some(limit(serial)));
        }
    }
}

/// What a worker is told of its devices, without their descriptors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeviceList {
    disks: Vec<DiskEntry>,
    networks: Vec<NetworkEntry>,
    vsock_cid: Option<u32>,
    rng: bool,
    balloon: Option<Balloon>,
    console: bool,
    #[serde(default)]
    console_ports: Vec<Name>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct DiskEntry {
    name: Name,
    backing: Backing,
    limits: RateLimits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Backing {
    Image,
    Blank,
    Layer,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct NetworkEntry {
    mac: MacAddress,
    rx_limits: RateLimits,
    tx_limits: RateLimits,
}

impl Devices {
    /// What is said of the devices, and their descriptors in the order of [`DeviceList::join`].
    pub(crate) fn split(self) -> (DeviceList, Vec<OwnedFd>) {
        let mut descriptors: Vec<OwnedFd> = Vec::new();
        let mut disks = Vec::new();
        for Disk {
            name,
            backing,
            limits,
        } in self.disks
        {
            let backing = match backing {
                DiskBacking::Image(file) => {
                    descriptors.push(file.into());
                    Backing::Image
                }
                DiskBacking::Blank(file) => {
                    descriptors.push(file.into());
                    Backing::Blank
                }
                DiskBacking::Layer { layer, image } => {
                    descriptors.extend([layer.into(), image.into()]);
                    Backing::Layer
                }
            };
            disks.push(DiskEntry {
                name,
                backing,
                limits,
            });
        }
        let mut networks = Vec::new();
        for network in self.networks {
            descriptors.push(network.tap.into());
            networks.push(NetworkEntry {
                mac: network.mac,
                rx_limits: network.rx_limits,
                tx_limits: network.tx_limits,
            });
        }
        let vsock_cid = self.vsock.map(|vsock| {
            descriptors.extend([vsock.listener.into(), vsock.directory]);
            vsock.cid
        });
        let list = DeviceList {
            disks,
            networks,
            vsock_cid,
            rng: self.rng,
            balloon: self.balloon,
            console: self.console,
            console_ports: self.console_ports,
        };
        (list, descriptors)
    }
}

impl DeviceList {
    /// How many descriptors belong to the devices.
    pub(crate) fn descriptors(&self) -> usize {
        let disk = |disk: &DiskEntry| match disk.backing {
            Backing::Image | Backing::Blank => 1,
            Backing::Layer => 2,
        };
        self.disks.iter().map(disk).sum::<usize>()
            + self.networks.len()
            + self.vsock_cid.map_or(0, |_| 2)
    }

    /// The devices, with descriptors taken from `descriptors`; `None` if there are too few.
    pub(crate) fn join(self, descriptors: &mut impl Iterator<Item = OwnedFd>) -> Option<Devices> {
        let mut disks = Vec::new();
        for DiskEntry {
            name,
            backing,
            limits,
        } in self.disks
        {
            let file = File::from(descriptors.next()?);
            let backing = match backing {
                Backing::Image => DiskBacking::Image(file),
                Backing::Blank => DiskBacking::Blank(file),
                Backing::Layer => DiskBacking::Layer {
                    layer: file,
                    image: descriptors.next()?.into(),
                },
            };
            disks.push(Disk {
                name,
                backing,
                limits,
            });
        }
        let mut networks = Vec::new();
        for entry in self.networks {
            networks.push(Network {
                tap: descriptors.next()?.into(),
                mac: entry.mac,
                rx_limits: entry.rx_limits,
                tx_limits: entry.tx_limits,
            });
        }
        let vsock = match self.vsock_cid {
            None => None,
            Some(cid) => Some(Vsock {
                cid,
                listener: descriptors.next()?.into(),
                directory: descriptors.next()?,
            }),
        };
        Some(Devices {
            disks,
            networks,
            vsock,
            rng: self.rng,
            balloon: self.balloon,
            console: self.console,
            console_ports: self.console_ports,
        })
    }
}

impl From<Devices> for DeviceConfig {
    fn from(devices: Devices) -> Self {
        Self {
            rng: devices.rng,
            disks: devices.disks.into_iter().map(disk).collect(),
            net: devices.networks.into_iter().map(network).collect(),
            vsock: devices.vsock.map(|vsock| VsockConfig {
                guest_cid: vsock.cid,
                listener: vsock.listener,
                directory: vsock.directory,
                prefix: VSOCK_SOCKET.to_owned(),
                limits: Default::default(),
            }),
            balloon: devices.balloon.map(|balloon| BalloonConfig {
                deflate_on_oom: balloon.deflate_on_oom,
                free_page_reporting: balloon.free_page_reporting,
                statistics_interval: Some(BALLOON_STATISTICS),
            }),
            console: devices.console.then(|| ConsoleConfig {
                ports: devices
                    .console_ports
                    .into_iter()
                    .map(String::from)
                    .collect(),
                ..ConsoleConfig::default()
            }),
        }
    }
}

fn disk(disk: Disk) -> DiskConfig {
    let (file, format, base, read_only) = match disk.backing {
        DiskBacking::Image(file) => (file, DiskFormat::Raw, None, true),
        DiskBacking::Blank(file) => (file, DiskFormat::Raw, None, false),
        DiskBacking::Layer { layer, image } => {
            let base = BaseImage {
                file: image,
                format: DiskFormat::Raw,
            };
            (layer, DiskFormat::Qcow2, Some(base), false)
        }
    };
    DiskConfig {
        id: disk.name.to_string(),
        file,
        format,
        base,
        read_only,
        engine: Default::default(),
        limits: limits(disk.limits),
    }
}

fn network(network: Network) -> NetConfig {
    NetConfig {
        limits: NetLimits {
            receive: limits(network.rx_limits),
            transmit: limits(network.tx_limits),
        },
        ..NetConfig::new(network.tap, network.mac.bytes())
    }
}

/// A limit as devices take it.
pub(crate) fn limits(limits: RateLimits) -> roost_vmm::RateLimits {
    roost_vmm::RateLimits {
        bytes: limits.bytes.map(limit),
        operations: limits.operations.map(limit),
    }
}

pub(crate) fn limit(limit: RateLimit) -> roost_vmm::RateLimit {
    roost_vmm::RateLimit {
        // A spec with a limit of nothing is refused.
        per_second: NonZeroU64::new(limit.per_second).unwrap_or(NonZeroU64::MIN),
        burst: limit.burst(),
    }
}

/// What the devices of `vm` report.
pub(crate) fn report(vm: &Vm) -> DeviceReport {
    let devices = vm.device_counters().into_iter().map(|device| DeviceStatus {
        device: device.device,
        broken: device.broken,
        counters: device
            .counters
            .iter()
            .map(|counter| (counter.name.to_owned(), counter.value))
            .collect(),
    });
    let balloon = vm.balloon_statistics().ok();
    DeviceReport {
        devices: devices.collect(),
        balloon: balloon.map(|balloon| BalloonStatus {
            target_bytes: balloon.target_bytes,
            actual_bytes: balloon.actual_bytes,
            guest_free_bytes: balloon.guest.and_then(|guest| guest.free_bytes),
            guest_available_bytes: balloon.guest.and_then(|guest| guest.available_bytes),
        }),
        serial_dropped_bytes: vm.serial().dropped(),
    }
}
