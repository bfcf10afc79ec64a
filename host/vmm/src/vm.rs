//! A VM that has been built: run, pause, stop, look at.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kvm_ioctls::VmFd;
use roost_model::{Counters, Exits, GuestExit};
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

use crate::builder::{self, BuildError, KvmFeatures, VmConfig};
use crate::devices::virtio::balloon::{BalloonControl, BalloonStatistics};
use crate::devices::virtio::console::ConsolePort;
use crate::devices::virtio::net::NetLimits;
use crate::devices::virtio::{DeviceCounters, GuestMemory, RateLimits};
use crate::devices::{Buses, DeviceSet, Ports, SerialPort, events, generation_id};
use crate::kvm::run::{Run, Wanted};
use crate::kvm::vcpu::Vcpu;
use crate::kvm::{KvmError, memory};

/// Why a VM does not do what it is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The guest has ended.
    #[error("the guest has ended: {0}")]
    Exited(GuestExit),
}

/// The VM has no such device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the VM has no {kind} device {index}")]
pub struct NoSuchDevice {
    /// Its kind.
    pub kind: &'static str,
    /// Its number among those of its kind, from 0.
    pub index: usize,
}

/// Why a balloon does not do what it is told.
#[derive(Debug, thiserror::Error)]
pub enum BalloonError {
    /// There is none.
    #[error(transparent)]
    None(#[from] NoSuchDevice),
    /// The guest has less memory.
    #[error("{asked_mib} MiB can't be taken from a guest of {memory_mib}")]
    TooLarge {
        /// What was asked for.
        asked_mib: u32,
        /// The guest's memory.
        memory_mib: u64,
    },
    /// The kernel can't wait for so long.
    #[error("an interval of {interval:?}: {source}")]
    Interval {
        /// How long.
        interval: Option<Duration>,
        /// What it said.
        source: io::Error,
    },
}

/// One virtual machine. Dropping it stops it.
pub struct Vm {
    run: Arc<Run>,
    serial: Arc<SerialPort>,
    buses: Arc<Buses>,
    features: KvmFeatures,
    vcpus: Mutex<Vec<Vcpu>>,
    devices: DeviceSet,
    // After the threads, which `Drop` joins, and in this order: the VM, then its memory.
    vm: VmFd,
    memory: GuestMemory,
}

/// What the builder made.
pub(crate) struct Parts {
    pub(crate) vcpus: Vec<Vcpu>,
    pub(crate) run: Arc<Run>,
    pub(crate) serial: Arc<SerialPort>,
    pub(crate) buses: Arc<Buses>,
    pub(crate) devices: DeviceSet,
    pub(crate) features: KvmFeatures,
    pub(crate) vm: VmFd,
    pub(crate) memory: GuestMemory,
}

impl Vm {
    /// Builds a VM from an open `/dev/kvm`. It is paused: no guest instruction has run.
    ///
    /// # Errors
    /// [`BuildError`] says what was wrong with the images or what KVM refused.
    pub fn build(kvm: File, config: VmConfig) -> Result<Self, BuildError> {
        builder::build(kvm, config)
    }

    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            run: parts.run,
            serial: parts.serial,
            buses: parts.buses,
            features: parts.features,
            vcpus: Mutex::new(parts.vcpus),
            devices: parts.devices,
            vm: parts.vm,
            memory: parts.memory,
        }
    }

    fn vcpus(&self) -> std::sync::MutexGuard<'_, Vec<Vcpu>> {
        self.vcpus.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Guest-physical addresses of the pages of 4 KiB that vCPUs have written since the last call,
    /// or since they first ran, in order. What devices write is not among them: that is in buffers
    /// which drivers made writable, and in used rings.
    ///
    /// # Errors
    /// KVM has no log: [`MachineOptions::log_dirty_pages`](crate::MachineOptions) was not set.
    pub fn take_dirty_pages(&self) -> Result<Vec<u64>, KvmError> {
        memory::take_dirty_pages(&self.vm, &self.memory)
    }

    /// Lets the devices and the vCPUs run. Idempotent.
    ///
    /// # Errors
    /// The guest has ended.
    pub fn resume(&self) -> Result<(), ControlError> {
        self.control(Wanted::Running)
    }

    /// Holds the vCPUs and the devices; returns when no vCPU is in the guest and the devices have
    /// finished what they had. Idempotent.
    ///
    /// # Errors
    /// The guest has ended.
    pub fn pause(&self) -> Result<(), ControlError> {
        self.control(Wanted::Paused)
    }

    fn control(&self, wanted: Wanted) -> Result<(), ControlError> {
        // Held throughout, so that two callers' requests don't mix.
        let vcpus = self.vcpus();
        if wanted == Wanted::Running {
            self.devices.resume();
        }
        self.run.want(wanted);
        if wanted == Wanted::Paused {
            vcpus.iter().for_each(Vcpu::kick);
            self.run.wait_idle();
            self.devices.pause();
        }
        match self.exit() {
            Some(exit) => Err(ControlError::Exited(exit)),
            None => Ok(()),
        }
    }

    /// Presses the power button: an operating system shuts down and powers the machine off, which
    /// is [`GuestExit::PowerOff`]. One that does not listen to it does nothing.
    ///
    /// # Errors
    /// The guest has ended.
    pub fn press_power_button(&self) -> Result<(), ControlError> {
        self.touch(|ports| ports.events().raise(events::POWER_BUTTON))
    }

    /// Types Ctrl-Alt-Delete on the keyboard: an operating system shuts down and resets the
    /// machine. One that has no driver for it does nothing.
    ///
    /// # Errors
    /// The guest has ended.
    pub fn ctrl_alt_delete(&self) -> Result<(), ControlError> {
        self.touch(Ports::ctrl_alt_delete)
    }

    /// Gives the guest another generation id and tells it: it goes on from a state that it may have
    /// been in before.
    ///
    /// # Errors
    /// The guest has ended.
    pub fn set_generation_id(&self, id: [u8; 16]) -> Result<(), ControlError> {
        self.touch(|ports| {
            // Every VM has memory there.
            let _ = generation_id::write(&self.memory, id);
            ports.events().raise(events::GENERATION_ID);
        })
    }

    /// What this host's KVM could do for the VM.
    #[must_use]
    pub fn kvm_features(&self) -> KvmFeatures {
        self.features
    }

    fn touch(&self, act: impl FnOnce(&Ports)) -> Result<(), ControlError> {
        if let Some(exit) = self.exit() {
            return Err(ControlError::Exited(exit));
        }
        act(&self.buses.ports);
        Ok(())
    }

    /// Ends the guest, if it has not ended, and its threads. Idempotent.
    pub fn stop(&self) {
        let mut vcpus = self.vcpus();
        self.run.end(GuestExit::Stopped);
        vcpus.iter().for_each(Vcpu::kick);
        vcpus.iter_mut().for_each(Vcpu::join);
        self.devices.stop();
        self.serial.notify();
        let ports = self.devices.controls().console.iter();
        ports.for_each(|port| port.notify());
    }

    /// Whether the VM is held and has not ended.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.run.state().wanted == Wanted::Paused
    }

    /// How the guest ended, once it has.
    #[must_use]
    pub fn exit(&self) -> Option<GuestExit> {
        self.run.state().exit.clone()
    }

    /// An eventfd that is readable from the guest's end on. Don't read it.
    pub fn exit_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor belongs to `self.run`, which the result borrows from.
        unsafe { BorrowedFd::borrow_raw(self.run.exited.as_raw_fd()) }
    }

    /// What the VM has used so far. After the guest's end, [`Vm::stop`] makes it final.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let vcpus = self.vcpus();
        let mut exits = Exits::default();
        vcpus.iter().for_each(|vcpu| vcpu.add_exits(&mut exits));
        Counters {
            vcpu_cpu_ns: vcpus.iter().map(Vcpu::cpu_ns).sum(),
            running_ns: u64::try_from(self.run.ran().as_nanos()).unwrap_or(u64::MAX),
            serial_tx_bytes: self.serial.end(),
            serial_rx_bytes: self.serial.received(),
            exits,
        }
    }

    /// Changes the rate limits of the disk with this id, from its next request on; whether there is
    /// one.
    #[must_use]
    pub fn set_disk_limits(&self, id: &str, limits: RateLimits) -> bool {
        let disk = self.devices.controls().disks.get(id);
        disk.map(|disk| disk.set_limits(limits)).is_some()
    }

    /// What each virtio device has counted, in the order of their places, and whether it is broken.
    #[must_use]
    pub fn device_counters(&self) -> Vec<DeviceCounters> {
        self.devices.counters()
    }

    /// Changes how much may pass network device `index`, from its next packet on.
    ///
    /// # Errors
    /// There is no such device.
    pub fn set_net_limits(&self, index: usize, limits: NetLimits) -> Result<(), NoSuchDevice> {
        let control = self.devices.controls().net.get(index);
        let control = control.ok_or(NoSuchDevice { kind: "net", index })?;
        control.set_limits(limits);
        Ok(())
    }

    fn balloon(&self) -> Result<&BalloonControl, NoSuchDevice> {
        let control = self.devices.controls().balloon.as_deref();
        control.ok_or(NoSuchDevice {
            kind: "balloon",
            index: 0,
        })
    }

    /// Asks the guest to give `target_mib` MiB of its memory, in all, to the host. It follows in
    /// its own time; [`Self::balloon_statistics`] tells how far it is.
    ///
    /// # Errors
    /// There is no balloon, or not that much memory.
    pub fn set_balloon(&self, target_mib: u32) -> Result<(), BalloonError> {
        let balloon = self.balloon()?;
        let memory_bytes: u64 = self.memory.iter().map(|region| region.len()).sum();
        let memory_mib = memory_bytes >> 20;
        if u64::from(target_mib) > memory_mib {
            return Err(BalloonError::TooLarge {
                asked_mib: target_mib,
                memory_mib,
            });
        }
        balloon.set_target_mib(target_mib);
        Ok(())
    }

    /// Asks the guest for statistics every so often from now on; `None`: no more.
    ///
    /// # Errors
    /// There is no balloon, or the interval is for ever.
    pub fn set_balloon_statistics_interval(
        &self,
        interval: Option<Duration>,
    ) -> Result<(), BalloonError> {
        let set = self.balloon()?.set_statistics_interval(interval);
        set.map_err(|source| BalloonError::Interval { interval, source })
    }

    /// How full the balloon is, and what the guest last said about its memory.
    ///
    /// # Errors
    /// There is no balloon.
    pub fn balloon_statistics(&self) -> Result<BalloonStatistics, NoSuchDevice> {
        Ok(self.balloon()?.statistics())
    }

    /// A port of the console: 0 is the terminal, the named ones follow. `None`: there is no
    /// console, or no such port.
    #[must_use]
    pub fn console(&self, port: usize) -> Option<&ConsolePort> {
        let ports = &self.devices.controls().console;
        ports.get(port).map(Arc::as_ref)
    }

    /// The serial port.
    #[must_use]
    pub fn serial(&self) -> &SerialPort {
        &self.serial
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.stop();
    }
}
