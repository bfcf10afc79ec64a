//! The messages of the control protocol.
//!
//! The host connects and says [`Hello`]; the worker answers with [`Welcome`] or a refusal, then
//! sends the events that were not acknowledged. After that the host sends requests, each with an
//! id that its response carries, in any order, and the worker sends responses, events and
//! notices.
//!
//! The messages evolve additively: fields that are not known are ignored, fields that may be
//! absent have defaults, and a request that is not known is answered as unsupported.

use roost_model::{Control, Counters, DeviceReport, FailureKind, GuestExit, VmId};
use roost_vmm::ConsoleSize;
use serde::{Deserialize, Serialize};

use crate::frame::Base64;

/// The version that this build speaks.
pub(crate) const PROTOCOL_VERSION: u32 = 1;

/// The oldest version that this build still understands.
pub(crate) const OLDEST_VERSION: u32 = 1;

/// From the host to the worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(crate) enum HostMessage {
    Hello(Hello),
    Request { id: u64, request: Request },
}

/// The first message on a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) version: u32,
    /// The incarnation's secret: whoever knows it is the host, or its successor.
    pub(crate) nonce: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub(crate) enum Request {
    Resume,
    Pause,
    /// Ends the guest; answered when it has ended.
    Stop,
    Counters,
    SerialRead {
        from: u64,
        max: u64,
    },
    /// Answered at once with the output's end. If that is not past `past`, one
    /// [`WorkerMessage::SerialOutput`] follows when there is more.
    SerialWatch {
        past: u64,
    },
    SerialWrite {
        bytes: Base64,
    },
    /// Of a port of the console, by its index or name.
    Console {
        port: String,
        ask: ConsoleRequest,
    },
    /// Anything else that a running guest can be asked.
    Control {
        control: Control,
    },
    Devices,
    /// The event of this number need not be kept any longer.
    Ack {
        sequence: u64,
    },
    /// Ends the worker, and its guest with it.
    Quit,
    #[serde(other)]
    Unknown,
}

/// What is asked of a port of the console: see the requests of the serial port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub(crate) enum ConsoleRequest {
    Read {
        from: u64,
        max: u64,
    },
    /// Answered at once with the output's end. If that is not past `past`, one
    /// [`WorkerMessage::ConsoleOutput`] follows when there is more.
    Watch {
        past: u64,
    },
    Write {
        bytes: Base64,
    },
    /// Only of the terminal.
    Resize {
        size: ConsoleSize,
    },
    #[serde(other)]
    Unknown,
}

impl Request {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Resume => "resume",
            Self::Pause => "pause",
            Self::Stop => "stop",
            Self::Counters => "counters",
            Self::SerialRead { .. } => "serial-read",
            Self::SerialWatch { .. } => "serial-watch",
            Self::SerialWrite { .. } => "serial-write",
            Self::Console { .. } => "console",
            Self::Control { .. } => "control",
            Self::Devices => "devices",
            Self::Ack { .. } => "ack",
            Self::Quit => "quit",
            Self::Unknown => "unknown",
        }
    }
}

/// From the worker to the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(crate) enum WorkerMessage {
    Welcome(Welcome),
    /// Instead of a welcome; the connection closes.
    Refused {
        reason: Refusal,
    },
    Response {
        id: u64,
        response: Response,
    },
    /// Sent again on every new connection until it is acknowledged.
    Event {
        sequence: u64,
        event: WorkerEvent,
    },
    /// There is more serial output, up to `end`.
    SerialOutput {
        end: u64,
    },
    /// A port of the console, of which the host wanted to know, has more output.
    ConsoleOutput {
        port: usize,
    },
    /// A newer connection takes this one's place; this one closes.
    Replaced,
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Refusal {
    WrongNonce,
    /// The host's version is older than what the worker understands.
    Version,
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Welcome {
    pub(crate) version: u32,
    pub(crate) vm: VmId,
    pub(crate) incarnation: u64,
    pub(crate) pid: u32,
    pub(crate) state: WorkerState,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub(crate) enum WorkerState {
    Built,
    Running,
    Paused,
    Exited {
        exit: GuestExit,
        counters: Counters,
    },
    BuildFailed {
        error: String,
        /// What class of failure it is; absent from a worker of an older host.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kind: Option<FailureKind>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "did", rename_all = "kebab-case")]
pub(crate) enum Response {
    Done,
    Stopped { exit: GuestExit, counters: Counters },
    Counters { counters: Counters },
    Serial { offset: u64, bytes: Base64 },
    SerialEnd { end: u64 },
    Written { count: u64 },
    Devices { report: DeviceReport },
    Failed { error: Failed },
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "because", rename_all = "kebab-case")]
pub(crate) enum Failed {
    GuestEnded,
    Vm {
        detail: String,
    },
    Unsupported,
    /// There is no such port of the console; these are there.
    NoPort {
        ports: Vec<String>,
    },
    /// The port of the console has no size.
    NotATerminal,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "happened", rename_all = "kebab-case")]
pub(crate) enum WorkerEvent {
    GuestExited {
        exit: GuestExit,
        counters: Counters,
        at_ms: u64,
    },
    #[serde(other)]
    Unknown,
}
