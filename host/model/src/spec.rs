//! What a user asks for.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ImageRef;
use crate::devices::{
    self, Balloon, CpuTemplate, Disk, MemoryBacking, NetworkInterface, OnEnd, OnReset, RateLimit,
    RateLimits, is_false,
};

/// Limits of a spec, checked before anything is allocated.
pub mod limits {
    /// Most vCPUs of a VM: what the boot protocol and the interrupt set-up are tested with.
    pub const MAX_VCPUS: u32 = 32;
    /// Least memory, MiB: below this no kernel that we load at 16 MiB has room.
    pub const MIN_MEMORY_MIB: u64 = 32;
    /// Most memory, MiB (1 TiB): the guest-physical width that every 64-bit CPU offers.
    pub const MAX_MEMORY_MIB: u64 = 1 << 20;
    /// Longest kernel command line, bytes, without the terminating zero
    /// (`COMMAND_LINE_SIZE` of x86 Linux is 2048 with it).
    pub const MAX_CMDLINE_BYTES: usize = 2047;
    /// Most labels on a VM: they are given to every policy call.
    pub const MAX_LABELS: usize = 32;
    /// Longest label key or value, bytes.
    pub const MAX_LABEL_BYTES: usize = 63;
    /// Longest name of a VM, tenant or plugin, bytes (a DNS label, RFC 1035).
    pub const MAX_NAME_BYTES: usize = 63;
    /// Most bytes of a spec document.
    pub const MAX_SPEC_BYTES: usize = 64 << 10;
    /// Most disks of a VM, and most network interfaces: with the other devices they fit into the
    /// 15 places for virtio devices that a VM has.
    pub const MAX_DISKS: usize = 6;
    /// See [`MAX_DISKS`].
    pub const MAX_NETWORKS: usize = 4;
    /// Longest name of a disk, bytes: `VIRTIO_BLK_ID_BYTES` of virtio 1.2, section 5.2.6.
    pub const MAX_DISK_NAME_BYTES: usize = 20;
    /// Most ports of a console beside the terminal.
    pub const MAX_CONSOLE_PORTS: usize = 3;
    /// Largest disk, MiB (16 TiB): the largest file of ext4.
    pub const MAX_DISK_MIB: u64 = 16 << 20;
    /// Longest time that a guest can be given to print its first byte, ms: a day.
    pub const MAX_BOOT_DEADLINE_MS: u64 = 24 * 60 * 60 * 1000;
}

/// Why a spec is refused. Each message says what was read and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpec {
    /// `name` is not a DNS label.
    #[error("{field} {text:?} is not a name: 1 to 63 of a-z, 0-9 and '-', not at either end")]
    Name {
        /// Which field.
        field: &'static str,
        /// What was read, cut to 64 characters.
        text: String,
    },
    /// `vcpus` is out of range.
    #[error("vcpus is {0}; a VM has 1 to {max}", max = limits::MAX_VCPUS)]
    Vcpus(u32),
    /// `memory_mib` is out of range.
    #[error(
        "memory_mib is {0}; a VM has {min} to {max} MiB",
        min = limits::MIN_MEMORY_MIB,
        max = limits::MAX_MEMORY_MIB
    )]
    Memory(u64),
    /// `cmdline` is too long.
    #[error("cmdline has {0} bytes; at most {max} are allowed", max = limits::MAX_CMDLINE_BYTES)]
    CmdlineLength(usize),
    /// `cmdline` holds a byte that ends it early or that no kernel expects.
    #[error("cmdline holds the byte {0:#04x}; printable ASCII is allowed")]
    CmdlineByte(u8),
    /// Too many labels.
    #[error("{0} labels; at most {max} are allowed", max = limits::MAX_LABELS)]
    LabelCount(usize),
    /// A label's key or value is too long, empty or not printable ASCII.
    #[error("label {0:?}: keys and values are 1 to 63 bytes of printable ASCII")]
    Label(String),
    /// Too many devices of a kind.
    #[error("{count} {kind}; a VM has at most {max}")]
    DeviceCount {
        /// Which field.
        kind: &'static str,
        /// How many were asked for.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// Two devices of a kind have the same name.
    #[error("{kind} has two of the name {name:?}")]
    DeviceTwice {
        /// Which field.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// The name of a disk does not fit its serial number.
    #[error("disk {0:?}: its name has at most {max} bytes", max = limits::MAX_DISK_NAME_BYTES)]
    DiskName(String),
    /// A disk has neither an image nor a size.
    #[error("disk {0:?} needs an image or a size_mib")]
    DiskSize(String),
    /// The size of a disk is out of range.
    #[error("disk {name:?}: size_mib is {size}; a disk has 1 to {max} MiB", max = limits::MAX_DISK_MIB)]
    DiskSizeRange {
        /// The disk.
        name: String,
        /// What was read.
        size: u64,
    },
    /// A read-only disk is an image as it is.
    #[error("disk {0:?}: a read-only disk has an image and no size_mib")]
    DiskReadOnly(String),
    /// Ports of a console that is not there.
    #[error("console_ports are ports of a virtio console, and console is not true")]
    NoConsole,
    /// A port's name would be read as another port's index.
    #[error("console port {0:?}: a name has a letter, for digits alone are an index")]
    ConsolePortName(String),
    /// A limit that would let nothing pass.
    #[error("{0:?}: a rate limit's per_second and burst are at least 1")]
    RateLimit(String),
    /// The time that a guest is given to print its first byte is out of range.
    #[error(
        "boot_deadline_ms is {0}; it may be 1 to {max}",
        max = limits::MAX_BOOT_DEADLINE_MS
    )]
    BootDeadline(u64),
    /// The text is not the MAC address of one machine.
    #[error("{0:?} is not a MAC address: six pairs of hexadecimal digits, the first one even")]
    Mac(String),
    /// The text is not the name of a network interface.
    #[error("{0:?} is not an interface's name: 1 to 15 letters, digits, '.', '_' or '-'")]
    InterfaceName(String),
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidSpec;

            fn from_str(text: &str) -> Result<Self, InvalidSpec> {
                let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
                let good = (1..=limits::MAX_NAME_BYTES).contains(&text.len())
                    && text.bytes().all(inner)
                    && !text.starts_with('-')
                    && !text.ends_with('-');
                if good {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidSpec::Name {
                        field: $field,
                        text: text.chars().take(64).collect(),
                    })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidSpec;

            fn try_from(text: String) -> Result<Self, InvalidSpec> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// The name of a VM or a plugin: a DNS label (RFC 1035).
    Name,
    "name"
);
name!(
    /// The tenant that a VM belongs to: a DNS label (RFC 1035).
    Tenant,
    "tenant"
);

