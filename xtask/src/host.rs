//! A running `roost serve` and its command line, as a user has them.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::process::{self, Owned};

/// How long a host may take to answer after its start; on an emulated CPU of a busy machine it takes
/// most of a minute.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long a host may take to end after it was asked to.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// How often something that is waited for is looked at.
const POLL: Duration = Duration::from_millis(20);

/// A data folder, the host on it, and the command line of the same binary.
pub(crate) struct Host {
    roost: PathBuf,
    data: PathBuf,
    log: PathBuf,
    serve: Child,
}

impl Host {
    /// Starts a host on `data` and waits until it answers.
    pub(crate) fn start(roost: &Path, data: &Path, log: &Path) -> Result<Self> {
        let mut host = Self {
            serve: Self::spawn(roost, data, log)?,
            roost: roost.to_owned(),
            data: data.to_owned(),
            log: log.to_owned(),
        };
        host.wait_until_it_answers()?;
        Ok(host)
    }

    fn spawn(roost: &Path, data: &Path, log: &Path) -> Result<Child> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        Command::new(roost)
            .arg("serve")
            .arg("--data")
            .arg(data)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {}", roost.display()))
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Some(status) = self.serve.try_wait()? {
                bail!(
                    "`roost serve` ended with {status}; its log:\n{}",
                    self.log()
                );
            }
            let answer = self.cli(&["vm", "list", "-o", "json"]);
            match answer {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    return Err(error.context(format!(
                        "the host does not answer after {START_LIMIT:?}; its log:\n{}",
                        self.log()
                    )));
                }
                Err(_) => thread::sleep(POLL),
            }
        }
    }

    /// The end of the host's log.
    pub(crate) fn log(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// The socket of the admin API.
    pub(crate) fn socket(&self) -> PathBuf {
        self.data.join("roost.sock")
    }

    /// The host's data folder.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// The host's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.serve.id()
    }

    /// `roost <arguments>` against this host.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.roost);
        command
            .args(arguments)
            .env("ROOST_SOCKET", self.socket())
            .stdin(Stdio::null());
        command
    }

    /// Runs `roost <arguments>` against this host and returns what it prints.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Result<String> {
        process::output(&mut self.command(arguments))
    }

    /// Runs `roost <arguments> -o json` against this host.
    pub(crate) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.cli(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text)
            .with_context(|| format!("`roost {}` printed no JSON: {text:?}", arguments.join(" ")))
    }

    /// The items of a list.
    pub(crate) fn items(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        match self.json(arguments)?["items"].take() {
            Value::Array(items) => Ok(items),
            other => bail!(
                "`roost {}` has no list of items: {other}",
                arguments.join(" ")
            ),
        }
    }

    /// The record of a VM.
    pub(crate) fn vm(&self, name: &str) -> Result<Value> {
        self.json(&["vm", "show", name])
    }

    /// The process id of a VM's worker.
    pub(crate) fn worker(&self, name: &str) -> Result<u32> {
        let record = self.vm(name)?;
        record["worker"]["pid"]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok())
            .with_context(|| format!("the record of {name} names no worker: {record}"))
    }

    /// What a VM has printed on its serial port.
    pub(crate) fn logs(&self, name: &str) -> Result<String> {
        self.cli(&["vm", "logs", name])
    }

    /// Gives `line` each line that a VM prints, until its guest ends.
    ///
    /// # Errors
    /// The guest has not ended after `limit`.
    pub(crate) fn follow_logs(
        &self,
        name: &str,
        limit: Duration,
        mut line: impl FnMut(&str),
    ) -> Result<()> {
        let mut follow = Owned(
            self.command(&["vm", "logs", name, "--follow"])
                .stdout(Stdio::piped())
                .spawn()
                .context("cannot run `roost vm logs`")?,
        );
        let output = follow
            .0
            .stdout
            .take()
            .context("`roost vm logs` has no output")?;
        let (sender, lines) = mpsc::channel();
        // Ends with the command, which `follow` ends at the latest when it is dropped.
        thread::spawn(move || {
            for text in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let text = String::from_utf8_lossy(&text).trim_end().to_owned();
                if sender.send(text).is_err() {
                    return;
                }
            }
        });
        let deadline = Instant::now() + limit;
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(text) => line(&text),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => bail!("{name} goes on after {limit:?}"),
            }
        }
        let status = follow.0.wait()?;
        ensure!(status.success(), "`roost vm logs` ended with {status}");
        Ok(())
    }

    /// Every event so far.
    pub(crate) fn events(&self) -> Result<Vec<Value>> {
        let mut events = Vec::new();
        loop {
            let after = events
                .last()
                .and_then(|event: &Value| event["number"].as_u64())
                .unwrap_or(0)
                .to_string();
            let more = self.items(&["events", "--after", &after])?;
            if more.is_empty() {
                return Ok(events);
            }
            events.extend(more);
        }
    }

    /// Waits until `condition` gives something.
    ///
    /// # Errors
    /// It gave nothing within `limit`, or an error; the message says `what` was waited for.
    pub(crate) fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            match condition(self) {
                Ok(Some(value)) => return Ok(value),
                Ok(None) if Instant::now() < deadline => thread::sleep(POLL),
                Ok(None) => bail!(
                    "waited {limit:?} in vain for: {what}; the host's log:\n{}",
                    self.log()
                ),
                Err(error) => return Err(error.context(format!("while waiting for: {what}"))),
            }
        }
    }

    /// Waits until a VM is in `state` and returns its record.
    pub(crate) fn wait_for_state(&self, name: &str, state: &str, limit: Duration) -> Result<Value> {
        let mut seen = String::new();
        self.wait(&format!("{name} is {state}"), limit, |host| {
            let record = host.vm(name)?;
            seen = record["state"].to_string();
            Ok((record["state"] == state).then_some(record))
        })
        .with_context(|| format!("{name} was last seen {seen}"))
    }

    /// `kill -9` of the host process.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.serve.kill()?;
        self.serve.wait()?;
        Ok(())
    }

    /// Starts a new host process on the same data folder, after the last one ended.
    pub(crate) fn start_again(&mut self) -> Result<()> {
        self.serve = Self::spawn(&self.roost, &self.data, &self.log)?;
        self.wait_until_it_answers()
    }

    /// Asks the host to end, and waits for it.
    pub(crate) fn stop(&mut self) -> Result<()> {
        send(self.serve.id(), Signal::TERM)?;
        let deadline = Instant::now() + STOP_LIMIT;
        loop {
            if let Some(status) = self.serve.try_wait()? {
                ensure!(
                    status.success(),
                    "`roost serve` ended with {status}:\n{}",
                    self.log()
                );
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "`roost serve` did not end within {STOP_LIMIT:?} after SIGTERM:\n{}",
                self.log()
            );
            thread::sleep(POLL);
        }
    }
}

impl Drop for Host {
    /// Leaves no process behind when a step before [`Host::stop`] failed.
    fn drop(&mut self) {
        if matches!(self.serve.try_wait(), Ok(None)) {
            let records = self.items(&["vm", "list"]).unwrap_or_default();
            let _ = self.serve.kill();
            let _ = self.serve.wait();
            for record in records {
                let pid = record["worker"]["pid"].as_u64();
                if let Some(pid) = pid.and_then(|pid| u32::try_from(pid).ok()) {
                    let _ = kill(pid);
                }
            }
        }
    }
}

fn send(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .with_context(|| format!("{pid} is no process id"))?;
    kill_process(pid, signal).with_context(|| format!("cannot signal process {pid:?}"))
}

/// `kill -9`.
pub(crate) fn kill(pid: u32) -> Result<()> {
    send(pid, Signal::KILL)
}

/// Asks a process to end.
pub(crate) fn terminate(pid: u32) -> Result<()> {
    send(pid, Signal::TERM)
}

/// Whether a process runs: it is there and no zombie.
pub(crate) fn is_running(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
    })
}
