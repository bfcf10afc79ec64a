//! What becomes of a request for a verb, and what waits for its turn on one VM.
//!
//! A VM does one thing at a time. What is asked for meanwhile waits if it will be legal by then,
//! taking it that all before it succeeds; what will not be legal is refused at once, rather than
//! after a wait. Nothing here acts, waits or looks at a clock: an actor asks, and does as told.

use std::collections::VecDeque;

use crate::transition::{self, IllegalVerb};
use crate::{Operation, OperationId, Verb, VmState};

/// Requests that may wait for one VM. A person or a controller needs two or three.
pub const MAX_WAITING: usize = 16;

/// A request that is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is in its way.
    Begin,
    /// It waits behind so many others, what is under way included.
    Queue {
        /// How many.
        behind: usize,
    },
    /// It asks for what was accepted already: a VM is deleted once, whoever asks how often.
    Joins(OperationId),
}

/// Why a request is refused. What waits is as it was before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The verb will not be legal when it is its turn.
    #[error("{}{illegal}", .after.map_or(String::new(), |verb| format!("after {verb}, ")))]
    Illegal {
        /// In which state, and what would be legal.
        illegal: IllegalVerb,
        /// The verb that leads to this state; absent where the VM is in it.
        after: Option<Verb>,
    },
    /// Too much waits.
    #[error("{waiting} requests wait for this VM already; try again when they are done")]
    Full {
        /// How much.
        waiting: usize,
    },
    /// The VM is being deleted.
    #[error("the VM is being deleted by {operation}")]
    Deleting {
        /// By which operation.
        operation: OperationId,
    },
}

/// What a cancel of an operation comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It waits.
    Waiting,
    /// It is under way.
    UnderWay(Verb),
    /// Neither.
    Elsewhere,
}

/// What is under way and what waits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestQueue {
    under_way: Option<(OperationId, Verb)>,
    waiting: VecDeque<Operation>,
}

impl RequestQueue {
    /// A queue of what an earlier host process accepted, in its order.
    #[must_use]
    pub fn of(waiting: impl IntoIterator<Item = Operation>) -> Self {
        Self {
            under_way: None,
            waiting: waiting.into_iter().collect(),
        }
    }

