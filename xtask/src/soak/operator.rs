//! An operator who swaps policies while they decide, most of them for worse ones.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::plan::{PLUGINS, Plugin, Swap, Timed};
use super::shared::{Going, Shared, count};
use crate::http::{Answer, Connection};
use crate::workspace;

/// How long an answer may take; a component is compiled before a push is answered.
const PATIENCE: Duration = Duration::from_secs(120);

/// What decides at a plugin, as the operator knows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Deciding {
    active: Option<u64>,
    previous: Option<u64>,
    shadow: Option<u64>,
    rolled_back: Option<u64>,
}

impl Deciding {
    /// After `swap`; None where it is refused.
    fn after(self, swap: Swap) -> Option<Self> {
        let mut after = self;
        match swap {
            Swap::Activate(revision) if self.active == Some(revision) => {}
            Swap::Activate(revision) => {
                after.previous = self.active;
                after.rolled_back = None;
                after.active = Some(revision);
            }
            Swap::RollBack => match self.previous {
                Some(previous) => {
                    after.rolled_back = self.active;
                    after.active = Some(previous);
                    after.previous = None;
                }
                None if self.rolled_back.is_some() => {}
                None => return None,
            },
            Swap::Shadow(revision) if self.active == Some(revision) => return None,
            Swap::Shadow(revision) => after.shadow = Some(revision),
            Swap::Unshadow => after.shadow = None,
            Swap::Readmit => {}
        }
        if after.shadow == after.active {
            after.shadow = None;
        }
        Some(after)
    }

    fn of(plugin: &Value) -> Self {
        let number = |name: &str| plugin[name].as_u64();
        Self {
            active: number("active"),
            previous: number("previous"),
            shadow: number("shadow"),
            rolled_back: number("rolled_back"),
        }
    }

    /// Whether the active revision does `word`.
    fn does(self, plugin: &Plugin, word: &str) -> bool {
        let active = self.active.and_then(|active| usize::try_from(active).ok());
        let active = active.and_then(|active| plugin.revisions.get(active.checked_sub(1)?));
        active == Some(&word)
    }
}

/// The operator, and what decides at each of [`PLUGINS`].
pub(super) struct Operator<'a> {
    shared: &'a Shared,
    deciding: [Deciding; PLUGINS.len()],
}

impl<'a> Operator<'a> {
    /// Pushes every revision of every plugin and binds the plugins. The first revision of each
    /// decides; it obeys.
    pub(super) fn set_up(shared: &'a Shared) -> Result<Self> {
        let component = workspace::root().join("plugins/target/components/unruly.wasm");
        let component = fs::read(&component)
            .with_context(|| format!("{} can't be read", component.display()))?;
        let mut deciding = [Deciding::default(); PLUGINS.len()];
        for (plugin, deciding) in PLUGINS.iter().zip(&mut deciding) {
            let name = plugin.name;
            for (number, word) in (1..).zip(plugin.revisions) {
                // {"does":"…"}
                let settings = format!("%7B%22does%22%3A%22{word}%22%7D");
                let path = format!("/v1/plugins/{name}/revisions?settings={settings}");
                let pushed = send(shared, "POST", &path, &component)?;
                ensure!(pushed["revision"] == number, "pushed as {pushed}");
            }
            let path = format!("/v1/plugins/{name}/activate?revision=1");
            let activated = send(shared, "POST", &path, &[])?;
            *deciding = Deciding::of(&activated);
            let binding = json!({
                "hook": plugin.hook, "plugin": name, "priority": 200,
                "on_failure": plugin.on_failure,
            });
            send(
                shared,
                "PUT",
                "/v1/bindings",
                binding.to_string().as_bytes(),
            )?;
        }
        Ok(Self { shared, deciding })
    }

    /// Does what is planned when it is time, until everybody else is done.
    pub(super) fn run(
        &mut self,
        plan: Timed<(usize, Swap)>,
        is_over: impl Fn() -> bool,
    ) -> Going<()> {
        for (at, (plugin, swap)) in plan {
            if !self.shared.wait_for_step(at, &is_over)? {
                return Ok(());
            }
            self.swap(plugin, swap)?;
        }
        Ok(())
    }

