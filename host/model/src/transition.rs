//! The transition table: which verb is legal in which state, and what it leads to.
//!
//! ```text
//!            create                boot                     pause
//!   (none) ─────────▶ stopped ──────────────▶ running ◀────────────────▶ paused
//!                        ▲  ▲                  │   │        resume          │
//!                        │  └──────shutdown────┘   └──reboot──▶ (running)   │
//!                        └─────────────────shutdown─────────────────────────┘
//!   failed: boot, shutdown (gives up a pending restart) and delete.
//!   delete is legal in every settled state.
//! ```

use crate::state::{DesiredState, Verb, VmState};

/// A legal verb: what the VM passes through and what it is meant to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The state while the operation runs.
    pub through: VmState,
    /// The state after it succeeded.
    pub to: VmState,
    /// What the user now wants.
    pub desired: DesiredState,
}

/// The verb is not legal in the VM's state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{verb} is not legal while the VM is {state}; legal: {}",
    legal.iter().map(|v| v.name()).collect::<Vec<_>>().join(", ")
)]
pub struct IllegalVerb {
    /// The state in which the verb was asked for.
    pub state: String,
    /// The verb.
    pub verb: Verb,
    /// What would have been legal.
    pub legal: Vec<Verb>,
}

fn lookup(state: &VmState, verb: Verb) -> Option<Transition> {
    use DesiredState as D;
    use VmState as S;
    let (through, desired) = match (state, verb) {
        (S::Creating, Verb::Create) => (S::Creating, D::Stopped),
        (S::Stopped | S::Failed { .. }, Verb::Boot) => (S::Starting, D::Running),
        (S::Running | S::Paused | S::Failed { .. }, Verb::Shutdown) => (S::Stopping, D::Stopped),
        (S::Running, Verb::Pause) => (S::Pausing, D::Paused),
        (S::Paused, Verb::Resume) => (S::Resuming, D::Running),
        (S::Running, Verb::Reboot) => (S::Stopping, D::Running),
        (S::Creating | S::Stopped | S::Failed { .. } | S::Running | S::Paused, Verb::Delete) => {
            (S::Deleting, D::Deleted)
        }
        _ => return None,
    };
    Some(Transition {
        through,
        to: leads_to(verb),
        desired,
    })
}

/// The state that `verb` leads to if it succeeds, whatever the one is in which it is legal.
#[must_use]
pub const fn leads_to(verb: Verb) -> VmState {
    match verb {
        Verb::Boot | Verb::Resume | Verb::Reboot => VmState::Running,
        Verb::Create | Verb::Shutdown => VmState::Stopped,
        Verb::Pause => VmState::Paused,
        Verb::Delete => VmState::Deleted,
    }
}

/// What `verb` does to a VM in `state`.
///
/// # Errors
/// [`IllegalVerb`] with the legal ones where the table has no row.
pub fn begin(state: &VmState, verb: Verb) -> Result<Transition, IllegalVerb> {
    lookup(state, verb).ok_or_else(|| IllegalVerb {
        state: state.name().to_owned(),
        verb,
        legal: legal(state),
    })
}

/// The answer to a request for `verb` when it is its turn: what it does to a VM that exists and is
/// in `state`.
///
/// # Errors
/// [`IllegalVerb`] where the table has no row, and always for [`Verb::Create`]: a VM is created
/// before anybody can ask something of it.
pub fn request(state: &VmState, verb: Verb) -> Result<Transition, IllegalVerb> {
    match verb {
        Verb::Create => Err(IllegalVerb {
            state: state.name().to_owned(),
            verb,
            legal: legal(state),
        }),
        _ => begin(state, verb),
    }
}

