//! What a client may take.

use std::time::Duration;

/// Connections at once. Each costs a task, two small buffers and a descriptor.
pub(crate) const MAX_CONNECTIONS: usize = 512;
/// What part of the descriptors that the host may have open connections may take: the others are
/// for VMs.
pub(crate) const CONNECTIONS_SHARE: u64 = 4;
/// Time that a connection gets for which there is no descriptor to serve it: its answer is ready.
pub(crate) const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// Requests that are worked on at once, over all connections.
pub(crate) const MAX_REQUESTS: usize = 1024;
/// Time for a request's head to arrive.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between two pieces of a body.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Most that is read of a body after its request was refused, bytes.
pub(crate) const MAX_UNREAD_BYTES: usize = 64 << 20;
/// Time for that, and between two pieces of it.
pub(crate) const UNREAD_TIMEOUT: Duration = Duration::from_secs(5);
/// See [`UNREAD_TIMEOUT`].
pub(crate) const UNREAD_PIECE_TIMEOUT: Duration = Duration::from_millis(500);
/// Largest JSON body, bytes.
pub(crate) const MAX_JSON_BYTES: usize = 64 << 10;
/// Largest component, bytes; the policy runtime takes no larger one.
pub(crate) const MAX_COMPONENT_BYTES: usize = 64 << 20;
/// Bytes of a component that are read at a time to be sent.
pub(crate) const COMPONENT_PIECE_BYTES: usize = 64 << 10;
/// Bytes of a backup that are read at a time to be sent.
pub(crate) const BACKUP_PIECE_BYTES: usize = 32 << 10;
/// Largest image, bytes: kernels and initial RAM disks.
pub(crate) const MAX_IMAGE_BYTES: u64 = 4 << 30;
/// Largest piece of serial output in one answer, bytes: all that a worker keeps.
pub(crate) const MAX_SERIAL_BYTES: usize = 64 << 10;
/// Largest piece of serial input in one request, bytes.
pub(crate) const MAX_INPUT_BYTES: usize = 64 << 10;
/// Longest that a request may wait for an operation or for output.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(300);
/// Items in an answer that asks for no number.
pub(crate) const DEFAULT_ITEMS: usize = 1000;
/// Most items in one answer.
pub(crate) const MAX_ITEMS: usize = 10_000;
/// Longest that guests may take to end by themselves when the node drains, ms: what a shutdown of
/// one VM may give, too.
pub(crate) const MAX_DRAIN_DEADLINE_MS: u64 = 600_000;