impl Default for Tenant {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

/// What a user asks for. Unknown fields are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmSpec {
    /// Unique within the tenant.
    pub name: Name,
    /// Whose VM it is.
    #[serde(default)]
    pub tenant: Tenant,
    /// For selectors of bindings and for people.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Number of virtual CPUs.
    #[serde(default = "one")]
    pub vcpus: u32,
    /// Guest memory, MiB.
    #[serde(default = "default_memory_mib")]
    pub memory_mib: u64,
    /// The kernel: an ELF `vmlinux` or a bzImage.
    pub kernel: ImageRef,
    /// The initial RAM disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<ImageRef>,
    /// The kernel's command line.
    #[serde(default)]
    pub cmdline: String,
    /// Disks, in the order in which the guest finds them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<Disk>,
    /// Network interfaces, in the order in which the guest finds them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetworkInterface>,
    /// Whether it has a vsock device; the host allocates its context id.
    #[serde(default, skip_serializing_if = "is_false")]
    pub vsock: bool,
    /// Whether it has an entropy device.
    #[serde(default, skip_serializing_if = "is_false")]
    pub rng: bool,
    /// Its memory balloon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balloon: Option<Balloon>,
    /// Whether it has a virtio console beside its serial port.
    #[serde(default, skip_serializing_if = "is_false")]
    pub console: bool,
    /// Ports that its console has beside the terminal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub console_ports: Vec<Name>,
    /// Which CPU it sees.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cpu_template: CpuTemplate,
    /// Where its memory comes from.
    #[serde(default, skip_serializing_if = "is_default")]
    pub memory_backing: MemoryBacking,
    /// What happens when the guest resets its machine.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_reset: OnReset,
    /// What happens when the guest ends by itself.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_end: OnEnd,
    /// How much it may print on its serial port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_limit: Option<RateLimit>,
    /// How long the guest may run before it prints its first byte on its serial port or its
    /// console, ms; absent: as long as it likes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_deadline_ms: Option<u64>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

const fn one() -> u32 {
    1
}

const fn default_memory_mib() -> u64 {
    128
}

impl VmSpec {
    /// The VM that a spec with nothing but a name and a kernel describes.
    #[must_use]
    pub fn new(name: Name, kernel: ImageRef) -> Self {
        Self {
            name,
            tenant: Tenant::default(),
            labels: BTreeMap::new(),
            vcpus: one(),
            memory_mib: default_memory_mib(),
            kernel,
            initrd: None,
            cmdline: String::new(),
            disks: Vec::new(),
            networks: Vec::new(),
            vsock: false,
            rng: false,
            balloon: None,
            console: false,
            console_ports: Vec::new(),
            cpu_template: CpuTemplate::default(),
            memory_backing: MemoryBacking::default(),
            on_reset: OnReset::default(),
            on_end: OnEnd::default(),
            serial_limit: None,
            boot_deadline_ms: None,
        }
    }

