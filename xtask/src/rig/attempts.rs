//! Jobs that run again when the emulation failed them.
//!
//! QEMU's software emulation of SVM is not sound while several host threads run. Known are two
//! places of `target/i386/tcg/sysemu/svm_helper.c`, QEMU 7.2: `helper_vmrun` changes the CPU's
//! `interrupt_request` without the lock, while timers and other CPUs set bits in it, which can lose
//! an interrupt; and it does not load the interrupt shadow that `do_vmexit` saved, so that an
//! interrupt can come between a guest's STI and HLT, which then sleeps through it. What is seen is
//! a guest that hangs, one that ends by a triple fault at a random place, about once in 25 boots
//! and more often where the machine gets little CPU, and now and then a crash of the machine's own
//! kernel. That these two are all of it is not proved. One emulated CPU instead of two, one thread
//! for all of them, or a clock that counts instructions make guests hang more often.
//!
//! So a job that fails in the emulated machine is told and run again in a fresh one. On a CPU
//! with virtualization nothing is run again.

use anyhow::{Result, bail};

use super::machine::{Job, Outcome, Report};

/// Of a line that is repeated at the end.
const MAX_LINE_CHARS: usize = 300;

/// How one job went over all its runs.
struct Progress {
    passed: bool,
    /// How often it began.
    runs: u32,
    /// What it printed last in its last run.
    last_line: String,
}

/// Runs `jobs` by `machine`, which runs those that it is given in a fresh machine, until each has
/// passed or has failed `limit` times. Returns what the last run of each printed, in order of
/// their ends.
///
/// # Errors
/// A job failed `limit` times; a machine cannot be run at all.
pub(super) fn run(
    jobs: &[Job],
    limit: u32,
    mut machine: impl FnMut(&[&Job]) -> Result<Report>,
) -> Result<Vec<String>> {
    let mut progress: Vec<_> = jobs
        .iter()
        .map(|_| Progress {
            passed: false,
            runs: 0,
            last_line: String::new(),
        })
        .collect();
    let mut lines = Vec::new();
    loop {
        let left: Vec<_> = jobs
            .iter()
            .zip(&progress)
            .filter(|(_, progress)| !progress.passed && progress.runs < limit)
            .map(|(job, _)| job)
            .collect();
        let Some(first) = left.first() else { break };
        let report = machine(&left)?;
        // A machine that does not come up has failed the job that it would have begun with.
        let never_up = Outcome {
            name: first.name.clone(),
            status: None,
            elapsed: report.elapsed,
            lines: Vec::new(),
        };
        let outcomes = match report.outcomes.as_slice() {
            [] => std::slice::from_ref(&never_up),
            outcomes => outcomes,
        };
        for outcome in outcomes {
            let Some((_, progress)) = jobs
                .iter()
                .zip(&mut progress)
                .find(|(job, _)| job.name == outcome.name)
            else {
                bail!(
                    "the machine ran a job {:?} that is none of its",
                    outcome.name
                );
            };
            progress.runs += 1;
            progress.passed = outcome.status == Some(0);
            progress.last_line = last_line(outcome);
            tell(outcome, progress, limit);
            if progress.passed {
                lines.extend(outcome.lines.iter().cloned());
            }
        }
    }
    let failed: Vec<_> = jobs
        .iter()
        .zip(&progress)
        .filter(|(_, progress)| !progress.passed)
        .map(|(job, progress)| match progress.last_line.as_str() {
            "" => job.name.clone(),
            line => format!("{} ({line})", job.name),
        })
        .collect();
    if !failed.is_empty() {
        bail!("failed in the emulated machine: {}", failed.join(", "));
    }
    Ok(lines)
}

/// The end of what a job printed, which is where it says what is wrong.
fn last_line(outcome: &Outcome) -> String {
    let line = outcome.lines.iter().rfind(|line| !line.trim().is_empty());
    let line = line.map(String::as_str).unwrap_or_default();
    line.chars().take(MAX_LINE_CHARS).collect()
}

