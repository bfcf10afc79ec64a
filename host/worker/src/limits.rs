//! Every limit of this crate, with its reason.

use std::time::Duration;

/// Longest frame of the control protocol, both ways, bytes without the length prefix. Four times
/// the serial ring of 64 KiB leaves room for base64 and for larger rings.
pub(crate) const MAX_FRAME_BYTES: usize = 256 << 10;

/// Longest frame from a peer that has not said hello properly: a hello is below 200 bytes.
pub(crate) const MAX_HELLO_BYTES: usize = 4 << 10;

/// Serial bytes in one frame: base64 makes 171 KiB of them.
pub(crate) const MAX_SERIAL_BYTES: usize = 128 << 10;

/// Longest configuration that a worker takes, bytes. The command line is at most 2,047 bytes
/// (`roost_model::limits`), and JSON may take six bytes for one of them.
pub(crate) const MAX_CONFIG_BYTES: usize = 16 << 10;

/// Connections that a worker holds at once: the host's, one that is about to replace it, and two
/// that are not who they should be and time out.
pub(crate) const MAX_CONNECTIONS: usize = 4;

/// How long a worker waits for a peer's hello.
pub(crate) const HELLO_DEADLINE: Duration = Duration::from_secs(5);

/// How long a peer may take over the rest of a frame that it began, or over reading what it was
/// sent.
pub(crate) const PROGRESS_DEADLINE: Duration = Duration::from_secs(10);

/// Bytes that wait for a peer to read them, beyond which the worker takes no more requests from
/// it: one frame.
pub(crate) const MAX_PENDING_OUTPUT_BYTES: usize = MAX_FRAME_BYTES;

/// How long a worker that failed to build its VM waits for a host to tell.
pub(crate) const BUILD_FAILURE_LINGER: Duration = Duration::from_secs(60);

/// How long a worker that was told to quit tries to deliver its last answer.
pub(crate) const FAREWELL_DEADLINE: Duration = Duration::from_secs(1);

/// Lifecycle events in one incarnation. There is one kind, told once; more is a broken worker.
pub(crate) const MAX_EVENTS: u64 = 16;

/// How long a launch may take. Building takes milliseconds; a large kernel image on a cold disk
/// takes longer.
pub(crate) const LAUNCH_DEADLINE: Duration = Duration::from_secs(10);

/// How long an adoption may take. A worker answers within a millisecond; a thousand adoptions at
/// once take longer.
pub(crate) const ADOPT_DEADLINE: Duration = Duration::from_secs(10);

/// How long a worker may take over a request.
pub(crate) const REQUEST_DEADLINE: Duration = Duration::from_secs(5);

/// How long a worker may take to end its guest: it waits for all vCPU threads.
pub(crate) const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// How long a worker may take to end after it was told to, before it is killed.
pub(crate) const QUIT_DEADLINE: Duration = Duration::from_secs(5);

/// How long a killed process may take to disappear: the kernel frees the guest's memory first.
pub(crate) const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// How long what a worker had sent before it ended is still read.
pub(crate) const DRAIN_DEADLINE: Duration = Duration::from_secs(1);

/// How long a host tries to connect again to a worker that lives but closed the connection.
pub(crate) const RECONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// Pause between two such attempts.
pub(crate) const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// Requests that may wait for one worker's answer.
pub(crate) const MAX_REQUESTS: usize = 256;

/// How much of a failed worker's log goes into the error, bytes.
pub(crate) const MAX_LOG_BYTES: usize = 2 << 10;
