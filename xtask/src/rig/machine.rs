//! The emulated machine: QEMU in software, with a CPU that has SVM and nested paging, so that
//! the kernel in it has a full `/dev/kvm`.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::Owned;

/// Memory of the machine, MiB: its root file system is in there, and the guests.
const MEMORY_MIB: u32 = 3072;
/// Lines of the serial log that are shown when something failed.
const TAIL_LINES: usize = 60;
/// How often a run that prints nothing says that it goes on.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How much longer than its jobs the machine may take to start and to power off.
const MACHINE_TIME: Duration = Duration::from_secs(180);

/// What runs in the machine.
pub(crate) struct Job {
    /// A word that names it in the log.
    pub(crate) name: String,
    /// It is killed after this long.
    pub(crate) limit: Duration,
    /// Where it starts.
    pub(crate) directory: PathBuf,
    /// The program and its arguments.
    pub(crate) command: Vec<String>,
}

impl Job {
    /// A line of `/rig/jobs`, which the machine's shell reads.
    pub(crate) fn line(&self) -> String {
        let mut words = vec![
            self.name.clone(),
            self.limit.as_secs().to_string(),
            self.directory.to_string_lossy().into_owned(),
        ];
        words.extend(self.command.iter().cloned());
        let quoted: Vec<_> = words
            .iter()
            .map(|word| format!("'{}'", word.replace('\'', r"'\''")))
            .collect();
        format!("job {}\n", quoted.join(" "))
    }
}

/// How a job ended.
pub(crate) struct Outcome {
    /// The job's name.
    pub(crate) name: String,
    /// Its exit status; `None` if it did not end.
    pub(crate) status: Option<i32>,
    /// From its start to its end.
    pub(crate) elapsed: Duration,
}

/// How the machine's run went.
pub(crate) struct Report {
    /// From QEMU's start to the machine's first process with `/dev/kvm`.
    pub(crate) up_after: Duration,
    /// In the order of the jobs.
    pub(crate) outcomes: Vec<Outcome>,
    /// Every line that the jobs printed.
    pub(crate) lines: Vec<String>,
}

/// A machine that is ready to run.
pub(crate) struct Machine {
    /// The kernel, a bzImage.
    pub(crate) kernel: PathBuf,
    /// The root file system.
    pub(crate) initramfs: PathBuf,
    /// Where everything on the serial port is kept.
    pub(crate) log: PathBuf,
}

