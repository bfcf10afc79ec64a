//! Revisions: to the host, into use, back again.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use hyper::Method;
use serde_json::{Map, Value, json};

use super::report::{path, report};
use crate::cli::Format;
use crate::client::{Client, Query, collect, empty};
use crate::output::{self, items, text};

/// Store a component as the next revision of a plugin; it does not decide yet.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    roost plugin push limits limits.wasm --settings '{\"tenant\":{\"vms\":10}}'\n  \
    roost plugin push quotas tenant-quotas.wasm --grant log --grant kv")]
pub(crate) struct Push {
    /// The plugin; made if there is none.
    name: String,
    /// The component.
    file: PathBuf,
    /// Its settings, a JSON object.
    #[arg(long)]
    settings: Option<String>,
    /// What it may use of the host: log, query, kv or wasi. May be given more than once; if it is
    /// not, the plugin is granted log.
    #[arg(long = "grant", value_name = "GRANT")]
    grants: Vec<String>,
}

impl Push {
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        let Self { name, file, .. } = &self;
        let component = tokio::fs::read(file)
            .await
            .with_context(|| format!("{} can't be read", file.display()))?;
        let mut query = Query::default().with_some("settings", self.settings.as_ref());
        if !self.grants.is_empty() {
            query = query.with("grants", &self.grants.join(","));
        }
        let path = format!("{}/revisions", path(name));
        let revision = client.post_bytes(&path, query, component).await?;
        report(client.output, &revision, || {
            let (number, digest) = (text(&revision, "/revision"), text(&revision, "/digest"));
            format!("{name}: revision {number} stored ({digest})")
        })
    }
}

/// Make a revision the one that decides wherever the plugin is bound.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    roost plugin activate limits      the newest\n  \
    roost plugin activate limits 3    the third")]
pub(crate) struct Activate {
    /// The plugin.
    name: String,
    /// The revision; the newest usable one if absent.
    revision: Option<u64>,
}

impl Activate {
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        let query = Query::default().with_some("revision", self.revision.as_ref());
        let path = format!("{}/activate", path(&self.name));
        let plugin = client.post(&path, query).await?;
        report(client.output, &plugin, || {
            let active = text(&plugin, "/active");
            format!("{}: revision {active} is active", self.name)
        })
    }
}

/// Go back to the revision that was active before.
#[derive(Args)]
#[command(after_help = "Example:\n  roost plugin rollback limits")]
pub(crate) struct Rollback {
    /// The plugin.
    name: String,
}

impl Rollback {
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        let path = format!("{}/rollback", path(&self.name));
        let plugin = client.post(&path, Query::default()).await?;
        report(client.output, &plugin, || {
            let active = text(&plugin, "/active");
            format!("{}: revision {active} is active again", self.name)
        })
    }
}

/// Ask a revision beside the active one; its decisions are recorded and not used.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    roost plugin shadow limits 4        ask the fourth too\n  \
    roost plugin shadow limits --off    ask only the active one again")]
pub(crate) struct Shadow {
    /// The plugin.
    name: String,
    /// The revision; the newest usable one if absent.
    revision: Option<u64>,
    /// End it.
    #[arg(long, conflicts_with = "revision")]
    off: bool,
}

impl Shadow {
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        let path = format!("{}/shadow", path(&self.name));
        let query = Query::default().with_some("revision", self.revision.as_ref());
        let plugin = if self.off {
            client.delete(&path, query).await?
        } else {
            client.post(&path, query).await?
        };
        report(client.output, &plugin, || {
            match text(&plugin, "/shadow").as_str() {
                "" => format!("{}: no revision is in shadow", self.name),
                shadow => format!("{}: revision {shadow} is in shadow", self.name),
            }
        })
    }
}

/// End the quarantine of a plugin now.
#[derive(Args)]
#[command(after_help = "Example:\n  roost plugin readmit limits")]
pub(crate) struct Readmit {
    /// The plugin.
    name: String,
}

