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
/// How long a machine may print nothing before it is taken for one that hangs: longer than any
/// test takes in there.
const QUIET: Duration = Duration::from_secs(420);
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
    /// Its exit status; `None` if the machine ended before it did.
    pub(crate) status: Option<i32>,
    /// From its start to its end.
    pub(crate) elapsed: Duration,
    /// Every line that it printed.
    pub(crate) lines: Vec<String>,
}

/// How the machine's run went.
pub(crate) struct Report {
    /// From QEMU's start to the machine's first process with `/dev/kvm`; `None` if it did not come
    /// that far.
    pub(crate) up_after: Option<Duration>,
    /// From QEMU's start to its end.
    pub(crate) elapsed: Duration,
    /// Of the jobs that began, in their order.
    pub(crate) outcomes: Vec<Outcome>,
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
    /// QEMU cannot be run, or its machine has no `/dev/kvm`. A machine that ends early, or is ended
    /// for taking too long or saying nothing, is none: the end of its serial log is shown, and the
    /// report says how far it came. Neither is a job that fails: see [`Outcome::status`].
    pub(crate) fn run(&self, jobs: &[&Job]) -> Result<Report> {
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
        let mut printed_at = start;
        loop {
            let why = if start.elapsed() > deadline {
                Some(format!("did not finish in {deadline:?}"))
            } else if printed_at.elapsed() > QUIET {
                Some(format!("printed nothing for {QUIET:?}"))
            } else {
                None
            };
            if let Some(why) = why {
                self.show(&why, &tail);
                return follower.finish();
            }
            match lines.recv_timeout(HEARTBEAT) {
                Ok(line) => {
                    printed_at = Instant::now();
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
        if !follower.done {
            self.show("ended in the middle of its jobs", &tail);
        }
        follower.finish()
    }

    /// Says what went wrong with the machine, and shows what it printed last.
    fn show(&self, what: &str, tail: &VecDeque<String>) {
        for line in tail {
            eprintln!("  | {line}");
        }
        println!(
            "  the emulated machine {what}; its whole serial log is {}",
            self.log.display()
        );
    }
}

/// Follows the lines of `tests/rig/machine-init`.
struct Follower {
    start: Instant,
    up_after: Option<Duration>,
    no_kvm: bool,
    done: bool,
    begun: Option<(String, Instant, Vec<String>)>,
    outcomes: Vec<Outcome>,
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
        }
    }

    fn line(&mut self, line: &str) {
        // The firmware leaves control sequences on the line of the kernel's first words.
        let Some((_, event)) = line.split_once("rig: ") else {
            if let Some((_, _, lines)) = &mut self.begun {
                eprintln!("  | {line}");
                lines.push(line.to_owned());
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
            ["begin", name] => {
                self.begun = Some((name.to_owned(), Instant::now(), Vec::new()));
            }
            ["end", _, status] => self.end(status.parse().ok()),
            ["done"] => self.done = true,
            _ => eprintln!("  | {line}"),
        }
    }

    /// The job that runs has ended; there may be none.
    fn end(&mut self, status: Option<i32>) {
        let Some((name, at, lines)) = self.begun.take() else {
            return;
        };
        self.outcomes.push(Outcome {
            name,
            status,
            elapsed: at.elapsed(),
            lines,
        });
    }

    fn finish(mut self) -> Result<Report> {
        if self.no_kvm {
            bail!("the emulated machine has no /dev/kvm");
        }
        self.end(None);
        Ok(Report {
            up_after: self.up_after,
            elapsed: self.start.elapsed(),
            outcomes: self.outcomes,
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

    fn statuses(lines: &[&str]) -> Vec<(String, Option<i32>)> {
        let report = followed(lines).unwrap();
        let of = |outcome: Outcome| (outcome.name, outcome.status);
        report.outcomes.into_iter().map(of).collect()
    }

    #[test]
    fn the_job_that_a_machine_died_in_has_no_status() {
        let a = |status| ("a".to_owned(), status);
        assert_eq!(statuses(&["rig: up", "rig: begin a"]), [a(None)]);
        assert_eq!(
            statuses(&["rig: up", "rig: begin a", "rig: end a 0"]),
            [a(Some(0))]
        );
        assert_eq!(statuses(&["Linux", "Kernel panic"]), []);
    }

    #[test]
    fn a_machine_without_kvm_is_an_error() {
        assert!(followed(&["rig: no-kvm", "rig: up", "rig: done"]).is_err());
    }

    #[test]
    fn the_status_and_the_lines_of_every_job_are_reported() {
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
        assert_eq!(report.outcomes[0].lines, ["hello"]);
        assert!(report.outcomes[1].lines.is_empty());
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
