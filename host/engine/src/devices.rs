//! What the host opens for the devices of a VM.
//!
//! A worker opens nothing by itself. Before each boot the host opens the disks, makes the TAPs and
//! the vsock socket, and gives the worker their descriptors:
//!
//! * A disk of the VM's own is a file in `disks/<vm>/`, made at the first boot and kept until the
//!   VM is deleted: a qcow2 layer over its image, or a raw file where there is none.
//! * A TAP is not persistent: it is there as long as the worker has it open. So none can leak.
//! * The vsock socket is in the run directory and goes with it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use roost_model::{Digest, Disk, Effect, VmId, VmRecord};
use roost_worker::{BaseName, Devices, DiskBacking, DiskFormat, create_qcow2, tap};

use crate::context::Context;
use crate::error::{DeviceError, EngineError};
use crate::faults::Faults;
use crate::images::blocking;

impl Context {
    /// The directory of a VM's own disks.
    pub(crate) fn disk_dir(&self, vm: VmId) -> PathBuf {
        self.config.disk_dir.join(vm.to_string())
    }

    /// Opens what the devices of `record` need, and makes what is made at the first boot.
    pub(crate) async fn open_devices(&self, record: &VmRecord) -> Result<Devices, EngineError> {
        let images = record
            .disk_images
            .iter()
            .map(|image| match image {
                Some(digest) => Ok(Some((*digest, self.blobs.get(digest)?))),
                None => Ok(None),
            })
            .collect::<Result<_, EngineError>>()?;
        let opening = Opening {
            record: record.clone(),
            images,
            disk_dir: self.disk_dir(record.id),
            run_dir: self.run_dir(record.id),
            faults: self.config.faults.clone(),
        };
        Ok(blocking(move || opening.open()).await??)
    }

