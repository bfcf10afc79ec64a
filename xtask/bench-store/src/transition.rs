//! What is committed: a VM's record with its next revision, a journaled operation, an event.

use anyhow::Result;
use roost_model::{EventKind, NewEvent, Operation, OperationId, OperationState, VmId, VmRecord};
use uuid::Uuid;

/// A record and an operation, as a host writes them.
const RECORD: &str = r#"{"id":"vm-00000000000000000000000000000001","spec":{"name":"a",
    "tenant":"default","labels":{"tier":"web"},"vcpus":1,"memory_mib":128,
    "kernel":"sha256:0101010101010101010101010101010101010101010101010101010101010101",
    "initrd":"initrd:1","cmdline":"console=ttyS0"},
    "kernel":"sha256:0101010101010101010101010101010101010101010101010101010101010101",
    "initrd":"sha256:0202020202020202020202020202020202020202020202020202020202020202",
    "desired":"running","state":"running","incarnation":1,"revision":1,
    "worker":{"incarnation":1,"nonce":"00000000000000000000000000000000","pid":7,
    "start_ticks":12345},"recovery_attempts":0,"created_at_ms":1,"updated_at_ms":2}"#;
const OPERATION: &str = r#"{"id":"op-00000000000000000000000000000001",
    "vm":"vm-00000000000000000000000000000001","verb":"boot","status":"running",
    "steps":[{"step":"start-worker","state":"done","at_ms":3},
    {"step":"run-vcpus","state":"intended","at_ms":3}],"created_at_ms":1,"updated_at_ms":2}"#;

/// Commits of one operation: started, worker there, done.
const COMMITS_OF_AN_OPERATION: u64 = 3;

/// What one writer commits.
pub(crate) struct Writer {
    number: u128,
    record: VmRecord,
    operation: Operation,
}

/// One commit.
pub(crate) struct Transition {
    /// The record that replaces the one of the revision before.
    pub(crate) record: VmRecord,
    pub(crate) operation: Operation,
    pub(crate) event: NewEvent,
}

impl Writer {
    /// The writer of VM `number`, from 1.
    pub(crate) fn new(number: usize) -> Result<Self> {
        let number = number as u128;
        let mut record: VmRecord = serde_json::from_str(RECORD)?;
        record.id = VmId::from_uuid(Uuid::from_u128(number));
        record.spec.name = format!("vm-{number}").parse()?;
        let mut operation: Operation = serde_json::from_str(OPERATION)?;
        operation.vm = record.id;
        Ok(Self {
            number,
            record,
            operation,
        })
    }

    /// The VM's first record.
    pub(crate) fn created(&self) -> VmRecord {
        self.record.clone()
    }

    /// The next transition.
    pub(crate) fn step(&mut self) -> Transition {
        let done = self.record.revision;
        self.record.revision += 1;
        self.record.updated_at_ms += 1;
        let operation = u128::from(done / COMMITS_OF_AN_OPERATION);
        self.operation.id = OperationId::from_uuid(Uuid::from_u128(operation << 32 | self.number));
        self.operation.state = if (done + 1).is_multiple_of(COMMITS_OF_AN_OPERATION) {
            OperationState::Succeeded
        } else {
            OperationState::Running
        };
        let kind = EventKind::StateChanged {
            from: "starting".to_owned(),
            to: "running".to_owned(),
        };
        Transition {
            record: self.record.clone(),
            operation: self.operation.clone(),
            event: NewEvent {
                at_ms: self.record.updated_at_ms,
                vm: Some(self.record.id),
                tenant: Some(self.record.spec.tenant.clone()),
                incarnation: Some(1),
                kind,
            },
        }
    }
}
