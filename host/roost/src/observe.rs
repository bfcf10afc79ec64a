//! What happened, what was used, what is under way.

use anyhow::Result;
use clap::Args;
use http_body_util::BodyExt as _;
use hyper::Method;
use serde_json::{Value, json};

use crate::cli::Format;
use crate::client::{Client, Query, empty};
use crate::output::{self, items, text, time};

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    roost events --after 120\n  \
    roost events --follow -o json")]
pub(crate) struct Events {
    /// Only events with higher numbers.
    #[arg(long, default_value_t = 0)]
    after: u64,
    /// Go on printing as they happen.
    #[arg(short, long)]
    follow: bool,
}

#[derive(Args)]
pub(crate) struct Of {
    /// Only of this VM: name or id.
    vm: Option<String>,
    /// At most so many.
    #[arg(long)]
    limit: Option<usize>,
}

impl Of {
    pub(crate) fn query(&self, client: &Client) -> Query {
        client
            .query()
            .with_some("vm", self.vm.as_ref())
            .with_some("limit", self.limit.as_ref())
    }
}

const HEADINGS: [&str; 6] = ["NUMBER", "TIME", "VM", "INC", "KIND", "DETAILS"];

/// Members of an event that have columns of their own.
const COLUMNS: [&str; 6] = ["number", "at_ms", "vm", "tenant", "incarnation", "kind"];

fn row(event: &Value) -> Vec<String> {
    let details: Vec<String> = event
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| !COLUMNS.contains(&key.as_str()))
        .map(|(key, value)| match value {
            Value::String(text) => format!("{key}={text}"),
            other => format!("{key}={other}"),
        })
        .collect();
    vec![
        text(event, "/number"),
        time(event, "/at_ms"),
        text(event, "/vm"),
        text(event, "/incarnation"),
        text(event, "/kind"),
        details.join(" "),
    ]
}

impl Events {
    pub(crate) async fn run(self, client: &Client) -> Result<()> {
        if self.follow {
            return self.follow(client).await;
        }
        let mut all = Vec::new();
        let mut after = self.after.to_string();
        loop {
            let page = client
                .get("/v1/events", Query::default().with("after", &after))
                .await?;
            all.extend_from_slice(items(&page));
            match page["next"].as_str() {
                Some(next) => after = next.to_owned(),
                None => break,
            }
        }
        let all = json!({ "items": all, "next": null });
        output::list(client.output, &all, &HEADINGS, row)
    }

    async fn follow(self, client: &Client) -> Result<()> {
        let query = Query::default().with("after", &self.after);
        let accept = [("accept", "text/event-stream")];
        let response = client
            .send(Method::GET, "/v1/events", &query, empty(), &accept)
            .await?;
        let mut body = response.into_body();
        let mut buffered = Vec::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                buffered.extend_from_slice(&data);
            }
            while let Some(end) = buffered.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffered.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                let Some(event) = line.trim_end().strip_prefix("data:") else {
                    continue;
                };
                match client.output {
                    Format::Json => output::line(event.trim_start())?,
                    Format::Table => {
                        let event: Value = serde_json::from_str(event)?;
                        output::line(&output::printable(&row(&event).join("  ")))?;
                    }
                }
            }
        }
        Ok(())
    }
}

pub(crate) async fn usage(client: &Client, of: Of) -> Result<()> {
    let usage = client.get("/v1/usage", of.query(client)).await?;
    if client.output == Format::Json {
        return output::json(&usage);
    }
    let headings = [
        "VM",
        "INC",
        "SEQ",
        "START",
        "END",
        "VCPU-MS",
        "RUNNING-MS",
        "CLOSE",
        "SOURCE",
    ];
    let windows = json!({ "items": usage["windows"] });
    output::list(Format::Table, &windows, &headings, |window| {
        let ms = |member: &str| (window[member].as_u64().unwrap_or(0) / 1_000_000).to_string();
        vec![
            text(window, "/vm"),
            text(window, "/incarnation"),
            text(window, "/sequence"),
            time(window, "/start_ms"),
            time(window, "/end_ms"),
            ms("vcpu_cpu_ns"),
            ms("running_ns"),
            text(window, "/close"),
            text(window, "/source"),
        ]
    })?;
    output::line("")?;
    let charges = json!({ "items": usage["charges"] });
    let headings = ["VM", "INC", "SEQ", "ITEM", "QUANTITY", "UNIT", "AMOUNT"];
    output::list(Format::Table, &charges, &headings, |charge| {
        let nanos = charge["amount_nanos"].as_u64().unwrap_or(0);
        vec![
            text(charge, "/vm"),
            text(charge, "/incarnation"),
            text(charge, "/sequence"),
            text(charge, "/item"),
            text(charge, "/quantity"),
            text(charge, "/unit"),
            format!(
                "{}.{:09} {}",
                nanos / 1_000_000_000,
                nanos % 1_000_000_000,
                text(charge, "/currency")
            ),
        ]
    })
}

pub(crate) async fn incidents(client: &Client, of: Of) -> Result<()> {
    let incidents = client.get("/v1/incidents", of.query(client)).await?;
    let headings = ["ID", "VM", "INC", "TIME", "KIND", "DECISION", "CLOSED"];
    output::list(client.output, &incidents, &headings, |incident| {
        vec![
            text(incident, "/id"),
            text(incident, "/vm"),
            text(incident, "/incarnation"),
            time(incident, "/at_ms"),
            text(incident, "/incident_kind"),
            text(incident, "/decision/action"),
            text(incident, "/closed"),
        ]
    })
}