fn tell(outcome: &Outcome, progress: &Progress, limit: u32) {
    let name = &outcome.name;
    let seconds = outcome.elapsed.as_secs_f64();
    let runs = progress.runs;
    let how = match outcome.status {
        Some(0) if runs == 1 => {
            eprintln!("  {name}: passed in {seconds:.1} s");
            return;
        }
        Some(0) => {
            eprintln!("  {name}: passed in {seconds:.1} s, in its run {runs}");
            return;
        }
        Some(status) => format!("with status {status}"),
        None => "with its machine".to_owned(),
    };
    // On stdout, where the results are: a failure that did not last must not go unseen.
    let next = if runs < limit {
        "it is run again, because the emulation is not sound"
    } else {
        "it is not run again"
    };
    println!("  {name}: run {runs} of {limit} FAILED {how} after {seconds:.1} s; {next}");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn job(name: &str) -> Job {
        Job {
            name: name.to_owned(),
            limit: Duration::from_secs(1),
            directory: "/".into(),
            command: Vec::new(),
        }
    }

    fn report(outcomes: &[(&str, Option<i32>)]) -> Report {
        Report {
            up_after: None,
            elapsed: Duration::ZERO,
            outcomes: outcomes
                .iter()
                .map(|(name, status)| Outcome {
                    name: (*name).to_owned(),
                    status: *status,
                    elapsed: Duration::ZERO,
                    lines: vec![format!("of {name}"), " ".to_owned()],
                })
                .collect(),
        }
    }

    /// Runs the jobs `a` and `b`; `reports` are those of the machines one after the other.
    fn runs(limit: u32, reports: &[&[(&str, Option<i32>)]]) -> (Result<Vec<String>>, Vec<String>) {
        let mut asked = Vec::new();
        let mut reports = reports.iter();
        let result = run(&[job("a"), job("b")], limit, |jobs| {
            let names: Vec<_> = jobs.iter().map(|job| job.name.as_str()).collect();
            asked.push(names.join(" "));
            Ok(report(reports.next().expect("no further machine")))
        });
        assert!(reports.next().is_none(), "too few machines ran");
        (result, asked)
    }

    #[test]
    fn what_passed_is_not_run_again() {
        let (result, asked) = runs(3, &[&[("a", Some(0)), ("b", Some(1))], &[("b", Some(0))]]);
        assert_eq!(result.unwrap(), ["of a", " ", "of b", " "]);
        assert_eq!(asked, ["a b", "b"]);
    }

    #[test]
    fn a_job_that_fails_as_often_as_it_may_has_failed() {
        let (result, asked) = runs(2, &[&[("a", Some(1)), ("b", Some(0))], &[("a", Some(1))]]);
        assert!(result.unwrap_err().to_string().ends_with(": a (of a)"));
        assert_eq!(asked, ["a b", "a"]);
        let (result, asked) = runs(1, &[&[("a", Some(0)), ("b", Some(137))]]);
        assert!(result.unwrap_err().to_string().ends_with(": b (of b)"));
        assert_eq!(asked, ["a b"]);
    }

    #[test]
    fn a_machine_that_dies_has_failed_the_job_that_it_ran_and_no_other() {
        let (result, asked) = runs(
            2,
            &[
                &[("a", None)],
                &[("a", Some(0)), ("b", None)],
                &[("b", Some(0))],
            ],
        );
        assert_eq!(result.unwrap(), ["of a", " ", "of b", " "]);
        assert_eq!(asked, ["a b", "a b", "b"]);
    }

    #[test]
    fn machines_that_never_come_up_come_to_an_end() {
        let (result, asked) = runs(2, &[&[], &[], &[], &[]]);
        assert!(result.unwrap_err().to_string().ends_with(": a, b"));
        assert_eq!(asked, ["a b", "a b", "b", "b"]);
    }
}
