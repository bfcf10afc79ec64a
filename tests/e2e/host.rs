//! A real `roost serve` in a temporary directory, driven by the real command line.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest that anything here may take; a promise that is kept is kept in a fraction of it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) struct Host {
    pub(crate) dir: tempfile::TempDir,
    options: Vec<String>,
    /// How many files it may have open, if not as many as the test.
    files: Option<u32>,
    process: Child,
}

impl Host {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With options of `roost serve`.
    pub(crate) fn start_with(options: &[&str]) -> Self {
        Self::start_as(None, options)
    }

    /// With so many files that it may have open.
    pub(crate) fn start_with_files(files: u32, options: &[&str]) -> Self {
        Self::start_as(Some(files), options)
    }

    fn start_as(files: Option<u32>, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options: Vec<String> = options.iter().map(|o| (*o).to_owned()).collect();
        let process = serve(dir.path(), &options, files);
        Self {
            dir,
            options,
            files,
            process,
        }
    }

    /// What becomes of a host that is started on the directory of one that was killed, may have so
    /// many files open, and ends by itself.
    pub(crate) fn try_serve_with_files(&self, files: u32) -> Output {
        let mut command = command(self.dir.path(), &self.options, Some(files));
        command.stderr(Stdio::piped()).output().unwrap()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Kills the host process and starts another on the same directory.
    pub(crate) fn kill_and_restart(&mut self) {
        self.kill();
        self.start_again();
    }

    /// Kills the host process; its workers go on.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts a host process on the directory of one that was killed.
    pub(crate) fn start_again(&mut self) {
        self.process = serve(self.dir.path(), &self.options, self.files);
    }

    /// [`Self::start_again`], with other options from now on.
    pub(crate) fn start_again_with(&mut self, options: &[&str]) {
        self.options = options.iter().map(|o| (*o).to_owned()).collect();
        self.start_again();
    }

    /// The host's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Sends the host a signal, by its name without `SIG`.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for the host process to end.
    pub(crate) fn wait_for_end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the host did not end");
            std::thread::yield_now();
        }
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.run_as("json", arguments)
    }

    /// Runs a command that prints in a format.
    pub(crate) fn run_as(&self, format: &str, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_roost"))
            .args(arguments)
            .args(["-o", format])
            .env("ROOST_SOCKET", self.data().join("roost.sock"))
            .output()
            .unwrap()
    }

    /// Runs a command and types this into it.
    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roost"))
            .args(arguments)
            .env("ROOST_SOCKET", self.data().join("roost.sock"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Its end is open until the command ends: a terminal does not end either.
        let mut keyboard = command.stdin.take().unwrap();
        keyboard.write_all(input).unwrap();
        let output = command.wait_with_output().unwrap();
        drop(keyboard);
        output
    }

    /// What a command that must succeed answers.
    pub(crate) fn roost(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "roost {}: {errors}",
            arguments.join(" ")
        );
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// The error of a command that must fail.
    pub(crate) fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            !output.status.success(),
            "roost {} succeeded",
            arguments.join(" ")
        );
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!error.contains("panicked"), "{error}");
        error
    }

    /// Writes a file beside the host's data and returns its path.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Polls until `done` has something to say: the command line has no other way to wait.
    pub(crate) fn until<T>(&self, what: &str, mut done: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(result) = done() {
                return result;
            }
            assert!(Instant::now() < deadline, "{what} did not come");
            std::thread::yield_now();
        }
    }

    pub(crate) fn log(&self, vm: &str) -> String {
        let output = self.run(&["vm", "logs", vm]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A booted VM of the hello guest that has begun to tick: the host works.
    pub(crate) fn boot_hello(&self, name: &str) {
        let kernel = self.file("hello", roost_guests::HELLO);
        self.roost(&[
            "vm", "create", "--name", name, "--kernel", &kernel, "--memory", "64",
        ]);
        self.roost(&["vm", "boot", name]);
        self.until("the first tick", || {
            self.log(name).contains("tick 1\n").then_some(())
        });
    }

    pub(crate) fn worker(&self, vm: &str) -> Option<u32> {
        let record = self.roost(&["vm", "show", vm]);
        record["worker"]["pid"].as_u64().map(|pid| pid as u32)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Workers outlive the host, so they are ended by name before it.
        if let Some(vms) = self.run(&["vm", "list"]).stdout.get(..)
            && let Ok(vms) = serde_json::from_slice::<Value>(vms)
        {
            for vm in vms["items"].as_array().into_iter().flatten() {
                self.run(&["vm", "delete", vm["id"].as_str().unwrap_or_default()]);
            }
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn command(dir: &Path, options: &[String], files: Option<u32>) -> Command {
    let roost = env!("CARGO_BIN_EXE_roost");
    let mut command = match files {
        None => Command::new(roost),
        Some(files) => {
            let mut command = Command::new("sh");
            let limited = format!(r#"ulimit -n {files}; exec "$@""#);
            command.args(["-c", &limited, "sh", roost]);
            command
        }
    };
    command
        .args([
            "serve",
            "--counter-interval",
            "50",
            "--usage-window",
            "1",
            // The machine that runs the tests may be as busy as it likes.
            "--policy-slack",
            "60000",
            "--data",
        ])
        .arg(dir.join("data"))
        .args(options)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .env("RUST_LOG", "error");
    command
}

fn serve(dir: &Path, options: &[String], files: Option<u32>) -> Child {
    let mut process = command(dir, options, files).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.starts_with("ready: "), "the host did not start");
    process
}

/// Whether a process is there and is not a zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

pub(crate) fn kill(pid: u32) {
    signal("-9", pid);
}

/// Sends a signal, such as `-STOP`.
pub(crate) fn signal(signal: &str, pid: u32) {
    let status = Command::new("kill")
        .args([signal, &pid.to_string()])
        .status();
    assert!(status.unwrap().success());
}
