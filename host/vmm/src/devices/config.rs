//! Which devices a VM has, and making them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::sync::Arc;

use super::mmio::MAX_DEVICES;
use super::virtio::balloon::{Balloon, BalloonConfig, BalloonControl};
use super::virtio::block::{Block, DiskConfig, DiskError};
use super::virtio::console::{Console, ConsoleConfig, ConsoleConfigError, ConsolePort};
use super::virtio::net::{Net, NetConfig, NetConfigError, NetControl};
use super::virtio::rng::Rng;
use super::virtio::vsock::{Vsock, VsockConfig, VsockConfigError};
use super::virtio::{LimitControl, VirtioDevice};

/// The virtio devices of a VM. None by default.
#[derive(Debug, Default)]
pub struct DeviceConfig {
    /// An entropy device.
    pub rng: bool,
    /// Network devices.
    pub net: Vec<NetConfig>,
    /// Disks, the guest's `vda`, `vdb`, … in this order.
    pub disks: Vec<DiskConfig>,
    /// A socket device.
    pub vsock: Option<VsockConfig>,
    /// A memory balloon.
    pub balloon: Option<BalloonConfig>,
    /// A console.
    pub console: Option<ConsoleConfig>,
}

/// Why a VM's devices can't be made.
#[derive(Debug, thiserror::Error)]
pub enum DeviceConfigError {
    /// There is no place for so many.
    #[error("{0} devices can't be connected; {MAX_DEVICES} can")]
    TooMany(usize),
    /// Two disks have this id.
    #[error("two disks have the id {0:?}")]
    SameId(String),
    /// A disk can't be used.
    #[error("disk {id}: {source}")]
    Disk {
        /// Its id, as configured.
        id: String,
        /// What about it.
        source: DiskError,
    },
    /// A network device.
    #[error("network device {index}: {source}")]
    Net {
        /// Which one, from 0.
        index: usize,
        /// What about it.
        source: NetConfigError,
    },
    /// The socket device.
    #[error("vsock: {0}")]
    Vsock(#[from] VsockConfigError),
    /// The balloon.
    #[error("the balloon: {0}")]
    Balloon(io::Error),
    /// The console.
    #[error("the console: {0}")]
    Console(#[from] ConsoleConfigError),
}

/// A VM's devices before they are connected.
#[derive(Default)]
pub(crate) struct Made {
    /// In the order of their places on the bus, which stays the same for the same configuration.
    pub(crate) devices: Vec<Box<dyn VirtioDevice>>,
    /// What the host controls them by.
    pub(crate) controls: Controls,
}

/// What the host controls devices by while they run; the VM keeps it. Each is shared with its
/// device and wakes the device thread by an eventfd that the device watches.
#[derive(Default)]
pub(crate) struct Controls {
    /// Network devices, in their order.
    pub(crate) net: Vec<NetControl>,
    /// The limits of each disk, by its id.
    pub(crate) disks: BTreeMap<String, Arc<LimitControl>>,
    /// The balloon.
    pub(crate) balloon: Option<Arc<BalloonControl>>,
    /// The ports of the console, in their order. None if there is no console.
    pub(crate) console: Vec<Arc<ConsolePort>>,
}

impl DeviceConfig {
    /// Makes the devices, which takes over their descriptors.
    pub(crate) fn make(self) -> Result<Made, DeviceConfigError> {
        let Self {
            rng,
            net,
            disks,
            vsock,
            balloon,
            console,
        } = self;
        let mut made = Made::default();
        if rng {
            made.devices.push(Box::new(Rng::default()));
        }
        for (index, config) in net.into_iter().enumerate() {
            let net =
                Net::new(config).map_err(|source| DeviceConfigError::Net { index, source })?;
            made.controls.net.push(net.control());
            made.devices.push(Box::new(net));
        }
        for disk in disks {
            let id = disk.id.clone();
            let disk = Block::new(disk).map_err(|source| DeviceConfigError::Disk {
                id: id.clone(),
                source,
            })?;
            match made.controls.disks.entry(id) {
                Entry::Vacant(place) => place.insert(disk.limits()),
                Entry::Occupied(same) => return Err(DeviceConfigError::SameId(same.key().clone())),
            };
            made.devices.push(Box::new(disk));
        }
        if let Some(config) = vsock {
            made.devices.push(Box::new(Vsock::new(config)?));
        }
        if let Some(config) = balloon {
            let balloon = Balloon::new(config).map_err(DeviceConfigError::Balloon)?;
            made.controls.balloon = Some(balloon.control());
            made.devices.push(Box::new(balloon));
        }
        if let Some(config) = console {
            let console = Console::new(config)?;
            made.controls.console = console.ports();
            made.devices.push(Box::new(console));
        }
        match made.devices.len() {
            count if count > MAX_DEVICES => Err(DeviceConfigError::TooMany(count)),
            _ => Ok(made),
        }
    }
}
