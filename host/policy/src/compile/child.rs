//! The child process that compiles: the host's own program, started anew.
//!
//! It reads a component from its standard input and writes the artifact to its standard output, or
//! one sentence to its standard error. It limits itself before it reads anything, and the host ends
//! it at the deadline whatever it does.

use std::ffi::OsString;
use std::io::{self, Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, pidfd_open, setrlimit};
use wasmtime::Engine;

use super::artifact::Artifact;
use crate::profile;
use crate::runtime::MAX_COMPONENT_BYTES;
use crate::text::clean;

/// The exit code that says: the component is refused, and standard error says why.
const REFUSED: u8 = 3;
/// Most of standard error that is read, bytes.
const MAX_SAID_BYTES: u64 = 4096;
/// Signals by which the kernel ends a process that is over its limits (signal(7)).
const SIGABRT: i32 = 6;
const SIGSEGV: i32 = 11;
const SIGXCPU: i32 = 24;

/// What compiling may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileLimits {
    /// Wall-clock time from start to artifact.
    pub deadline: Duration,
    /// Address space of the child, bytes.
    pub memory_bytes: u64,
    /// Size of the artifact, bytes.
    pub artifact_bytes: u64,
}

impl Default for CompileLimits {
    /// 60 s, 4 GiB, 256 MiB: a component of 12 MB made from JavaScript takes 6 s and less than a
    /// quarter of the rest.
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(60),
            memory_bytes: 4 << 30,
            artifact_bytes: 256 << 20,
        }
    }
}

/// Why nothing came of compiling.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// It took too long.
    #[error("compiling it took longer than {0:?}")]
    Deadline(Duration),
    /// It took too much memory.
    #[error("compiling it took more than {0} bytes of memory")]
    Memory(u64),
    /// The artifact is too large.
    #[error("its native code is larger than {0} bytes")]
    Artifact(u64),
    /// The component is at fault.
    #[error("{0}")]
    Refused(String),
    /// The child could not be started, or ended otherwise.
    #[error("the compiler's process failed: {0}")]
    Process(String),
}

/// How to start the child.
#[derive(Debug, Clone)]
pub struct ChildCompiler {
    program: PathBuf,
    arguments: Vec<OsString>,
    limits: CompileLimits,
}

impl ChildCompiler {
    /// A child that is `program` with `arguments`, which must come to [`compile_component_main`].
    #[must_use]
    pub fn new(
        program: PathBuf,
        arguments: impl IntoIterator<Item = OsString>,
        limits: CompileLimits,
    ) -> Self {
        Self {
            program,
            arguments: arguments.into_iter().collect(),
            limits,
        }
    }

    /// Compiles.
    pub(super) fn compile(&self, component: &[u8]) -> Result<Vec<u8>, CompileError> {
        let until = Instant::now() + self.limits.deadline;
        let process = |error: io::Error| CompileError::Process(error.to_string());
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .arg(self.limits.memory_bytes.to_string())
            .arg(self.limits.deadline.as_secs().max(1).to_string())
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(process)?;
        let ended = self.follow(&mut child, component, until);
        // Where it is gone already, this does nothing.
        let _ = child.kill();
        let status = child.wait().map_err(process)?;
        let (artifact, said) = ended?;
        self.outcome(status, artifact, &said)
    }