    fn swap(&mut self, index: usize, swap: Swap) -> Going<()> {
        let (shared, plugin, before) = (self.shared, &PLUGINS[index], self.deciding[index]);
        let what = format!("{}: {swap}", plugin.name);
        let after = before.after(swap);
        // From before it is asked for until after it is known how it came out.
        let denies = |deciding: Deciding| deciding.does(plugin, "deny");
        if denies(before) || after.is_some_and(denies) {
            shared.set_denying(true);
        }
        let hosts = shared.host()?;
        let violated = |why: String| shared.violated(None, format!("{what}: {why}"));
        shared.script.say("operator", &what);
        count(&shared.counts.swaps);
        let path = |rest: &str| format!("/v1/plugins/{}{rest}", plugin.name);
        let (method, path) = match swap {
            Swap::Activate(revision) => ("POST", path(&format!("/activate?revision={revision}"))),
            Swap::RollBack => ("POST", path("/rollback")),
            Swap::Shadow(revision) => ("POST", path(&format!("/shadow?revision={revision}"))),
            Swap::Unshadow => ("DELETE", path("/shadow")),
            Swap::Readmit => ("POST", path("/readmit")),
        };
        let answer = Connection::open(&shared.socket, PATIENCE)
            .and_then(|connection| connection.exchange(method, &path, &[]));
        let now = match answer {
            Ok(Answer { status, body }) if status == 503 && shared.interrupted(hosts) => {
                let _ = body;
                self.look(index)?
            }
            Ok(Answer { status, body }) => {
                let text = String::from_utf8_lossy(&body).into_owned();
                shared.script.say("operator", &format!("-> {status}"));
                match (status, after) {
                    (200 | 204, Some(_)) | (409, None) => self.look(index)?,
                    _ => return Err(violated(format!("status {status}: {text}"))),
                }
            }
            Err(_) if shared.interrupted(hosts) => self.look(index)?,
            Err(error) => return Err(violated(format!("no answer: {error:#}"))),
        };
        let expected = after.unwrap_or(before);
        let unanswered = shared.interrupted(hosts);
        if now != expected && !(unanswered && now == before) {
            return Err(violated(format!(
                "before: {before:?}, expected: {expected:?}, now: {now:?}"
            )));
        }
        self.deciding[index] = now;
        if plugin.hook == "admission" {
            shared.set_denying(denies(now));
        }
        Ok(())
    }

    /// What decides at a plugin, from a host that answers.
    fn look(&self, index: usize) -> Going<Deciding> {
        let shared = self.shared;
        let path = format!("/v1/plugins/{}", PLUGINS[index].name);
        loop {
            let hosts = shared.host()?;
            let answer = Connection::open(&shared.socket, PATIENCE)
                .and_then(|connection| connection.exchange("GET", &path, &[]));
            match answer {
                Ok(Answer { status: 200, body }) => {
                    let plugin = serde_json::from_slice::<Value>(&body).unwrap_or_default();
                    return Ok(Deciding::of(&plugin));
                }
                _ if shared.interrupted(hosts) => {}
                answer => return Err(shared.violated(None, format!("GET {path}: {answer:?}"))),
            }
        }
    }
}

/// A request that must succeed, before anything disturbs the host.
fn send(shared: &Shared, method: &str, path: &str, body: &[u8]) -> Result<Value> {
    let answer = Connection::open(&shared.socket, PATIENCE)?.exchange(method, path, body)?;
    let text = String::from_utf8_lossy(&answer.body);
    ensure!(
        (200..300).contains(&answer.status),
        "{method} {path}: status {}: {text}",
        answer.status
    );
    serde_json::from_str(&text).with_context(|| format!("{method} {path}: no JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rolling_back_goes_one_revision_back_and_no_further() {
        let mut deciding = Deciding::default();
        assert_eq!(deciding.after(Swap::RollBack), None);
        for revision in [1, 2] {
            deciding = deciding.after(Swap::Activate(revision)).unwrap();
        }
        for _ in 0..2 {
            deciding = deciding.after(Swap::RollBack).unwrap();
            assert_eq!((deciding.active, deciding.previous), (Some(1), None));
        }
        deciding = deciding.after(Swap::Activate(1)).unwrap();
        assert_eq!(deciding.rolled_back, Some(2));
    }
}