    /// Guest memory, bytes.
    #[must_use]
    pub const fn memory_bytes(&self) -> u64 {
        self.memory_mib.saturating_mul(1 << 20)
    }

    /// Checks every limit that needs no knowledge of the host.
    ///
    /// # Errors
    /// The first limit that does not hold.
    pub fn validate(&self) -> Result<(), InvalidSpec> {
        if !(1..=limits::MAX_VCPUS).contains(&self.vcpus) {
            return Err(InvalidSpec::Vcpus(self.vcpus));
        }
        if !(limits::MIN_MEMORY_MIB..=limits::MAX_MEMORY_MIB).contains(&self.memory_mib) {
            return Err(InvalidSpec::Memory(self.memory_mib));
        }
        if self.cmdline.len() > limits::MAX_CMDLINE_BYTES {
            return Err(InvalidSpec::CmdlineLength(self.cmdline.len()));
        }
        if let Some(byte) = self.cmdline.bytes().find(|b| !matches!(b, 0x20..=0x7e)) {
            return Err(InvalidSpec::CmdlineByte(byte));
        }
        if self.labels.len() > limits::MAX_LABELS {
            return Err(InvalidSpec::LabelCount(self.labels.len()));
        }
        let good = |text: &String| {
            (1..=limits::MAX_LABEL_BYTES).contains(&text.len())
                && text.bytes().all(|b| matches!(b, 0x21..=0x7e))
        };
        if let Some((key, _)) = self
            .labels
            .iter()
            .find(|(key, value)| !good(key) || !good(value))
        {
            return Err(InvalidSpec::Label(key.chars().take(64).collect()));
        }
        if let Some(deadline_ms) = self.boot_deadline_ms
            && !(1..=limits::MAX_BOOT_DEADLINE_MS).contains(&deadline_ms)
        {
            return Err(InvalidSpec::BootDeadline(deadline_ms));
        }
        let serial = RateLimits {
            bytes: self.serial_limit,
            operations: None,
        };
        devices::validate_limits(&self.name, &serial)?;
        devices::validate_console(self.console, &self.console_ports)?;
        devices::validate(&self.disks, &self.networks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> VmSpec {
        serde_json::from_str(r#"{"name":"a","kernel":"hello:1"}"#).unwrap()
    }

    #[test]
    fn a_spec_of_the_least_fields_is_the_default_one() {
        let least = VmSpec::new("a".parse().unwrap(), "hello:1".parse().unwrap());
        assert_eq!(spec(), least);
    }

    #[test]
    fn defaults_are_valid_and_unknown_fields_are_refused() {
        assert_eq!(spec().validate(), Ok(()));
        let error = serde_json::from_str::<VmSpec>(r#"{"name":"a","kernel":"h:1","floppy":"x"}"#)
            .unwrap_err();
        assert!(error.to_string().contains("floppy"), "{error}");
    }

    #[test]
    fn sizes_outside_the_limits_are_refused_by_name() {
        for vcpus in [0, 33, 10_000] {
            assert_eq!(
                VmSpec { vcpus, ..spec() }.validate(),
                Err(InvalidSpec::Vcpus(vcpus))
            );
        }
        for memory_mib in [0, 31, 10 << 20, u64::MAX] {
            let spec = VmSpec {
                memory_mib,
                ..spec()
            };
            assert_eq!(spec.validate(), Err(InvalidSpec::Memory(memory_mib)));
        }
        for deadline_ms in [0, limits::MAX_BOOT_DEADLINE_MS + 1, u64::MAX] {
            let spec = VmSpec {
                boot_deadline_ms: Some(deadline_ms),
                ..spec()
            };
            assert_eq!(spec.validate(), Err(InvalidSpec::BootDeadline(deadline_ms)));
        }
        let long = "x".repeat(limits::MAX_CMDLINE_BYTES + 1);
        let cases = [
            (long, InvalidSpec::CmdlineLength(2048)),
            ("a\0b".into(), InvalidSpec::CmdlineByte(0)),
        ];
        for (cmdline, expected) in cases {
            assert_eq!(VmSpec { cmdline, ..spec() }.validate(), Err(expected));
        }
    }

    #[test]
    fn names_are_dns_labels() {
        for bad in ["", "A", "a_b", "-a", "a-", "a b", "ä", &"a".repeat(64)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
        assert!("a-0".parse::<Name>().is_ok());
    }
}
