//! A host under a service manager: what it is told, the socket that it passes, and the unit files.
//! The test is the manager.

#[allow(dead_code)]
#[path = "host.rs"]
mod host;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Instant;

use host::{PATIENCE, is_alive};
use serde_json::Value;

/// Gives what is its standard input to a program as descriptor 3, and says so in the way of
/// sd_listen_fds(3). `$$` is the program's process id, too.
const PASS: &str = r#"exec 3<&0 </dev/null; LISTEN_PID=$$ exec "$@""#;

struct Manager {
    dir: tempfile::TempDir,
    notices: UnixDatagram,
    listener: UnixListener,
}

impl Manager {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let notices = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        let listener = UnixListener::bind(dir.path().join("api.sock")).unwrap();
        Self {
            dir,
            notices,
            listener,
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("api.sock")
    }

    /// A command that starts a host to which `passed` is passed.
    fn command(&self, passed: impl Into<OwnedFd>, options: &[&str]) -> Command {
        let passed: OwnedFd = passed.into();
        let mut command = Command::new("sh");
        command
            .args(["-c", PASS, "sh", env!("CARGO_BIN_EXE_roost")])
            .args(["serve", "--policy-slack", "60000", "--data"])
            .arg(self.dir.path().join("data"))
            .args(options)
            .stdin(Stdio::from(passed))
            .stdout(Stdio::piped())
            .env("LISTEN_FDS", "1")
            .env("NOTIFY_SOCKET", self.dir.path().join("notify"))
            .env("RUST_LOG", "error");
        command
    }

    fn start(&self, options: &[&str]) -> Child {
        let listener = self.listener.try_clone().unwrap();
        let mut command = self.command(listener, options);
        command.env("WATCHDOG_USEC", "200000").spawn().unwrap()
    }

    /// Reads from now on what hosts tell.
    fn listen(&self) -> Notices {
        let socket = self.notices.try_clone().unwrap();
        let (sender, notices) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = socket.recv(&mut buffer)
                && sender.send(buffer[..length].to_vec()).is_ok()
            {}
        });
        Notices(notices)
    }

    fn roost(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roost"));
        command.args(arguments).args(["-o", "json"]);
        command.env("ROOST_SOCKET", self.socket()).output().unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.roost(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {error}");
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    fn boot(&self, name: &str) -> u32 {
        let kernel = self.dir.path().join("hello");
        fs::write(&kernel, roost_guests::HELLO).unwrap();
        let kernel = kernel.to_str().unwrap();
        self.json(&[
            "vm", "create", "--name", name, "--kernel", kernel, "--memory", "64",
        ]);
        self.json(&["vm", "boot", name]);
        let worker = self.json(&["vm", "show", name])["worker"]["pid"].as_u64();
        u32::try_from(worker.unwrap()).unwrap()
    }
}

/// What hosts told.
struct Notices(mpsc::Receiver<Vec<u8>>);

impl Notices {
    /// The next one that has a line which begins with `line`; all of it.
    fn next(&self, line: &str) -> String {
        loop {
            let notice = self.0.recv_timeout(PATIENCE).expect(line);
            let text = String::from_utf8(notice).unwrap();
            if text.lines().any(|found| found.starts_with(line)) {
                return text;
            }
        }
    }
}

/// As `systemctl stop` does with `KillMode=process`.
fn terminate(host: &mut Child) -> bool {
    let pid = host.id().to_string();
    assert!(Command::new("kill").arg(pid).status().unwrap().success());
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = host.try_wait().unwrap() {
            return status.success();
        }
        assert!(Instant::now() < deadline, "the host did not end");
        std::thread::yield_now();
    }
}

