//! Connecting to a program on the host for a guest: port P of the host is the Unix socket
//! `<prefix>_P` in the VM's directory.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// Most bytes of a prefix: with what is around it, it fits the 107 bytes of a Unix socket's path.
pub(super) const MAX_PREFIX_BYTES: usize = 64;

/// Where a guest's connections go.
#[derive(Debug)]
pub(super) struct Dial {
    directory: OwnedFd,
    prefix: String,
}

impl Dial {
    /// `None`: `prefix` is not the beginning of a file's name.
    pub(super) fn new(directory: OwnedFd, prefix: String) -> Option<Self> {
        let is_name = !prefix.is_empty() && !prefix.contains(['/', '\0']);
        (is_name && prefix.len() <= MAX_PREFIX_BYTES).then_some(Self { directory, prefix })
    }

    /// Connects to `port` without ever waiting. A listener that does not keep up refuses.
    ///
    /// There is no `connectat`. `/proc/self/fd` reaches the directory by its descriptor, from
    /// whatever the process sees of the file system; Landlock does not restrict it (up to ABI 8),
    /// and a process may always follow its own links. A jail must have `/proc`.
    pub(super) fn connect(&self, port: u32) -> io::Result<UnixStream> {
        let (directory, prefix) = (self.directory.as_raw_fd(), &self.prefix);
        let address = SocketAddrUnix::new(format!("/proc/self/fd/{directory}/{prefix}_{port}"))?;
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &address)?;
        Ok(socket.into())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::net::UnixListener;

    use landlock::{
        ABI, Access as _, AccessFs, AccessNet, Ruleset, RulesetAttr as _, RulesetStatus, Scope,
    };

    use super::*;

    fn open(directory: &tempfile::TempDir) -> OwnedFd {
        File::open(directory.path()).unwrap().into()
    }

    #[test]
    fn a_port_is_a_socket_of_the_directory_wherever_that_is() {
        let outer = tempfile::tempdir().unwrap();
        // Its path is longer than what fits an address.
        let deep = outer.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let prefix = "p".repeat(MAX_PREFIX_BYTES);
        let name = format!("{prefix}_{}", u32::MAX);
        let directory = OwnedFd::from(File::open(&deep).unwrap());
        let here = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
        let listener = UnixListener::bind(here).unwrap();
        let dial = Dial::new(directory, prefix).unwrap();
        assert!(dial.connect(u32::MAX).is_ok());
        assert!(listener.accept().is_ok());
        let error = dial.connect(1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_listener_that_does_not_keep_up_refuses_and_does_not_block() {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("v_1")).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let dial = Dial::new(open(&directory), "v".to_owned()).unwrap();
        let mut connected = Vec::new();
        let refused = loop {
            match dial.connect(1) {
                Ok(stream) => connected.push(stream),
                Err(error) => break error,
            }
            assert!(connected.len() < 9);
        };
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
    }

    /// As in the worker's jail. Landlock restricts the thread that asks for it.
    #[test]
    fn a_process_that_may_open_nothing_still_reaches_the_sockets_of_its_directory() {
        let directory = tempfile::tempdir().unwrap();
        let _listener = UnixListener::bind(directory.path().join("v_1")).unwrap();
        let dial = Dial::new(open(&directory), "v".to_owned()).unwrap();
        let restricted = move || {
            let abi = ABI::V6;
            let status = Ruleset::default()
                .handle_access(AccessFs::from_all(abi))
                .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(abi)))
                .and_then(|ruleset| ruleset.scope(Scope::from_all(abi)))
                .and_then(|ruleset| ruleset.create()?.restrict_self())
                .unwrap();
            // A kernel without Landlock has nothing to be shown.
            let is_restricted = status.ruleset != RulesetStatus::NotEnforced;
            assert_eq!(File::open(directory.path()).is_err(), is_restricted);
            dial.connect(1).map(drop)
        };
        std::thread::spawn(restricted).join().unwrap().unwrap();
    }

    #[test]
    fn a_prefix_is_a_name_and_not_a_path() {
        let directory = tempfile::tempdir().unwrap();
        let long = "p".repeat(MAX_PREFIX_BYTES + 1);
        for prefix in ["", "/", "../v", "a/b", "a\0b", &long] {
            let dial = Dial::new(open(&directory), prefix.to_owned());
            assert!(dial.is_none(), "{prefix:?}");
        }
    }
}
