//! `roost plugin replay`.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use super::report::path;
use crate::cli::Format;
use crate::client::{Client, Query};
use crate::output::{self, items, text};

/// Ask a revision, or a component, about recorded facts, and show where it decides otherwise.
///
/// Nothing is stored and nothing is done.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    roost plugin replay night-watch                          the active revision\n  \
    roost plugin replay night-watch --revision 4 --limit 1000\n  \
    roost plugin replay night-watch --component night-watch.wasm --exit-code")]
pub(crate) struct Replay {
    /// The plugin.
    name: String,
    /// The revision; the active one if absent.
    #[arg(long)]
    revision: Option<u64>,
    /// A component that was not pushed.
    #[arg(long, value_name = "FILE", conflicts_with = "revision")]
    component: Option<PathBuf>,
    /// Only decisions of this hook.
    #[arg(long)]
    hook: Option<String>,
    /// At most so many decisions, from the newest back.
    #[arg(long)]
    limit: Option<u64>,
    /// Other settings than those that were pushed, a JSON object.
    #[arg(long)]
    settings: Option<String>,
    /// What the component may use of the host; may be given more than once.
    #[arg(long = "grant", value_name = "GRANT", requires = "component")]
    grants: Vec<String>,
    /// End with status 1 if a decision differs or fails.
    #[arg(long)]
    exit_code: bool,
}

impl Replay {
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        let component = match &self.component {
            None => Vec::new(),
            Some(file) => tokio::fs::read(file)
                .await
                .with_context(|| format!("{} can't be read", file.display()))?,
        };
        let mut query = Query::default()
            .with_some("revision", self.revision.as_ref())
            .with_some("hook", self.hook.as_ref())
            .with_some("limit", self.limit.as_ref())
            .with_some("settings", self.settings.as_ref());
        if !self.grants.is_empty() {
            query = query.with("grants", &self.grants.join(","));
        }
        let path = format!("{}/replay", path(&self.name));
        let answer = client.post_bytes(&path, query, component).await?;
        if client.output == Format::Json {
            output::json(&answer)?;
        } else {
            print(&answer)?;
        }
        let count = |member: &str| answer[member].as_u64().unwrap_or(0);
        let (differing, failed) = (count("differing"), count("failed"));
        if self.exit_code && differing + failed > 0 {
            bail!("{differing} decisions differ and {failed} failed");
        }
        Ok(())
    }
}

fn print(answer: &serde_json::Value) -> Result<()> {
    if !items(answer).is_empty() {
        let headings = ["NUMBER", "HOOK", "VM", "RECORDED", "NOW"];
        output::list(Format::Table, answer, &headings, |item| {
            let now = match text(item, "/error") {
                error if error.is_empty() => text(item, "/candidate"),
                error => format!("failed: {error}"),
            };
            let (number, hook, vm) = (
                text(item, "/number"),
                text(item, "/hook"),
                text(item, "/vm"),
            );
            vec![number, hook, vm, text(item, "/recorded"), now]
        })?;
        output::line("")?;
    }
    let of = |member: &str| text(answer, member);
    let mut sentence = format!(
        "{} replayed: {} the same, {} differ, {} failed, {} skipped",
        of("/replayed"),
        of("/same"),
        of("/differing"),
        of("/failed"),
        of("/skipped"),
    );
    if answer["complete"] == false {
        sentence.push_str("; time ran out before the rest");
    }
    output::line(&sentence)
}
