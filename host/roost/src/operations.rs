//! `roost operations`: verbs that wait, are under way, or are done.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::cli::Format;
use crate::client::{Client, Query, escape};
use crate::observe::Of;
use crate::output::{self, text, time};

/// Longest that one request of `wait` waits, ms: the host allows five minutes.
const WAIT_MS: u64 = 60_000;

/// Show operations, the newest first; wait for one, or cancel it.
#[derive(Args)]
#[command(
    visible_alias = "operation",
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  \
        roost operations web                     those of one VM\n  \
        roost operations show op-0190…           one, with its steps and what it is doing\n  \
        roost operations wait op-0190…           status 0 once it has succeeded\n  \
        roost operation cancel op-0190…          call it off\n\n\
        Cancelled can be: what waits for its turn or for a delay, a boot whose guest does not \
        run yet, and a shutdown or reboot that waits for its guest."
)]
pub(crate) struct Operations {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    of: Of,
}

#[derive(Subcommand)]
enum Action {
    /// List operations, the newest first: the same as without a command.
    List(Of),
    /// Show one.
    Show {
        /// Its id.
        operation: String,
    },
    /// Wait until one is done.
    #[command(after_help = "Example:\n  roost operations wait op-0190… --timeout 300")]
    Wait {
        /// Its id.
        operation: String,
        /// How long, seconds.
        #[arg(long, default_value_t = 60)]
        timeout: u64,
    },
    /// Call one off.
    #[command(after_help = "Example:\n  roost operation cancel op-0190…")]
    Cancel {
        /// Its id.
        operation: String,
    },
}

fn path(operation: &str) -> String {
    format!("/v1/operations/{}", escape(operation))
}

impl Operations {
    pub(crate) async fn run(self, client: &Client) -> Result<()> {
        match self.action {
            None => list(client, self.of).await,
            Some(Action::List(of)) => list(client, of).await,
            Some(Action::Show { operation }) => {
                let operation = client.get(&path(&operation), Query::default()).await?;
                show(client.output, &operation)
            }
            Some(Action::Wait { operation, timeout }) => {
                let operation = wait(client, &operation, Duration::from_secs(timeout)).await?;
                report(client.output, &operation)?;
                if text(&operation, "/status") == "succeeded" {
                    return Ok(());
                }
                bail!(story(&operation));
            }
            Some(Action::Cancel { operation }) => {
                let path = format!("{}/cancel", path(&operation));
                let operation = client.post(&path, Query::default()).await?;
                report(client.output, &operation)?;
                if text(&operation, "/status") == "cancelled" {
                    return Ok(());
                }
                bail!(story(&operation));
            }
        }
    }
}

/// The operation once it is done, or as it stands after `timeout`.
async fn wait(client: &Client, operation: &str, timeout: Duration) -> Result<Value> {
    let begun = Instant::now();
    loop {
        let left = timeout.saturating_sub(begun.elapsed()).as_millis();
        let left = u64::try_from(left).unwrap_or(u64::MAX);
        let query = Query::default()
            .with("wait", &true)
            .with("timeout_ms", &left.min(WAIT_MS));
        let operation = client.get(&path(operation), query).await?;
        if left <= WAIT_MS || !is_going_on(&operation) {
            return Ok(operation);
        }
    }
}

/// Whether an operation is yet to end.
pub(crate) fn is_going_on(operation: &Value) -> bool {
    ["queued", "running"].contains(&text(operation, "/status").as_str())
}

/// How an operation stands, in one line.
pub(crate) fn story(operation: &Value) -> String {
    let status = text(operation, "/status");
    let why = match status.as_str() {
        "failed" => text(operation, "/error"),
        "cancelled" => text(operation, "/reason"),
        _ => text(operation, "/doing"),
    };
    let verb = text(operation, "/verb");
    let story = format!("{verb} {}: {status}", text(operation, "/id"));
    output::printable(&if why.is_empty() {
        story
    } else {
        format!("{story}: {why}")
    })
}

fn report(format: Format, operation: &Value) -> Result<()> {
    match format {
        Format::Json => output::json(operation),
        Format::Table => output::line(&story(operation)),
    }
}

async fn list(client: &Client, of: Of) -> Result<()> {
    let operations = client.get("/v1/operations", of.query(client)).await?;
    let headings = ["ID", "VM", "VERB", "STATUS", "CREATED", "DETAILS"];
    output::list(client.output, &operations, &headings, |operation| {
        let details = ["/error", "/reason", "/doing"].map(|member| text(operation, member));
        vec![
            text(operation, "/id"),
            text(operation, "/vm"),
            text(operation, "/verb"),
            text(operation, "/status"),
            time(operation, "/created_at_ms"),
            details
                .into_iter()
                .find(|text| !text.is_empty())
                .unwrap_or_default(),
        ]
    })
}

fn show(format: Format, operation: &Value) -> Result<()> {
    if format == Format::Json {
        return output::json(operation);
    }
    let mut rows = Vec::new();
    for (label, member) in [
        ("vm", "/vm"),
        ("status", "/status"),
        ("doing", "/doing"),
        ("error", "/error"),
        ("reason", "/reason"),
        ("wanted by", "/origin"),
        ("deadline ms", "/grace/deadline_ms"),
    ] {
        let value = text(operation, member);
        if !value.is_empty() {
            rows.push(vec![label.to_owned(), value]);
        }
    }
    for (label, member) in [
        ("since", "/doing_since_ms"),
        ("not before", "/not_before_ms"),
        ("created", "/created_at_ms"),
        ("updated", "/updated_at_ms"),
    ] {
        if operation.pointer(member).is_some() {
            rows.push(vec![label.to_owned(), time(operation, member)]);
        }
    }
    for step in operation["steps"].as_array().into_iter().flatten() {
        let state = format!("{} {}", text(step, "/state"), time(step, "/at_ms"));
        rows.push(vec![text(step, "/step"), state]);
    }
    let heading = [text(operation, "/verb"), text(operation, "/id")];
    let heading: Vec<&str> = heading.iter().map(String::as_str).collect();
    output::table(&heading, &rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_operation_is_told_in_one_line_whatever_came_of_it() {
        let of = |more: Value| {
            let mut operation = json!({ "id": "op-1", "verb": "boot" });
            if let (Some(operation), Some(more)) = (operation.as_object_mut(), more.as_object()) {
                operation.extend(more.clone());
            }
            story(&operation)
        };
        for (operation, expected) in [
            (json!({ "status": "succeeded" }), "boot op-1: succeeded"),
            (
                json!({ "status": "failed", "error": "no" }),
                "boot op-1: failed: no",
            ),
            (
                json!({ "status": "cancelled", "reason": "you" }),
                "boot op-1: cancelled: you",
            ),
            (
                json!({ "status": "queued", "doing": "waiting" }),
                "boot op-1: queued: waiting",
            ),
        ] {
            assert_eq!(of(operation), expected);
        }
    }
}
