//! What can go wrong, as callers see it.

use roost_model::{
    ActionId, CapacityExceeded, CleanupId, Digest, ImageRef, IncidentId, InvalidSpec, MacAddress,
    Name, NotCancellable, OperationId, Refusal, Tenant, VmId,
};
use roost_policy::{LoadError, SettingsError};
use roost_store::{BlobError, CommitError, ReadError};
use roost_worker::tap::TapError;
use roost_worker::{ControlError, DiskError, InitrdError, KernelError};

use crate::descriptors::NoDescriptors;

/// Why the engine did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No such VM, or none that the caller may see.
    #[error("there is no VM {0:?}")]
    VmNotFound(String),
    /// No such operation.
    #[error("there is no operation {0}")]
    OperationNotFound(OperationId),
    /// No such action-required record, or it is resolved.
    #[error("there is no action-required record {0}, or it is resolved")]
    ActionNotFound(ActionId),
    /// No such cleanup task, or it is done.
    #[error("there is no cleanup task {0}, or it is done")]
    CleanupNotFound(CleanupId),
    /// No such incident.
    #[error("there is no incident {0}")]
    IncidentNotFound(IncidentId),
    /// What a person must do is not about a cleanup.
    #[error("{0} is not about a cleanup, so there is nothing to retry; resolve it with a note")]
    NotACleanup(ActionId),
    /// A note that says nothing, or too much.
    #[error("the note has {bytes} bytes; expected 1 to {limit}, and more than spaces")]
    Note {
        /// Its length.
        bytes: usize,
        /// The most.
        limit: usize,
    },
    /// The spec does not hold.
    #[error(transparent)]
    Spec(#[from] InvalidSpec),
    /// The image is not on this host.
    #[error("there is no image {0}; push it first")]
    ImageNotFound(ImageRef),
    /// The kernel image is not a kernel.
    #[error("the kernel {image} is refused: {source}")]
    Kernel {
        /// The image.
        image: Digest,
        /// What was read and what was expected.
        source: KernelError,
    },
    /// The initial RAM disk does not fit.
    #[error("the initrd {image} is refused: {source}")]
    Initrd {
        /// The image.
        image: Digest,
        /// What was read and what was expected.
        source: InitrdError,
    },
    /// A tag that is not `name:tag`.
    #[error(transparent)]
    Tag(#[from] roost_model::InvalidImageRef),
    /// The tenant has a VM of this name.
    #[error("tenant {tenant} has a VM named {name} already: {by}")]
    NameTaken {
        /// The tenant.
        tenant: Tenant,
        /// The name.
        name: Name,
        /// The VM that has it.
        by: VmId,
    },
    /// The MAC address is taken.
    #[error("the MAC address {mac} is taken by {}", .by.map_or("another interface of the same VM".to_owned(), |vm| vm.to_string()))]
    MacTaken {
        /// The address.
        mac: MacAddress,
        /// The VM that has it; absent where the spec itself has it twice.
        by: Option<VmId>,
    },
    /// The image is not a disk.
    #[error("disk {disk:?}: the image {image} has {bytes} bytes, {expected}")]
    DiskImage {
        /// The disk.
        disk: Name,
        /// The image.
        image: Digest,
        /// Its size.
        bytes: u64,
        /// What was expected.
        expected: &'static str,
    },
    /// The VM would have passed a limit of the host.
    #[error(transparent)]
    Capacity(#[from] CapacityExceeded),
    /// This process may not open as many files as that needs.
    #[error(transparent)]
    Descriptors(#[from] NoDescriptors),
    /// The admission policy said no.
    #[error("denied by {by}: {reason}")]
    Denied {
        /// Which policy.
        by: String,
        /// Why, in its words.
        reason: String,
    },
    /// The verb can't be done, or not now.
    #[error(transparent)]
    Refusal(#[from] Refusal),
    /// The operation can't be called off.
    #[error(transparent)]
    NotCancellable(#[from] NotCancellable),
    /// The VM has no worker to talk to.
    #[error("the VM is {state}; it takes input only while it runs")]
    NotRunning {
        /// Its state.
        state: String,
    },
    /// The component is refused.
    #[error("the component is refused: {0}")]
    Component(#[from] LoadError),
    /// The settings are refused by the plugin.
    #[error("the settings are refused: {0}")]
    Settings(#[from] SettingsError),
    /// A pushed component, or its settings, are refused; the revision is kept with the reason.
    #[error("{source}")]
    Refused {
        /// The revision.
        revision: u64,
        /// Why.
        source: Box<EngineError>,
    },
    /// No plugin of this name.
    #[error("there is no plugin {0}")]
    PluginNotFound(Name),
    /// The plugin has no such revision.
    #[error("plugin {plugin} has no revision {revision}")]
    RevisionNotFound {
        /// The plugin.
        plugin: Name,
        /// The revision.
        revision: u64,
    },
    /// The binding asks for something that the plugin does not decide.
    #[error("plugin {plugin} does not export {hook}")]
    NotExported {
        /// The plugin.
        plugin: Name,
        /// The hook.
        hook: roost_model::Hook,
    },
    /// No such binding.
    #[error("plugin {plugin} is not bound to {hook}")]
    BindingNotFound {
        /// The plugin.
        plugin: Name,
        /// The hook.
        hook: roost_model::Hook,
    },
    /// The plugin has no active revision, so a binding would do nothing.
    #[error("plugin {0} has no active revision; activate one first")]
    NotActive(Name),
    /// What a device needs could not be opened or made.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The revision is not in a state in which it can be used for that.
    #[error("revision {revision} of plugin {plugin} is {state}")]
    RevisionNotUsable {
        /// The plugin.
        plugin: Name,
        /// The revision.
        revision: u64,
        /// Its state.
        state: &'static str,
    },
    /// The plugin has no revision that passed its checks.
    #[error("plugin {0} has no revision that passed its checks")]
    NothingUsable(Name),
    /// The revision does not export what the plugin is bound to.
    #[error(
        "revision {revision} of plugin {plugin} does not export {hook}, to which the plugin is \
         bound; unbind it first"
    )]
    HookBound {
        /// The plugin.
        plugin: Name,
        /// The revision.
        revision: u64,
        /// The hook.
        hook: roost_model::Hook,
    },
    /// No revision was active before.
    #[error("plugin {0} has had one active revision only; there is none to go back to")]
    NothingToRollBack(Name),
    /// The component of a refused revision is not kept.
    #[error("the component of revision {revision} of plugin {plugin} is not kept")]
    ComponentNotKept {
        /// The plugin.
        plugin: Name,
        /// The revision.
        revision: u64,
    },
    /// No such decision, or it is forgotten.
    #[error("there is no decision {0}, or it is not kept any more")]
    DecisionNotFound(u64),
    /// Another replay runs.
    #[error("another replay runs; try again when it is done")]
    ReplayBusy,
    /// The values of a plugin changed again and again while it decided.
    #[error("the values that plugins decide from change too quickly; try again")]
    Contended,
    /// The metrics could not be made.
    #[error("the metrics: {0}")]
    Metrics(String),
    /// The worker did not do what it was told.
    #[error("{by}{0}", by = by_worker(.0))]
    Worker(#[from] ControlError),
    /// The store could not be read.
    #[error("the store: {0}")]
    Read(#[from] ReadError),
    /// The store could not be written.
    #[error("the store: {0}")]
    Commit(#[from] CommitError),
    /// An image or a component could not be read or written.
    #[error("the image store: {0}")]
    Blob(#[from] BlobError),
    /// The node is draining.
    #[error(
        "the node is draining: it takes no new VMs and boots none until `roost drain --cancel`"
    )]
    Draining,
    /// The engine is shutting down.
    #[error("the host is shutting down")]
    ShuttingDown,
}

impl EngineError {
    /// A stable name of the kind of error, for programs.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        if self.is_no_descriptors() {
            return "no-descriptors";
        }
        match self {
            Self::Descriptors(_) => "no-descriptors",
            Self::VmNotFound(_) => "vm-not-found",
            Self::OperationNotFound(_) => "operation-not-found",
            Self::ActionNotFound(_) => "action-not-found",
            Self::CleanupNotFound(_) => "cleanup-not-found",
            Self::IncidentNotFound(_) => "incident-not-found",
            Self::NotACleanup(_) => "not-a-cleanup",
            Self::Note { .. } => "invalid-note",
            Self::Spec(_) => "invalid-spec",
            Self::ImageNotFound(_) => "image-not-found",
            Self::Kernel { .. } => "invalid-kernel",
            Self::Initrd { .. } => "invalid-initrd",
            Self::Tag(_) => "invalid-tag",
            Self::NameTaken { .. } => "name-taken",
            Self::MacTaken { .. } => "mac-taken",
            Self::DiskImage { .. } => "invalid-disk-image",
            Self::Capacity(_) => "capacity-exceeded",
            Self::Denied { .. } => "denied",
            Self::Refusal(Refusal::Illegal { .. }) => "illegal-verb",
            Self::Refusal(Refusal::Full { .. }) => "busy",
            Self::Refusal(Refusal::Deleting { .. }) => "being-deleted",
            Self::NotCancellable(NotCancellable::Over(_)) => "operation-over",
            Self::NotCancellable(_) => "not-cancellable",
            Self::NotRunning { .. } => "not-running",
            Self::Component(_) => "invalid-component",
            Self::Settings(_) => "invalid-settings",
            Self::Refused { source, .. } => source.kind(),
            Self::RevisionNotUsable { .. } => "revision-not-usable",
            Self::NothingUsable(_) => "no-usable-revision",
            Self::HookBound { .. } => "hook-bound",
            Self::NothingToRollBack(_) => "nothing-to-roll-back",
            Self::ComponentNotKept { .. } => "component-not-kept",
            Self::DecisionNotFound(_) => "decision-not-found",
            Self::ReplayBusy => "replay-busy",
            Self::Contended => "contended",
            Self::Metrics(_) => "metrics",
            Self::PluginNotFound(_) => "plugin-not-found",
            Self::RevisionNotFound { .. } => "revision-not-found",
            Self::NotExported { .. } => "hook-not-exported",
            Self::BindingNotFound { .. } => "binding-not-found",
            Self::NotActive(_) => "plugin-not-active",
            Self::Device(_) => "device",
            Self::Worker(ControlError::NoPort { ports, .. }) if ports.is_empty() => "no-console",
            Self::Worker(ControlError::NoPort { .. }) => "console-port-not-found",
            Self::Worker(ControlError::NotATerminal(_)) => "not-a-terminal",
            Self::Worker(ControlError::Unsupported { .. }) => "worker-too-old",
            Self::Worker(_) => "worker",
            Self::Commit(CommitError::ReadOnly { .. }) => "store-read-only",
            Self::Read(_) | Self::Commit(_) => "store",
            Self::Blob(BlobError::TooLarge { .. }) => "too-large",
            Self::Blob(BlobError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::StorageFull =>
            {
                "no-space"
            }
            Self::Blob(_) => "image-store",
            Self::Draining => "draining",
            Self::ShuttingDown => "shutting-down",
        }
    }
}

/// What is told before a worker's error: nothing where it is about what was asked for.
const fn by_worker(error: &ControlError) -> &'static str {
    match error {
        ControlError::NoPort { .. } | ControlError::NotATerminal(_) => "",
        _ => "the worker: ",
    }
}

/// What a device needs can't be had.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The file of a disk.
    #[error("the file of disk {disk:?}: {source}")]
    DiskFile {
        /// The disk.
        disk: Name,
        /// Why.
        source: std::io::Error,
    },
    /// The layer over a disk's image.
    #[error("the layer of disk {disk:?}: {source}")]
    Layer {
        /// The disk.
        disk: Name,
        /// Why.
        source: DiskError,
    },
    /// The TAP of a network interface.
    #[error("the TAP of network {network:?}: {source}")]
    Network {
        /// The interface.
        network: Name,
        /// Why.
        source: TapError,
    },
    /// The socket of the vsock device.
    #[error("the socket for vsock: {0}")]
    Vsock(std::io::Error),
}

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The run directory can't be used.
    #[error("the run directory {path} can't be used: {source}")]
    RunDirectory {
        /// Where.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There are VMs that run, and this process could not take them all over.
    #[error(
        "to take over the VMs that run ({vms}), this host needs {needed} open files, and it may have \
         {most} (RLIMIT_NOFILE): raise the limit"
    )]
    Descriptors {
        /// How many VMs.
        vms: u64,
        /// How many files.
        needed: u64,
        /// The limit.
        most: u64,
    },
    /// Something in the store or among the bundled policies.
    #[error(transparent)]
    Engine(#[from] EngineError),
}
