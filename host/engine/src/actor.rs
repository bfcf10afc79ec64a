//! One VM's owner: carries out one thing at a time, watches the worker, keeps the usage window.
//! Requests arrive at its [`Desk`], which answers them meanwhile.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use roost_model::{
    Amounts, DesiredState, Effect, Grace, Incident, MAX_WAITING, NotCancellable, OpenWindow,
    Operation, OperationId, OperationState, Refusal, Tenant, Verb, VmRecord, transition,
};
use roost_store::{Change, CommitError};
use roost_worker::{HandleEvent, VmHandle};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, sleep_until};

use crate::audit::Inspection;
use crate::context::Context;
use crate::descriptors;
use crate::desk::{Asked, Desk, Message, Reply};
use crate::emptying::Why;
use crate::error::EngineError;
use crate::journal::{self, Draft};
use crate::plugins::Attempts;
use crate::signals::Signals;

/// How long to wait before a write that the store refused is tried again.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// How long a boot by recovery waits for descriptors before it looks again: to fail of that would
/// use up the attempts that the policy gives the VM.
const DESCRIPTORS_RETRY: Duration = Duration::from_secs(1);

/// How the rest of the engine reaches an actor.
#[derive(Clone)]
pub(crate) struct ActorRef {
    mailbox: mpsc::Sender<Message>,
    inspections: mpsc::Sender<Inspection>,
    link: Arc<Link>,
    ended: watch::Receiver<u64>,
    /// What the VM claims of the node, and for whom.
    pub(crate) claim: Arc<(Tenant, Amounts)>,
    /// Whether it has a worker, by its record.
    pub(crate) has_worker: Arc<AtomicBool>,
}

/// The handle that the actor has now, for reading and writing the serial port beside it.
#[derive(Default)]
pub(crate) struct Link(RwLock<Option<Arc<dyn VmHandle>>>);

impl ActorRef {
    /// Asks for `verb`; returns once the operation is journaled or refused.
    pub(crate) async fn submit(
        &self,
        verb: Verb,
        grace: Option<Grace>,
    ) -> Result<Operation, EngineError> {
        self.ask(|reply| Message::Submit { verb, grace, reply })
            .await
    }

    /// Calls off an operation; returns once that is sure.
    pub(crate) async fn cancel(&self, operation: OperationId) -> Result<(), EngineError> {
        self.ask(|reply| Message::Cancel { operation, reply }).await
    }

    async fn ask<T>(&self, message: impl FnOnce(Reply<T>) -> Message) -> Result<T, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.mailbox
            .try_send(message(reply))
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => {
                    let waiting = MAX_WAITING;
                    Refusal::Full { waiting }.into()
                }
                mpsc::error::TrySendError::Closed(_) => EngineError::ShuttingDown,
            })?;
        answer.await.map_err(|_| EngineError::ShuttingDown)?
    }

    /// Has the actor shut its VM down, after what is under way. The answer says whether no worker
    /// runs; there is none where the actor is gone.
    pub(crate) fn end(&self, why: Why) -> oneshot::Receiver<bool> {
        let (reply, answer) = oneshot::channel();
        let message = Message::End { why, reply };
        if let Err(mpsc::error::TrySendError::Full(message)) = self.mailbox.try_send(message) {
            let mailbox = self.mailbox.clone();
            // Requests of users that wait are bounded, and this one is not refused for them.
            tokio::spawn(async move { mailbox.send(message).await });
        }
        answer
    }

    /// Asks the actor to compare its VM with the node, once it is idle. False if it still has
    /// another such request.
    pub(crate) fn inspect(&self, inspection: Inspection) -> bool {
        self.inspections.try_send(inspection).is_ok()
    }

    pub(crate) fn handle(&self) -> Option<Arc<dyn VmHandle>> {
        self.link
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Changes whenever an operation of this VM has ended.
    pub(crate) fn ended(&self) -> watch::Receiver<u64> {
        self.ended.clone()
    }
}

/// A boot that the recovery policy asked for and that is not due yet.
pub(crate) struct PendingRestart {
    pub(crate) incident: Incident,
    pub(crate) operation: Operation,
}

