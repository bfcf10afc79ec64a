//! The devices that a user asks for.
//!
//! A spec without any of them is a VM with a serial port and nothing else.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{ImageRef, InvalidSpec, Name, limits};

/// A disk: a virtio block device.
///
/// With an image, the guest sees the image's content; what it writes goes to a layer of the VM's
/// own, so that no two VMs ever write the same file. Without one it is blank. A layer lives as
/// long as its VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Unique within the VM; at most 20 bytes, which the guest reads as the disk's serial number.
    pub name: Name,
    /// What is on it: a raw image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageRef>,
    /// Size, MiB. Absent: the image's. Not below it, and required without an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_mib: Option<u64>,
    /// The guest can't write. Only with an image, which is then used as it is.
    #[serde(default, skip_serializing_if = "is_false")]
    pub read_only: bool,
    /// How much the guest may read and write.
    #[serde(default, skip_serializing_if = "RateLimits::is_none")]
    pub limits: RateLimits,
}

/// A network interface: a virtio network device on a TAP of the host's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkInterface {
    /// Unique within the VM.
    pub name: Name,
    /// The Linux bridge that the TAP is attached to. Absent: the TAP stands alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<InterfaceName>,
    /// Its address. Absent: the host allocates one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// How much the guest may receive.
    #[serde(default, skip_serializing_if = "RateLimits::is_none")]
    pub rx_limits: RateLimits,
    /// How much the guest may send.
    #[serde(default, skip_serializing_if = "RateLimits::is_none")]
    pub tx_limits: RateLimits,
}

/// A memory balloon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Balloon {
    /// The guest takes memory back rather than run out of it.
    pub deflate_on_oom: bool,
    /// The guest tells of memory that it does not use, and the host takes it.
    pub free_page_reporting: bool,
}

/// Where guest memory comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemoryBacking {
    /// Private anonymous memory.
    #[default]
    Anonymous,
    /// A memfd, which other processes can share.
    Memfd,
    /// Huge pages of 2 MiB, which the host must have reserved.
    Hugetlbfs,
}

/// Which CPU a guest sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CpuTemplate {
    /// Everything that this host's KVM supports.
    #[default]
    Host,
    /// What every x86-64-v2 CPU has, so that a guest finds the same on other hosts.
    #[serde(rename = "x86-64-v2")]
    X8664V2,
}

/// What happens when a guest resets its machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnReset {
    /// The VM is stopped.
    #[default]
    Stop,
    /// The VM is booted again, in a new incarnation.
    Reboot,
}

/// What happens when a guest ends by itself in an orderly way: it halts, powers the machine off, or
/// resets it where that is no reboot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnEnd {
    /// The VM is stopped.
    #[default]
    Stop,
    /// The VM is stopped, and that is an incident: the recovery policy decides whether it stays so.
    Recover,
}

/// Limits of a device's traffic: a token bucket for bytes and one for operations. Absent: no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimits {
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<RateLimit>,
    /// Operations: requests of a disk, packets of a network interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operations: Option<RateLimit>,
}

impl RateLimits {
    /// Whether nothing is limited.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.bytes.is_none() && self.operations.is_none()
    }
}

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Tokens that are added each second.
    pub per_second: u64,
    /// Tokens that the bucket holds: what may be used at once. Absent: those of one second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
}

impl RateLimit {
    /// Tokens that the bucket holds.
    #[must_use]
    pub const fn burst(&self) -> u64 {
        match self.burst {
            Some(burst) => burst,
            None => self.per_second,
        }
    }
}

/// A MAC address (IEEE 802). Text: six pairs of hexadecimal digits with colons between them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    /// The address whose bytes are `bytes`, made locally administered and unicast, so that it is
    /// never one that a manufacturer gave out.
    #[must_use]
    pub const fn local(mut bytes: [u8; 6]) -> Self {
        bytes[0] = bytes[0] & !GROUP | LOCAL;
        Self(bytes)
    }

    /// The six bytes in the order in which they are sent.
    #[must_use]
    pub const fn bytes(&self) -> [u8; 6] {
        self.0
    }
}

