//! Whether what a plugin says makes sense, and its text made fit for people.

use std::collections::{BTreeMap, HashSet};

use roost_model::limits;

use crate::bindings::{
    AdmissionDecision, AdmissionFacts, AdmissionRequest, BillingFacts, Charge, CleanupDecision,
    CleanupFacts, RecoveryAction, RecoveryDecision, RecoveryFacts, SpecChange,
};
use crate::error::CallError;
use crate::text::clean;

/// Longest delay that a policy may ask for, ms: a day.
pub(crate) const MAX_DELAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Most charges for one window.
const MAX_CHARGES_PER_WINDOW: usize = 32;
/// Longest name of an item or a unit, bytes.
const MAX_ITEM_BYTES: usize = 64;

fn nonsense<T>(reason: impl Into<String>) -> Result<T, CallError> {
    Err(CallError::Nonsense(reason.into()))
}

fn delay(ms: u64) -> Result<u64, CallError> {
    if ms > MAX_DELAY_MS {
        return nonsense(format!(
            "a delay of {ms} ms; at most {MAX_DELAY_MS} are allowed"
        ));
    }
    Ok(ms)
}

pub(crate) fn admission(
    facts: &AdmissionFacts,
    decision: AdmissionDecision,
) -> Result<AdmissionDecision, CallError> {
    match decision {
        AdmissionDecision::Allow => Ok(AdmissionDecision::Allow),
        AdmissionDecision::Deny(reason) => Ok(AdmissionDecision::Deny(clean(&reason))),
        AdmissionDecision::AllowWith(change) => {
            if facts.request != AdmissionRequest::Create {
                return nonsense("a spec is changed only at create");
            }
            spec_change(change).map(AdmissionDecision::AllowWith)
        }
        AdmissionDecision::Other(what) => nonsense(format!("the decision {:?}", clean(&what))),
    }
}

/// The limits that a user's spec is held to.
fn spec_change(change: SpecChange) -> Result<SpecChange, CallError> {
    if change
        .vcpus
        .is_some_and(|n| !(1..=limits::MAX_VCPUS).contains(&n))
    {
        return nonsense("vcpus out of range");
    }
    let memory = limits::MIN_MEMORY_MIB..=limits::MAX_MEMORY_MIB;
    if change.memory_mib.is_some_and(|mib| !memory.contains(&mib)) {
        return nonsense("memory-mib out of range");
    }
    let printable = |text: &str| text.bytes().all(|b| matches!(b, 0x20..=0x7e));
    let long = |text: &String| text.len() > limits::MAX_CMDLINE_BYTES || !printable(text);
    if change.cmdline.as_ref().is_some_and(long) {
        return nonsense("a command line that is too long or not printable");
    }
    if let Some(labels) = &change.labels {
        let good = |text: &String| {
            (1..=limits::MAX_LABEL_BYTES).contains(&text.len())
                && text.bytes().all(|b| matches!(b, 0x21..=0x7e))
        };
        let unique: BTreeMap<_, _> = labels.iter().cloned().collect();
        if labels.len() > limits::MAX_LABELS
            || unique.len() != labels.len()
            || !labels.iter().all(|(key, value)| good(key) && good(value))
        {
            return nonsense("labels that no VM may have");
        }
    }
    Ok(change)
}

pub(crate) fn cleanup(
    _facts: &CleanupFacts,
    decision: CleanupDecision,
) -> Result<CleanupDecision, CallError> {
    match decision {
        CleanupDecision::RetryAfter(ms) => delay(ms).map(CleanupDecision::RetryAfter),
        CleanupDecision::GiveUp(what) => Ok(CleanupDecision::GiveUp(clean(&what))),
        CleanupDecision::Other(what) => nonsense(format!("the decision {:?}", clean(&what))),
    }
}

pub(crate) fn recovery(
    _facts: &RecoveryFacts,
    decision: RecoveryDecision,
) -> Result<RecoveryDecision, CallError> {
    let action = match decision.action {
        RecoveryAction::RestartAfter(ms) => RecoveryAction::RestartAfter(delay(ms)?),
        RecoveryAction::Other(what) => {
            return nonsense(format!("the action {:?}", clean(&what)));
        }
        action => action,
    };
    Ok(RecoveryDecision {
        action,
        reason: clean(&decision.reason),
    })
}

