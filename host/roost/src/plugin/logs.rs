//! `roost plugin logs`.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use super::report::path;
use crate::cli::Format;
use crate::client::{Client, Query};
use crate::output::{self, items, printable, text, time};

/// How often a log is looked at that is followed.
const POLL: Duration = Duration::from_millis(500);

/// Show what a plugin logged and how it failed.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    roost plugin logs night-watch\n  \
    roost plugin logs night-watch --follow")]
pub(crate) struct Logs {
    /// The plugin.
    name: String,
    /// Only lines with higher numbers.
    #[arg(long, default_value_t = 0)]
    after: u64,
    /// At most so many.
    #[arg(long)]
    limit: Option<u64>,
    /// Go on printing as they come.
    #[arg(short, long, conflicts_with = "limit")]
    follow: bool,
}

impl Logs {
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        let path = format!("{}/logs", path(&self.name));
        let mut after = self.after;
        loop {
            let query = Query::default()
                .with("after", &after)
                .with_some("limit", self.limit.as_ref());
            let lines = client.get(&path, query).await?;
            if client.output == Format::Json && !self.follow {
                return output::json(&lines);
            }
            for line in items(&lines) {
                print(client.output, line)?;
                after = line["number"].as_u64().unwrap_or(after).max(after);
            }
            if !self.follow {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

fn print(format: Format, line: &Value) -> Result<()> {
    if format == Format::Json {
        return output::line(&line.to_string());
    }
    let message = text(line, "/message");
    output::line(&printable(&format!(
        "{}  {:5}  revision {}  {}  {message}",
        time(line, "/at_ms"),
        text(line, "/level"),
        text(line, "/revision"),
        text(line, "/hook"),
    )))
}