/// First byte: set in an address of a group (multicast).
const GROUP: u8 = 1;
/// First byte: set in an address that is locally administered.
const LOCAL: u8 = 2;

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddress {
    type Err = InvalidSpec;

    fn from_str(text: &str) -> Result<Self, InvalidSpec> {
        let invalid = || InvalidSpec::Mac(text.chars().take(32).collect());
        let mut bytes = [0; 6];
        let mut pairs = text.split(':');
        for byte in &mut bytes {
            let pair = pairs.next().filter(|pair| pair.len() == 2);
            *byte = pair
                .filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()))
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                .ok_or_else(invalid)?;
        }
        if pairs.next().is_some() || bytes[0] & GROUP != 0 || bytes == [0; 6] {
            return Err(invalid());
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for MacAddress {
    type Error = InvalidSpec;

    fn try_from(text: String) -> Result<Self, InvalidSpec> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> Self {
        mac.to_string()
    }
}

/// The name of a network interface of the host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct InterfaceName(String);

impl InterfaceName {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = InvalidSpec;

    fn from_str(text: &str) -> Result<Self, InvalidSpec> {
        // `IFNAMSIZ` of linux/if.h is 16 with the terminating zero.
        let good = (1..=15).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            && text != "."
            && text != "..";
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidSpec::InterfaceName(text.chars().take(32).collect()))
        }
    }
}

impl TryFrom<String> for InterfaceName {
    type Error = InvalidSpec;

    fn try_from(text: String) -> Result<Self, InvalidSpec> {
        text.parse()
    }
}

impl From<InterfaceName> for String {
    fn from(name: InterfaceName) -> Self {
        name.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `skip_serializing_if` wants a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
pub(crate) const fn is_false(value: &bool) -> bool {
    !*value
}

/// Checks what needs no knowledge of the host.
pub(crate) fn validate(disks: &[Disk], networks: &[NetworkInterface]) -> Result<(), InvalidSpec> {
    for (kind, count, max) in [
        ("disks", disks.len(), limits::MAX_DISKS),
        ("networks", networks.len(), limits::MAX_NETWORKS),
    ] {
        if count > max {
            return Err(InvalidSpec::DeviceCount { kind, count, max });
        }
    }
    unique("disks", disks.iter().map(|disk| &disk.name))?;
    unique("networks", networks.iter().map(|network| &network.name))?;
    disks.iter().try_for_each(validate_disk)?;
    for network in networks {
        for limits in [&network.rx_limits, &network.tx_limits] {
            validate_limits(&network.name, limits)?;
        }
    }
    Ok(())
}

pub(crate) fn validate_console(console: bool, ports: &[Name]) -> Result<(), InvalidSpec> {
    let (kind, count, max) = ("console_ports", ports.len(), limits::MAX_CONSOLE_PORTS);
    if count > max {
        return Err(InvalidSpec::DeviceCount { kind, count, max });
    }
    if count > 0 && !console {
        return Err(InvalidSpec::NoConsole);
    }
    let is_index = |name: &&Name| name.as_str().bytes().all(|byte| byte.is_ascii_digit());
    if let Some(name) = ports.iter().find(is_index) {
        return Err(InvalidSpec::ConsolePortName(name.to_string()));
    }
    unique(kind, ports.iter())
}

fn unique<'a>(
    kind: &'static str,
    names: impl Iterator<Item = &'a Name>,
) -> Result<(), InvalidSpec> {
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(InvalidSpec::DeviceTwice {
            kind,
            name: pair[0].to_string(),
        }),
        None => Ok(()),
    }
}

fn validate_disk(disk: &Disk) -> Result<(), InvalidSpec> {
    let name = || disk.name.to_string();
    if disk.name.as_str().len() > limits::MAX_DISK_NAME_BYTES {
        return Err(InvalidSpec::DiskName(name()));
    }
    match (&disk.image, disk.size_mib) {
        (None, None) => return Err(InvalidSpec::DiskSize(name())),
        (_, Some(size)) if !(1..=limits::MAX_DISK_MIB).contains(&size) => {
            return Err(InvalidSpec::DiskSizeRange { name: name(), size });
        }
        _ => {}
    }
    if disk.read_only && (disk.image.is_none() || disk.size_mib.is_some()) {
        return Err(InvalidSpec::DiskReadOnly(name()));
    }
    validate_limits(&disk.name, &disk.limits)
}