pub(crate) struct Actor {
    pub(crate) context: Arc<Context>,
    pub(crate) record: VmRecord,
    pub(crate) handle: Option<Arc<dyn VmHandle>>,
    pub(crate) window: Option<OpenWindow>,
    pub(crate) restart: Option<PendingRestart>,
    /// An operation that is journaled as running and that nobody asked for: a guest's reboot, or
    /// a recovery policy's delete.
    pub(crate) begun: Option<Operation>,
    /// What waited for the VM when its delete began, until the delete's first commit ends it.
    pub(crate) overtaken: Vec<Operation>,
    /// An incident that is written down and that the recovery policy has not decided about. It is
    /// asked when no operation is under way, so that whoever sees the VM failed can boot it.
    pub(crate) undecided: Option<Incident>,
    pub(crate) deleted: bool,
    /// Requests in a row that the worker did not answer.
    pub(crate) unanswered: u32,
    /// When to look next whether the guest has printed anything, if its spec has a deadline.
    pub(crate) silence_due: Option<Instant>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) has_worker: Arc<AtomicBool>,
    link: Arc<Link>,
    inspections: mpsc::Receiver<Inspection>,
}

/// What an idle actor does next.
enum Turn {
    Worker(HandleEvent),
    /// The VM is to be shut down, because the node is emptied.
    Ending,
    /// What waits.
    Next,
    Message(Message),
    /// The pending restart is due and has a place among the recovery boots.
    Restart(OwnedSemaphorePermit),
    Inspection(Inspection),
    /// The guest has to have printed something by now.
    Silence,
    Counters,
    /// The host process ends.
    End,
}

impl Actor {
    pub(crate) fn new(context: Arc<Context>, record: VmRecord) -> (Self, Desk, ActorRef) {
        // As many as may wait for their turn: they are answered at once, but for those that come
        // while the worker is looked after.
        let (sender, mailbox) = mpsc::channel(MAX_WAITING);
        let (inspections_sender, inspections) = mpsc::channel(1);
        let (ended, ended_receiver) = watch::channel(0);
        let link = Arc::new(Link::default());
        let signals = Arc::new(Signals::default());
        let has_worker = Arc::new(AtomicBool::new(record.state.has_worker()));
        let reference = ActorRef {
            mailbox: sender,
            inspections: inspections_sender,
            link: Arc::clone(&link),
            ended: ended_receiver,
            claim: Arc::new((record.spec.tenant.clone(), Amounts::of(&record.spec))),
            has_worker: Arc::clone(&has_worker),
        };
        let desk = Desk::new(
            Arc::clone(&context),
            record.id,
            mailbox,
            Arc::clone(&signals),
            ended,
        );
        let actor = Self {
            context,
            record,
            handle: None,
            window: None,
            restart: None,
            begun: None,
            overtaken: Vec::new(),
            undecided: None,
            deleted: false,
            unanswered: 0,
            silence_due: None,
            signals,
            has_worker,
            link,
            inspections,
        };
        (actor, desk, reference)
    }

