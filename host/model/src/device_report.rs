//! What the devices of a running VM report.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the devices of a VM report, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// In the order of their places.
    pub devices: Vec<DeviceStatus>,
    /// The balloon, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balloon: Option<BalloonStatus>,
    /// Serial output that went nowhere because the guest exceeded its limit, bytes.
    #[serde(default)]
    pub serial_dropped_bytes: u64,
}

/// One device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Its kind and its number among those of its kind, from 0: `block0`.
    pub device: String,
    /// Why it is broken, while it is: it waits for its driver to reset it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
    /// What it has counted in this incarnation, by name.
    pub counters: BTreeMap<String, u64>,
}

/// How full a balloon is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalloonStatus {
    /// What the host asks the guest for, bytes.
    pub target_bytes: u64,
    /// What the guest says it has given, bytes.
    pub actual_bytes: u64,
    /// What the guest says is unused, bytes; absent where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_free_bytes: Option<u64>,
    /// What the guest says it could give without swapping, bytes; absent where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_available_bytes: Option<u64>,
}

/// What can be asked of a running VM beside running and stopping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "control", rename_all = "kebab-case")]
pub enum Control {
    /// Press a button. A guest that does not listen does nothing.
    Press {
        /// Which.
        button: Button,
    },
    /// Limit what the guest prints on its serial port; absent: no limit.
    SerialLimit {
        /// Bytes.
        #[serde(default)]
        limit: Option<crate::RateLimit>,
    },
    /// Limit a disk.
    DiskLimits {
        /// Its name.
        disk: crate::Name,
        /// Its limits from now on.
        limits: crate::RateLimits,
    },
    /// Limit a network interface.
    NetworkLimits {
        /// Its place in the spec, from 0.
        index: usize,
        /// What the guest may receive from now on.
        rx_limits: crate::RateLimits,
        /// What it may send from now on.
        tx_limits: crate::RateLimits,
    },
    /// Ask the guest for memory, MiB in all. It gives in its own time.
    Balloon {
        /// How much.
        target_mib: u32,
    },
}

/// What a person would press to have a machine shut down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Button {
    /// The ACPI power button.
    #[default]
    PowerButton,
    /// Ctrl-Alt-Delete on the keyboard.
    CtrlAltDelete,
}

/// How a guest is given time to end by itself before it is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grace {
    /// What tells it to.
    #[serde(default)]
    pub button: Button,
    /// How long it may take, ms.
    pub deadline_ms: u64,
}
