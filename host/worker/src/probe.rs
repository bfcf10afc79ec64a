//! Being told of every effect of a launch, for tests that let a host die there.

use std::fmt;

use roost_model::{Effect, Moment};

/// Is told of each effect that a [`crate::WorkerBackend`] has on the node, before and after. It may
/// not return.
pub trait Probe: fmt::Debug + Send + Sync {
    /// `effect` is about to come, or has come.
    fn reach(&self, effect: Effect, moment: Moment);

    /// A worker process was started.
    fn spawned(&self, pid: u32);
}

/// No probe.
impl Probe for () {
    fn reach(&self, _: Effect, _: Moment) {}

    fn spawned(&self, _: u32) {}
}

impl dyn Probe {
    /// Does `work`, which is `effect`.
    pub(crate) fn around<T>(&self, effect: Effect, work: impl FnOnce() -> T) -> T {
        self.reach(effect, Moment::Before);
        let result = work();
        self.reach(effect, Moment::After);
        result
    }
}
