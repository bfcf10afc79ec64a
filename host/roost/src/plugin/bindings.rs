//! Bindings: which plugin has a say in what, and for whom.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use hyper::Method;
use serde_json::json;

use super::report::report;
use crate::client::{Client, Query, escape};
use crate::output::{self, text};

/// Give a plugin a say in a hook, or change the say that it has.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    roost plugin bind recovery night-watch --mode monitor\n  \
    roost plugin bind recovery night-watch --priority 200\n  \
    roost plugin bind admission limits --selector-tenant acme --on-failure deny")]
pub(crate) struct Bind {
    /// The hook: admission, cleanup, recovery, billing or observer.
    hook: String,
    /// The plugin.
    name: String,
    /// The highest that selects a VM decides; bundled policies have 0.
    #[arg(long, default_value_t = 100, allow_negative_numbers = true)]
    priority: i32,
    /// Only for VMs of this tenant.
    #[arg(long, value_name = "TENANT")]
    selector_tenant: Option<String>,
    /// Only for VMs with this label; may be given more than once.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Whether its decision is used.
    #[arg(long, value_enum, default_value_t = Mode::Enforce)]
    mode: Mode,
    /// What happens when it does not decide.
    #[arg(long, value_enum, default_value_t = OnFailure::Builtin)]
    on_failure: OnFailure,
    /// What a call runs in.
    #[arg(long, value_enum, default_value_t = Instance::Fresh)]
    instance: Instance,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    /// It is
    Enforce,
    /// It is recorded beside the one that was used
    Monitor,
}

#[derive(Clone, Copy, ValueEnum)]
enum OnFailure {
    /// The host's own policy decides
    Builtin,
    /// The binding of the next lower priority decides
    Next,
    /// Admission is denied; every other hook takes the host's own policy
    Deny,
}

#[derive(Clone, Copy, ValueEnum)]
enum Instance {
    /// Each call has an instance of its own
    Fresh,
    /// Instances serve many calls of one tenant
    Warm,
}

fn value_name(value: &impl ValueEnum) -> String {
    value
        .to_possible_value()
        .map(|v| v.get_name().to_owned())
        .unwrap_or_default()
}

impl Bind {
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        let mut labels = BTreeMap::new();
        for label in &self.labels {
            let Some((key, value)) = label.split_once('=') else {
                bail!("label {label:?} is not of the form KEY=VALUE");
            };
            labels.insert(key, value);
        }
        let mut selector = json!({ "labels": labels });
        if let Some(tenant) = &self.selector_tenant {
            selector["tenant"] = tenant.as_str().into();
        }
        let binding = json!({
            "hook": self.hook,
            "plugin": self.name,
            "selector": selector,
            "priority": self.priority,
            "mode": value_name(&self.mode),
            "on_failure": value_name(&self.on_failure),
            "instance": value_name(&self.instance),
        });
        let binding = client
            .send_json(Method::PUT, "/v1/bindings", &binding)
            .await?;
        report(client.output, &binding, || {
            let does = match self.mode {
                Mode::Enforce => "decides",
                Mode::Monitor => "is asked about",
            };
            format!(
                "{} {does} {} with priority {}",
                self.name, self.hook, self.priority
            )
        })
    }
}

/// Take a plugin's say in a hook away.
#[derive(Args)]
#[command(after_help = "Example:\n  roost plugin unbind recovery night-watch")]
pub(crate) struct Unbind {
    /// The hook.
    hook: String,
    /// The plugin.
    name: String,
}

impl Unbind {
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        let path = format!("/v1/bindings/{}/{}", escape(&self.hook), escape(&self.name));
        let answer = client.delete(&path, Query::default()).await?;
        report(client.output, &answer, || {
            format!("{} has no say in {} any more", self.name, self.hook)
        })
    }
}

/// List bindings.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    roost plugin bindings\n  \
    roost plugin bindings --hook recovery")]
pub(crate) struct List {
    /// Only of this hook.
    #[arg(long)]
    hook: Option<String>,
    /// Only of this plugin.
    #[arg(long)]
    plugin: Option<String>,
}

const HEADINGS: [&str; 7] = [
    "HOOK",
    "PLUGIN",
    "PRIORITY",
    "MODE",
    "ON-FAILURE",
    "INSTANCE",
    "SELECTOR",
];

impl List {
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        let query = Query::default()
            .with_some("hook", self.hook.as_ref())
            .with_some("plugin", self.plugin.as_ref());
        let bindings = client.get("/v1/bindings", query).await?;
        table(client.output, &bindings)
    }
}

/// Prints bindings.
pub(super) fn table(format: crate::cli::Format, bindings: &serde_json::Value) -> Result<()> {
    output::list(format, bindings, &HEADINGS, |binding| {
        let members = [
            "/hook",
            "/plugin",
            "/priority",
            "/mode",
            "/on_failure",
            "/instance",
            "/selector",
        ];
        members.iter().map(|member| text(binding, member)).collect()
    })
}
