//! What does not agree, what is yet to go away, and what a person must do about it.

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

use crate::cli::Format;
use crate::client::{Client, Query, escape};
use crate::output::{self, items, text, time};

/// Compare what is written down with what is there.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    roost audit              look, and change nothing; status 1 if something does not agree\n  \
    roost audit --repair     have what does not agree put right")]
pub(crate) struct Audit {
    /// Have what is found put right.
    #[arg(long)]
    repair: bool,
}

impl Audit {
    pub(crate) async fn run(self, client: &Client) -> Result<()> {
        let report = if self.repair {
            client.post("/v1/audit", Query::default()).await?
        } else {
            client.get("/v1/audit", Query::default()).await?
        };
        let found = report["divergences"].as_array().map_or(0, Vec::len);
        if client.output == Format::Json {
            output::json(&report)?;
        } else {
            let headings = ["DIVERGENCE", "VM", "REPAIR", "DETAILS"];
            let list = json!({ "items": report["divergences"] });
            output::list(Format::Table, &list, &headings, |found| {
                vec![
                    text(found, "/divergence"),
                    text(found, "/vm"),
                    text(found, "/repair"),
                    details(found),
                ]
            })?;
            output::line(&format!(
                "{found} found; {} VMs looked at, {} busy; {} ms",
                text(&report, "/checked"),
                text(&report, "/busy"),
                report["elapsed_us"].as_u64().unwrap_or(0) / 1000,
            ))?;
        }
        if found > 0 && !self.repair {
            bail!("records and the node do not agree; `roost audit --repair` has it put right");
        }
        Ok(())
    }
}

/// The members of a finding that have no column of their own.
fn details(found: &Value) -> String {
    let members = found.as_object().into_iter().flatten();
    let own = members.filter(|(key, _)| !["divergence", "vm", "repair"].contains(&key.as_str()));
    let details: Vec<String> = own
        .map(|(key, value)| match value {
            Value::String(text) => format!("{key}={text}"),
            other => format!("{key}={other}"),
        })
        .collect();
    details.join(" ")
}

#[derive(Subcommand)]
#[command(after_help = "Examples:\n  \
    roost actions list\n  \
    roost actions retry act-0190…                 put the cleanup into the queue again\n  \
    roost actions resolve act-0190… --note \"removed by hand\"")]
pub(crate) enum Actions {
    /// List what a person must do.
    List,
    /// Show one of them.
    Show {
        /// Its id.
        action: String,
    },
    /// Put a cleanup that was given up into the queue again.
    Retry {
        /// Its id.
        action: String,
    },
    /// Say that it is done, or that nothing is to be done.
    Resolve {
        /// Its id.
        action: String,
        /// What was done, for whoever reads the event log.
        #[arg(long)]
        note: String,
    },
}

impl Actions {
    pub(crate) async fn run(self, client: &Client) -> Result<()> {
        let path = |action: &str| format!("/v1/actions-required/{}", escape(action));
        match self {
            Self::List => {
                let actions = client.get("/v1/actions-required", Query::default()).await?;
                output::list(
                    client.output,
                    &actions,
                    &["ID", "VM", "TIME", "WHAT"],
                    |action| {
                        vec![
                            text(action, "/id"),
                            text(action, "/vm"),
                            time(action, "/at_ms"),
                            text(action, "/what"),
                        ]
                    },
                )
            }
            Self::Show { action } => {
                let action = client.get(&path(&action), Query::default()).await?;
                if client.output == Format::Json {
                    return output::json(&action);
                }
                let row = |label: &str, value: String| vec![label.to_owned(), value];
                output::table(
                    &["ID", &text(&action, "/id")],
                    &[
                        row("vm", text(&action, "/vm")),
                        row("since", time(&action, "/at_ms")),
                        row("what", text(&action, "/what")),
                        row("resource", text(&action, "/task/resource")),
                        row("attempts", text(&action, "/task/attempts")),
                        row("error", text(&action, "/task/last_error")),
                        row("found", text(&action, "/found/divergence")),
                    ],
                )
            }
            Self::Retry { action } => {
                let path = format!("{}/retry", path(&action));
                let task = client.post(&path, Query::default()).await?;
                match client.output {
                    Format::Json => output::json(&task),
                    Format::Table => output::line(&format!(
                        "{} is in the cleanup queue again",
                        text(&task, "/id")
                    )),
                }
            }
            Self::Resolve { action, note } => {
                let path = format!("{}/resolve", path(&action));
                let note = json!({ "note": note });
                let resolved = client.send_json(Method::POST, &path, &note).await?;
                match client.output {
                    Format::Json => output::json(&resolved),
                    Format::Table => output::line(&format!("{action} is resolved")),
                }
            }
        }
    }
}

#[derive(Subcommand)]
#[command(after_help = "Examples:\n  roost cleanup list\n  roost cleanup retry cl-0190…")]
pub(crate) enum Cleanup {
    /// List what is yet to go away.
    List,
    /// Show one of them.
    Show {
        /// Its id.
        task: String,
    },
    /// Try it again now, rather than when its policy said.
    Retry {
        /// Its id.
        task: String,
    },
}

impl Cleanup {
    pub(crate) async fn run(self, client: &Client) -> Result<()> {
        let path = |task: &str| format!("/v1/cleanup-tasks/{}", escape(task));
        let shown = match self {
            Self::List => client.get("/v1/cleanup-tasks", Query::default()).await?,
            Self::Show { task } => client.get(&path(&task), Query::default()).await?,
            Self::Retry { task } => {
                let path = format!("{}/retry", path(&task));
                client.post(&path, Query::default()).await?
            }
        };
        if client.output == Format::Json {
            return output::json(&shown);
        }
        let tasks = match &shown["items"] {
            Value::Array(_) => items(&shown).to_vec(),
            _ => vec![shown],
        };
        let headings = ["ID", "VM", "RESOURCE", "ATTEMPTS", "DUE", "ERROR"];
        let tasks = json!({ "items": tasks });
        output::list(Format::Table, &tasks, &headings, |task| {
            vec![
                text(task, "/id"),
                text(task, "/vm"),
                text(task, "/resource"),
                text(task, "/attempts"),
                time(task, "/due_at_ms"),
                text(task, "/last_error"),
            ]
        })
    }
}
