//! What can go wrong with plugins.

use std::time::Duration;

use roost_model::{Grant, Hook};

use crate::compile::{CacheError, CompileError};
use crate::facts::ShapeError;
use crate::record::FailureKind;

/// The runtime could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The machine does not let it reserve what it needs.
    #[error("the WebAssembly engine could not be made: {0}")]
    Engine(String),
    /// No thread for the clock.
    #[error("the epoch thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
    /// No place for what is compiled.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// Why a component is refused.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It is larger than any policy.
    #[error("it has {bytes} bytes; at most {limit} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// It is something else.
    #[error("it is {0}; expected a WebAssembly component")]
    NotAComponent(&'static str),
    /// It is native code; that is never taken from outside.
    #[error("it is native code (an ELF file or a precompiled artifact); push the component itself")]
    Precompiled,
    /// It does not validate or does not compile.
    #[error("it does not compile: {0}")]
    Compile(String),
    /// The child process that compiles gave up, or was ended.
    #[error(transparent)]
    Compiler(CompileError),
    /// It wants something that no policy gets.
    #[error("it imports {0}, which no policy gets")]
    Import(String),
    /// It wants something that it was not granted.
    #[error("it imports {import}, which needs the grant \"{grant}\"")]
    NotGranted {
        /// The import.
        import: String,
        /// What would have to be granted.
        grant: Grant,
    },
    /// What it imports has another type here.
    #[error("it can't be linked: {0}")]
    Link(String),
    /// It decides nothing.
    #[error("it exports no policy interface, but: {exports}")]
    NothingKnown {
        /// What it exports.
        exports: String,
    },
    /// An export has the right name and the wrong type.
    #[error("its export {interface} does not match roost:policy@0.1.0: {reason}")]
    WrongType {
        /// The interface.
        interface: String,
        /// What differs.
        reason: String,
    },
    /// It can't describe itself.
    #[error("its describe() failed: {0}")]
    Describe(CallError),
}

impl From<CompileError> for LoadError {
    fn from(error: CompileError) -> Self {
        match error {
            CompileError::Refused(reason) => Self::Compile(reason),
            error => Self::Compiler(error),
        }
    }
}

/// Why settings are refused.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// They are longer than any plugin's.
    #[error("they have {bytes} bytes; at most {limit} are allowed")]
    TooLong {
        /// Their length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// They are not a JSON object.
    #[error("they are not a JSON object: {0}")]
    NotJson(String),
    /// The plugin says so.
    #[error("{0}")]
    Refused(String),
    /// The plugin could not say.
    #[error("validate-settings() failed: {0}")]
    Call(#[from] CallError),
}

/// Why a call made no decision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It took too long.
    #[error("it did not answer within {0:?}")]
    Deadline(Duration),
    /// The machine was too busy to give it its time.
    #[error("it got {cpu:?} of CPU time, its deadline is {deadline:?}: this machine is too busy")]
    Starved {
        /// What it may take, CPU time.
        deadline: Duration,
        /// What it was given.
        cpu: Duration,
    },
    /// It wanted more memory, tables or instances than it may have.
    #[error("it wanted more than its limit of {limit_bytes} bytes of memory")]
    Memory {
        /// The limit, bytes.
        limit_bytes: usize,
    },
    /// It trapped.
    #[error("it trapped: {text}")]
    Trap {
        /// Which trap, such as `stack-overflow`.
        code: String,
        /// What is known of it: the panic's message, the functions that it was in.
        text: String,
    },
    /// The host could not call it.
    #[error("it could not be called: {0}")]
    Host(String),
    /// It does not export the hook.
    #[error("it does not export {0}")]
    NotExported(Hook),
    /// What it says makes no sense.
    #[error("its answer makes no sense: {0}")]
    Nonsense(String),
    /// The facts, given as JSON, are not the hook's. No plugin was asked.
    #[error(transparent)]
    Facts(#[from] ShapeError),
}

impl CallError {
    /// The trap's code; for traps only.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Trap { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Which kind of failure it is.
    #[must_use]
    pub const fn kind(&self) -> FailureKind {
        match self {
            Self::Deadline(_) => FailureKind::Deadline,
            Self::Starved { .. } => FailureKind::Starved,
            Self::Memory { .. } => FailureKind::Memory,
            Self::Trap { .. } => FailureKind::Trap,
            Self::Nonsense(_) => FailureKind::Nonsense,
            Self::NotExported(_) => FailureKind::NotExported,
            Self::Host(_) | Self::Facts(_) => FailureKind::Host,
        }
    }
}
