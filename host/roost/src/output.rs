//! Printing: tables for people, JSON for programs.

use std::io::{self, Write as _};

use anyhow::Result;
use serde_json::Value;

/// Prints what the API answered.
pub(crate) fn json(value: &Value) -> Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// Prints a line. A reader that went away ends the command without an error.
pub(crate) fn line(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        result => Ok(result?),
    }
}

/// Prints rows under headings, each column as wide as its widest cell.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> Result<()> {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| printable(cell)).collect())
        .collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
            .max(headings[column].len())
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let print = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(c, w)| format!("{c:w$}")).collect();
        line(padded.join("  ").trim_end())
    };
    print(&mut headings.iter().copied())?;
    rows.iter()
        .try_for_each(|row| print(&mut row.iter().map(String::as_str)))
}

/// `text` without control characters: it may come from a guest or a plugin.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// A member as text; empty if it is not there.
pub(crate) fn text(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// The items of a list.
pub(crate) fn items(value: &Value) -> &[Value] {
    items_of(value, "items")
}

/// The items of a list that is a member; none where there is no such list.
pub(crate) fn items_of<'a>(value: &'a Value, member: &str) -> &'a [Value] {
    value[member].as_array().map_or(&[], Vec::as_slice)
}

/// Prints a list, either way.
pub(crate) fn list(
    format: crate::cli::Format,
    value: &Value,
    headings: &[&str],
    row: impl Fn(&Value) -> Vec<String>,
) -> Result<()> {
    match format {
        crate::cli::Format::Json => json(value),
        crate::cli::Format::Table => {
            table(headings, &items(value).iter().map(row).collect::<Vec<_>>())
        }
    }
}

/// ms since the Unix epoch as UTC.
pub(crate) fn time(value: &Value, pointer: &str) -> String {
    let ms = value.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    let (days, of_day) = ((ms / 86_400_000) as i64, ms % 86_400_000);
    // Days to a civil date in the proleptic Gregorian calendar, counted from 0000-03-01.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hours, minutes) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let seconds = of_day / 1000 % 60;
    format!(
        "{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{:03}Z",
        ms % 1000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc() {
        let at = |ms: u64| time(&serde_json::json!({ "t": ms }), "/t");
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_400_000), "2000-02-29T00:00:00.000Z");
    }

    #[test]
    fn control_characters_never_reach_a_terminal() {
        assert_eq!(printable("a\x1b[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
    }
}
