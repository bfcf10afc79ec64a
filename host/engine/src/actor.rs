//! One VM's owner: takes requests one at a time, watches the worker, keeps the usage window.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use roost_model::{
    Amounts, Effect, Grace, Incident, OpenWindow, Operation, Origin, Tenant, Verb, VmRecord,
    transition,
};
use roost_store::{Change, CommitError};
use roost_worker::{HandleEvent, VmHandle};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use crate::audit::Inspection;
use crate::context::Context;
use crate::error::EngineError;
use crate::journal;
use crate::plugins::Attempts;

/// Requests that may wait for one VM. A person or a controller needs two or three.
pub(crate) const MAX_WAITING_REQUESTS: usize = 16;

/// How long to wait before a write that the store refused is tried again.
const STORE_RETRY: Duration = Duration::from_secs(1);

pub(crate) enum Message {
    Submit {
        verb: Verb,
        grace: Option<Grace>,
        reply: oneshot::Sender<Result<Operation, EngineError>>,
    },
}

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
    /// Hands `verb` to the actor; returns once the operation is journaled or refused.
    pub(crate) async fn submit(
        &self,
        verb: Verb,
        grace: Option<Grace>,
    ) -> Result<Operation, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.mailbox
            .try_send(Message::Submit { verb, grace, reply })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => EngineError::Busy(MAX_WAITING_REQUESTS),
                mpsc::error::TrySendError::Closed(_) => EngineError::ShuttingDown,
            })?;
        answer.await.map_err(|_| EngineError::ShuttingDown)?
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
    pub(crate) due_at_ms: u64,
}

pub(crate) struct Actor {
    pub(crate) context: Arc<Context>,
    pub(crate) record: VmRecord,
    pub(crate) handle: Option<Arc<dyn VmHandle>>,
    pub(crate) window: Option<OpenWindow>,
    pub(crate) restart: Option<PendingRestart>,
    pub(crate) deleted: bool,
    /// Requests in a row that the worker did not answer.
    pub(crate) unanswered: u32,
    pub(crate) has_worker: Arc<AtomicBool>,
    link: Arc<Link>,
    mailbox: mpsc::Receiver<Message>,
    inspections: mpsc::Receiver<Inspection>,
    ended: watch::Sender<u64>,
}

impl Actor {
    pub(crate) fn new(context: Arc<Context>, record: VmRecord) -> (Self, ActorRef) {
        let (sender, mailbox) = mpsc::channel(MAX_WAITING_REQUESTS);
        let (inspections_sender, inspections) = mpsc::channel(1);
        let (ended, ended_receiver) = watch::channel(0);
        let link = Arc::new(Link::default());
        let has_worker = Arc::new(AtomicBool::new(record.state.has_worker()));
        let reference = ActorRef {
            mailbox: sender,
            inspections: inspections_sender,
            link: Arc::clone(&link),
            ended: ended_receiver,
            claim: Arc::new((record.spec.tenant.clone(), Amounts::of(&record.spec))),
            has_worker: Arc::clone(&has_worker),
        };
        let actor = Self {
            context,
            record,
            handle: None,
            window: None,
            restart: None,
            deleted: false,
            unanswered: 0,
            has_worker,
            link,
            mailbox,
            inspections,
            ended,
        };
        (actor, reference)
    }