    /// Runs until the VM is deleted or the host shuts down.
    pub(crate) async fn run(mut self, mut desk: Desk) {
        let period = self.context.config.counter_interval;
        let mut counters_due = interval_at(Instant::now() + period, period);
        counters_due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let Err(error) = self.carry_on(&mut desk).await {
                tracing::error!(vm = %self.record.id, %error, "a step could not be journaled");
            }
            if self.deleted || desk.closed {
                break;
            }
            let result = match self.turn(&mut desk, &mut counters_due).await {
                Turn::Worker(event) => self.settle(event).await,
                Turn::Ending => self.ending(&mut desk).await,
                Turn::Next => self.next(&mut desk).await,
                Turn::Message(message) => self.asked(&mut desk, message).await,
                Turn::Restart(place) => self.restart_now(&mut desk, place).await,
                Turn::Inspection(inspection) => self.inspected(inspection).await,
                Turn::Silence => self.check_silence().await,
                Turn::Counters => self.read_counters().await,
                Turn::End => break,
            };
            if let Err(error) = result {
                tracing::error!(vm = %self.record.id, %error, "a step could not be journaled");
            }
        }
        if self.deleted {
            desk.answer_endings();
        }
        self.detach();
    }

    async fn turn(&mut self, desk: &mut Desk, counters_due: &mut Interval) -> Turn {
        // What waits for its turn is the next host process's, once this one ends with its VMs.
        let takes_turns = !desk.queue.is_empty() && !self.context.ending.is_of_host();
        tokio::select! {
            biased;
            event = next_event(self.handle.as_ref()) => Turn::Worker(event),
            () = std::future::ready(()), if !desk.endings.is_empty() => Turn::Ending,
            () = std::future::ready(()), if takes_turns => Turn::Next,
            message = desk.next_message() => message.map_or(Turn::End, Turn::Message),
            place = due(&self.context, self.restart.as_ref()) => Turn::Restart(place),
            Some(inspection) = self.inspections.recv() => Turn::Inspection(inspection),
            () = at(self.silence_due) => Turn::Silence,
            _ = counters_due.tick(), if self.handle.is_some() => Turn::Counters,
        }
    }

    /// Has incidents decided about, and takes all steps of what is begun without a request.
    pub(crate) async fn carry_on(&mut self, desk: &mut Desk) -> Result<(), CommitError> {
        loop {
            if let Some(incident) = self.undecided.take() {
                self.recover(incident).await?;
            } else if let Some(operation) = self.begun.take() {
                self.carry_out(desk, operation).await?;
            } else {
                return Ok(());
            }
        }
    }

    /// Takes all steps that are left of a journaled operation, while requests are answered.
    pub(crate) async fn carry_out(
        &mut self,
        desk: &mut Desk,
        mut operation: Operation,
    ) -> Result<(), CommitError> {
        if operation.verb == Verb::Delete {
            self.overtaken.extend(desk.queue.drain());
        }
        let asked = operation.clone();
        desk.beside(&asked, self.finish(&mut operation)).await
    }

    /// Handles an event of the worker, again and again until the store takes it: the worker
    /// keeps what is not acknowledged, but the handle tells of it once.
    async fn settle(&mut self, event: HandleEvent) -> Result<(), CommitError> {
        while let Err(error) = self.on_worker_event(&event).await {
            if !matches!(error, CommitError::ReadOnly { .. }) {
                return Err(error);
            }
            tracing::error!(vm = %self.record.id, %error, "an event waits for the store");
            sleep(STORE_RETRY).await;
        }
        Ok(())
    }

    /// A message that comes while nothing is under way.
    async fn asked(&mut self, desk: &mut Desk, message: Message) -> Result<(), CommitError> {
        match desk.asked(message, &self.record.state).await {
            Asked::Nothing => Ok(()),
            Asked::Begin(mut operation, reply) => match self.begin(&mut operation).await {
                // A caller that went away does not want the answer.
                Ok(()) => {
                    let _ = reply.send(Ok(operation.clone()));
                    self.carry_out(desk, operation).await
                }
                Err(error) => {
                    let _ = reply.send(Err(error));
                    Ok(())
                }
            },
            Asked::Cancel(operation, reply) => {
                let _ = reply.send(self.cancel_restart(operation).await);
                desk.announce_end();
                Ok(())
            }
        }
    }

    /// The turn of whoever empties the node.
    async fn ending(&mut self, desk: &mut Desk) -> Result<(), CommitError> {
        let Some((why, reply)) = desk.endings.pop_front() else {
            return Ok(());
        };
        let ended = self.end(desk, why).await;
        // Who asked may have given up.
        let _ = reply.send(matches!(ended, Ok(true)));
        ended.map(drop)
    }

    /// The turn of what waits longest. If it can't begin, it has failed.
    async fn next(&mut self, desk: &mut Desk) -> Result<(), CommitError> {
        let Some(mut operation) = desk.queue.take_next() else {
            return Ok(());
        };
        let refused = match self.begin(&mut operation).await {
            Ok(()) => return self.carry_out(desk, operation).await,
            // The next host process finds it.
            Err(EngineError::Commit(error)) => return Err(error),
            Err(refused) => refused,
        };
        let mut draft = self.draft();
        draft.end(&self.context, &mut operation, Some(refused.to_string()));
        self.commit(Effect::WriteRefused, draft).await?;
        desk.announce_end();
        Ok(())
    }

    /// Writes down that an operation begins that a user asked for, with the decision that allows
    /// it. It takes the place of a restart that is pending.
    async fn begin(&mut self, operation: &mut Operation) -> Result<(), EngineError> {
        let context = Arc::clone(&self.context);
        let mut attempts = Attempts::default();
        operation.state = OperationState::Running;
        loop {
            let mut draft = self.draft();
            draft.changes = self.admit(operation.verb, &attempts).await?;
            operation.updated_at_ms = context.now_ms();
            draft.operation(operation);
            self.supersede_restart(&mut draft, &format!("{} took its place", operation.id));
            match context.write(Effect::WriteRequested, draft.changes).await {
                Ok(_) => break,
                Err(error) if attempts.again(&context, &error).await => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.restart = None;
        Ok(())
    }

    /// Whether `verb` is legal now and, for a boot, allowed; what is to be written down of that.
    async fn admit(&self, verb: Verb, attempts: &Attempts<'_>) -> Result<Vec<Change>, EngineError> {
        transition::request(&self.record.state, verb).map_err(|illegal| {
            let after = None;
            Refusal::Illegal { illegal, after }
        })?;
        if matches!(verb, Verb::Boot | Verb::Reboot) {
            self.context.ending.check()?;
            descriptors::check(descriptors::of_boot(&self.record.spec))?;
        }
        if verb != Verb::Boot {
            return Ok(Vec::new());
        }
        let admitted = self.context.admit_boot(&self.record, attempts).await?;
        Ok(admitted.changes)
    }

    /// Ends the pending restart, if there is one; it is gone once that is committed.
    pub(crate) fn supersede_restart(&self, draft: &mut Draft, reason: &str) {
        let Some(PendingRestart {
            incident,
            operation,
        }) = &self.restart
        else {
            return;
        };
        draft.push(Change::PutIncident(Incident {
            closed: true,
            ..incident.clone()
        }));
        draft.cancel(&self.context, &mut operation.clone(), reason);
    }

    /// Calls off the restart that is pending, if it is this one: the VM stays failed.
    async fn cancel_restart(&mut self, operation: OperationId) -> Result<(), EngineError> {
        let pending = self.restart.as_ref().map(|restart| restart.operation.id);
        if pending != Some(operation) {
            return Err(NotCancellable::Superseded.into());
        }
        let mut draft = self.draft();
        draft.record.desired = DesiredState::Stopped;
        self.supersede_restart(&mut draft, journal::ON_REQUEST);
        self.commit(Effect::WriteCancelled, draft).await?;
        self.restart = None;
        Ok(())
    }

    async fn restart_now(
        &mut self,
        desk: &mut Desk,
        _place: OwnedSemaphorePermit,
    ) -> Result<(), CommitError> {
        if let Err(error) = descriptors::check(descriptors::of_boot(&self.record.spec)) {
            tracing::warn!(vm = %self.record.id, %error, "recovery waits for descriptors");
            if let Some(restart) = &mut self.restart {
                let pause = u64::try_from(DESCRIPTORS_RETRY.as_millis()).unwrap_or(u64::MAX);
                let again_ms = self.context.now_ms().saturating_add(pause);
                restart.operation.not_before_ms = Some(again_ms);
            }
            return Ok(());
        }
        let Some(PendingRestart {
            incident,
            mut operation,
        }) = self.restart.take()
        else {
            return Ok(());
        };
        operation.state = OperationState::Running;
        operation.updated_at_ms = self.context.now_ms();
        let changes = vec![
            Change::PutIncident(Incident {
                closed: true,
                ..incident
            }),
            Change::PutOperation(operation.clone()),
        ];
        self.context.write(Effect::WriteRestart, changes).await?;
        self.carry_out(desk, operation).await
    }

    pub(crate) fn attach(&mut self, handle: Arc<dyn VmHandle>) {
        *self.link.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&handle));
        self.handle = Some(handle);
    }

    pub(crate) fn detach(&mut self) {
        *self.link.0.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.handle = None;
    }
}

async fn next_event(handle: Option<&Arc<dyn VmHandle>>) -> HandleEvent {
    match handle {
        Some(handle) => handle.next_event().await,
        None => std::future::pending().await,
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Returns when the pending restart is due and has a place.
async fn due(context: &Context, restart: Option<&PendingRestart>) -> OwnedSemaphorePermit {
    if let Some(restart) = restart {
        let due_at_ms = restart.operation.not_before_ms.unwrap_or_default();
        let wait = due_at_ms.saturating_sub(context.now_ms());
        sleep(Duration::from_millis(wait)).await;
        context.ending.until_boots().await;
        if let Ok(place) = Arc::clone(&context.recoveries).acquire_owned().await {
            return place;
        }
    }
    // Without a restart; the semaphore is never closed.
    std::future::pending().await
}
