//! What the commands have in common when they print.

use anyhow::Result;
use serde_json::Value;

use crate::cli::Format;
use crate::client::escape;
use crate::output;

/// The route of a plugin.
pub(super) fn path(name: &str) -> String {
    format!("/v1/plugins/{}", escape(name))
}

/// Prints an answer as it is, or a sentence about it.
pub(super) fn report(
    format: Format,
    answer: &Value,
    sentence: impl FnOnce() -> String,
) -> Result<()> {
    match format {
        Format::Json => output::json(answer),
        Format::Table => output::line(&output::printable(&sentence())),
    }
}

/// A list of names in one cell.
pub(super) fn names(list: &Value) -> String {
    let names = list.as_array().into_iter().flatten();
    names
        .filter_map(Value::as_str)
        .collect::<Vec<_>>()
        .join(",")
}