    /// Runs until the VM is deleted or the host shuts down.
    pub(crate) async fn run(mut self) {
        let period = self.context.config.counter_interval;
        let mut counters_due = interval_at(Instant::now() + period, period);
        counters_due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.deleted {
            let result = tokio::select! {
                biased;
                event = next_event(self.handle.as_ref()) => self.settle(event).await,
                message = self.mailbox.recv() => match message {
                    Some(Message::Submit { verb, grace, reply }) => {
                        self.accept(verb, grace, reply).await
                    }
                    None => break,
                },
                () = until(&self.context, self.restart.as_ref()) => self.restart_now().await,
                Some(inspection) = self.inspections.recv() => self.inspected(inspection).await,
                _ = counters_due.tick(), if self.handle.is_some() => self.read_counters().await,
            };
            if let Err(error) = result {
                tracing::error!(vm = %self.record.id, %error, "a step could not be journaled");
            }
        }
        self.detach();
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

    async fn accept(
        &mut self,
        verb: Verb,
        grace: Option<Grace>,
        reply: oneshot::Sender<Result<Operation, EngineError>>,
    ) -> Result<(), CommitError> {
        let mut operation = match self.journal(verb, grace).await {
            Ok(operation) => operation,
            Err(error) => {
                // A caller that went away does not want the answer.
                let _ = reply.send(Err(error));
                return Ok(());
            }
        };
        self.restart = None;
        let _ = reply.send(Ok(operation.clone()));
        let result = self.perform(&mut operation).await;
        self.announce_end();
        result
    }

    /// Writes down that `verb` is to be carried out, with the decision that allows it.
    async fn journal(&self, verb: Verb, grace: Option<Grace>) -> Result<Operation, EngineError> {
        let context = &self.context;
        let mut attempts = Attempts::default();
        loop {
            let admitted = self.admit(verb, &attempts).await;
            let committed = match admitted {
                Err(EngineError::Commit(error)) => Err(error),
                Err(error) => return Err(error),
                Ok(mut changes) => {
                    let mut operation =
                        journal::operation(context, self.record.id, verb, Origin::User);
                    operation.grace = grace;
                    changes.push(Change::PutOperation(operation.clone()));
                    if let Some(PendingRestart { incident, .. }) = &self.restart {
                        changes.push(Change::PutIncident(Incident {
                            closed: true,
                            ..incident.clone()
                        }));
                    }
                    let written = context.write(Effect::WriteRequested, changes).await;
                    written.map(|_| operation)
                }
            };
            match committed {
                Ok(operation) => return Ok(operation),
                Err(error) if attempts.again(context, &error).await => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether `verb` is legal now and, for a boot, allowed; what is to be written down of that.
    async fn admit(&self, verb: Verb, attempts: &Attempts<'_>) -> Result<Vec<Change>, EngineError> {
        transition::request(&self.record.state, verb)?;
        if verb != Verb::Boot {
            return Ok(Vec::new());
        }
        let admitted = self.context.admit_boot(&self.record, attempts).await?;
        Ok(admitted.changes)
    }

    /// Takes all steps of a journaled operation.
    async fn perform(&mut self, operation: &mut Operation) -> Result<(), CommitError> {
        match operation.verb {
            // Creating is one commit, made before there is an actor.
            Verb::Create => Ok(()),
            Verb::Boot => self.boot(operation, 0).await,
            Verb::Shutdown => self.shutdown(operation).await,
            Verb::Pause => self.pause(operation).await,
            Verb::Resume => self.resume(operation).await,
            Verb::Reboot => self.reboot(operation).await,
            Verb::Delete => self.delete(operation).await,
        }
    }

    /// Wakes whoever waits for an operation of this VM.
    pub(crate) fn announce_end(&self) {
        self.ended.send_modify(|count| *count += 1);
    }

    pub(crate) fn attach(&mut self, handle: Arc<dyn VmHandle>) {
        *self.link.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&handle));
        self.handle = Some(handle);
    }

    pub(crate) fn detach(&mut self) {
        *self.link.0.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.handle = None;
    }

    async fn restart_now(&mut self) -> Result<(), CommitError> {
        let context = Arc::clone(&self.context);
        // It is never closed.
        let _place = context.recoveries.acquire().await;
        let Some(PendingRestart { incident, .. }) = self.restart.take() else {
            return Ok(());
        };
        let mut operation =
            journal::operation(&self.context, self.record.id, Verb::Boot, Origin::Recovery);
        let changes = vec![
            Change::PutIncident(Incident {
                closed: true,
                ..incident
            }),
            Change::PutOperation(operation.clone()),
        ];
        self.context.write(Effect::WriteRestart, changes).await?;
        let attempts = self.record.recovery_attempts.saturating_add(1);
        let result = self.boot(&mut operation, attempts).await;
        self.announce_end();
        result
    }
}

async fn next_event(handle: Option<&Arc<dyn VmHandle>>) -> HandleEvent {
    match handle {
        Some(handle) => handle.next_event().await,
        None => std::future::pending().await,
    }
}

async fn until(context: &Context, restart: Option<&PendingRestart>) {
    match restart {
        Some(restart) => {
            let wait = restart.due_at_ms.saturating_sub(context.now_ms());
            sleep(Duration::from_millis(wait)).await;
        }
        None => std::future::pending().await,
    }
}
