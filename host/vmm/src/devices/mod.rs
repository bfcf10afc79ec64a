//! What a guest finds on its I/O ports and in the memory hole. Everything else reads as all ones
//! and ignores writes.

mod config;
mod device_thread;
mod event_loop;
pub(crate) mod events;
pub(crate) mod generation_id;
mod i8042;
mod keyboard;
pub(crate) mod lines;
pub(crate) mod mmio;
mod output;
mod panic;
pub(crate) mod ports;
#[cfg(any(test, fuzzing))]
mod ports_fuzz;
pub(crate) mod power;
mod rtc;
mod serial;
mod set;
pub(crate) mod virtio;

pub(crate) use config::{Controls, Made};
pub use config::{DeviceConfig, DeviceConfigError};
pub use output::{OUTPUT_RING_BYTES, SerialChunk};
pub(crate) use ports::{PortInterrupts, PortWrite, Ports};
#[cfg(any(test, fuzzing))]
pub(crate) use ports_fuzz::Accesses as PortAccesses;
pub(crate) use serial::OUTPUT_LIMIT;
pub use serial::SerialPort;
pub(crate) use set::{Assembly, DeviceSet};
pub use virtio::block::{
    BaseImage, BaseName, DiskConfig, DiskError, DiskFormat, IoEngine, create_qcow2, disk_bytes,
};
pub use virtio::vsock::{VsockConfig, VsockConfigError, VsockLimits};

/// All that a vCPU's accesses reach.
pub(crate) struct Buses {
    pub(crate) ports: Ports,
    pub(crate) mmio: mmio::MmioBus,
}