pub(crate) fn billing(
    facts: &BillingFacts,
    charges: Vec<Charge>,
) -> Result<Vec<Charge>, CallError> {
    if charges.len() > facts.windows.len() * MAX_CHARGES_PER_WINDOW {
        return nonsense(format!(
            "{} charges for {} windows",
            charges.len(),
            facts.windows.len()
        ));
    }
    let windows: HashSet<_> = facts
        .windows
        .iter()
        .map(|w| (w.incarnation, w.sequence))
        .collect();
    let mut seen = HashSet::new();
    for charge in &charges {
        let window = (charge.incarnation, charge.sequence);
        if !windows.contains(&window) {
            return nonsense("a charge for a window that was not asked about");
        }
        let good = |text: &str| {
            (1..=MAX_ITEM_BYTES).contains(&text.len())
                && text.bytes().all(|b| matches!(b, 0x21..=0x7e))
        };
        if !good(&charge.item) || !good(&charge.unit) {
            return nonsense("an item or a unit that is empty, too long or not printable");
        }
        if charge.currency.len() != 3 || !charge.currency.bytes().all(|b| b.is_ascii_uppercase()) {
            return nonsense("a currency that is not three capital letters");
        }
        if charge
            .quantity
            .checked_mul(charge.unit_price_nanos)
            .is_none()
        {
            return nonsense("an amount that does not fit into 64 bits");
        }
        if !seen.insert((window, charge.item.as_str())) {
            return nonsense("an item charged for twice in one window");
        }
    }
    Ok(charges)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::{Context, Incident, Usage, Vm, Window};

    fn context() -> Context {
        Context {
            now_ms: 0,
            seed: 0,
            settings: "{}".to_owned(),
            attributes: Vec::new(),
        }
    }

    fn vm() -> Vm {
        Vm {
            id: String::new(),
            name: String::new(),
            tenant: String::new(),
            labels: Vec::new(),
            vcpus: 1,
            memory_mib: 64,
            state: String::new(),
            desired: String::new(),
            incarnation: 1,
            created_at_ms: 0,
            attributes: Vec::new(),
        }
    }

    fn asked(request: AdmissionRequest) -> AdmissionFacts {
        let none = Usage {
            vms: 0,
            vcpus: 0,
            memory_mib: 0,
        };
        AdmissionFacts {
            context: context(),
            request,
            vm: vm(),
            node: none,
            tenant: none,
            attributes: Vec::new(),
        }
    }

    fn cleaned() -> CleanupFacts {
        CleanupFacts {
            context: context(),
            vm_id: String::new(),
            resource: String::new(),
            attempts: 1,
            since_ms: 0,
            error: String::new(),
            attributes: Vec::new(),
        }
    }

    fn recovered() -> RecoveryFacts {
        RecoveryFacts {
            context: context(),
            vm: vm(),
            incident: Incident {
                id: String::new(),
                kind: String::new(),
                detail: String::new(),
                at_ms: 0,
                incarnation: 1,
                attributes: Vec::new(),
            },
            attempts: 0,
            history: Vec::new(),
            attributes: Vec::new(),
        }
    }

    const NO_CHANGE: SpecChange = SpecChange {
        vcpus: None,
        memory_mib: None,
        labels: None,
        cmdline: None,
    };

    fn label(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn a_changed_spec_keeps_to_the_limits_that_a_users_spec_is_held_to() {
        let changed = |change| {
            admission(
                &asked(AdmissionRequest::Create),
                AdmissionDecision::AllowWith(change),
            )
        };
        let good = SpecChange {
            vcpus: Some(32),
            memory_mib: Some(32),
            labels: Some(vec![label("a", "b"), label("c", "b")]),
            cmdline: Some("quiet".to_owned()),
        };
        assert_eq!(
            changed(good.clone()),
            Ok(AdmissionDecision::AllowWith(good))
        );
        let many = (0..33).map(|n| label(&n.to_string(), "x")).collect();
        for bad in [
            SpecChange {
                vcpus: Some(0),
                ..NO_CHANGE
            },
            SpecChange {
                vcpus: Some(33),
                ..NO_CHANGE
            },
            SpecChange {
                memory_mib: Some(31),
                ..NO_CHANGE
            },
            SpecChange {
                memory_mib: Some(u64::MAX),
                ..NO_CHANGE
            },
            SpecChange {
                cmdline: Some("x".repeat(2048)),
                ..NO_CHANGE
            },
            SpecChange {
                cmdline: Some("a\nb".to_owned()),
                ..NO_CHANGE
            },
            SpecChange {
                labels: Some(vec![label("", "x")]),
                ..NO_CHANGE
            },
            SpecChange {
                labels: Some(vec![label("a", "b"), label("a", "b")]),
                ..NO_CHANGE
            },
            SpecChange {
                labels: Some(vec![label("a", "b"), label("a", "c")]),
                ..NO_CHANGE
            },
            SpecChange {
                labels: Some(many),
                ..NO_CHANGE
            },
        ] {
            let answer = changed(bad.clone());
            assert!(matches!(answer, Err(CallError::Nonsense(_))), "{bad:?}");
        }
    }

    #[test]
    fn a_spec_is_changed_only_when_the_vm_is_made() {
        let answer = admission(
            &asked(AdmissionRequest::Boot),
            AdmissionDecision::AllowWith(NO_CHANGE),
        );
        assert!(matches!(answer, Err(CallError::Nonsense(_))));
    }

    #[test]
    fn cases_that_have_no_meaning_yet_are_nonsense() {
        let other = || "new".to_owned();
        let asked = asked(AdmissionRequest::Create);
        assert!(admission(&asked, AdmissionDecision::Other(other())).is_err());
        assert!(cleanup(&cleaned(), CleanupDecision::Other(other())).is_err());
        let decision = RecoveryDecision {
            action: RecoveryAction::Other(other()),
            reason: String::new(),
        };
        assert!(recovery(&recovered(), decision).is_err());
    }

    #[test]
    fn a_restart_is_at_most_a_day_away() {
        let after = |ms| {
            let decision = RecoveryDecision {
                action: RecoveryAction::RestartAfter(ms),
                reason: String::new(),
            };
            recovery(&recovered(), decision)
        };
        assert!(after(MAX_DELAY_MS).is_ok());
        assert!(after(MAX_DELAY_MS + 1).is_err());
    }

    #[test]
    fn texts_are_fit_for_a_terminal() {
        let hostile = "\x1b]0;x\x07".to_owned();
        let clean = "\u{fffd}]0;x\u{fffd}".to_owned();
        assert_eq!(
            cleanup(&cleaned(), CleanupDecision::GiveUp(hostile.clone())),
            Ok(CleanupDecision::GiveUp(clean.clone()))
        );
        let denied = admission(
            &asked(AdmissionRequest::Boot),
            AdmissionDecision::Deny(hostile.clone()),
        );
        assert_eq!(denied, Ok(AdmissionDecision::Deny(clean.clone())));
        let decision = RecoveryDecision {
            action: RecoveryAction::Destroy,
            reason: hostile,
        };
        assert_eq!(recovery(&recovered(), decision).unwrap().reason, clean);
    }

    fn charge() -> Charge {
        Charge {
            incarnation: 1,
            sequence: 1,
            item: "vcpu-time".to_owned(),
            quantity: 2,
            unit: "ms".to_owned(),
            unit_price_nanos: 3,
            currency: "EUR".to_owned(),
        }
    }

    fn charged(charges: Vec<Charge>) -> Result<Vec<Charge>, CallError> {
        let window = |sequence| Window {
            incarnation: 1,
            sequence,
            start_ms: 0,
            end_ms: 1,
            vcpus: 1,
            memory_bytes: 1,
            vcpu_cpu_ns: 1,
            running_ns: 1,
            serial_tx_bytes: 1,
            close: "grid".to_owned(),
            source: "exact".to_owned(),
            attributes: Vec::new(),
        };
        let facts = BillingFacts {
            context: context(),
            vm: vm(),
            windows: vec![window(1), window(2)],
            attributes: Vec::new(),
        };
        billing(&facts, charges)
    }

    #[test]
    fn charges_that_no_bill_could_carry_are_refused_all_together() {
        let second = Charge {
            sequence: 2,
            ..charge()
        };
        assert!(charged(vec![charge(), second]).is_ok());
        assert_eq!(charged(Vec::new()), Ok(Vec::new()));
        let text = |text: &str| text.to_owned();
        for bad in [
            Charge {
                sequence: 3,
                ..charge()
            },
            Charge {
                incarnation: 2,
                ..charge()
            },
            Charge {
                item: text(""),
                ..charge()
            },
            Charge {
                item: text("a b"),
                ..charge()
            },
            Charge {
                item: "x".repeat(65),
                ..charge()
            },
            Charge {
                unit: text("\n"),
                ..charge()
            },
            Charge {
                currency: text("eur"),
                ..charge()
            },
            Charge {
                currency: text("EURO"),
                ..charge()
            },
            Charge {
                quantity: u64::MAX,
                ..charge()
            },
        ] {
            let good = Charge {
                item: text("good"),
                ..charge()
            };
            let refused = charged(vec![good, bad.clone()]);
            assert!(matches!(refused, Err(CallError::Nonsense(_))), "{bad:?}");
        }
    }

    #[test]
    fn an_item_is_charged_for_once_in_a_window() {
        assert!(charged(vec![charge(), charge()]).is_err());
    }

    #[test]
    fn the_number_of_charges_is_bounded() {
        let many = |n: usize| {
            charged(
                (0..n)
                    .map(|n| Charge {
                        item: format!("i{n}"),
                        ..charge()
                    })
                    .collect(),
            )
        };
        assert!(many(2 * MAX_CHARGES_PER_WINDOW).is_ok());
        assert!(many(2 * MAX_CHARGES_PER_WINDOW + 1).is_err());
    }
}
