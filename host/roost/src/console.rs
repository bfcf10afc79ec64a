//! `roost vm logs` and `roost vm console`: a guest's serial port.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::{Context as _, Result};
use clap::Args;
use hyper::Method;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::io::AsyncReadExt as _;

use crate::client::{Client, collect, empty, escape};
use crate::output;

/// How long one request waits for output, ms.
const WAIT_MS: u64 = 20_000;
/// Detaches: Ctrl-].
const DETACH: u8 = 0x1d;

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    roost vm logs web\n  \
    roost vm logs web --follow --from 4096")]
pub(crate) struct Logs {
    /// Name or id.
    vm: String,
    /// Print what comes until the guest ends.
    #[arg(short, long)]
    follow: bool,
    /// Position in the incarnation's output to start at, bytes.
    #[arg(long, default_value_t = 0)]
    from: u64,
}

/// A piece of output.
struct Piece {
    offset: u64,
    incarnation: String,
    is_live: bool,
    bytes: hyper::body::Bytes,
}

impl Piece {
    const fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

async fn read(client: &Client, vm: &str, from: u64, wait_ms: u64) -> Result<Piece> {
    let path = format!("/v1/vms/{}/logs", escape(vm));
    let query = client.query().with("from", &from).with("wait_ms", &wait_ms);
    let response = client
        .send(Method::GET, &path, &query, empty(), &[])
        .await?;
    let header = |name: &str| {
        let value = response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let state = header("roost-state");
    Ok(Piece {
        offset: header("roost-offset").parse().unwrap_or(from),
        incarnation: header("roost-incarnation"),
        is_live: !matches!(
            state.as_str(),
            "stopped" | "failed" | "deleting" | "deleted"
        ),
        bytes: collect(response).await?,
    })
}

/// Writes a guest's bytes as they are: that is what a log and a console are for.
fn print(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        result => Ok(result?),
    }
}

impl Logs {
    pub(crate) async fn run(self, client: &Client) -> Result<()> {
        let mut from = self.from;
        let mut incarnation = None;
        loop {
            let wait = if self.follow && incarnation.is_some() {
                WAIT_MS
            } else {
                0
            };
            let piece = read(client, &self.vm, from, wait).await?;
            if incarnation
                .as_ref()
                .is_some_and(|known| *known != piece.incarnation)
            {
                // Another boot: its output starts anew.
                incarnation = Some(piece.incarnation);
                from = 0;
                continue;
            }
            print(&piece.bytes)?;
            from = piece.end();
            let more = !piece.bytes.is_empty() || (self.follow && piece.is_live);
            incarnation = Some(piece.incarnation);
            if !more {
                return Ok(());
            }
        }
    }
}

/// The terminal as it was, restored however the console ends.
struct RawTerminal(Option<Termios>);

impl RawTerminal {
    fn enter() -> Result<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(Self(None));
        }
        let before = tcgetattr(&stdin).context("the terminal's settings")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).context("the terminal's settings")?;
        Ok(Self(Some(before)))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // There is nothing better to do than to try.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Joins the terminal with the guest's serial port until the guest ends or the user detaches.
pub(crate) async fn attach(client: &Client, vm: &str) -> Result<()> {
    // An error is told before the terminal is raw.
    let first = read(client, vm, u64::MAX, 0).await?;
    if first.bytes.is_empty() && !first.is_live {
        anyhow::bail!("{} does not run", output::printable(vm));
    }
    if io::stdin().is_terminal() {
        output::line("connected; Ctrl-] detaches")?;
    }
    let terminal = RawTerminal::enter()?;
    let result = tokio::select! {
        result = show(client, vm, first.end()) => result,
        result = send(client, vm) => result,
    };
    drop(terminal);
    result
}

async fn show(client: &Client, vm: &str, mut from: u64) -> Result<()> {
    loop {
        let piece = read(client, vm, from, WAIT_MS).await?;
        print(&piece.bytes)?;
        from = piece.end();
        if piece.bytes.is_empty() && !piece.is_live {
            return Ok(());
        }
    }
}

async fn send(client: &Client, vm: &str) -> Result<()> {
    let path = format!("/v1/vms/{}/console-input", escape(vm));
    let mut stdin = tokio::io::stdin();
    let mut buffer = [0; 4096];
    loop {
        let count = stdin.read(&mut buffer).await?;
        let typed = &buffer[..count];
        let detach = typed.iter().position(|byte| *byte == DETACH);
        let mut rest = &typed[..detach.unwrap_or(count)];
        while !rest.is_empty() {
            let answer = client
                .post_bytes(&path, client.query(), rest.to_vec())
                .await?;
            let accepted = answer["accepted_bytes"].as_u64().unwrap_or(0) as usize;
            rest = &rest[accepted.min(rest.len())..];
            if accepted == 0 {
                // The guest does not read; what was typed waits here.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
        if detach.is_some() {
            return Ok(());
        }
        if count == 0 {
            // The end of a script's input is not the end of the guest's output.
            return std::future::pending().await;
        }
    }
}
