//! Lines that a call wrote, few and clean.

use crate::bindings::Level;
use crate::record::LogLine;
use crate::text::clean;

/// Most lines of one call.
const MAX_LINES: usize = 32;

#[derive(Default)]
pub(crate) struct LogBuffer {
    lines: Vec<LogLine>,
    /// Kept whatever came before: it may be the message of the panic that ends the call.
    last_error: Option<String>,
    dropped: u64,
}

impl LogBuffer {
    pub(crate) fn push(&mut self, level: Level, message: &str) {
        let message = clean(message);
        if level == Level::Error {
            self.last_error = Some(message.clone());
        }
        if self.lines.len() < MAX_LINES {
            self.lines.push(LogLine { level, message });
        } else {
            self.dropped += 1;
        }
    }

    pub(crate) fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    pub(crate) fn take(&mut self) -> Vec<LogLine> {
        let mut taken = std::mem::take(self);
        if taken.dropped > 0 {
            taken.lines.push(LogLine {
                level: Level::Warn,
                message: format!("{} more lines were dropped", taken.dropped),
            });
        }
        taken.lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lines_is_cut_and_counted_and_the_last_error_is_kept() {
        let mut log = LogBuffer::default();
        for n in 0..100 {
            log.push(Level::Info, &n.to_string());
        }
        log.push(Level::Error, "why\x1b");
        assert_eq!(log.last_error(), Some("why\u{fffd}"));
        let lines = log.take();
        assert_eq!(lines.len(), MAX_LINES + 1);
        assert_eq!(lines[MAX_LINES].message, "69 more lines were dropped");
        assert_eq!(log.take(), []);
        assert_eq!(log.last_error(), None);
    }
}
