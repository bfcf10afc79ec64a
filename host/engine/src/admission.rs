//! Whether a VM may be let in, first by the node's limits and then by policy; and the calls of
//! policies that the other parts make.
//!
//! A policy call is short but not instant, and a hostile plugin makes it as long as its deadline;
//! so calls are made off the threads that serve requests.

use std::collections::HashMap;

use roost_model::{
    Amounts, CapacityExceeded, Claimed, CleanupTask, DecidedBy, Effect, VmId, VmRecord, VmSpec,
};
use roost_policy::{
    AdmissionDecision, AdmissionFacts, AdmissionRequest, BillingFacts, Charge, CleanupDecision,
    Decided, RecoveryDecision, RecoveryFacts,
};

use crate::actor::ActorRef;
use crate::context::Context;
use crate::descriptors;
use crate::error::EngineError;
use crate::facts;
use crate::images::blocking;
use crate::plugins::{About, Attempts, Recorded, Settled};

impl Context {
    /// Asks whether `record` may be created, and changes its spec to what is admitted. What is
    /// returned is written down with the record.
    pub(crate) async fn admit_create(
        &self,
        record: &mut VmRecord,
        attempts: &Attempts<'_>,
    ) -> Result<Settled<()>, EngineError> {
        self.ending.check()?;
        descriptors::check(descriptors::PER_REQUEST)?;
        // Nobody is asked about what there is no room for.
        self.with_actors(|actors| self.fits(actors, &record.spec))?;
        let settled = self
            .decide_admission(record, AdmissionRequest::Create, attempts)
            .await?;
        let mut spec = record.spec.clone();
        let (decision, settled) = settled.taken();
        let result = match decision {
            AdmissionDecision::AllowWith(change) => {
                facts::apply(&mut spec, change);
                spec.validate().map_err(EngineError::from)
            }
            decision => allowed(decision, &settled.by),
        };
        record.spec = spec;
        self.admitted(result, settled).await
    }

    /// Takes the place on the node of an admitted VM, before its record is written. Looking and
    /// taking are one step: parallel creates can't pass a limit together, nor can a policy that
    /// admits a VM with more than it asked for.
    pub(crate) fn take_place(
        &self,
        record: &VmRecord,
        reference: ActorRef,
    ) -> Result<(), CapacityExceeded> {
        self.with_actors(|actors| {
            self.fits(actors, &record.spec)?;
            actors.insert(record.id, reference);
            Ok(())
        })
    }

    /// Whether the limits let a VM of `spec` in beside those that are there.
    fn fits(
        &self,
        actors: &HashMap<VmId, ActorRef>,
        spec: &VmSpec,
    ) -> Result<(), CapacityExceeded> {
        let claims = actors.values().map(|actor| &*actor.claim);
        let claims = claims.map(|(tenant, amounts)| (tenant, amounts));
        let claimed = Claimed::sum(claims, &spec.tenant);
        self.config.capacity.check(&claimed, &Amounts::of(spec))
    }

    /// Asks whether `record` may be booted. What is returned is written down with the operation.
    pub(crate) async fn admit_boot(
        &self,
        record: &VmRecord,
        attempts: &Attempts<'_>,
    ) -> Result<Settled<()>, EngineError> {
        let settled = self
            .decide_admission(record, AdmissionRequest::Boot, attempts)
            .await?;
        let (decision, settled) = settled.taken();
        let result = allowed(decision, &settled.by);
        self.admitted(result, settled).await
    }

    /// A denial is written down by itself: it has no other effect.
    async fn admitted(
        &self,
        result: Result<(), EngineError>,
        settled: Settled<()>,
    ) -> Result<Settled<()>, EngineError> {
        if result.is_err() {
            self.write(Effect::WriteDenied, settled.changes.clone())
                .await?;
        }
        result.map(|()| settled)
    }

    async fn decide_admission(
        &self,
        record: &VmRecord,
        request: AdmissionRequest,
        attempts: &Attempts<'_>,
    ) -> Result<Settled<AdmissionDecision>, EngineError> {
        // Nobody is let in past a policy.
        if attempts.are_exhausted() {
            return Err(EngineError::Contended);
        }
        let facts: AdmissionFacts = facts::admission(self, record, request);
        let policies = self.policies.clone();
        let decided = blocking(move || policies.admission(facts)).await?;
        Ok(self.settle(About::vm(record), decided))
    }

    pub(crate) async fn decide_recovery(
        &self,
        facts: RecoveryFacts,
        about: About,
        attempts: &Attempts<'_>,
    ) -> Settled<RecoveryDecision> {
        let policies = self.policies.clone();
        let ask = move |facts| policies.recovery(facts);
        self.decide(facts, about, attempts, ask).await
    }

    pub(crate) async fn decide_billing(
        &self,
        facts: BillingFacts,
        about: About,
        attempts: &Attempts<'_>,
    ) -> Settled<Vec<Charge>> {
        let policies = self.policies.clone();
        let ask = move |facts| policies.billing(facts);
        self.decide(facts, about, attempts, ask).await
    }

    /// Asks the cleanup policy; `record` is absent where the VM is deleted already.
    pub(crate) async fn decide_cleanup(
        &self,
        task: &CleanupTask,
        record: Option<&VmRecord>,
        attempts: &Attempts<'_>,
    ) -> Settled<CleanupDecision> {
        let (facts, subject) = facts::cleanup(self, task, record);
        let about = About {
            vm: Some(task.vm),
            tenant: record.map(|record| record.spec.tenant.clone()),
            incarnation: None,
        };
        let policies = self.policies.clone();
        let ask = move |facts| policies.cleanup(facts, subject);
        self.decide(facts, about, attempts, ask).await
    }

    /// Asks off the threads that serve requests. The native policy decides where the runtime is
    /// going down, and where plugins' values changed under them too often.
    async fn decide<F, T>(
        &self,
        facts: F,
        about: About,
        attempts: &Attempts<'_>,
        ask: impl FnOnce(F) -> Decided<T> + Send + 'static,
    ) -> Settled<T>
    where
        F: Clone + Send + 'static,
        T: Recorded + Send + 'static,
        Decided<T>: From<F>,
    {
        let native = facts.clone();
        let decided = if attempts.are_exhausted() {
            tracing::error!(hook = %T::HOOK, "the native policy decides: plugins' values change too quickly");
            Decided::from(native)
        } else {
            let asked = blocking(move || ask(facts)).await;
            asked.unwrap_or_else(|_| Decided::from(native))
        };
        self.settle(about, decided)
    }
}

fn allowed(decision: AdmissionDecision, by: &DecidedBy) -> Result<(), EngineError> {
    match decision {
        AdmissionDecision::Allow => Ok(()),
        AdmissionDecision::Deny(reason) => {
            let by = match by {
                DecidedBy::Plugin { plugin, revision } => format!("{plugin} revision {revision}"),
                DecidedBy::Builtin => "the host".to_owned(),
            };
            Err(EngineError::Denied { by, reason })
        }
        AdmissionDecision::AllowWith(_) | AdmissionDecision::Other(_) => Err(EngineError::Denied {
            by: "the host".to_owned(),
            reason: "the admission policy gave an answer that this host does not know".to_owned(),
        }),
    }
}
