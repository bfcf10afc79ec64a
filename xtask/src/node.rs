//! One data folder and the host processes that live and die on it.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::host::kill;
use crate::{http, leftovers, process};

/// Longest that anything may take. What works takes a fraction of it; a fault that leaves the host
/// waiting for a worker's deadline, or a cleanup between two attempts, takes some seconds. Shorter
/// than the time between two audits, so that only the first one of a host may put anything right.
pub(crate) const PATIENCE: Duration = Duration::from_secs(45);
/// How often something that is waited for is looked at.
const POLL: Duration = Duration::from_millis(5);

/// A data folder, and the host process on it, if there is one.
pub(crate) struct Node {
    roost: PathBuf,
    dir: PathBuf,
    serve: Option<Child>,
    /// Set-up for host processes of this node.
    arguments: Vec<String>,
}

impl Node {
    pub(crate) fn new(roost: &Path, dir: &Path, arguments: &[&str]) -> Self {
        Self {
            roost: roost.to_owned(),
            dir: dir.to_owned(),
            serve: None,
            arguments: arguments.iter().map(|&text| text.to_owned()).collect(),
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub(crate) fn trace(&self) -> PathBuf {
        self.dir.join("trace")
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// What host processes have logged so far.
    pub(crate) fn logged(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Starts a host process; returns whether it came to answer before it died.
    pub(crate) fn start(&mut self, fault: Option<&str>) -> Result<bool> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new(&self.roost);
        command
            .arg("serve")
            .arg("--data")
            .arg(self.data())
            .args(&self.arguments)
            .env("RUST_LOG", "warn")
            .env_remove("ROOST_FAULT")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        if let Some(fault) = fault {
            command.env("ROOST_FAULT", fault);
        }
        let mut serve = command.spawn().context("cannot run roost")?;
        let stdout = serve.stdout.take().context("roost has no output")?;
        self.serve = Some(serve);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        Ok(line.starts_with("ready: "))
    }

    /// Starts a host process that must come to answer.
    pub(crate) fn start_well(&mut self) -> Result<()> {
        ensure!(self.start(None)?, "the host did not start");
        Ok(())
    }

    /// The host's process id.
    pub(crate) fn pid(&self) -> Result<u32> {
        let serve = self.serve.as_ref().context("there is no host process")?;
        Ok(serve.id())
    }

    /// `kill -9` of the host process.
    pub(crate) fn kill(&mut self) -> Result<()> {
        let mut serve = self.serve.take().context("there is no host process")?;
        serve.kill()?;
        serve.wait()?;
        Ok(())
    }

    /// Ends the host process in order.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let serve = self.serve.as_ref().context("there is no host process")?;
        crate::host::terminate(serve.id())?;
        let status = self.wait_for_exit()?;
        ensure!(status.success(), "the host ended with {status}");
        Ok(())
    }

    /// Checks the store, which no host may have open.
    pub(crate) fn check_store(&self) -> Result<()> {
        let mut check = Command::new(&self.roost);
        check.args(["store", "check", "--data"]).arg(self.data());
        process::output(&mut check).map(drop)
    }

    fn wait_for_exit(&mut self) -> Result<ExitStatus> {
        let mut serve = self.serve.take().context("there is no host process")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = serve.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                self.serve = Some(serve);
                bail!("the host process did not end within {PATIENCE:?}");
            }
            thread::sleep(POLL);
        }
    }

    /// Waits until the host process has died of the fault.
    pub(crate) fn wait_for_death(&mut self) -> Result<()> {
        let status = self.wait_for_exit()?;
        ensure!(
            status.signal() == Some(9),
            "the host process ended with {status}"
        );
        Ok(())
    }

    /// Waits until a fault has struck; returns how many workers it killed.
    pub(crate) fn wait_for_strike(&self) -> Result<u32> {
        self.wait("the fault", |node| {
            let log = node.logged();
            // It may be being written.
            let line = log
                .split_inclusive('\n')
                .filter_map(|line| line.strip_suffix('\n'))
                .find(|line| line.starts_with("fault: "));
            let Some(line) = line else { return Ok(None) };
            let count = line.rsplit(": ").next().unwrap_or_default();
            let count = count.split(' ').next().unwrap_or_default();
            let count = count.parse();
            Ok(Some(
                count.with_context(|| format!("no number in {line:?}"))?,
            ))
        })
    }

    pub(crate) fn send(&self, method: &str, path: &str, body: &[u8]) -> Result<Value> {
        let socket = self.data().join("roost.sock");
        let answer = http::send(&socket, method, path, body)?;
        serde_json::from_slice(&answer).with_context(|| format!("{method} {path}: no JSON"))
    }

    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        self.send("GET", path, &[])
    }

    pub(crate) fn post(&self, path: &str) -> Result<Value> {
        self.send("POST", path, &[])
    }

    /// The items of a list.
    pub(crate) fn items(&self, path: &str) -> Result<Vec<Value>> {
        match self.get(path)?["items"].take() {
            Value::Array(items) => Ok(items),
            other => bail!("{path} has no list of items: {other}"),
        }
    }

    /// The only VM, if there is one.
    pub(crate) fn vm(&self) -> Result<Option<Value>> {
        let mut vms = self.items("/v1/vms")?;
        ensure!(vms.len() < 2, "there is more than one VM");
        Ok(vms.pop())
    }

    /// Waits until `condition` gives something.
    pub(crate) fn wait<T>(
        &self,
        what: &str,
        mut condition: impl FnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(value) = condition(self).with_context(|| format!("waiting for {what}"))? {
                return Ok(value);
            }
            ensure!(
                Instant::now() < deadline,
                "{what} did not come within {PATIENCE:?}"
            );
            thread::sleep(POLL);
        }
    }

    /// Waits until the VM is in `state`; returns its record.
    pub(crate) fn wait_for_state(&self, state: &str) -> Result<Value> {
        self.wait(&format!("state {state}"), |node| {
            Ok(node.vm()?.filter(|vm| vm["state"] == state))
        })
    }

    /// Kills the VM's worker.
    pub(crate) fn kill_worker(&self) -> Result<()> {
        let vm = self.vm()?.context("there is no VM")?;
        let pid = vm["worker"]["pid"].as_u64().context("it has no worker")?;
        kill(u32::try_from(pid)?)
    }

    /// The points in the trace, with how many workers there were.
    pub(crate) fn traced(&self) -> Result<Vec<String>> {
        let mut text = String::new();
        if let Ok(mut file) = File::open(self.trace()) {
            file.read_to_string(&mut text)?;
        }
        Ok(text.lines().map(str::to_owned).collect())
    }
}

impl Drop for Node {
    /// Leaves no process behind, whatever failed.
    fn drop(&mut self) {
        if let Some(serve) = &mut self.serve {
            let _ = serve.kill();
            let _ = serve.wait();
        }
        for pid in leftovers::processes(&self.data(), &[]).unwrap_or_default() {
            let _ = kill(pid);
        }
    }
}

/// Whether this user may make a TAP: root, where there is `/dev/net/tun`.
pub(crate) fn may_make_taps() -> bool {
    rustix::process::geteuid().is_root() && fs::exists("/dev/net/tun").unwrap_or_default()
}
