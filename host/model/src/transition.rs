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
    let (through, to, desired) = match (state, verb) {
        (S::Creating, Verb::Create) => (S::Creating, S::Stopped, D::Stopped),
        (S::Stopped | S::Failed { .. }, Verb::Boot) => (S::Starting, S::Running, D::Running),
        (S::Running | S::Paused | S::Failed { .. }, Verb::Shutdown) => {
            (S::Stopping, S::Stopped, D::Stopped)
        }
        (S::Running, Verb::Pause) => (S::Pausing, S::Paused, D::Paused),
        (S::Paused, Verb::Resume) => (S::Resuming, S::Running, D::Running),
        (S::Running, Verb::Reboot) => (S::Stopping, S::Running, D::Running),
        (S::Creating | S::Stopped | S::Failed { .. } | S::Running | S::Paused, Verb::Delete) => {
            (S::Deleting, S::Deleted, D::Deleted)
        }
        _ => return None,
    };
    Some(Transition {
        through,
        to,
        desired,
    })
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
}
