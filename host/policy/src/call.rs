//! One call: an instance, its limits, and what becomes of its end.

use std::time::Duration;

use wasmtime::component::{Instance, InstancePre};
use wasmtime::{ResourceLimiter, Store, Trap, UpdateDeadline, WasmCoreDump};

use crate::access::{Access, HostFault};
use crate::deadline::{Deadline, FIRST_LOOK, Verdict};
use crate::error::CallError;
use crate::exports::Taken;
use crate::record::{KvChanges, LogLine};
use crate::runtime::{CallLimits, MAX_TABLE_ELEMENTS, PolicyRuntime};
use crate::services::Caller;
use crate::text::clean;
use crate::{autopsy, wasi};

/// What an instance's store holds: its limits, whether it ran into them, and its imports.
pub(crate) struct CallState {
    /// What all memories together may still grow by.
    memory_left: usize,
    denied: bool,
    deadline: Deadline,
    pub(crate) access: Access,
    pub(crate) wasi: wasi::State,
}

impl CallState {
    fn new(memory_bytes: usize, deadline: Deadline) -> Self {
        Self {
            memory_left: memory_bytes,
            denied: false,
            deadline,
            access: Access::default(),
            wasi: wasi::State::default(),
        }
    }
}

impl ResourceLimiter for CallState {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // A growth that is granted and then fails stays counted: that errs on the safe side.
        let left = self
            .memory_left
            .checked_sub(desired.saturating_sub(current));
        self.denied |= left.is_none();
        self.memory_left = left.unwrap_or(self.memory_left);
        Ok(left.is_some())
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let granted = desired <= MAX_TABLE_ELEMENTS;
        self.denied |= !granted;
        Ok(granted)
    }
}

/// What a call took and left, whether it worked or not.
#[derive(Debug, Default)]
pub(crate) struct CallUsage {
    pub(crate) memory_bytes: u64,
    /// CPU time of the thread that made the call; of one that ended within a millisecond, the time
    /// that it took.
    pub(crate) cpu: Duration,
    pub(crate) log: Vec<LogLine>,
    pub(crate) kv: KvChanges,
}

/// What came of a call.
pub(crate) struct Answer<T> {
    pub(crate) result: Result<T, CallError>,
    pub(crate) usage: CallUsage,
}

impl<T> Answer<T> {
    pub(crate) fn failed(error: CallError) -> Self {
        Self {
            result: Err(error),
            usage: CallUsage::default(),
        }
    }
}

/// The circumstances of a call.
#[derive(Default)]
pub(crate) struct Scope {
    /// For whom the host is asked; none while a component is loaded.
    pub(crate) caller: Option<Caller>,
    /// The time and the randomness of those that ask WASI for them.
    pub(crate) now_ms: u64,
    pub(crate) seed: u64,
}

/// An instance that can be called.
pub(crate) struct Live {
    pub(crate) store: Store<CallState>,
    pub(crate) instance: Instance,
    /// What was taken from the instance.
    pub(crate) taken: Taken,
    limit_bytes: usize,
    pub(crate) uses: u32,
}

impl Live {
    /// Instantiates; the component's start functions run, within the deadline.
    fn new(
        runtime: &PolicyRuntime,
        plugin: &InstancePre<CallState>,
        deadline: Duration,
        scope: Scope,
    ) -> Result<Self, Box<Answer<()>>> {
        let limits = runtime.shared.limits;
        let state = CallState::new(limits.memory_bytes, Deadline::new(deadline, limits.slack));
        let mut store = Store::new(&runtime.shared.engine, state);
        store.limiter(|state| state);
        store.epoch_deadline_callback(|mut store| {
            Ok(match store.data_mut().deadline.look() {
                Verdict::Continue(epochs) => UpdateDeadline::Continue(epochs),
                Verdict::Late | Verdict::Starved => UpdateDeadline::Interrupt,
            })
        });
        begin(&mut store, runtime, scope);
        match plugin.instantiate(&mut store) {
            Ok(instance) => Ok(Self {
                store,
                instance,
                taken: Taken::default(),
                limit_bytes: limits.memory_bytes,
                uses: 0,
            }),
            Err(error) => {
                let error = explain(&mut store, &error, deadline, limits, Phase::Instantiate);
                let usage = usage(&mut store, limits.memory_bytes);
                let result = Err(error);
                Err(Box::new(Answer { result, usage }))
            }
        }
    }

    /// Calls. After an error the instance must be dropped.
    fn call<T>(
        &mut self,
        limits: CallLimits,
        deadline: Duration,
        ask: impl FnOnce(&mut Self) -> wasmtime::Result<T>,
    ) -> Answer<T> {
        self.uses += 1;
        let result = ask(self)
            .map_err(|error| explain(&mut self.store, &error, deadline, limits, Phase::Call));
        let usage = usage(&mut self.store, self.limit_bytes);
        Answer { result, usage }
    }

    /// Whether it has so much memory left that another call should not fail for want of it.
    pub(crate) fn is_roomy(&self) -> bool {
        self.store.data().memory_left >= self.limit_bytes / 2
    }
}