pub(crate) fn validate_limits(device: &Name, limits: &RateLimits) -> Result<(), InvalidSpec> {
    let zero = [limits.bytes, limits.operations]
        .into_iter()
        .flatten()
        .any(|limit| limit.per_second == 0 || limit.burst() == 0);
    if zero {
        return Err(InvalidSpec::RateLimit(device.to_string()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(json: &str) -> Disk {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn mac_addresses_are_six_bytes_of_one_machine() {
        let mac: MacAddress = "02:00:5E:10:00:ff".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:5e:10:00:ff");
        assert_eq!(MacAddress::local([0xff; 6]).bytes()[0], 0xfe);
        for bad in [
            "",
            "02:00:5e:10:00",
            "02:00:5e:10:00:ff:00",
            "01:00:5e:10:00:ff",
            "00:00:00:00:00:00",
            "+2:00:5e:10:00:ff",
            "2:00:5e:10:00:ff",
            "02-00-5e-10-00-ff",
        ] {
            assert!(bad.parse::<MacAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn interface_names_are_those_of_linux() {
        for bad in ["", "..", "a/b", "a b", "sixteen-letters-"] {
            assert!(bad.parse::<InterfaceName>().is_err(), "{bad}");
        }
        assert!("br-0.1".parse::<InterfaceName>().is_ok());
    }

    #[test]
    fn a_disk_has_an_image_or_a_size() {
        let check = |json| validate(&[disk(json)], &[]);
        assert_eq!(check(r#"{"name":"a","image":"debian:12"}"#), Ok(()));
        assert_eq!(check(r#"{"name":"a","size_mib":64}"#), Ok(()));
        assert_eq!(
            check(r#"{"name":"a"}"#),
            Err(InvalidSpec::DiskSize("a".to_owned()))
        );
        assert_eq!(
            check(r#"{"name":"a","size_mib":0}"#),
            Err(InvalidSpec::DiskSizeRange {
                name: "a".to_owned(),
                size: 0
            })
        );
        for json in [
            r#"{"name":"a","size_mib":64,"read_only":true}"#,
            r#"{"name":"a","size_mib":64,"image":"debian:12","read_only":true}"#,
        ] {
            assert_eq!(check(json), Err(InvalidSpec::DiskReadOnly("a".to_owned())));
        }
        assert_eq!(
            check(r#"{"name":"twenty-bytes-exactly","size_mib":1}"#),
            Ok(())
        );
        assert_eq!(
            check(r#"{"name":"twenty-one-bytes-long","size_mib":1}"#),
            Err(InvalidSpec::DiskName("twenty-one-bytes-long".to_owned()))
        );
    }

    #[test]
    fn devices_of_one_kind_have_names_of_their_own() {
        let disk = disk(r#"{"name":"a","size_mib":64}"#);
        assert_eq!(
            validate(&[disk.clone(), disk], &[]),
            Err(InvalidSpec::DeviceTwice {
                kind: "disks",
                name: "a".to_owned()
            })
        );
    }

    #[test]
    fn console_ports_are_few_have_names_of_their_own_and_a_console() {
        let check = |console, names: &[&str]| {
            let names: Vec<Name> = names.iter().map(|name| name.parse().unwrap()).collect();
            validate_console(console, &names)
        };
        assert_eq!(check(false, &[]), Ok(()));
        assert_eq!(check(true, &["agent", "log", "3com"]), Ok(()));
        assert_eq!(check(false, &["agent"]), Err(InvalidSpec::NoConsole));
        assert_eq!(
            check(true, &["1"]),
            Err(InvalidSpec::ConsolePortName("1".to_owned()))
        );
        let kind = "console_ports";
        assert_eq!(
            check(true, &["a", "a"]),
            Err(InvalidSpec::DeviceTwice {
                kind,
                name: "a".to_owned()
            })
        );
        assert_eq!(
            check(true, &["a", "b", "c", "d"]),
            Err(InvalidSpec::DeviceCount {
                kind,
                count: 4,
                max: 3
            })
        );
    }

    #[test]
    fn a_limit_of_nothing_is_refused() {
        let disk = disk(r#"{"name":"a","size_mib":1,"limits":{"bytes":{"per_second":0}}}"#);
        assert_eq!(
            validate(&[disk], &[]),
            Err(InvalidSpec::RateLimit("a".to_owned()))
        );
    }
}