impl Machine {
    fn command(&self, log: File) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args([
                "-accel",
                "tcg,thread=multi",
                "-cpu",
                "EPYC,+svm,+npt",
                "-smp",
                "2",
            ])
            .args(["-m", &MEMORY_MIB.to_string(), "-no-reboot", "-nic", "none"])
            .args(["-display", "none", "-monitor", "none", "-serial", "stdio"])
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(&self.initramfs)
            .args(["-append", "console=ttyS0 quiet panic=-1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        command
    }

    /// Runs `jobs` to their end and shows what they print.
    ///
    /// # Errors
    /// QEMU cannot be run, or the machine ends early or takes too long; the message has the end
    /// of the serial log. A job that fails is no error here: see [`Outcome::status`].
    pub(crate) fn run(&self, jobs: &[Job]) -> Result<Report> {
        let deadline = MACHINE_TIME + jobs.iter().map(|job| job.limit).sum::<Duration>();
        let mut log = File::create(&self.log)
            .with_context(|| format!("cannot write {}", self.log.display()))?;
        let start = Instant::now();
        let mut qemu = Owned(
            self.command(log.try_clone()?)
                .spawn()
                .context("cannot run qemu-system-x86_64")?,
        );
        let serial = qemu.0.stdout.take().context("QEMU has no output")?;
        let (sender, lines) = mpsc::channel();
        // Ends with QEMU, which `qemu` ends at the latest when it is dropped.
        thread::spawn(move || {
            let mut serial = BufReader::new(serial);
            let mut line = Vec::new();
            while serial.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                if sender.send(text).is_err() {
                    return;
                }
                line.clear();
            }
        });

        let mut follower = Follower::new(start);
        let mut tail = VecDeque::new();
        loop {
            if start.elapsed() > deadline {
                return Err(self.failure(&format!("did not finish in {deadline:?}"), &tail));
            }
            match lines.recv_timeout(HEARTBEAT) {
                Ok(line) => {
                    writeln!(log, "{:9.3} {line}", start.elapsed().as_secs_f64())?;
                    tail.push_back(line.clone());
                    if tail.len() > TAIL_LINES {
                        tail.pop_front();
                    }
                    follower.line(&line);
                }
                Err(RecvTimeoutError::Timeout) => {
                    eprintln!("  … {} s", start.elapsed().as_secs());
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let report = follower.finish();
        match report {
            Ok(report) if report.outcomes.len() == jobs.len() => Ok(report),
            Ok(_) => Err(self.failure("ended before its last job did", &tail)),
            Err(error) => Err(self.failure(&error.to_string(), &tail)),
        }
    }

    fn failure(&self, what: &str, tail: &VecDeque<String>) -> anyhow::Error {
        for line in tail {
            eprintln!("  | {line}");
        }
        anyhow::anyhow!(
            "the rig's machine {what}; its whole serial log is {}",
            self.log.display()
        )
    }
}

/// Follows the lines of `tests/rig/machine-init`.
struct Follower {
    start: Instant,
    up_after: Option<Duration>,
    no_kvm: bool,
    done: bool,
    begun: Option<(String, Instant)>,
    outcomes: Vec<Outcome>,
    lines: Vec<String>,
}

impl Follower {
    fn new(start: Instant) -> Self {
        Self {
            start,
            up_after: None,
            no_kvm: false,
            done: false,
            begun: None,
            outcomes: Vec::new(),
            lines: Vec::new(),
        }
    }

    fn line(&mut self, line: &str) {
        // The firmware leaves control sequences on the line of the kernel's first words.
        let Some((_, event)) = line.split_once("rig: ") else {
            if self.begun.is_some() {
                eprintln!("  | {line}");
                self.lines.push(line.to_owned());
            }
            return;
        };
        let words: Vec<_> = event.split_whitespace().collect();
        match *words.as_slice() {
            ["no-kvm"] => self.no_kvm = true,
            ["up"] => {
                let elapsed = self.start.elapsed();
                eprintln!("  machine up after {:.1} s", elapsed.as_secs_f64());
                self.up_after = Some(elapsed);
            }
            ["begin", name] => self.begun = Some((name.to_owned(), Instant::now())),
            ["end", name, status] => {
                let elapsed = self
                    .begun
                    .take()
                    .map_or(Duration::ZERO, |(_, at)| at.elapsed());
                self.outcomes.push(Outcome {
                    name: name.to_owned(),
                    status: status.parse().ok(),
                    elapsed,
                });
            }
            ["done"] => self.done = true,
            _ => eprintln!("  | {line}"),
        }
    }

    fn finish(self) -> Result<Report> {
        if self.no_kvm {
            bail!("has no /dev/kvm");
        }
        let up_after = self
            .up_after
            .context("ended before its first process ran")?;
        if !self.done {
            bail!("ended in the middle of its jobs");
        }
        Ok(Report {
            up_after,
            outcomes: self.outcomes,
            lines: self.lines,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn followed(lines: &[&str]) -> Result<Report> {
        let mut follower = Follower::new(Instant::now());
        for line in lines {
            follower.line(line);
        }
        follower.finish()
    }

    #[test]
    fn a_machine_that_stops_before_it_is_done_is_a_failure() {
        assert!(followed(&["rig: up", "rig: begin a", "rig: end a 0"]).is_err());
        assert!(followed(&["Linux", "Kernel panic"]).is_err());
        assert!(followed(&["rig: no-kvm", "rig: up", "rig: done"]).is_err());
    }

    #[test]
    fn the_status_of_every_job_is_reported() {
        let report = followed(&[
            "\x1b[2Jrig: up",
            "rig: begin a",
            "hello",
            "rig: end a 0",
            "rig: begin b",
            "rig: end b 137",
            "rig: done",
        ])
        .unwrap();
        let statuses: Vec<_> = report.outcomes.iter().map(|o| o.status).collect();
        assert_eq!(statuses, [Some(0), Some(137)]);
        assert_eq!(report.lines, ["hello"]);
    }

    #[test]
    fn a_job_line_survives_the_shell() {
        let job = Job {
            name: "t".to_owned(),
            limit: Duration::from_secs(3),
            directory: "/a b".into(),
            command: vec!["it's".to_owned()],
        };
        assert_eq!(job.line(), "job 't' '3' '/a b' 'it'\\''s'\n");
    }
}