/// Sets the limits of what comes next.
fn begin(store: &mut Store<CallState>, runtime: &PolicyRuntime, scope: Scope) {
    store.set_epoch_deadline(FIRST_LOOK);
    store.set_hostcall_fuel(runtime.shared.limits.answer_bytes);
    let state = store.data_mut();
    state.denied = false;
    state.wasi.begin(scope.now_ms, scope.seed);
    state
        .access
        .begin(runtime.shared.services.as_ref(), scope.caller);
}

fn usage(store: &mut Store<CallState>, limit_bytes: usize) -> CallUsage {
    let state = store.data_mut();
    let used = limit_bytes.saturating_sub(state.memory_left);
    let (log, kv) = state.access.end();
    CallUsage {
        memory_bytes: u64::try_from(used).unwrap_or(u64::MAX),
        cpu: state.deadline.cpu(),
        log,
        kv,
    }
}

/// Instantiates, calls `ask`, and throws the instance away.
pub(crate) fn call<T>(
    runtime: &PolicyRuntime,
    deadline: Duration,
    plugin: &InstancePre<CallState>,
    scope: Scope,
    ask: impl FnOnce(&mut Live) -> wasmtime::Result<T>,
) -> Answer<T> {
    let _permit = runtime.shared.gate.enter();
    match Live::new(runtime, plugin, deadline, scope) {
        Ok(mut live) => live.call(runtime.shared.limits, deadline, ask),
        Err(answer) => answer.retyped(),
    }
}

/// Calls `ask` on a kept instance, or on a new one, which is kept if its answer passes `check`.
pub(crate) fn call_warm<T>(
    runtime: &PolicyRuntime,
    plugin: &InstancePre<CallState>,
    scope: Scope,
    key: &crate::warm::Key,
    ask: impl FnOnce(&mut Live) -> wasmtime::Result<T>,
    check: impl FnOnce(T) -> Result<T, CallError>,
) -> Answer<T> {
    let shared = &runtime.shared;
    let deadline = shared.limits.deadline;
    let _permit = shared.gate.enter();
    let live = match shared.warm.take(key) {
        Some(mut live) => {
            live.store.data_mut().deadline = Deadline::new(deadline, shared.limits.slack);
            begin(&mut live.store, runtime, scope);
            Ok(live)
        }
        None => Live::new(runtime, plugin, deadline, scope),
    };
    match live {
        Ok(mut live) => {
            let mut answer = live.call(shared.limits, deadline, ask);
            answer.result = answer.result.and_then(check);
            if answer.result.is_ok() {
                shared.warm.put(key, live);
            }
            answer
        }
        Err(answer) => answer.retyped(),
    }
}

impl Answer<()> {
    /// A failure, as the failure of a call that answers with something else.
    fn retyped<T>(self) -> Answer<T> {
        let error = match self.result {
            Err(error) => error,
            Ok(()) => CallError::Host("it was not called".to_owned()),
        };
        Answer {
            result: Err(error),
            usage: self.usage,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Instantiate,
    Call,
}

/// What an error of wasmtime's says about whose fault it is.
fn explain(
    store: &mut Store<CallState>,
    error: &wasmtime::Error,
    deadline: Duration,
    limits: CallLimits,
    phase: Phase,
) -> CallError {
    let limit_bytes = limits.memory_bytes;
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) if store.data().deadline.is_starved() => {
            let cpu = store.data().deadline.cpu();
            return CallError::Starved { deadline, cpu };
        }
        Some(Trap::Interrupt) => return CallError::Deadline(deadline),
        _ if store.data().denied => return CallError::Memory { limit_bytes },
        Some(trap) => {
            let dump = error.downcast_ref::<WasmCoreDump>();
            return CallError::Trap {
                code: autopsy::code_of(*trap),
                text: autopsy::text_of(store, *trap, dump),
            };
        }
        None => {}
    }
    let text = clean(&format!("{:#}", error.root_cause()));
    if error.is::<HostFault>() || phase == Phase::Instantiate {
        CallError::Host(text)
    } else {
        // Not a trap and not ours: what it gave to the host, or answered, can't be read.
        CallError::Nonsense(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(memory_bytes: usize) -> CallState {
        CallState::new(memory_bytes, Deadline::new(Duration::ZERO, Duration::ZERO))
    }

    #[test]
    fn all_memories_of_a_component_share_one_limit() {
        let mut state = state(100);
        assert!(state.memory_growing(0, 60, None).unwrap());
        assert!(!state.memory_growing(0, 60, None).unwrap());
        assert!(state.denied);
        assert!(state.memory_growing(60, 100, None).unwrap());
        assert!(!state.memory_growing(0, 1, None).unwrap());
    }

    #[test]
    fn tables_are_limited() {
        let mut state = state(0);
        assert!(state.table_growing(0, MAX_TABLE_ELEMENTS, None).unwrap());
        assert!(
            !state
                .table_growing(0, MAX_TABLE_ELEMENTS + 1, None)
                .unwrap()
        );
        assert!(state.denied);
    }
}