impl Readmit {
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        let path = format!("{}/readmit", path(&self.name));
        let plugin = client.post(&path, Query::default()).await?;
        report(client.output, &plugin, || {
            format!("{}: it is asked again", self.name)
        })
    }
}

/// Save the component of a revision, as it was pushed.
#[derive(Args)]
#[command(after_help = "Example:\n  roost plugin download limits 3 limits-3.wasm")]
pub(crate) struct Download {
    /// The plugin.
    name: String,
    /// The revision.
    revision: u64,
    /// The file to write.
    file: PathBuf,
}

impl Download {
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        let path = format!("{}/revisions/{}/component", path(&self.name), self.revision);
        let query = Query::default();
        let answer = client
            .send(Method::GET, &path, &query, empty(), &[])
            .await?;
        let component = collect(answer).await?;
        tokio::fs::write(&self.file, &component)
            .await
            .with_context(|| format!("{} can't be written", self.file.display()))?;
        let answer = json!({ "file": self.file, "size_bytes": component.len() });
        report(client.output, &answer, || {
            format!("{}: {} bytes", self.file.display(), component.len())
        })
    }
}

/// Show what differs between two revisions.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    roost plugin diff limits        the active one and the newest\n  \
    roost plugin diff limits 2 3")]
pub(crate) struct Diff {
    /// The plugin.
    name: String,
    /// The one; the active revision if absent.
    from: Option<u64>,
    /// The other; the newest if absent.
    to: Option<u64>,
}

/// Members of a revision that are compared.
const COMPARED: [&str; 7] = [
    "digest",
    "size_bytes",
    "version",
    "hooks",
    "settings",
    "grants",
    "state",
];

impl Diff {
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        let plugin = client.get(&path(&self.name), Query::default()).await?;
        let newest = items(&json!({ "items": plugin["revisions"] }))
            .last()
            .and_then(|revision| revision["revision"].as_u64());
        let from = self.from.or_else(|| plugin["active"].as_u64());
        let (from, to) = match (from, self.to.or(newest)) {
            (Some(from), Some(to)) => (from, to),
            _ => bail!("no revision of {} is active: name two", self.name),
        };
        let differs = differences(revision(&plugin, from)?, revision(&plugin, to)?);
        if client.output == Format::Json {
            return output::json(&json!({ "from": from, "to": to, "differs": differs }));
        }
        if differs.is_empty() {
            return output::line(&format!("revisions {from} and {to} do not differ"));
        }
        let rows: Vec<_> = differs
            .iter()
            .map(|(member, values)| {
                vec![member.clone(), text(values, "/from"), text(values, "/to")]
            })
            .collect();
        output::table(&["", &from.to_string(), &to.to_string()], &rows)
    }
}

fn revision(plugin: &Value, number: u64) -> Result<&Value> {
    let revisions = plugin["revisions"].as_array().into_iter().flatten();
    revisions
        .into_iter()
        .find(|revision| revision["revision"] == number)
        .with_context(|| format!("there is no revision {number}"))
}

fn differences(from: &Value, to: &Value) -> Map<String, Value> {
    COMPARED
        .iter()
        .filter(|member| from[**member] != to[**member])
        .map(|member| {
            let values = json!({ "from": from[*member], "to": to[*member] });
            ((*member).to_owned(), values)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_told() {
        let plugin = json!({ "revisions": [
            { "revision": 1, "digest": "sha256:1", "settings": "{}", "hooks": ["cleanup"] },
            { "revision": 2, "digest": "sha256:2", "settings": "{}", "hooks": ["cleanup"] },
        ]});
        let of = |number| revision(&plugin, number).unwrap();
        let differs = Value::Object(differences(of(1), of(2)));
        let expected = json!({ "digest": { "from": "sha256:1", "to": "sha256:2" } });
        assert_eq!(differs, expected);
        assert!(revision(&plugin, 3).is_err());
    }
}
