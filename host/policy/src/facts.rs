//! Facts and decisions of whatever hook, and their JSON.
//!
//! There is one JSON for the API, fixtures, the decision journal and the command line: the names
//! are those of the WIT (`now-ms`, `{"retry-after": 200}`), tuples are arrays, 64-bit numbers are
//! plain numbers, and `attributes` and options may be left out.

use roost_model::Hook;
use roost_policy_derive::WitJson;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::bindings::{
    AdmissionDecision, AdmissionFacts, BillingFacts, Charge, CleanupDecision, CleanupFacts,
    Context, RecoveryDecision, RecoveryFacts,
};
use crate::text::clean;

/// What an observer is told.
#[derive(Debug, Clone, PartialEq, WitJson)]
pub struct ObserverFacts {
    /// Time, seed and settings.
    pub context: Context,
    /// One event of the host's log as JSON.
    pub event: String,
}

/// What a plugin is asked with.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
#[allow(missing_docs)]
pub enum Facts {
    Admission(AdmissionFacts),
    Cleanup(CleanupFacts),
    Recovery(RecoveryFacts),
    Billing(BillingFacts),
    Observer(ObserverFacts),
}

/// What a plugin answers.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
#[allow(missing_docs)]
pub enum Decision {
    Admission(AdmissionDecision),
    Cleanup(CleanupDecision),
    Recovery(RecoveryDecision),
    Billing(Vec<Charge>),
    /// An observer decides nothing; `null` in JSON.
    Observer,
}

/// JSON that is no facts, or no decision, of the hook.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is not what {hook} takes: {reason}")]
pub struct ShapeError {
    /// The hook.
    pub hook: Hook,
    /// What was read and what was expected.
    pub reason: String,
}

fn read<T: DeserializeOwned>(hook: Hook, json: &Value) -> Result<T, ShapeError> {
    T::deserialize(json).map_err(|error| ShapeError {
        hook,
        reason: clean(&error.to_string()),
    })
}

impl Facts {
    /// Reads the facts of `hook`.
    ///
    /// # Errors
    /// [`ShapeError`]: a field is missing, unknown or of another type.
    pub fn from_json(hook: Hook, json: &Value) -> Result<Self, ShapeError> {
        Ok(match hook {
            Hook::Admission => Self::Admission(read(hook, json)?),
            Hook::Cleanup => Self::Cleanup(read(hook, json)?),
            Hook::Recovery => Self::Recovery(read(hook, json)?),
            Hook::Billing => Self::Billing(read(hook, json)?),
            Hook::Observer => Self::Observer(read(hook, json)?),
        })
    }

    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json_of(self)
    }

    /// The hook that takes them.
    #[must_use]
    pub const fn hook(&self) -> Hook {
        match self {
            Self::Admission(_) => Hook::Admission,
            Self::Cleanup(_) => Hook::Cleanup,
            Self::Recovery(_) => Hook::Recovery,
            Self::Billing(_) => Hook::Billing,
            Self::Observer(_) => Hook::Observer,
        }
    }

    /// The time, the seed and the settings.
    #[must_use]
    pub const fn context(&self) -> &Context {
        match self {
            Self::Admission(facts) => &facts.context,
            Self::Cleanup(facts) => &facts.context,
            Self::Recovery(facts) => &facts.context,
            Self::Billing(facts) => &facts.context,
            Self::Observer(facts) => &facts.context,
        }
    }

    /// The same, to change them: a replay asks with the candidate's settings.
    pub const fn context_mut(&mut self) -> &mut Context {
        match self {
            Self::Admission(facts) => &mut facts.context,
            Self::Cleanup(facts) => &mut facts.context,
            Self::Recovery(facts) => &mut facts.context,
            Self::Billing(facts) => &mut facts.context,
            Self::Observer(facts) => &mut facts.context,
        }
    }

    /// The tenant of the VM that they are about, where they say.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        match self {
            Self::Admission(facts) => Some(&facts.vm.tenant),
            Self::Recovery(facts) => Some(&facts.vm.tenant),
            Self::Billing(facts) => Some(&facts.vm.tenant),
            Self::Cleanup(_) | Self::Observer(_) => None,
        }
    }
}

impl Decision {
    /// Reads a decision of `hook`.
    ///
    /// # Errors
    /// [`ShapeError`]: it is none.
    pub fn from_json(hook: Hook, json: &Value) -> Result<Self, ShapeError> {
        Ok(match hook {
            Hook::Admission => Self::Admission(read(hook, json)?),
            Hook::Cleanup => Self::Cleanup(read(hook, json)?),
            Hook::Recovery => Self::Recovery(read(hook, json)?),
            Hook::Billing => Self::Billing(read(hook, json)?),
            Hook::Observer => read::<()>(hook, json).map(|()| Self::Observer)?,
        })
    }

    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json_of(self)
    }
}

fn json_of(value: &impl Serialize) -> Value {
    // Their keys are strings and their numbers are integers: JSON has all of them.
    serde_json::to_value(value).unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_those_of_the_wit() {
        let facts = json!({
            "context": {"now-ms": 1, "seed": u64::MAX, "settings": "{}", "attributes": [["a", "b"]]},
            "vm-id": "vm-1", "resource": "tap", "attempts": 2, "since-ms": 3, "error": "busy",
            "attributes": [],
        });
        let read = Facts::from_json(Hook::Cleanup, &facts).unwrap();
        assert_eq!(read.to_json(), facts);
        assert_eq!(read.context().seed, u64::MAX);
        for (json, decision) in [
            (
                json!({"retry-after": 200}),
                CleanupDecision::RetryAfter(200),
            ),
            (
                json!({"give-up": "x"}),
                CleanupDecision::GiveUp("x".to_owned()),
            ),
        ] {
            let decision = Decision::Cleanup(decision);
            assert_eq!(decision.to_json(), json);
            assert_eq!(Decision::from_json(Hook::Cleanup, &json), Ok(decision));
        }
        let allow = Decision::Admission(AdmissionDecision::Allow);
        assert_eq!(allow.to_json(), json!("allow"));
    }

    #[test]
    fn what_may_be_left_out_may_and_nothing_else() {
        let mut facts = json!({
            "context": {"now-ms": 1, "seed": 2, "settings": "{}"},
            "vm-id": "vm-1", "resource": "tap", "attempts": 2, "since-ms": 3, "error": "busy",
        });
        assert!(Facts::from_json(Hook::Cleanup, &facts).is_ok());
        let change = json!({"allow-with": {"vcpus": 2}});
        assert!(Decision::from_json(Hook::Admission, &change).is_ok());

        facts["since_ms"] = json!(3);
        let error = Facts::from_json(Hook::Cleanup, &facts).unwrap_err();
        assert!(error.to_string().contains("since_ms"), "{error}");
        let missing = json!({"context": {"now-ms": 1, "seed": 2, "settings": "{}"}});
        let error = Facts::from_json(Hook::Cleanup, &missing).unwrap_err();
        assert!(error.to_string().contains("vm-id"), "{error}");
        assert!(Decision::from_json(Hook::Cleanup, &json!("allow")).is_err());
    }

    #[test]
    fn an_observer_decides_nothing() {
        assert_eq!(Decision::Observer.to_json(), Value::Null);
        assert_eq!(
            Decision::from_json(Hook::Observer, &Value::Null),
            Ok(Decision::Observer)
        );
    }
}