/// Every verb that is legal in `state`.
#[must_use]
pub fn legal(state: &VmState) -> Vec<Verb> {
    Verb::ALL
        .into_iter()
        .filter(|verb| lookup(state, *verb).is_some())
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::state::{Failure, FailureKind};

    fn states() -> Vec<VmState> {
        let failure = Failure {
            kind: FailureKind::Guest,
            detail: String::new(),
        };
        vec![
            VmState::Creating,
            VmState::Stopped,
            VmState::Starting,
            VmState::Running,
            VmState::Pausing,
            VmState::Paused,
            VmState::Resuming,
            VmState::Stopping,
            VmState::Failed { failure },
            VmState::Deleting,
            VmState::Deleted,
        ]
    }

    #[test]
    fn every_settled_state_can_be_left_by_delete() {
        for state in states() {
            let settled = matches!(
                state,
                VmState::Stopped | VmState::Running | VmState::Paused | VmState::Failed { .. }
            );
            if settled {
                assert!(legal(&state).contains(&Verb::Delete), "{state}");
            }
        }
    }

    #[test]
    fn a_verb_is_never_legal_while_another_is_under_way() {
        for state in states() {
            let busy = state.has_worker() && !matches!(state, VmState::Running | VmState::Paused)
                || matches!(state, VmState::Deleting | VmState::Deleted);
            if busy {
                assert_eq!(legal(&state), [], "{state}");
            }
        }
    }

    #[test]
    fn an_illegal_verb_names_the_state_and_what_is_legal() {
        let error = begin(&VmState::Stopped, Verb::Pause).unwrap_err();
        assert_eq!(
            error.to_string(),
            "pause is not legal while the VM is stopped; legal: boot, delete"
        );
    }

    #[test]
    fn a_successful_verb_reaches_a_state_that_matches_what_is_desired() {
        for state in states() {
            for verb in legal(&state) {
                let transition = begin(&state, verb).unwrap();
                let expected = match transition.desired {
                    DesiredState::Running => VmState::Running,
                    DesiredState::Paused => VmState::Paused,
                    DesiredState::Stopped => VmState::Stopped,
                    DesiredState::Deleted => VmState::Deleted,
                };
                assert_eq!(transition.to, expected, "{verb} in {state}");
            }
        }
    }

    /// How an operation ends.
    #[derive(Debug, Clone, Copy)]
    enum End {
        Success,
        Failure,
    }

    /// What happens to a VM that is not deleted.
    #[derive(Debug, Clone, Copy)]
    enum Happening {
        Request(Verb, End),
        /// The guest ends by itself, or its worker does.
        Exit(End),
    }

    fn failed() -> VmState {
        let failure = Failure {
            kind: FailureKind::Start,
            detail: String::new(),
        };
        VmState::Failed { failure }
    }

    fn happening() -> impl Strategy<Value = Happening> {
        let end = prop_oneof![3 => Just(End::Success), 1 => Just(End::Failure)];
        let verb = prop::sample::select(Verb::ALL.to_vec());
        prop_oneof![
            8 => (verb, end.clone()).prop_map(|(verb, end)| Happening::Request(verb, end)),
            1 => end.prop_map(Happening::Exit),
        ]
    }

    /// The state that `verbs` lead to, all of which must be legal and succeed.
    fn after(state: &VmState, verbs: &[Verb]) -> Option<VmState> {
        verbs.iter().try_fold(state.clone(), |state, verb| {
            request(&state, *verb).ok().map(|transition| transition.to)
        })
    }

    proptest! {
        /// Whatever is asked for, and however it ends: a VM is settled between two verbs, a
        /// refusal is explained, nothing else is legal while a verb is under way, and there is a
        /// way on from everywhere but from the end.
        #[test]
        fn a_vms_life_has_no_dead_end(life in prop::collection::vec(happening(), 0..64)) {
            let mut state = begin(&VmState::Creating, Verb::Create).unwrap().to;
            for happening in life {
                let (verb, end) = match happening {
                    Happening::Request(verb, end) => (verb, end),
                    Happening::Exit(end) => {
                        if state.has_worker() {
                            state = match end {
                                End::Success => VmState::Stopped,
                                End::Failure => failed(),
                            };
                        }
                        continue;
                    }
                };
                match request(&state, verb) {
                    Ok(transition) => {
                        prop_assert!(legal(&state).contains(&verb));
                        for other in Verb::ALL {
                            let refused = request(&transition.through, other);
                            prop_assert!(refused.is_err(), "{} during {}", other, verb);
                        }
                        state = match end {
                            End::Success => transition.to,
                            End::Failure => failed(),
                        };
                    }
                    Err(refused) => {
                        prop_assert_eq!(&refused.state, state.name());
                        prop_assert_eq!(refused.verb, verb);
                        prop_assert!(!refused.legal.contains(&verb));
                        for verb in refused.legal {
                            prop_assert!(request(&state, verb).is_ok());
                        }
                    }
                }
                if state == VmState::Deleted {
                    prop_assert_eq!(legal(&state), []);
                    break;
                }
                prop_assert_eq!(after(&state, &[Verb::Delete]), Some(VmState::Deleted));
                let runs = [&[][..], &[Verb::Boot], &[Verb::Resume]]
                    .iter()
                    .any(|verbs| after(&state, verbs) == Some(VmState::Running));
                prop_assert!(runs, "nothing makes a {} VM run", state);
                let stops = [&[][..], &[Verb::Shutdown]]
                    .iter()
                    .any(|verbs| after(&state, verbs) == Some(VmState::Stopped));
                prop_assert!(stops, "nothing makes a {} VM stop", state);
            }
        }

        /// A verb that succeeds is not legal again at once where it would do nothing, and while it
        /// is under way the VM counts as one that may have a worker, which recovery looks for.
        #[test]
        fn a_verb_leads_from_one_settled_state_to_another(
            state in prop::sample::select(states()),
            verb in prop::sample::select(Verb::ALL.to_vec()),
        ) {
            if let Ok(transition) = request(&state, verb) {
                let settled = !legal(&transition.to).is_empty();
                prop_assert!(settled || transition.to == VmState::Deleted);
                let is_deleted = transition.through == VmState::Deleting;
                prop_assert!(is_deleted || transition.through.has_worker());
                if verb != Verb::Reboot {
                    prop_assert_ne!(&transition.to, &state);
                    prop_assert!(request(&transition.to, verb).is_err());
                }
            }
        }

        /// No VM that exists is created.
        #[test]
        fn create_is_never_a_request(state in prop::sample::select(states())) {
            let refused = request(&state, Verb::Create).unwrap_err();
            prop_assert_eq!(refused.verb, Verb::Create);
        }
    }
}
