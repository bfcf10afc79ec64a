//! What can't be called off, and why.

use crate::{Origin, Verb};

/// Why an operation is not cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotCancellable {
    /// It is over.
    #[error("it has {0} already")]
    Over(&'static str),
    /// It has come too far.
    #[error("{0} can't be cancelled any more: {why}", why = too_far(*.0))]
    TooFar(Verb),
    /// A VM is shut down because the node is emptied, which is to be called off as a whole.
    #[error("the node is being emptied; {}", emptied(*.0))]
    Emptied(Origin),
    /// Another operation is about to take its place.
    #[error("another operation takes its place")]
    Superseded,
}

/// How to have VMs run, whoever empties the node.
const fn emptied(origin: Origin) -> &'static str {
    match origin {
        Origin::Host => "the next host boots the VM again",
        _ => "end the drain instead, and boot the VM again",
    }
}

/// Why a verb that is under way goes on. Only a boot whose vCPUs do not run yet can be undone, and
/// only a guest that is still waited for can be left running.
const fn too_far(verb: Verb) -> &'static str {
    match verb {
        Verb::Create => "the VM is there; delete it instead",
        Verb::Boot => "the guest runs; shut it down instead",
        Verb::Shutdown | Verb::Reboot => "the guest is being stopped, and what it had is lost",
        Verb::Pause => "it takes but a moment; resume the VM instead",
        Verb::Resume => "it takes but a moment; pause the VM instead",
        Verb::Delete => "what is removed can't be brought back",
    }
}
