//! Where requests to one VM arrive. They are answered at once, also while a verb is under way:
//! accepted and written down, or refused. What becomes of each is decided by
//! [`roost_model::RequestQueue`]; this is its only owner.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;

use roost_model::{
    Effect, Grace, NotCancellable, Operation, OperationId, Origin, Place, RequestQueue, Verb,
    Verdict, VmId, VmState,
};
use roost_store::Change;
use tokio::sync::{mpsc, oneshot, watch};

use crate::context::Context;
use crate::emptying::Why;
use crate::error::EngineError;
use crate::journal;
use crate::signals::Signals;

/// Where the answer to a request goes. A caller that went away does not want it.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, EngineError>>;

pub(crate) enum Message {
    /// Asks for a verb; answered with the operation, which is written down.
    Submit {
        verb: Verb,
        grace: Option<Grace>,
        reply: Reply<Operation>,
    },
    /// Calls off an operation; answered when it is called off, or will be.
    Cancel {
        operation: OperationId,
        reply: Reply<()>,
    },
    /// Has the VM shut down, because the node is emptied.
    End {
        why: Why,
        /// Whether the VM has no worker any more.
        reply: oneshot::Sender<bool>,
    },
}

/// What the actor is to do about a message.
pub(crate) enum Asked {
    /// The desk has answered.
    Nothing,
    /// Begin this, and answer.
    Begin(Operation, Reply<Operation>),
    /// Call off something that is not the desk's, and answer.
    Cancel(OperationId, Reply<()>),
}

pub(crate) struct Desk {
    context: Arc<Context>,
    vm: VmId,
    pub(crate) queue: RequestQueue,
    /// Who wants the VM shut down, because the node is emptied, and is not heard yet.
    pub(crate) endings: VecDeque<(Why, oneshot::Sender<bool>)>,
    mailbox: mpsc::Receiver<Message>,
    /// One that came when what is under way had ended for whoever looks, but not here yet: it is
    /// about the VM as it is after that.
    late: Option<Message>,
    /// Whether the host process ends.
    pub(crate) closed: bool,
    signals: Arc<Signals>,
    ended: watch::Sender<u64>,
}

impl Desk {
    pub(crate) fn new(
        context: Arc<Context>,
        vm: VmId,
        mailbox: mpsc::Receiver<Message>,
        signals: Arc<Signals>,
        ended: watch::Sender<u64>,
    ) -> Self {
        Self {
            context,
            vm,
            queue: RequestQueue::default(),
            endings: VecDeque::new(),
            mailbox,
            late: None,
            closed: false,
            signals,
            ended,
        }
    }

    /// Wakes whoever waits for an operation of this VM.
    pub(crate) fn announce_end(&self) {
        self.ended.send_modify(|count| *count += 1);
    }

    /// Does `work`, which is `operation`, and answers requests meanwhile.
    pub(crate) async fn beside<T>(
        &mut self,
        operation: &Operation,
        work: impl Future<Output = T>,
    ) -> T {
        self.queue.begin(operation);
        self.signals.hurry(self.queue.has_delete());
        if let Some(message) = self.late.take() {
            self.answer(message).await;
        }
        let mut work = pin!(work);
        let done = loop {
            let listens = !self.closed && self.late.is_none();
            tokio::select! {
                biased;
                done = &mut work => break done,
                message = self.mailbox.recv(), if listens => match message {
                    Some(message) if self.is_over(operation.id) => self.late = Some(message),
                    Some(message) => self.answer(message).await,
                    None => {
                        self.closed = true;
                        self.signals.leave();
                    }
                },
            }
        };
        self.signals.close();
        self.queue.end();
        self.announce_end();
        done
    }

    /// The next message to answer while nothing is under way; none when the host process ends.
    pub(crate) async fn next_message(&mut self) -> Option<Message> {
        match self.late.take() {
            Some(message) => Some(message),
            None => self.mailbox.recv().await,
        }
    }

