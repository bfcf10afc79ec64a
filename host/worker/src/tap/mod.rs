//! TAP interfaces, made by the host process and passed to workers as descriptors.
//!
//! It needs `CAP_NET_ADMIN`, works in the network namespace of the calling thread, and may be
//! repeated: what is already as it should be stays, what is already gone is no error. Nothing waits
//! for anything but the kernel.
//!
//! ```no_run
//! use roost_worker::tap;
//! let tap = tap::create("roost-1", true)?;
//! tap::connect("roost-1", Some("br0"), None)?;
//! // … pass `tap` to a worker; and when the VM is gone for good:
//! tap::delete("roost-1")?;
//! # Ok::<(), tap::TapError>(())
//! ```

mod create;
mod netlink;

use std::io;

pub use create::create;
use netlink::{Interface, Netlink};
use rustix::io::Errno;

/// Most bytes of an interface's name (`IFNAMSIZ` without the zero).
pub const MAX_NAME_BYTES: usize = 15;

/// Why a TAP is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// No interface can be called that.
    #[error("{0:?} is not a name for an interface: 1 to 15 bytes without spaces, '/', ':' or '%'")]
    Name(String),
    /// `CAP_NET_ADMIN` is missing, or access to `/dev/net/tun`.
    #[error("making and changing network interfaces is not permitted: CAP_NET_ADMIN is needed")]
    Permission,
    /// `/dev/net/tun` is not there.
    #[error("this machine has no TAPs: /dev/net/tun is missing (kernel module tun)")]
    Unsupported,
    /// A TAP of this name is in use by some process.
    #[error("the TAP {0} is in use")]
    InUse(String),
    /// There is an interface of this name, and it is no TAP.
    #[error("the interface {name} exists and is {kind}, not a TAP")]
    NotATap {
        /// Its name.
        name: String,
        /// What it is, in the kernel's words.
        kind: String,
    },
    /// There is no such interface.
    #[error("there is no interface {0}")]
    Missing(String),
    /// The interface to connect it to is not a bridge.
    #[error("the interface {0} is not a bridge")]
    NotABridge(String),
    /// The kernel refused something else.
    #[error("{what}: {source}")]
    Host {
        /// What it was asked for.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl TapError {
    fn host(what: &'static str, source: io::Error) -> Self {
        match Errno::from_io_error(&source) {
            Some(Errno::PERM | Errno::ACCESS) => Self::Permission,
            _ => Self::Host { what, source },
        }
    }
}

/// Puts a TAP up: into `bridge`, if one is named, and with an MTU of so many bytes, if it is given
/// (else it keeps the one that it has).
///
/// # Errors
/// The TAP or the bridge is missing or is something else, or the kernel refused.
pub fn connect(name: &str, bridge: Option<&str>, mtu: Option<u32>) -> Result<(), TapError> {
    let netlink = open()?;
    let tap = find_tap(&netlink, name)?.ok_or_else(|| TapError::Missing(name.to_owned()))?;
    let bridge = bridge.map(|bridge| find_bridge(&netlink, bridge));
    let bridge = bridge.transpose()?;
    let done = netlink.set_up(tap.index, mtu, bridge.map(|bridge| bridge.index));
    done.map_err(|error| TapError::host("putting a TAP up", error))
}

/// Deletes a TAP, even one that a worker has open: its guest's link goes down.
///
/// # Errors
/// The interface is not a TAP, or the kernel refused.
pub fn delete(name: &str) -> Result<(), TapError> {
    let netlink = open()?;
    let Some(tap) = find_tap(&netlink, name)? else {
        return Ok(());
    };
    let done = netlink.delete(tap.index);
    done.map_err(|error| TapError::host("deleting a TAP", error))
}

/// Whether there is a TAP of this name.
///
/// # Errors
/// The interface is not a TAP, or the kernel refused.
pub fn exists(name: &str) -> Result<bool, TapError> {
    find_tap(&open()?, name).map(|tap| tap.is_some())
}

fn open() -> Result<Netlink, TapError> {
    Netlink::open().map_err(|error| TapError::host("a netlink socket", error))
}

fn find(netlink: &Netlink, name: &str) -> Result<Option<Interface>, TapError> {
    check_name(name)?;
    let found = netlink.find(name);
    found.map_err(|error| TapError::host("looking an interface up", error))
}

fn find_tap(netlink: &Netlink, name: &str) -> Result<Option<Interface>, TapError> {
    match find(netlink, name)? {
        Some(interface) if interface.kind != "tun" => Err(TapError::NotATap {
            name: name.to_owned(),
            kind: match interface.kind {
                kind if kind.is_empty() => "a device".to_owned(),
                kind => kind,
            },
        }),
        found => Ok(found),
    }
}

fn find_bridge(netlink: &Netlink, name: &str) -> Result<Interface, TapError> {
    let bridge = find(netlink, name)?.ok_or_else(|| TapError::Missing(name.to_owned()))?;
    match &*bridge.kind {
        "bridge" => Ok(bridge),
        _ => Err(TapError::NotABridge(name.to_owned())),
    }
}

/// What the kernel takes as a name (`dev_valid_name`), and no pattern for one.
fn check_name(name: &str) -> Result<(), TapError> {
    let is_wrong =
        |byte: u8| byte.is_ascii_whitespace() || byte.is_ascii_control() || b"/:%".contains(&byte);
    let is_name = (1..=MAX_NAME_BYTES).contains(&name.len())
        && ![".", ".."].contains(&name)
        && !name.bytes().any(is_wrong);
    match is_name {
        true => Ok(()),
        false => Err(TapError::Name(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_a_name_is_refused_before_anything_is_asked_for() {
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "a\0",
            "tap%d",
            "a:1",
            "sixteen-bytes-16",
        ] {
            let results = [
                create(name, false).map(drop),
                connect(name, None, None),
                delete(name),
                exists(name).map(drop),
            ];
            for result in results {
                assert!(
                    matches!(result, Err(TapError::Name(_))),
                    "{name:?}: {result:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_not_there_is_gone_already_and_what_is_no_tap_is_left_alone() {
        // Looking up is permitted to everybody.
        delete("roost-no-such").unwrap();
        assert!(!exists("roost-no-such").unwrap());
        assert!(matches!(
            connect("roost-no-such", None, None),
            Err(TapError::Missing(_))
        ));
        assert!(matches!(delete("lo"), Err(TapError::NotATap { .. })));
    }
}
