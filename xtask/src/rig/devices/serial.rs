//! A guest's shell on its serial port, used as a person uses it: by `roost vm console`.

use std::io::{Read as _, Write as _};
use std::process::{ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::host::Host;
use crate::process::Owned;

/// How long a command in the guest may take unless it is said otherwise.
const LIMIT: Duration = Duration::from_secs(60);
/// From the start of a VM to its shell. Interpreted twice over, a kernel takes a while.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// How long nothing is printed before Enter is pressed, as one does before a blank screen.
const PATIENCE: Duration = Duration::from_secs(3);
/// What `tests/rig/devices-init` lets the shell print when it waits for a command.
const PROMPT: &str = "guest# ";
/// Stands on both sides of a command's status.
const MARK: &str = "@@";
/// Output that an error shows, bytes.
const SHOWN_BYTES: usize = 2000;

/// The console of a VM, with a shell behind it.
pub(super) struct Serial {
    vm: String,
    // Killed when this is dropped; the thread that reads its output ends then.
    _console: Owned,
    keyboard: ChildStdin,
    screen: Receiver<Vec<u8>>,
    /// What was printed and not yet looked at.
    unread: String,
    /// What was printed last.
    last: String,
}

impl Serial {
    /// Attaches to the console of a VM that was started, and waits for its shell.
    pub(super) fn attach(host: &Host, vm: &str) -> Result<Self> {
        let mut console = Owned(
            host.command(&["vm", "console", vm])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .context("cannot run `roost vm console`")?,
        );
        let keyboard = console.0.stdin.take().context("the console has no input")?;
        let mut output = console.0.stdout.take().context("it has no output")?;
        let (sender, screen) = mpsc::channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut serial = Self {
            vm: vm.to_owned(),
            _console: console,
            keyboard,
            screen,
            unread: String::new(),
            last: String::new(),
        };
        serial.wait_for_the_shell().with_context(|| {
            let logs = host.logs(vm).unwrap_or_default();
            format!("the output of {vm} ends with:\n{}", end(&logs))
        })?;
        Ok(serial)
    }

    fn wait_for_the_shell(&mut self) -> Result<()> {
        let deadline = Instant::now() + BOOT_LIMIT;
        // It may have printed its prompt before anybody looked.
        while self.read_until(PROMPT, PATIENCE).is_err() {
            ensure!(
                Instant::now() < deadline,
                "{} has no shell after {BOOT_LIMIT:?}",
                self.vm
            );
            self.type_line("")?;
        }
        // From here on a prompt would only be in the way, and so would messages about jobs.
        self.run("PS1=; set +m").map(drop)
    }

    /// Types a line and does not wait for anything.
    pub(super) fn type_line(&mut self, line: &str) -> Result<()> {
        self.keyboard
            .write_all(format!("{line}\n").as_bytes())
            .and_then(|()| self.keyboard.flush())
            .with_context(|| format!("cannot type {line:?} into the console of {}", self.vm))
    }

    /// Runs a command in the guest's shell and returns what it prints.
    ///
    /// # Errors
    /// Its status is not 0, or it takes more than a minute.
    pub(super) fn run(&mut self, command: &str) -> Result<String> {
        let (status, output) = self.status_of(command)?;
        ensure!(
            status == 0,
            "`{command}` in {} ended with status {status}:\n{output}",
            self.vm
        );
        Ok(output)
    }

    /// Runs a command in the guest's shell and returns its status and what it prints.
    ///
    /// # Errors
    /// It takes more than a minute.
    pub(super) fn status_of(&mut self, command: &str) -> Result<(i32, String)> {
        self.type_line(command)?;
        self.type_line(&format!("echo \"{MARK}$?{MARK}\""))?;
        let output = self
            .read_until(MARK, LIMIT)
            .with_context(|| format!("`{command}` did not end"))?;
        let status = self.read_until(MARK, LIMIT)?;
        let status = status
            .parse()
            .with_context(|| format!("`{command}` ended with {status:?}"))?;
        Ok((status, output.trim().to_owned()))
    }

    /// Starts a command in the background, its output being elsewhere, and returns its process id.
    ///
    /// It is no child of the shell: busybox's takes the end of one, while it waits for a line, for
    /// the end of its input.
    pub(super) fn start(&mut self, command: &str) -> Result<u64> {
        self.number(&format!("({command} & echo $!)"))
    }

    /// Runs a command that prints a number.
    pub(super) fn number(&mut self, command: &str) -> Result<u64> {
        let output = self.run(command)?;
        output
            .parse()
            .with_context(|| format!("`{command}` printed {output:?}"))
    }

    /// Waits until `text` is printed and returns what came before it.
    ///
    /// # Errors
    /// It is not printed within `limit`, or the guest ends; the message shows the last output.
    pub(super) fn read_until(&mut self, text: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(at) = self.unread.find(text) {
                let rest = self.unread.split_off(at + text.len());
                let mut before = std::mem::replace(&mut self.unread, rest);
                before.truncate(at);
                return Ok(before);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let why = match self.screen.recv_timeout(left) {
                Ok(bytes) => {
                    let printed = String::from_utf8_lossy(&bytes).replace('\r', "");
                    self.unread.push_str(&printed);
                    self.last = end(&format!("{}{printed}", self.last)).to_owned();
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => format!("it was not printed within {limit:?}"),
                Err(RecvTimeoutError::Disconnected) => "the console ended".to_owned(),
            };
            anyhow::bail!(
                "waited in vain for {text:?} on the serial port of {}: {why}; last output:\n{}",
                self.vm,
                self.last
            );
        }
    }
}

/// The end of a text.
pub(super) fn end(text: &str) -> &str {
    let start = text.len().saturating_sub(SHOWN_BYTES);
    let start = (start..text.len()).find(|at| text.is_char_boundary(*at));
    &text[start.unwrap_or(0)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_text_is_cut_between_characters() {
        assert_eq!(end("short"), "short");
        let long = "ä".repeat(SHOWN_BYTES);
        assert_eq!(end(&long).len(), SHOWN_BYTES);
        assert_eq!(end(&format!("{long}x")).len(), SHOWN_BYTES - 1);
    }
}