    /// Whether the end of an operation is written down.
    fn is_over(&self, operation: OperationId) -> bool {
        let found = self.context.store.operation(operation);
        matches!(found, Ok(Some(operation)) if operation.is_done())
    }

    /// Answers a message that comes while something is under way.
    async fn answer(&mut self, message: Message) {
        // What the VM is in now does not matter, but what it will be in.
        match self.asked(message, &VmState::Creating).await {
            Asked::Nothing => {}
            Asked::Begin(_, reply) => {
                let _ = reply.send(Err(EngineError::ShuttingDown));
            }
            Asked::Cancel(_, reply) => {
                let _ = reply.send(Err(NotCancellable::Superseded.into()));
            }
        }
    }

    /// Answers a message, or says what the actor is to do about it.
    pub(crate) async fn asked(&mut self, message: Message, state: &VmState) -> Asked {
        match message {
            Message::Submit { verb, grace, reply } => {
                let mut operation = journal::operation(&self.context, self.vm, verb, Origin::User);
                operation.grace = grace;
                let answer = match self.queue.decide(state, verb) {
                    Ok(Verdict::Begin) => return Asked::Begin(operation, reply),
                    Ok(Verdict::Queue { .. }) => self.wait_in_line(operation).await,
                    Ok(Verdict::Joins(operation)) => self.joined(operation),
                    Err(refusal) => Err(refusal.into()),
                };
                let _ = reply.send(answer);
            }
            Message::Cancel { operation, reply } => {
                let answer = match self.queue.place(operation) {
                    Place::Elsewhere => return Asked::Cancel(operation, reply),
                    Place::Waiting => self.step_out(operation).await,
                    Place::UnderWay(_) if self.signals.cancel() => Ok(()),
                    Place::UnderWay(verb) => Err(NotCancellable::TooFar(verb).into()),
                };
                let _ = reply.send(answer);
            }
            Message::End { why, reply } => self.endings.push_back((why, reply)),
        }
        Asked::Nothing
    }

    /// Writes down an operation that waits for its turn.
    async fn wait_in_line(&mut self, operation: Operation) -> Result<Operation, EngineError> {
        let changes = vec![Change::PutOperation(operation.clone())];
        self.context.write(Effect::WriteQueued, changes).await?;
        self.queue.push(operation.clone());
        self.signals.hurry(self.queue.has_delete());
        Ok(operation)
    }

    /// The operation that does already what is asked for.
    fn joined(&self, operation: OperationId) -> Result<Operation, EngineError> {
        let found = self.context.store.operation(operation)?;
        found.ok_or(EngineError::OperationNotFound(operation))
    }

    /// Calls off an operation that waits.
    async fn step_out(&mut self, operation: OperationId) -> Result<(), EngineError> {
        let Some(waiting) = self.queue.waiting(operation).cloned() else {
            return Err(EngineError::OperationNotFound(operation));
        };
        let changes = self.cancelled(waiting, journal::ON_REQUEST)?;
        self.context.write(Effect::WriteCancelled, changes).await?;
        self.queue.remove(operation);
        self.signals.hurry(self.queue.has_delete());
        self.announce_end();
        Ok(())
    }

    fn cancelled(
        &self,
        mut operation: Operation,
        reason: &str,
    ) -> Result<Vec<Change>, EngineError> {
        let kind = journal::cancel(&self.context, &mut operation, reason);
        let mut changes = vec![Change::PutOperation(operation)];
        if let Some(record) = self.context.store.vm(self.vm)? {
            changes.push(Change::AppendEvent(self.context.vm_event(&record, kind)));
        }
        Ok(changes)
    }

    /// Tells whoever waits for the VM's shutdown that it is not there any more.
    pub(crate) fn answer_endings(&mut self) {
        for (_, reply) in self.endings.drain(..) {
            let _ = reply.send(true);
        }
    }
}
