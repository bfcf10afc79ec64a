//! What plugins wrote to the log, and how they failed: the newest lines of each, in memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use roost_model::Hook;
use serde::Serialize;

/// Lines that are kept of each plugin: the last minutes of a talkative one.
const MAX_LINES: usize = 1000;
/// Text that is kept of each plugin, bytes.
const MAX_BYTES: usize = 256 << 10;

/// A line of a plugin's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PluginLogLine {
    /// Counts the plugin's lines since the host started, from 1.
    pub number: u64,
    /// ms since the Unix epoch.
    pub at_ms: u64,
    /// The revision that wrote it, or failed.
    pub revision: u64,
    /// What it was deciding.
    pub hook: Hook,
    /// `trace`, `debug`, `info`, `warn` or `error`.
    pub level: &'static str,
    /// The line.
    pub message: String,
}

/// A line before it has its number.
pub(crate) struct NewLine {
    pub(crate) at_ms: u64,
    pub(crate) revision: u64,
    pub(crate) hook: Hook,
    pub(crate) level: &'static str,
    pub(crate) message: String,
}

#[derive(Default)]
struct Ring {
    lines: VecDeque<PluginLogLine>,
    bytes: usize,
    last: u64,
}

impl Ring {
    fn push(&mut self, line: NewLine) {
        let NewLine {
            at_ms,
            revision,
            hook,
            level,
            message,
        } = line;
        self.last += 1;
        self.bytes += message.len();
        self.lines.push_back(PluginLogLine {
            number: self.last,
            at_ms,
            revision,
            hook,
            level,
            message,
        });
        while self.lines.len() > MAX_LINES || self.bytes > MAX_BYTES {
            let Some(oldest) = self.lines.pop_front() else {
                return;
            };
            self.bytes -= oldest.message.len();
        }
    }
}

/// The logs of all plugins.
#[derive(Default)]
pub(crate) struct PluginLogs(Mutex<BTreeMap<String, Ring>>);

impl PluginLogs {
    fn rings(&self) -> MutexGuard<'_, BTreeMap<String, Ring>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, plugin: &str, line: NewLine) {
        let mut rings = self.rings();
        match rings.get_mut(plugin) {
            Some(ring) => ring.push(line),
            None => rings.entry(plugin.to_owned()).or_default().push(line),
        }
    }

    /// Lines with numbers above `after`, oldest first.
    pub(crate) fn read(&self, plugin: &str, after: u64, limit: usize) -> Vec<PluginLogLine> {
        let rings = self.rings();
        let lines = rings.get(plugin).map(|ring| ring.lines.iter());
        let newer = lines.into_iter().flatten().filter(|l| l.number > after);
        newer.take(limit).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str) -> NewLine {
        NewLine {
            at_ms: 1,
            revision: 1,
            hook: Hook::Cleanup,
            level: "info",
            message: message.to_owned(),
        }
    }

    #[test]
    fn the_newest_lines_are_kept_by_number_and_by_size() {
        let logs = PluginLogs::default();
        for n in 0..MAX_LINES + 5 {
            logs.push("many", line(&n.to_string()));
        }
        let lines = logs.read("many", 0, usize::MAX);
        assert_eq!((lines.len(), lines[0].number), (MAX_LINES, 6));
        let large = "x".repeat(1 << 10);
        for _ in 0..MAX_LINES {
            logs.push("large", line(&large));
        }
        assert_eq!(logs.read("large", 0, usize::MAX).len(), MAX_BYTES >> 10);
    }

    #[test]
    fn a_reader_goes_on_where_it_left_off() {
        let logs = PluginLogs::default();
        for text in ["a", "b", "c"] {
            logs.push("p", line(text));
        }
        let first = logs.read("p", 0, 2);
        let rest = logs.read("p", first[1].number, 2);
        assert_eq!(
            (first[0].message.as_str(), rest[0].message.as_str()),
            ("a", "c")
        );
        assert_eq!(logs.read("nobody", 0, 9), []);
    }
}
