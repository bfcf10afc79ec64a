//! A host whose disk is full: it takes nothing more and says so, its VMs go on, and it goes on
//! where it was once there is room.

use std::fs;
use std::io::{BufRead as _, BufReader, Lines, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest that anything here may take; a promise that is kept is kept in a fraction of it.
const PATIENCE: Duration = Duration::from_secs(300);
/// VMs that are created until the disk has no place for another record.
const MANY: usize = 5000;

/// Runs in a mount namespace of its own, where the data directory is a small file system in memory.
/// It takes commands line by line and says `done` after each but `serve`: the host itself says when it is
/// ready.
const SHELL: &str = r#"
    mount -t tmpfs -o size=48m,mode=0700 tmpfs "$1" || exit 1
    echo done
    while read -r line; do
        case "$line" in
            serve) "$2" serve --data "$1" --listen "$3" --counter-interval 50 --usage-window 1 2>"$4" & host=$!; continue;;
            kill) kill -9 $host; wait $host;;
            fill) cat /dev/zero > "$1/filler";;
            free) rm "$1/filler";;
            backup) "$2" store backup --data "$1" "$5" >&2;;
        esac
        echo done
    done
"#;

/// A host on a disk of its own.
struct Host {
    dir: tempfile::TempDir,
    shell: Child,
    /// None only while it is dropped: then the shell ends.
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Host {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        // Without root, a user namespace lets mount.
        let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
        let flags: &[&str] = if is_root {
            &["-m"]
        } else {
            &["-U", "-r", "-m"]
        };
        let mut shell = Command::new("unshare")
            .args(flags)
            .args(["sh", "-c", SHELL, "sh"])
            .arg(data)
            .arg(env!("CARGO_BIN_EXE_roost"))
            .args(["roost.sock", "host.log", "backup.redb"].map(|name| dir.path().join(name)))
            .env("RUST_LOG", "error")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare(1), of util-linux or busybox, is there");
        let host = Self {
            stdin: shell.stdin.take(),
            lines: BufReader::new(shell.stdout.take().unwrap()).lines(),
            shell,
            dir,
        };
        host.started()
    }

    fn started(mut self) -> Self {
        self.wait_for("done");
        self.serve();
        self
    }

    fn wait_for(&mut self, begin: &str) {
        let found = (self.lines).any(|line| line.unwrap().starts_with(begin));
        assert!(found, "the shell ended: is a mount namespace allowed here?");
    }

    /// Has the shell do something.
    fn shell(&mut self, command: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{command}").unwrap();
        self.wait_for("done");
    }

    fn serve(&mut self) {
        writeln!(self.stdin.as_mut().unwrap(), "serve").unwrap();
        self.wait_for("ready: ");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_roost"))
            .args(arguments)
            .args(["-o", "json"])
            .env("ROOST_SOCKET", self.path("roost.sock"))
            .output()
            .unwrap()
    }

