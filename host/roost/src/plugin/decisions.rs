//! `roost decisions`: the journal.

use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Value, json};

use super::fixture::Fixture;
use super::report::path;
use crate::cli::Format;
use crate::client::{Client, Query};
use crate::output::{self, text, time};

/// Show what was decided, by whom, and who was of another mind.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    roost decisions --hook recovery --limit 20\n  \
    roost decisions --plugin night-watch --differs    where it would decide otherwise\n  \
    roost decisions 42                                 one, with its facts\n  \
    roost decisions 42 --fixture > fixtures/42.json    as a test case")]
pub(crate) struct Decisions {
    /// Only this one, with all that is known about it.
    number: Option<u64>,
    /// Print it as a fixture for `roost plugin test`.
    #[arg(long, requires = "number")]
    fixture: bool,
    /// Only of this hook.
    #[arg(long)]
    hook: Option<String>,
    /// Only those that this plugin was asked about.
    #[arg(long)]
    plugin: Option<String>,
    /// Only about this VM: name or id.
    #[arg(long)]
    vm: Option<String>,
    /// Only those about which a monitoring or shadow call was of another mind.
    #[arg(long)]
    differs: bool,
    /// Only those with higher numbers, oldest first; without it the newest come first.
    #[arg(long)]
    after: Option<u64>,
    /// At most so many.
    #[arg(long)]
    limit: Option<u64>,
}

impl Decisions {
    pub(crate) async fn run(self, client: &Client) -> Result<()> {
        if let Some(number) = self.number {
            let path = format!("/v1/decisions/{number}");
            let decision = client.get(&path, Query::default()).await?;
            return match (self.fixture, client.output) {
                (true, _) => output::json(&fixture(client, &decision).await?.to_json()),
                (false, Format::Json) => output::json(&decision),
                (false, Format::Table) => show(&decision),
            };
        }
        let mut query = client
            .query()
            .with_some("hook", self.hook.as_ref())
            .with_some("plugin", self.plugin.as_ref())
            .with_some("vm", self.vm.as_ref())
            .with_some("after", self.after.as_ref())
            .with_some("limit", self.limit.as_ref());
        if self.differs {
            query = query.with("differs", &true);
        }
        if self.after.is_none() {
            query = query.with("order", &"newest");
        }
        let decisions = client.get("/v1/decisions", query).await?;
        let headings = [
            "NUMBER",
            "TIME",
            "HOOK",
            "VM",
            "DECISION",
            "BY",
            "OTHERWISE",
        ];
        output::list(client.output, &decisions, &headings, |decision| {
            vec![
                text(decision, "/number"),
                time(decision, "/at_ms"),
                text(decision, "/hook"),
                text(decision, "/vm"),
                text(decision, "/decision"),
                by(decision),
                otherwise(decision),
            ]
        })
    }
}

/// Who decided.
fn by(decision: &Value) -> String {
    match text(decision, "/decided_by/plugin").as_str() {
        "" => text(decision, "/decided_by/by"),
        plugin => format!("{plugin}/{}", text(decision, "/decided_by/revision")),
    }
}

/// What those said whose decision was not used, where it differs.
fn otherwise(decision: &Value) -> String {
    let calls = decision["calls"].as_array().into_iter().flatten();
    calls
        .filter(|call| call["differs"] == true)
        .map(|call| {
            let (plugin, revision) = (text(call, "/plugin"), text(call, "/revision"));
            format!("{plugin}/{revision}: {}", text(call, "/decision"))
        })
        .collect::<Vec<_>>()
        .join("; ")
}

fn show(decision: &Value) -> Result<()> {
    for (name, value) in [
        ("number", text(decision, "/number")),
        ("time", time(decision, "/at_ms")),
        ("hook", text(decision, "/hook")),
        ("vm", text(decision, "/vm")),
        ("decision", text(decision, "/decision")),
        ("decided by", by(decision)),
    ] {
        output::line(&output::printable(&format!("{name:12}{value}")))?;
    }
    output::line("")?;
    let calls = json!({ "items": decision["calls"] });
    let headings = [
        "PLUGIN", "REVISION", "MODE", "OUTCOME", "DIFFERS", "TOOK", "DETAIL",
    ];
    output::list(Format::Table, &calls, &headings, |call| {
        let detail = match text(call, "/error") {
            error if error.is_empty() => text(call, "/decision"),
            error => error,
        };
        vec![
            text(call, "/plugin"),
            text(call, "/revision"),
            text(call, "/mode"),
            text(call, "/outcome"),
            text(call, "/differs"),
            format!("{} us", text(call, "/latency_us")),
            detail,
        ]
    })?;
    output::line("")?;
    output::json(&decision["facts"])
}

/// A decision as a test case. The journal leaves settings out; they are those of the revision that
/// decided.
async fn fixture(client: &Client, decision: &Value) -> Result<Fixture> {
    let hook = text(decision, "/hook");
    let Ok(hook) = hook.parse() else {
        bail!("the host names a hook that this version does not know: {hook}");
    };
    let mut facts = decision["facts"].clone();
    if let Some(name) = decision["decided_by"]["plugin"].as_str() {
        let plugin = client.get(&path(name), Query::default()).await?;
        let revisions = plugin["revisions"].as_array().into_iter().flatten();
        let revision = revisions
            .into_iter()
            .find(|revision| revision["revision"] == decision["decided_by"]["revision"]);
        if let Some(settings) = revision.and_then(|revision| revision.get("settings")) {
            facts["context"]["settings"] = settings.clone();
        }
    }
    Ok(Fixture {
        hook,
        facts,
        expect: Some(decision["decision"].clone()),
        host: None,
    })
}