    /// What becomes of a request for `verb`, of a VM that is in `state` if nothing is under way.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn decide(&self, state: &VmState, verb: Verb) -> Result<Verdict, Refusal> {
        let ahead = self
            .under_way
            .into_iter()
            .chain(self.waiting.iter().map(|one| (one.id, one.verb)));
        let behind = ahead.clone().count();
        let last = ahead.last();
        if let Some((operation, Verb::Delete)) = last {
            return match verb {
                Verb::Delete => Ok(Verdict::Joins(operation)),
                _ => Err(Refusal::Deleting { operation }),
            };
        }
        let after = last.map(|(_, verb)| verb);
        let expected = after.map_or_else(|| state.clone(), transition::leads_to);
        if let Err(illegal) = transition::request(&expected, verb) {
            return Err(Refusal::Illegal { illegal, after });
        }
        // A delete ends all this, so it always finds a place; nothing comes after it.
        let waiting = self.waiting.len();
        if waiting >= MAX_WAITING && verb != Verb::Delete {
            return Err(Refusal::Full { waiting });
        }
        Ok(match behind {
            0 => Verdict::Begin,
            behind => Verdict::Queue { behind },
        })
    }

    /// Puts what was accepted at the end.
    pub fn push(&mut self, operation: Operation) {
        self.waiting.push_back(operation);
    }

    /// Takes what is next, unless something is under way.
    pub fn take_next(&mut self) -> Option<Operation> {
        match self.under_way {
            None => self.waiting.pop_front(),
            Some(_) => None,
        }
    }

    /// Whether something waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether a delete waits.
    #[must_use]
    pub fn has_delete(&self) -> bool {
        self.waiting
            .back()
            .is_some_and(|last| last.verb == Verb::Delete)
    }

    /// An operation is under way.
    pub fn begin(&mut self, operation: &Operation) {
        self.under_way = Some((operation.id, operation.verb));
    }

    /// What was under way has ended.
    pub fn end(&mut self) {
        self.under_way = None;
    }

    /// Where an operation is.
    #[must_use]
    pub fn place(&self, operation: OperationId) -> Place {
        match self.under_way {
            Some((id, verb)) if id == operation => Place::UnderWay(verb),
            _ if self.waiting.iter().any(|one| one.id == operation) => Place::Waiting,
            _ => Place::Elsewhere,
        }
    }

    /// An operation that waits.
    #[must_use]
    pub fn waiting(&self, operation: OperationId) -> Option<&Operation> {
        self.waiting.iter().find(|one| one.id == operation)
    }

    /// Takes out an operation that waits; the others keep their order.
    pub fn remove(&mut self, operation: OperationId) -> Option<Operation> {
        let at = self.waiting.iter().position(|one| one.id == operation)?;
        self.waiting.remove(at)
    }

    /// Takes out all that waits: there is no VM any more.
    pub fn drain(&mut self) -> impl Iterator<Item = Operation> + '_ {
        self.waiting.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::{Failure, FailureKind, OperationState, Origin};

    fn operation(n: u128, verb: Verb) -> Operation {
        Operation {
            id: OperationId::from_uuid(Uuid::from_u128(n)),
            vm: crate::VmId::from_uuid(Uuid::from_u128(1)),
            verb,
            origin: Origin::User,
            grace: None,
            not_before_ms: None,
            state: OperationState::Queued,
            steps: Vec::new(),
            created_at_ms: 0,
            updated_at_ms: 0,
        }
    }

    fn failed() -> VmState {
        let failure = Failure {
            kind: FailureKind::Start,
            detail: String::new(),
        };
        VmState::Failed { failure }
    }

    /// A VM that does what a queue says, and what became of each request.
    struct Vm {
        state: VmState,
        queue: RequestQueue,
        under_way: Option<Operation>,
        /// What was accepted and has no answer yet, in the order of acceptance.
        accepted: Vec<OperationId>,
        next: u128,
    }

    impl Vm {
        fn new() -> Self {
            Self {
                state: VmState::Stopped,
                queue: RequestQueue::default(),
                under_way: None,
                accepted: Vec::new(),
                next: 0,
            }
        }

        /// An actor: what is accepted begins or waits.
        fn ask(&mut self, verb: Verb) -> Result<Verdict, Refusal> {
            let before = self.queue.clone();
            let verdict = self.queue.decide(&self.state, verb);
            assert_eq!(self.queue, before, "deciding changes nothing");
            if matches!(verdict, Ok(Verdict::Begin | Verdict::Queue { .. })) {
                self.next += 1;
                let operation = operation(self.next, verb);
                self.accepted.push(operation.id);
                match verdict {
                    Ok(Verdict::Begin) => self.begin(operation),
                    _ => self.queue.push(operation),
                }
            }
            verdict
        }

        fn begin(&mut self, operation: Operation) {
            assert!(self.under_way.is_none(), "two verbs at once");
            assert_eq!(self.accepted.first(), Some(&operation.id), "order");
            // What is not legal when its turn comes is answered by that, and is over.
            if transition::request(&self.state, operation.verb).is_err() {
                self.accepted.remove(0);
                return;
            }
            self.queue.begin(&operation);
            self.under_way = Some(operation);
        }

        /// What is under way ends, and what waits has its turn.
        fn end(&mut self, succeeds: bool) {
            if let Some(operation) = self.under_way.take() {
                self.queue.end();
                assert_eq!(self.accepted.remove(0), operation.id, "order");
                self.state = if succeeds {
                    transition::leads_to(operation.verb)
                } else {
                    failed()
                };
            }
            while self.under_way.is_none()
                && self.state != VmState::Deleted
                && let Some(operation) = self.queue.take_next()
            {
                self.begin(operation);
            }
        }

        fn cancel(&mut self, nth: usize) {
            let Some(id) = self.accepted.get(nth).copied() else {
                return;
            };
            match self.queue.place(id) {
                Place::UnderWay(verb) => {
                    assert_eq!(self.under_way.as_ref().map(|one| one.verb), Some(verb));
                }
                Place::Waiting => {
                    let removed = self.queue.remove(id).unwrap();
                    assert_eq!(removed.id, id);
                    self.accepted.retain(|one| *one != id);
                }
                Place::Elsewhere => panic!("{id} is lost"),
            }
        }
    }

    #[derive(Debug, Clone, Copy)]
    enum Happening {
        Ask(Verb),
        End { succeeds: bool },
        Cancel(usize),
    }

    fn happening() -> impl Strategy<Value = Happening> {
        let verb = prop_oneof![
            20 => prop::sample::select(Verb::ALL.to_vec()),
            // What can be asked for again and again, so that the queue fills.
            10 => Just(Verb::Reboot),
        ];
        prop_oneof![
            12 => verb.prop_map(Happening::Ask),
            3 => prop::bool::weighted(0.8).prop_map(|succeeds| Happening::End { succeeds }),
            1 => (0..20_usize).prop_map(Happening::Cancel),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// Never two verbs at once, nothing that was accepted is lost, in its order; never more
        /// than so many; and whatever waits has an answer in the end.
        #[test]
        fn what_is_accepted_is_answered_in_its_order(
            life in prop::collection::vec(happening(), 0..200),
        ) {
            let mut vm = Vm::new();
            for happening in life {
                match happening {
                    Happening::Ask(verb) => match vm.ask(verb) {
                        Ok(Verdict::Begin) => prop_assert_eq!(vm.accepted.len(), 1),
                        Ok(Verdict::Queue { behind }) => {
                            prop_assert_eq!(behind + 1, vm.accepted.len());
                        }
                        Ok(Verdict::Joins(by)) | Err(Refusal::Deleting { operation: by }) => {
                            prop_assert_eq!(vm.accepted.last(), Some(&by));
                        }
                        Err(Refusal::Full { waiting }) => {
                            prop_assert_eq!(waiting, MAX_WAITING);
                            prop_assert!(verb != Verb::Delete);
                        }
                        Err(Refusal::Illegal { illegal, after }) => {
                            prop_assert!(!illegal.legal.contains(&verb));
                            prop_assert_eq!(after.is_some(), !vm.accepted.is_empty());
                        }
                    },
                    Happening::End { succeeds } => vm.end(succeeds),
                    Happening::Cancel(nth) => vm.cancel(nth),
                }
                prop_assert!(vm.queue.waiting.len() <= MAX_WAITING + 1);
                prop_assert_eq!(
                    vm.accepted.len(),
                    vm.queue.waiting.len() + usize::from(vm.under_way.is_some())
                );
                if vm.state == VmState::Deleted {
                    // Nothing is accepted behind a delete.
                    prop_assert!(vm.accepted.is_empty());
                    break;
                }
            }
            for _ in 0..=MAX_WAITING + 1 {
                vm.end(true);
            }
            prop_assert!(vm.accepted.is_empty(), "no answer: {:?}", vm.accepted);
        }

        /// Where nothing fails and nothing is cancelled, what was accepted is legal in its turn.
        #[test]
        fn what_is_accepted_succeeds_if_all_before_it_does(
            verbs in prop::collection::vec(prop::sample::select(Verb::ALL.to_vec()), 0..40),
        ) {
            let mut vm = Vm::new();
            for verb in verbs {
                let _ = vm.ask(verb);
            }
            while let Some(under_way) = &vm.under_way {
                prop_assert!(transition::request(&vm.state, under_way.verb).is_ok());
                let waiting = vm.queue.waiting.len();
                vm.end(true);
                // One at a time: none of them was answered as illegal.
                prop_assert_eq!(vm.queue.waiting.len(), waiting.saturating_sub(1));
            }
        }
    }

    #[test]
    fn a_boot_waits_for_a_shutdown_and_a_second_boot_is_refused() {
        let mut vm = Vm::new();
        vm.state = VmState::Running;
        assert_eq!(vm.ask(Verb::Shutdown), Ok(Verdict::Begin));
        assert_eq!(vm.ask(Verb::Boot), Ok(Verdict::Queue { behind: 1 }));
        let refused = vm.ask(Verb::Boot).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "after boot, boot is not legal while the VM is running; \
             legal: shutdown, pause, reboot, delete"
        );
    }

    #[test]
    fn a_delete_finds_a_place_in_a_full_queue_and_nothing_comes_after_it() {
        let mut vm = Vm::new();
        vm.state = VmState::Running;
        for _ in 0..=MAX_WAITING {
            vm.ask(Verb::Reboot).unwrap();
        }
        let waiting = MAX_WAITING;
        assert_eq!(vm.ask(Verb::Reboot), Err(Refusal::Full { waiting }));
        assert!(matches!(vm.ask(Verb::Delete), Ok(Verdict::Queue { .. })));
        assert!(vm.queue.has_delete());
        assert!(matches!(vm.ask(Verb::Delete), Ok(Verdict::Joins(_))));
        assert!(matches!(vm.ask(Verb::Boot), Err(Refusal::Deleting { .. })));
    }
}