    fn roost(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {error}");
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?} succeeded");
        String::from_utf8(output.stderr).unwrap()
    }

    /// What the API answers, head and body.
    fn get(&self, path: &str) -> String {
        self.request("GET", path, "")
    }

    fn request(&self, method: &str, path: &str, body: &str) -> String {
        let mut stream = UnixStream::connect(self.path("roost.sock")).unwrap();
        let length = body.len();
        let head = "host: roost\r\nconnection: close\r\ncontent-type: application/json";
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\n{head}\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn ticks(&self) -> usize {
        let output = self.run(&["vm", "logs", "web"]);
        String::from_utf8_lossy(&output.stdout)
            .matches("tick ")
            .count()
    }

    fn until(&self, what: &str, done: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done() {
            assert!(Instant::now() < deadline, "{what} did not come");
            std::thread::yield_now();
        }
    }

    fn goes_on(&self) {
        let before = self.ticks();
        self.until("another tick", || self.ticks() > before);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The workers outlive the host: their VMs are deleted as long as it can do that.
        if let Ok(vm) = serde_json::from_slice::<Value>(&self.run(&["vm", "show", "web"]).stdout)
            && !self.run(&["vm", "delete", "web"]).status.success()
            && let Some(pid) = vm["worker"]["pid"].as_u64()
        {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
        if let Some(mut stdin) = self.stdin.take() {
            let _ = writeln!(stdin, "kill");
        }
        let _ = self.shell.wait();
    }
}

#[test]
fn on_a_full_disk_the_host_takes_nothing_more_says_so_and_its_vms_go_on() {
    let mut host = Host::start();
    let kernel = host.path("kernel");
    fs::write(&kernel, roost_guests::HELLO).unwrap();
    let kernel = kernel.to_str().unwrap();
    host.roost(&["image", "push", kernel, "--tag", "hello:1"]);
    host.roost(&[
        "vm", "create", "--name", "web", "--kernel", "hello:1", "--memory", "64",
    ]);
    host.roost(&["vm", "boot", "web"]);
    let worker = host.roost(&["vm", "show", "web"])["worker"]["pid"].clone();
    host.goes_on();
    assert!(host.get("/readyz").starts_with("HTTP/1.1 200"));
    assert!(host.get("/metrics").contains("\nroost_store_read_only 0\n"));

    host.shell("fill");
    // A file has nowhere to go, and that is all that it changes.
    let big = host.path("big");
    fs::write(&big, vec![1; 1 << 20]).unwrap();
    let error = host.refused(&["image", "push", big.to_str().unwrap()]);
    assert!(error.contains("No space left on device"), "{error}");
    // Records have some room in the database's file, until that is used up.
    let refused = (0..MANY).find_map(|n| {
        let spec = format!(r#"{{"name":"vm-{n}","kernel":"hello:1"}}"#);
        let answer = host.request("POST", "/v1/vms", &spec);
        (!answer.starts_with("HTTP/1.1 201")).then_some((n, answer))
    });
    let (created, answer) = refused.expect("records need room");
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(
        answer.contains("urn:roost:problem:store-read-only"),
        "{answer}"
    );
    assert!(answer.contains("No space left on device"), "{answer}");

    // The alarm, everywhere.
    let ready = host.get("/readyz");
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    assert!(ready.contains("No space left on device"), "{ready}");
    assert!(host.get("/healthz").starts_with("HTTP/1.1 200"));
    assert!(host.get("/metrics").contains("\nroost_store_read_only 1\n"));
    host.until("the alarm in the log", || {
        let log = fs::read_to_string(host.path("host.log")).unwrap();
        log.contains("the store takes no more writes")
    });
    // Reads and running VMs go on; changes are refused.
    let vms = host.roost(&["vm", "list"]);
    assert_eq!(vms["items"].as_array().unwrap().len(), 1 + created);
    assert_eq!(host.roost(&["vm", "show", "web"])["worker"]["pid"], worker);
    for command in [
        ["vm", "shutdown", "web"],
        ["vm", "pause", "web"],
        ["vm", "delete", "web"],
    ] {
        let error = host.refused(&command);
        assert!(error.contains("it takes no more writes"), "{error}");
    }
    let backup = host.path("backup.redb");
    let error = host.refused(&["store", "backup", backup.to_str().unwrap()]);
    assert!(error.contains("a backup needs up to"), "{error}");
    host.goes_on();

    // Without a host it can be saved to another disk.
    host.shell("kill");
    host.shell("backup");
    let checked = host.roost(&["store", "check", backup.to_str().unwrap()]);
    let rows = |table: &str| {
        let tables = checked["tables"].as_array().unwrap();
        let found = tables.iter().find(|found| found["name"] == table);
        found.unwrap()["rows"].clone()
    };
    assert_eq!(rows("vms"), 1 + created);

    // With room again, and a new host, all is as it was, and goes on.
    host.shell("free");
    host.serve();
    host.until("adoption", || {
        host.roost(&["vm", "show", "web"])["state"] == "running"
    });
    assert_eq!(host.roost(&["vm", "show", "web"])["worker"]["pid"], worker);
    assert!(host.get("/readyz").starts_with("HTTP/1.1 200"));
    let vms = host.roost(&["vm", "list"]);
    assert_eq!(vms["items"].as_array().unwrap().len(), 1 + created);
    host.goes_on();
    host.roost(&["vm", "pause", "web"]);
    host.roost(&["vm", "delete", "web"]);
}
