//! What was done, in order: written down as it happens, to be read when something is wrong.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};

/// Lines of all VMs that are shown.
const LAST: usize = 30;
/// Lines of one VM that are shown.
const LAST_OF_VM: usize = 40;
/// Lines that are kept to be shown; all of them are in the file.
const KEPT: usize = 50_000;

/// The script.
pub(super) struct Script {
    path: PathBuf,
    begun: Instant,
    lines: Mutex<Lines>,
}

struct Lines {
    file: BufWriter<File>,
    kept: VecDeque<String>,
}

impl Script {
    /// Begins one at `path`; an earlier one there is overwritten.
    pub(super) fn begin(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            begun: Instant::now(),
            lines: Mutex::new(Lines {
                file: BufWriter::new(file),
                kept: VecDeque::new(),
            }),
        })
    }

    /// `who` does or hears `what`.
    pub(super) fn say(&self, who: &str, what: &str) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = format!("{:9.3} {who}: {what}", self.begun.elapsed().as_secs_f64());
        // A script that can't be written is shown as far as it is kept.
        let _ = writeln!(lines.file, "{line}");
        lines.kept.push_back(line);
        if lines.kept.len() > KEPT {
            lines.kept.pop_front();
        }
    }

    /// The end of it, and the end of what is about `vm` if one is named.
    pub(super) fn shown(&self, vm: Option<&str>) -> String {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = lines.file.flush();
        let mut shown = String::new();
        let mut show = |title: &str, lines: &[&String]| {
            shown.push_str(title);
            for line in lines {
                shown.push('\n');
                shown.push_str(line);
            }
            shown.push('\n');
        };
        if let Some(vm) = vm {
            // What is done to the host is done to every VM.
            let about = |line: &&String| line.contains(vm) || line.contains("the host");
            let of_vm: Vec<_> = lines.kept.iter().filter(about).collect();
            let first = of_vm.len().saturating_sub(LAST_OF_VM);
            show(&format!("What was done to {vm} at last:"), &of_vm[first..]);
        }
        let all: Vec<_> = lines.kept.iter().collect();
        show(
            "What was done at last:",
            &all[all.len().saturating_sub(LAST)..],
        );
        shown.push_str(&format!("All of it: {}\n", self.path.display()));
        shown
    }
}
