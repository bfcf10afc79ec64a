//! `roost plugin run`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use roost_policy::CallRecord;
use serde_json::{Value, json};

use super::component::Component;
use super::fixture::Fixture;
use crate::cli::Format;
use crate::output;

/// Make one decision here, without a host, and print it.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    roost plugin run fixtures/first-incident.json\n  \
    roost plugin run facts.json --component limits.wasm --settings '{\"tenant\":{\"vms\":10}}'")]
pub(crate) struct Run {
    /// A JSON file with `hook` and `facts`.
    fixture: PathBuf,
    /// The component; that of the project in this folder if absent.
    #[arg(long, value_name = "FILE")]
    component: Option<PathBuf>,
    /// Settings in the place of those in the facts, a JSON object.
    #[arg(long)]
    settings: Option<String>,
}

impl Run {
    pub(super) fn run(self, format: Format) -> Result<()> {
        let mut fixture = Fixture::read(&self.fixture)?;
        let plugin = Component::read(self.component)?.load()?;
        if let Some(settings) = self.settings {
            fixture.facts["context"]["settings"] = settings.into();
        }
        let (decision, call) = plugin.decide(&fixture)?;
        if format == Format::Json {
            let mut answer = json!({
                "decision": decision,
                "elapsed_us": call.elapsed_us,
                "memory_bytes": call.memory_bytes,
                "log": call.log,
            });
            if !call.kv.is_empty() {
                answer["stores"] = stores(&call);
            }
            return output::json(&answer);
        }
        output::json(&decision)?;
        for line in &call.log {
            output::line(&output::printable(&format!(
                "{:?}: {}",
                line.level, line.message
            )))?;
        }
        for (key, value) in &call.kv.writes {
            let value = match value {
                Some(value) => format!("{:?}", String::from_utf8_lossy(value)),
                None => "nothing".to_owned(),
            };
            output::line(&output::printable(&format!("stores {key}: {value}")))?;
        }
        let (us, kib) = (call.elapsed_us, call.memory_bytes >> 10);
        output::line(&format!("in {us} us and {kib} KiB"))
    }
}

/// What the decision would store, as text.
fn stores(call: &CallRecord) -> Value {
    let text = |value: &Vec<u8>| String::from_utf8_lossy(value).into_owned();
    let writes = call.kv.writes.iter();
    writes
        .map(|(key, value)| (key.clone(), json!(value.as_ref().map(text))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
