//! `roost drain`.

use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;

use crate::cli::Format;
use crate::client::{Client, Query};
use crate::output::{self, items_of, text, time};

/// How long the host is asked to wait at a time, ms: how often progress is shown.
const STEP_MS: u64 = 2000;
/// How long beyond the deadline VMs may take to be stopped before the command gives up, s.
const PATIENCE: u64 = 120;

/// Empty this node: no new VMs, no boots, and those that run are shut down.
///
/// It holds until `--cancel`, also when the host is restarted. VMs that were shut down stay
/// stopped afterwards.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    roost drain                     power buttons are pressed; after a minute VMs are stopped\n  \
    roost drain --deadline 300      guests get five minutes\n  \
    roost drain --deadline 0        no more patience: stop them now\n  \
    roost drain --status            how far is it?\n  \
    roost drain --cancel            take VMs again")]
pub(crate) struct Drain {
    /// How long guests may take to end by themselves, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=600))]
    deadline: u64,
    /// Return once the node drains, rather than when no VM runs.
    #[arg(long)]
    no_wait: bool,
    /// Show how far it is, and change nothing.
    #[arg(long, conflicts_with_all = ["deadline", "no_wait", "cancel"])]
    status: bool,
    /// End it: the node takes VMs again.
    #[arg(long, conflicts_with_all = ["deadline", "no_wait"])]
    cancel: bool,
}

impl Drain {
    pub(crate) async fn run(self, client: &Client) -> Result<()> {
        let report = if self.status {
            client.get("/v1/drain", Query::default()).await?
        } else if self.cancel {
            client.delete("/v1/drain", Query::default()).await?
        } else {
            self.drain(client).await?
        };
        match client.output {
            Format::Json => output::json(&report)?,
            Format::Table => output::line(&sentence(&report))?,
        }
        let waited = !(self.status || self.cancel || self.no_wait);
        if waited && report["state"] != "drained" {
            bail!("the node is not drained: {}", sentence(&report));
        }
        Ok(())
    }

    async fn drain(&self, client: &Client) -> Result<Value> {
        let query = Query::default()
            .with("deadline_ms", &(self.deadline * 1000))
            .with("wait", &false);
        let mut report = client.post("/v1/drain", query).await?;
        if self.no_wait {
            return Ok(report);
        }
        let give_up = std::time::Duration::from_secs(self.deadline + PATIENCE);
        let begun = std::time::Instant::now();
        let mut shown = String::new();
        while report["state"] == "draining" && begun.elapsed() < give_up {
            let line = sentence(&report);
            if line != shown {
                // Progress is for a person; what programs read is the report at the end.
                eprintln!("{}", output::printable(&line));
                shown = line;
            }
            let query = Query::default().with("wait_ms", &STEP_MS);
            report = client.get("/v1/drain", query).await?;
        }
        Ok(report)
    }
}

/// What a report says.
fn sentence(report: &Value) -> String {
    match report["state"].as_str() {
        Some("off") => "the node takes VMs".to_owned(),
        Some("drained") => "the node is drained: no VM runs, and none is taken".to_owned(),
        _ => {
            let vms = items_of(report, "vms");
            let mut names: Vec<String> = vms.iter().map(|vm| text(vm, "/name")).collect();
            let remaining = report["remaining"].as_u64().unwrap_or(0);
            let unnamed = remaining.saturating_sub(names.len() as u64);
            if unnamed > 0 {
                names.push(format!("{unnamed} more"));
            }
            format!(
                "the node is draining: {remaining} to end, stopped at {}: {}",
                time(report, "/stop_at_ms"),
                names.join(", ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_report_is_a_sentence_that_names_who_is_left() {
        let report = json!({
            "state": "draining", "since_ms": 0, "stop_at_ms": 60_000, "remaining": 3,
            "vms": [{ "name": "web" }, { "name": "db" }],
        });
        assert_eq!(
            sentence(&report),
            "the node is draining: 3 to end, stopped at 1970-01-01T00:01:00.000Z: web, db, 1 more"
        );
        assert_eq!(sentence(&json!({ "state": "off" })), "the node takes VMs");
    }
}
