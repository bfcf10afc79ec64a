//! A component in a file, and the policy host in this process that asks it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use roost_model::{Binding, BindingMode, Grant, InstanceMode, Name, OnFailure, Selector};
use roost_policy::{
    ActivePlugin, CallLimits, CallOutcome, CallRecord, Facts, LoadedPlugin, PolicyHost,
    PolicyRuntime, RuntimeConfig, Subject,
};
use serde_json::Value;

use super::fixture::Fixture;
use super::local_host::LocalHost;
use super::project::Project;

pub(super) struct Component {
    pub(super) file: PathBuf,
    pub(super) bytes: Vec<u8>,
}

impl Component {
    /// Reads `file`, or what was built of the project in the current folder.
    pub(super) fn read(file: Option<PathBuf>) -> Result<Self> {
        let file = match file {
            Some(file) => file,
            None => {
                let project = Project::find(Path::new("."))
                    .context("name a component, or run this in the folder of a plugin")?;
                let file = project.component();
                if !file.is_file() {
                    return Err(anyhow!(
                        "{} is not built: run `roost plugin build`",
                        file.display()
                    ));
                }
                file
            }
        };
        let bytes = fs::read(&file).with_context(|| format!("{} can't be read", file.display()))?;
        Ok(Self { file, bytes })
    }

    /// Loads it as a host would, with the limits of a host and all that can be granted.
    pub(super) fn load(&self) -> Result<Loaded> {
        let host = LocalHost::default();
        let runtime = runtime(&host)?;
        let plugin = runtime
            .load_with(&self.bytes, &Grant::ALL.into())
            .with_context(|| format!("a host refuses {}", self.file.display()))?;
        let policies = PolicyHost::new(runtime);
        Ok(Loaded {
            plugin,
            policies,
            host,
        })
    }
}

/// A component that can be asked, and the host that it may ask.
pub(super) struct Loaded {
    pub(super) plugin: LoadedPlugin,
    policies: PolicyHost,
    host: LocalHost,
}

impl Loaded {
    /// Its decision on a fixture, as a host would have it.
    pub(super) fn decide(&self, fixture: &Fixture) -> Result<(Value, CallRecord)> {
        self.plugin
            .validate_settings(fixture.settings())
            .context("its settings are refused")?;
        let facts = Facts::from_json(fixture.hook, &fixture.facts)?;
        self.bind(fixture, InstanceMode::Fresh);
        let call = self.ask(facts)?;
        match &call.outcome {
            CallOutcome::Decision(decision) => Ok((decision.to_json(), call)),
            CallOutcome::Error(failure) => bail!("{}", failure.message),
        }
    }

    /// Has it decide what a fixture is about, on the host of the fixture.
    pub(super) fn bind(&self, fixture: &Fixture, instance: InstanceMode) {
        self.host.set(fixture.host.clone().unwrap_or_default());
        let Ok(name) = "candidate".parse::<Name>() else {
            return;
        };
        let binding = Binding {
            hook: fixture.hook,
            plugin: name.clone(),
            selector: Selector::default(),
            priority: 0,
            mode: BindingMode::Enforce,
            on_failure: OnFailure::Builtin,
            instance,
        };
        self.policies.set_active(vec![ActivePlugin {
            name: name.to_string(),
            revision: 1,
            settings: fixture.settings().to_owned(),
            plugin: self.plugin.clone(),
            bindings: vec![binding],
        }]);
    }

    /// Asks it what it was bound to.
    pub(super) fn ask(&self, facts: Facts) -> Result<CallRecord> {
        let calls = match facts {
            Facts::Admission(facts) => self.policies.admission(facts).calls,
            Facts::Cleanup(facts) => {
                let subject = self.host.subject(&facts.vm_id);
                self.policies.cleanup(facts, subject).calls
            }
            Facts::Recovery(facts) => self.policies.recovery(facts).calls,
            Facts::Billing(facts) => self.policies.billing(facts).calls,
            Facts::Observer(facts) => {
                let subject = Subject::default();
                let observed = self.policies.observe(facts.context, &facts.event, &subject);
                observed.calls
            }
        };
        calls.into_iter().next().context("it was not asked")
    }
}

/// Native code is kept for the next command: interpreters are large, and slow to compile.
fn runtime(host: &LocalHost) -> Result<PolicyRuntime> {
    let config = |cache| RuntimeConfig {
        limits: CallLimits::default(),
        cache,
        services: Some(Arc::new(host.clone())),
        ..RuntimeConfig::default()
    };
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))
        .map(|folder| folder.join("roost/components"));
    // It is quicker with one, and works without.
    let runtime = PolicyRuntime::with(config(cache)).or_else(|_| PolicyRuntime::with(config(None)));
    Ok(runtime?)
}

/// SHA-256 in the form that the API has.
pub(super) fn digest(bytes: &[u8]) -> String {
    let hexadecimal = roost_policy::digest(bytes).map(|byte| format!("{byte:02x}"));
    format!("sha256:{}", hexadecimal.concat())
}
