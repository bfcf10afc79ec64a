//! A client: asks the host for things, and holds every answer against the model.

use std::thread;
use std::time::{Duration, Instant};

use roost_model::{Verb, transition};
use serde_json::Value;

use super::model::{Ask, At, Said};
use super::plan::{self, Deed, Step};
use super::shared::{Denying, Going, Hosts, Shared, Stopped, count};
use crate::http::{Answer, Connection};

/// How long an answer may take. A request waits for its operation for a minute by itself.
const PATIENCE: Duration = Duration::from_secs(150);
/// How often an operation is looked at.
const POLL: Duration = Duration::from_millis(10);

/// A client.
pub(super) struct Client<'a> {
    pub(super) shared: &'a Shared,
    pub(super) who: String,
}

/// One request, from before it is made.
struct Request<'a> {
    client: &'a Client<'a>,
    id: u64,
    vm: usize,
    name: String,
    hosts: Hosts,
    denying: Denying,
}

impl<'a> Client<'a> {
    pub(super) fn number(shared: &'a Shared, number: usize) -> Self {
        Self {
            shared,
            who: format!("client {number}"),
        }
    }

    /// Takes steps until they are over or it is `late`.
    pub(super) fn run(&self, steps: &[Step], is_late: impl Fn() -> bool) -> Going<()> {
        for step in steps {
            self.shared.go_on()?;
            if is_late() {
                return Ok(());
            }
            self.shared.step();
            self.step(step)?;
            thread::sleep(step.rest);
        }
        Ok(())
    }

    /// Takes one step.
    pub(super) fn step(&self, step: &Step) -> Going<()> {
        let name = plan::name(step.vm);
        match step.deed {
            Deed::Create(guest, devices) => {
                let spec = guest.spec(&name, devices, self.shared.taps).to_string();
                let ask = Ask::Create(guest);
                self.ask(step, ask, "POST", "/v1/vms", spec.as_bytes())
            }
            Deed::Verb { verb, waits, grace } => {
                let mut query = format!("?wait={waits}");
                if let Some(grace) = grace {
                    query.push_str(&format!("&deadline_ms={}", grace.as_millis()));
                }
                let (method, path) = match verb {
                    Verb::Delete => ("DELETE", format!("/v1/vms/{name}{query}")),
                    verb => ("POST", format!("/v1/vms/{name}/{}{query}", verb.name())),
                };
                self.ask(step, Ask::Verb(verb), method, &path, &[])
            }
            Deed::Look => self.ask(step, Ask::Look, "GET", &format!("/v1/vms/{name}"), &[]),
            Deed::ReadLog => self.ask(step, Ask::Look, "GET", &format!("/v1/vms/{name}/logs"), &[]),
            Deed::Devices => {
                let path = format!("/v1/vms/{name}/devices");
                self.ask(step, Ask::Look, "GET", &path, &[])
            }
            Deed::List => self.ask(step, Ask::Look, "GET", "/v1/vms", &[]),
        }
    }

    fn ask(&self, step: &Step, ask: Ask, method: &str, path: &str, body: &[u8]) -> Going<()> {
        let shared = self.shared;
        let request = Request {
            client: self,
            id: shared.next_request(),
            vm: step.vm,
            name: plan::name(step.vm),
            hosts: shared.host()?,
            denying: shared.denying(),
        };
        count(&shared.counts.requests);
        let connection = match Connection::open(&shared.socket, PATIENCE) {
            Ok(connection) => connection,
            Err(_) if shared.interrupted(request.hosts) => {
                request.say(&format!("{}: there is no host", step.deed));
                count(&shared.counts.lost);
                return Ok(());
            }
            Err(error) => return Err(request.violated(format!("no connection: {error:#}"))),
        };
        // Connected, so it is this host, or it is dead by now and will hear nothing.
        let host = shared.host_number();
        shared.model(step.vm).ask(request.id, ask, host);
        request.say(&step.deed.to_string());
        match connection.exchange(method, path, body) {
            Ok(answer) => request.answered(step.deed, &answer),
            Err(_) if shared.interrupted(request.hosts) => {
                request.lost();
                Ok(())
            }
            Err(error) => Err(request.violated(format!("no answer: {error:#}"))),
        }
    }