fn get(socket: &Path, path: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = "host: roost\r\nconnection: close";
    write!(stream, "GET {path} HTTP/1.1\r\n{head}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_host_answers_on_the_socket_that_it_is_passed_tells_how_it_is_and_leaves_the_socket_and_vms() {
    let manager = Manager::new();
    let notices = manager.listen();
    // A request that comes before there is a host waits for it.
    let socket = manager.socket();
    let early = std::thread::spawn(move || get(&socket, "/healthz"));
    let mut host = manager.start(&[]);
    let ready = notices.next("READY=1");
    let path = manager.socket();
    let status = format!("STATUS=answers on {}", path.display());
    assert!(ready.lines().any(|line| line == status), "{ready}");
    assert!(early.join().unwrap().starts_with("HTTP/1.1 200"));
    let worker = manager.boot("web");
    for _ in 0..3 {
        notices.next("WATCHDOG=1");
    }

    assert!(terminate(&mut host));
    let stopping = notices.next("STOPPING=1");
    assert!(stopping.contains("\nEXTEND_TIMEOUT_USEC="), "{stopping}");
    assert!(is_alive(worker));
    assert!(path.exists(), "the socket is the manager's");
    assert!(!manager.dir.path().join("data/roost.sock").exists());

    // The next one answers what waited meanwhile, and has the VMs.
    let meanwhile = std::thread::spawn(move || get(&path, "/readyz"));
    let mut host = manager.start(&[]);
    notices.next("READY=1");
    assert!(meanwhile.join().unwrap().starts_with("HTTP/1.1 200"));
    let vm = manager.json(&["vm", "show", "web"]);
    assert_eq!(vm["worker"]["pid"], worker);
    manager.json(&["vm", "delete", "web"]);
    assert!(terminate(&mut host));
}

#[test]
fn a_manager_that_does_not_read_holds_nothing_up() {
    let manager = Manager::new();
    let flood = UnixDatagram::unbound().unwrap();
    flood.set_nonblocking(true).unwrap();
    flood.connect(manager.dir.path().join("notify")).unwrap();
    while flood.send(b"unread").is_ok() {}
    let mut host = manager.start(&[]);
    manager.boot("web");
    manager.json(&["vm", "delete", "web"]);
    assert!(terminate(&mut host));
}

#[test]
fn a_worker_has_nothing_of_what_the_manager_passed() {
    let manager = Manager::new();
    let notices = manager.listen();
    let mut host = manager.start(&["--stop-vms", "--stop-vms-deadline", "0"]);
    notices.next("READY=1");
    let worker = manager.boot("web");
    let environment = fs::read_to_string(format!("/proc/{worker}/environ")).unwrap();
    assert!(!environment.contains("NOTIFY_SOCKET"), "{environment}");
    let inode = |target: PathBuf| target.to_string_lossy().into_owned();
    let own = |pid: u32| -> Vec<String> {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let targets = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        targets
            .map(inode)
            .filter(|target| target.starts_with("socket:"))
            .collect()
    };
    let passed = fs::read_link(format!("/proc/{}/fd/3", host.id())).unwrap();
    assert!(own(host.id()).contains(&inode(passed.clone())));
    assert!(!own(worker).contains(&inode(passed)));
    // It says so when it ends with its VMs, and asks for the time that they may take.
    assert!(terminate(&mut host));
    assert!(
        notices
            .next("STOPPING=1")
            .contains("STATUS=VMs are shut down")
    );
    assert!(!is_alive(worker));
}

#[test]
fn what_can_not_be_a_socket_for_requests_is_refused_in_one_line() {
    let manager = Manager::new();
    let listener = || OwnedFd::from(manager.listener.try_clone().unwrap());
    let file = OwnedFd::from(fs::File::open("/dev/null").unwrap());
    let silent = OwnedFd::from(UnixStream::pair().unwrap().0);
    let two = |command: &mut Command| {
        command.env("LISTEN_FDS", "2");
    };
    let nothing = |_: &mut Command| ();
    type Tune<'a> = &'a dyn Fn(&mut Command);
    let cases: [(OwnedFd, &[&str], Tune<'_>, &str); 4] = [
        (file, &[], &nothing, "is not a socket"),
        (silent, &[], &nothing, "does not listen"),
        (
            listener(),
            &[],
            &two,
            "passed 2 sockets, and one is expected",
        ),
        (
            listener(),
            &["--listen", "/tmp/x"],
            &nothing,
            "--listen names a socket",
        ),
    ];
    for (passed, options, tune, expected) in cases {
        let mut command = manager.command(passed, options);
        tune(&mut command);
        let output = command.output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{expected}");
        assert!(error.contains(expected), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    assert!(
        !manager.dir.path().join("data").exists(),
        "nothing was made"
    );
}

#[test]
fn sockets_for_another_process_are_not_taken() {
    let manager = Manager::new();
    let mut host = Command::new(env!("CARGO_BIN_EXE_roost"))
        .args(["serve", "--data"])
        .arg(manager.dir.path().join("data"))
        .env("LISTEN_FDS", "1")
        .env("LISTEN_PID", "1")
        .stdout(Stdio::piped())
        .env("RUST_LOG", "error")
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(host.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    let own = manager.dir.path().join("data/roost.sock");
    assert_eq!(line, format!("ready: {}\n", own.display()));
    assert!(terminate(&mut host));
}

/// A unit file as its sections' settings.
fn unit(name: &str) -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/systemd");
    let text = fs::read_to_string(path.join(name)).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let settings = lines.filter_map(|line| line.split_once('='));
    settings
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn values<'a>(unit: &'a [(String, String)], key: &str) -> Vec<&'a str> {
    let of_key = unit.iter().filter(|(found, _)| found == key);
    of_key.map(|(_, value)| value.as_str()).collect()
}

#[test]
fn the_unit_files_say_what_the_host_does_and_needs() {
    let service = unit("roost.service");
    let has = |key: &str, value: &str| {
        assert_eq!(values(&service, key), [value], "{key}");
    };
    has("Type", "notify");
    has("KillMode", "process");
    has("OOMPolicy", "continue");
    has("NoNewPrivileges", "yes");
    let [command] = values(&service, "ExecStart")[..] else {
        panic!("one command");
    };
    // The command line is one that this program takes, and does not name a socket of its own.
    let mut words = command.split(' ');
    assert_eq!(words.next(), Some("/usr/local/bin/roost"));
    let words: Vec<&str> = words.collect();
    assert!(!words.contains(&"--listen"), "{command}");
    let help = Command::new(env!("CARGO_BIN_EXE_roost"))
        .args(&words)
        .arg("--help")
        .output()
        .unwrap();
    assert!(help.status.success(), "{command}");
    let data = words.iter().position(|word| *word == "--data").unwrap();
    let state = values(&service, "StateDirectory")[0];
    assert_eq!(words[data + 1], format!("/var/lib/{state}"));

    // The socket is where the command line looks.
    let socket = unit("roost.socket");
    let help = Command::new(env!("CARGO_BIN_EXE_roost"))
        .arg("--help")
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let [listen] = values(&socket, "ListenStream")[..] else {
        panic!("one socket");
    };
    assert!(help.contains(&format!("[default: {listen}]")), "{help}");
    assert_eq!(values(&socket, "SocketMode"), ["0600"]);

    let seconds = |key: &str| values(&service, key)[0].parse::<u64>().unwrap();
    assert!(seconds("LimitNOFILE") >= 65_536);
    assert!(seconds("WatchdogSec") >= 30, "a slow disk is no dead host");
    // 60 s for guests, and 90 s to stop those that do not end.
    assert!(seconds("TimeoutStopSec") >= 150);
    // What would take away what it can't do without.
    let allowed = values(&service, "DeviceAllow");
    assert_eq!(allowed, ["/dev/kvm rw", "/dev/net/tun rw"]);
    for harmful in [
        "PrivateDevices",
        "PrivateNetwork",
        "MemoryDenyWriteExecute",
        "RestrictNamespaces",
        "SystemCallFilter",
    ] {
        assert_eq!(values(&service, harmful), [] as [&str; 0], "{harmful}");
    }
}

/// Where there is a systemd, it reads them, too.
#[test]
fn systemd_finds_nothing_wrong_with_the_unit_files() {
    let here = Command::new("systemd-analyze").arg("--version").output();
    if !here.is_ok_and(|output| output.status.success()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/systemd");
    let mut paths = Vec::new();
    for name in ["roost.service", "roost.socket"] {
        let text = fs::read_to_string(folder.join(name)).unwrap();
        // It looks whether the program is there.
        let text = text.replace("/usr/local/bin/roost", env!("CARGO_BIN_EXE_roost"));
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        paths.push(path);
    }
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .args(&paths)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let own = errors.lines().find(|line| line.contains("roost"));
    assert_eq!(own, None, "{errors}");
}