    /// Removes a VM's own disks. None there: fine.
    pub(crate) async fn remove_disks(&self, vm: VmId) -> io::Result<()> {
        let removing = tokio::fs::remove_dir_all(self.disk_dir(vm));
        let faults = &self.config.faults;
        match faults.around(Effect::RemoveDisks, removing).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// The name of a VM's TAP number `index`: 15 bytes at most, and unlike that of any other VM.
pub(crate) fn tap_name(vm: VmId, index: usize) -> String {
    let id = vm.to_string();
    let random = id.get(id.len().saturating_sub(11)..).unwrap_or_default();
    format!("rt{random}-{index}")
}

/// Everything that opening the devices needs, on a thread that may block.
struct Opening {
    record: VmRecord,
    /// The image of each disk.
    images: Vec<Option<(Digest, File)>>,
    disk_dir: PathBuf,
    run_dir: PathBuf,
    faults: Faults,
}

impl Opening {
    fn open(self) -> Result<Devices, DeviceError> {
        let Self {
            record,
            images,
            disk_dir,
            run_dir,
            faults,
        } = self;
        let spec = &record.spec;
        let mut devices = Devices {
            rng: spec.rng,
            balloon: spec.balloon,
            console: spec.console,
            console_ports: spec.console_ports.clone(),
            ..Devices::default()
        };
        for (disk, image) in spec.disks.iter().zip(images) {
            let backing = match image {
                Some((_, image)) if disk.read_only => DiskBacking::Image(image),
                image => own_disk(&disk_dir, disk, image, record.disks_made, &faults)?,
            };
            devices.disks.push(roost_worker::Disk {
                name: disk.name.clone(),
                backing,
                limits: disk.limits,
            });
        }
        for (index, (network, mac)) in spec.networks.iter().zip(&record.macs).enumerate() {
            let name = tap_name(record.id, index);
            let failed = |source| DeviceError::Network {
                network: network.name.clone(),
                source,
            };
            let make = || {
                let tap = tap::create(&name, false)?;
                let bridge = network.bridge.as_ref().map(|bridge| bridge.as_str());
                tap::connect(&name, bridge, None)?;
                Ok(tap)
            };
            let tap = faults
                .around_blocking(Effect::MakeTap, make)
                .map_err(failed)?;
            devices.networks.push(roost_worker::Network {
                tap,
                mac: *mac,
                rx_limits: network.rx_limits,
                tx_limits: network.tx_limits,
            });
        }
        if let Some(cid) = record.vsock_cid {
            let listen = || roost_worker::listen_vsock(&run_dir);
            let (listener, directory) = faults
                .around_blocking(Effect::MakeVsock, listen)
                .map_err(DeviceError::Vsock)?;
            devices.vsock = Some(roost_worker::Vsock {
                cid,
                listener,
                directory,
            });
        }
        Ok(devices)
    }
}

/// Where the VM's own part of a disk is, in the directory of its disks.
pub(crate) fn disk_path(dir: &Path, disk: &Disk, has_image: bool) -> PathBuf {
    let extension = if has_image { "qcow2" } else { "raw" };
    dir.join(format!("{}.{extension}", disk.name))
}

/// The VM's own part of a disk, which is made if it is not there and was not there before.
fn own_disk(
    dir: &Path,
    disk: &Disk,
    image: Option<(Digest, File)>,
    made: bool,
    faults: &Faults,
) -> Result<DiskBacking, DeviceError> {
    let failed = |source: io::Error| DeviceError::DiskFile {
        disk: disk.name.clone(),
        source,
    };
    let path = disk_path(dir, disk, image.is_some());
    let open = || OpenOptions::new().read(true).write(true).open(&path);
    let file = match open() {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !made => {
            let make = || make_disk(&path, disk, image.as_ref());
            faults.around_blocking(Effect::MakeDisk, make)?;
            open().map_err(failed)?
        }
        // What the guest wrote is gone: a blank disk in its place would hide that.
        Err(error) => return Err(failed(error)),
    };
    Ok(match image {
        Some((_, image)) => DiskBacking::Layer { layer: file, image },
        None => DiskBacking::Blank(file),
    })
}

/// Makes a disk's file under another name first, so that there is none that is half made.
fn make_disk(path: &Path, disk: &Disk, image: Option<&(Digest, File)>) -> Result<(), DeviceError> {
    let failed = |source: io::Error| DeviceError::DiskFile {
        disk: disk.name.clone(),
        source,
    };
    let dir = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(failed)?;
    let partial = path.with_extension("partial");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)
        .map_err(failed)?;
    let asked = disk.size_mib.map(|mib| mib.saturating_mul(1 << 20));
    match image {
        Some((digest, image)) => {
            let bytes = image.metadata().map_err(failed)?.len();
            let base = BaseName {
                path: &digest.hex(),
                format: DiskFormat::Raw,
            };
            create_qcow2(file, asked.unwrap_or(bytes), Some(base)).map_err(|source| {
                DeviceError::Layer {
                    disk: disk.name.clone(),
                    source,
                }
            })?;
        }
        None => {
            file.set_len(asked.unwrap_or_default()).map_err(failed)?;
            file.sync_all().map_err(failed)?;
        }
    }
    std::fs::rename(&partial, path).map_err(failed)?;
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(json: &str) -> Disk {
        serde_json::from_str(json).unwrap()
    }

    fn image(dir: &Path, bytes: u64) -> (Digest, File) {
        let path = dir.join("image");
        let file = File::create(&path).unwrap();
        file.set_len(bytes).unwrap();
        (Digest::new([0; 32]), File::open(path).unwrap())
    }

    #[test]
    fn names_of_taps_fit_and_differ() {
        let vm = VmId::from_uuid(uuid::Uuid::now_v7());
        let other = VmId::from_uuid(uuid::Uuid::now_v7());
        assert!(tap_name(vm, 9).len() <= tap::MAX_NAME_BYTES);
        assert_ne!(tap_name(vm, 0), tap_name(other, 0));
        assert_ne!(tap_name(vm, 0), tap_name(vm, 1));
    }

    #[test]
    fn a_disk_is_made_once_and_what_is_lost_is_not_replaced() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("disks/vm");
        let none = Faults::default();
        for (disk, image) in [
            (disk(r#"{"name":"data","size_mib":4}"#), None),
            (
                disk(r#"{"name":"root","image":"debian:12","size_mib":8}"#),
                Some(image(scratch.path(), 1 << 20)),
            ),
        ] {
            let copy = |image: &Option<(Digest, File)>| {
                let copied = image.as_ref();
                copied.map(|(digest, file)| (*digest, file.try_clone().unwrap()))
            };
            let made = own_disk(&dir, &disk, copy(&image), false, &none).unwrap();
            let (file, format) = match made {
                DiskBacking::Blank(file) => (file, DiskFormat::Raw),
                DiskBacking::Layer { layer, .. } => (layer, DiskFormat::Qcow2),
                DiskBacking::Image(_) => panic!("not the VM's own"),
            };
            let size = disk.size_mib.unwrap() << 20;
            assert_eq!(roost_worker::disk_bytes(&file, format).unwrap(), size);
            own_disk(&dir, &disk, copy(&image), true, &none).unwrap();

            std::fs::remove_dir_all(&dir).unwrap();
            assert!(matches!(
                own_disk(&dir, &disk, image, true, &none),
                Err(DeviceError::DiskFile { .. })
            ));
        }
    }
}
