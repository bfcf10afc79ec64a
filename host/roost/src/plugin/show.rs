//! What plugins there are, and how they do.

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::bindings;
use super::report::{names, path};
use crate::cli::Format;
use crate::client::{Client, Query};
use crate::output::{self, items, text, time};

/// List plugins.
#[derive(Args)]
#[command(after_help = "Example:\n  roost plugin list")]
pub(crate) struct List {}

impl List {
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        let plugins = client.get("/v1/plugins", Query::default()).await?;
        let headings = ["NAME", "ACTIVE", "STATE", "REVISIONS", "HOOKS"];
        output::list(client.output, &plugins, &headings, |plugin| {
            let listed = json!({ "items": plugin["revisions"] });
            let revisions = items(&listed);
            let active = revisions
                .iter()
                .find(|revision| revision["revision"] == plugin["active"]);
            let shown = active.or(revisions.last());
            vec![
                text(plugin, "/name"),
                text(plugin, "/active"),
                shown.map(|r| text(r, "/state")).unwrap_or_default(),
                revisions.len().to_string(),
                shown.map(|r| names(&r["hooks"])).unwrap_or_default(),
            ]
        })
    }
}

/// Show a plugin: revisions, bindings, how its calls went, quarantine.
#[derive(Args)]
#[command(after_help = "Example:\n  roost plugin show night-watch")]
pub(crate) struct Show {
    /// The plugin.
    name: String,
}

impl Show {
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        let plugin = client.get(&path(&self.name), Query::default()).await?;
        if client.output == Format::Json {
            return output::json(&plugin);
        }
        revisions(&plugin)?;
        if let Value::Object(quarantine) = &plugin["quarantine"] {
            let quarantine = json!(quarantine);
            output::line("")?;
            output::line(&output::printable(&format!(
                "revision {} is in quarantine until {}: {}",
                text(&quarantine, "/revision"),
                time(&quarantine, "/until_ms"),
                text(&quarantine, "/reason"),
            )))?;
        }
        let bound = json!({ "items": plugin["bindings"] });
        if !items(&bound).is_empty() {
            output::line("")?;
            bindings::table(Format::Table, &bound)?;
        }
        let statistics = json!({ "items": plugin["statistics"] });
        if !items(&statistics).is_empty() {
            output::line("")?;
            calls(&statistics)?;
        }
        Ok(())
    }
}

fn revisions(plugin: &Value) -> Result<()> {
    let headings = [
        "REVISION", "STATE", "VERSION", "HOOKS", "GRANTS", "PUSHED", "DIGEST", "REASON",
    ];
    let revisions = json!({ "items": plugin["revisions"] });
    output::list(Format::Table, &revisions, &headings, |revision| {
        vec![
            text(revision, "/revision"),
            text(revision, "/state"),
            text(revision, "/version"),
            names(&revision["hooks"]),
            names(&revision["grants"]),
            time(revision, "/pushed_at_ms"),
            text(revision, "/digest"),
            text(revision, "/reason"),
        ]
    })
}

fn calls(statistics: &Value) -> Result<()> {
    let headings = [
        "HOOK",
        "CALLS",
        "DECIDED",
        "FAILED",
        "FALLBACKS",
        "DIFFERED",
        "P50",
        "P99",
        "MAX",
        "MEMORY",
    ];
    output::list(Format::Table, statistics, &headings, |of| {
        let us = |member: &str| format!("{} us", text(of, member));
        let memory = of["memory_high_water_bytes"].as_u64().unwrap_or(0);
        vec![
            text(of, "/hook"),
            text(of, "/calls"),
            text(of, "/decided"),
            text(of, "/failed"),
            text(of, "/fallbacks"),
            text(of, "/differed"),
            us("/latency_us/p50"),
            us("/latency_us/p99"),
            us("/latency_us/max"),
            format!("{} KiB", memory >> 10),
        ]
    })
}