    /// Feeds the child and reads what it says, until it is gone or its time is up.
    fn follow(
        &self,
        child: &mut Child,
        component: &[u8],
        until: Instant,
    ) -> Result<(Vec<u8>, String), CompileError> {
        let late = || CompileError::Deadline(self.limits.deadline);
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let limit = self.limits.artifact_bytes;
        thread::scope(|scope| {
            scope.spawn(move || {
                // A child that refuses early closes its end; it says why.
                stdin.map(|mut stdin| stdin.write_all(component))
            });
            let (send, receive) = mpsc::channel();
            let artifact = send.clone();
            scope.spawn(move || artifact.send((true, all_of(stdout, limit + 1))));
            scope.spawn(move || send.send((false, all_of(stderr, MAX_SAID_BYTES))));
            let (mut artifact, mut said) = (Vec::new(), Vec::new());
            let read = (0..2).try_for_each(|_| {
                let left = until.saturating_duration_since(Instant::now());
                let (is_artifact, bytes) = receive.recv_timeout(left).map_err(|_| late())?;
                *(if is_artifact {
                    &mut artifact
                } else {
                    &mut said
                }) = bytes;
                Ok(())
            });
            let gone = read.and_then(|()| {
                let in_time =
                    wait(child, until).map_err(|e| CompileError::Process(e.to_string()))?;
                if in_time { Ok(()) } else { Err(late()) }
            });
            if gone.is_err() {
                // Closes the pipes, which ends the threads.
                let _ = child.kill();
            }
            gone.map(|()| (artifact, clean(String::from_utf8_lossy(&said).trim())))
        })
    }

    fn outcome(
        &self,
        status: ExitStatus,
        artifact: Vec<u8>,
        said: &str,
    ) -> Result<Vec<u8>, CompileError> {
        let limits = &self.limits;
        if artifact.len() as u64 > limits.artifact_bytes {
            return Err(CompileError::Artifact(limits.artifact_bytes));
        }
        match (status.code(), status.signal()) {
            (Some(0), _) if !artifact.is_empty() => Ok(artifact),
            (Some(code), _) if code == i32::from(REFUSED) => {
                Err(CompileError::Refused(said.to_owned()))
            }
            (_, Some(SIGXCPU)) => Err(CompileError::Deadline(limits.deadline)),
            // Rust ends so where it gets no memory; a stack that can't grow is the other way.
            (_, Some(SIGABRT | SIGSEGV)) => Err(CompileError::Memory(limits.memory_bytes)),
            _ => Err(CompileError::Process(format!("{status}; it said: {said}"))),
        }
    }
}

fn all_of(pipe: Option<impl Read>, limit: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What was read before an error is judged with the child's exit status.
    let _ = pipe.map(|pipe| pipe.take(limit).read_to_end(&mut bytes));
    bytes
}

/// Waits for the child's end. False: it is still there at the deadline.
fn wait(child: &Child, until: Instant) -> io::Result<bool> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("no process id"))?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The child's `main`. `arguments` are those after the program's own: address space in bytes and
/// CPU time in seconds.
#[must_use]
pub fn compile_component_main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match compile_standard_input(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refused) => {
            // Nobody is left to tell if this does not work.
            let _ = writeln!(io::stderr(), "{refused}");
            ExitCode::from(REFUSED)
        }
    }
}

fn compile_standard_input(arguments: impl Iterator<Item = OsString>) -> Result<(), String> {
    let numbers: Vec<u64> = arguments
        .filter_map(|argument| argument.to_str()?.parse().ok())
        .collect();
    let [memory_bytes, cpu_seconds] = numbers.as_slice() else {
        return Err("expected: address space in bytes, CPU time in seconds".to_owned());
    };
    limit_myself(*memory_bytes, *cpu_seconds).map_err(|error| error.to_string())?;
    let mut component = Vec::new();
    io::stdin()
        .take(MAX_COMPONENT_BYTES as u64 + 1)
        .read_to_end(&mut component)
        .map_err(|error| error.to_string())?;
    if component.len() > MAX_COMPONENT_BYTES {
        return Err("it is too large".to_owned());
    }
    let engine = Engine::new(&profile::config()).map_err(|error| format!("{error:#}"))?;
    let artifact = Artifact::compile(&engine, &component)?;
    io::stdout()
        .write_all(artifact.bytes())
        .map_err(|error| error.to_string())
}

/// From here on this process can't take more than that, nor leave files behind.
fn limit_myself(memory_bytes: u64, cpu_seconds: u64) -> io::Result<()> {
    for (resource, limit) in [
        (Resource::As, memory_bytes),
        (Resource::Cpu, cpu_seconds),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
    ] {
        let limit = Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        };
        setrlimit(resource, limit)?;
    }
    // Whoever runs a VM goes first.
    let _ = rustix::process::nice(10);
    Ok(())
}