    /// A request that changes nothing, made again to the next host where one is gone.
    fn get(&self, path: &str) -> Going<Answer> {
        loop {
            let hosts = self.shared.host()?;
            let answer = Connection::open(&self.shared.socket, PATIENCE)
                .and_then(|connection| connection.exchange("GET", path, &[]));
            match answer {
                Ok(answer) => return Ok(answer),
                Err(_) if self.shared.interrupted(hosts) => {}
                Err(error) => {
                    let what = format!("GET {path}: {error:#}");
                    return Err(self.shared.violated(None, what));
                }
            }
        }
    }
}

impl Request<'_> {
    fn say(&self, what: &str) {
        let (who, name, id) = (&self.client.who, &self.name, self.id);
        self.client
            .shared
            .script
            .say(who, &format!("{name} #{id} {what}"));
    }

    fn violated(&self, what: impl Into<String>) -> Stopped {
        let what = format!("{} #{}: {}", self.name, self.id, what.into());
        self.client.shared.violated(Some(&self.name), what)
    }

    fn lost(&self) {
        self.say("-> the host is gone");
        count(&self.client.shared.counts.lost);
        self.client.shared.model(self.vm).lose(self.id);
    }

    fn says(&self, said: &Said) -> Going<()> {
        self.say(&format!("-> {said}"));
        let shared = self.client.shared;
        count(match said {
            Said::Created | Said::Done | Said::Seen(_) => &shared.counts.done,
            Said::Failed => &shared.counts.failed,
            _ => &shared.counts.refused,
        });
        let explained = shared.model(self.vm).answer(self.id, said);
        explained.map_err(|why| self.violated(why))
    }

    fn answered(&self, deed: Deed, answer: &Answer) -> Going<()> {
        let shared = self.client.shared;
        let text = || String::from_utf8_lossy(&answer.body).into_owned();
        let is_json = !matches!((deed, answer.status), (Deed::ReadLog, 200));
        let body = if is_json {
            serde_json::from_slice::<Value>(&answer.body).map_err(|_| {
                self.violated(format!("status {}, no JSON: {}", answer.status, text()))
            })?
        } else {
            Value::Null
        };
        let kind = body["type"].as_str().unwrap_or_default();
        let kind = kind.strip_prefix("urn:roost:problem:").unwrap_or(kind);
        let unexpected = || Err(self.violated(format!("status {}: {}", answer.status, text())));
        match (answer.status, kind, deed) {
            (503, "shutting-down", _) if shared.interrupted(self.hosts) => {
                self.lost();
                Ok(())
            }
            (404, "vm-not-found", Deed::List) => unexpected(),
            (404, "vm-not-found", _) => self.says(&Said::Missing),
            (409, "name-taken", Deed::Create(..)) => self.says(&Said::Taken),
            (403, "denied", Deed::Create(..) | Deed::Verb { .. }) => self.denied(&text()),
            (409, "illegal-verb", Deed::Verb { verb, .. }) => self.illegal(verb, &body),
            (409, "being-deleted", Deed::Verb { .. }) => self.says(&Said::Deleting),
            (201, _, Deed::Create(guest, _)) => {
                if body["state"] != "stopped" || body["spec"]["name"] != self.name.as_str() {
                    return unexpected();
                }
                let id = body["id"].as_str().unwrap_or_default().to_owned();
                shared.facts().guests.insert(id, guest);
                self.says(&Said::Created)
            }
            (200 | 202, _, Deed::Verb { verb, .. }) => self.accepted(verb, body),
            (200, _, Deed::Look) => match body["state"].as_str() {
                Some(state) => self.says(&Said::Seen(state.to_owned())),
                None => unexpected(),
            },
            (200, _, Deed::List) if body["items"].is_array() => self.nothing_learnt(),
            (200, _, Deed::ReadLog | Deed::Devices) | (409, "not-running", Deed::Devices) => {
                self.nothing_learnt()
            }
            _ => unexpected(),
        }
    }

    #[allow(clippy::unnecessary_wraps)]
    fn nothing_learnt(&self) -> Going<()> {
        self.say("-> answered");
        count(&self.client.shared.counts.done);
        self.client.shared.model(self.vm).close(self.id);
        Ok(())
    }

    /// A policy said no, which one must have.
    fn denied(&self, text: &str) -> Going<()> {
        let now = self.client.shared.denying();
        if !self.denying.possible && now == self.denying {
            return Err(self.violated(format!("no policy denies: {text}")));
        }
        self.says(&Said::Denied)
    }

    /// A refusal names the state and what is legal in it.
    fn illegal(&self, verb: Verb, body: &Value) -> Going<()> {
        let at = body["state"].as_str().and_then(At::named);
        let Some(at) = at else {
            return Err(self.violated(format!("refused in a state that none rests in: {body}")));
        };
        let legal = serde_json::json!(transition::legal(&at.state()));
        if body["legal"] != legal || body["verb"] != verb.name() {
            return Err(self.violated(format!("legal is {legal}, but: {body}")));
        }
        // With what is to be done before it: it is refused for where that leads to.
        if let Some(after) = body["after"].as_str() {
            let after = Verb::ALL.into_iter().find(|verb| verb.name() == after);
            let leads = |verb: &Verb| At::named(transition::leads_to(*verb).name()) == Some(at);
            let Some(after) = after.filter(leads) else {
                return Err(self.violated(format!("that does not lead there: {body}")));
            };
            return self.says(&Said::Untimely(after));
        }
        self.says(&Said::Illegal(at))
    }

    /// An operation was accepted: it is durable, so it comes to an end whatever happens.
    fn accepted(&self, verb: Verb, mut operation: Value) -> Going<()> {
        let shared = self.client.shared;
        let begun = Instant::now();
        let id = operation["id"].as_str().unwrap_or_default().to_owned();
        while operation["status"] == "running" || operation["status"] == "queued" {
            if begun.elapsed() > PATIENCE {
                return Err(self.violated(format!("no end within {PATIENCE:?}: {operation}")));
            }
            thread::sleep(POLL);
            let answer = self.client.get(&format!("/v1/operations/{id}"))?;
            let read = serde_json::from_slice(&answer.body).ok();
            operation = match (answer.status, read) {
                (200, Some(operation)) => operation,
                (503, _) => continue,
                _ => {
                    let text = String::from_utf8_lossy(&answer.body);
                    let what = format!("accepted as {id}, and then: {} {text}", answer.status);
                    return Err(self.violated(what));
                }
            };
        }
        let succeeded = operation["status"] == "succeeded";
        // What waits for a VM that is deleted is called off.
        let called_off =
            operation["status"] == "cancelled" && operation["reason"] == "the VM was deleted";
        // A delete may be answered with one that is under way already, whoever wants that.
        let is_mine = operation["origin"].is_null()
            || verb == Verb::Delete && operation["origin"] == "recovery";
        let failed = operation["status"] == "failed" && operation["error"].is_string();
        let sound =
            operation["verb"] == verb.name() && is_mine && (succeeded || called_off || failed);
        if !sound {
            return Err(self.violated(format!("not the operation that was asked for: {operation}")));
        }
        shared.facts().ended.insert(id, succeeded);
        if called_off {
            return self.says(&Said::Missing);
        }
        if let Some(error) = operation["error"].as_str() {
            self.say(&format!("failed: {error}"));
            // Without a step: it could not begin when its turn came.
            if operation["steps"].as_array().is_some_and(Vec::is_empty) {
                return if error.contains("is not legal while") {
                    self.says(&Said::TooLate)
                } else {
                    self.denied(error)
                };
            }
        }
        self.says(if succeeded {
            &Said::Done
        } else {
            &Said::Failed
        })
    }
}
