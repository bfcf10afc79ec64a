//! `roost vm logs` and `roost vm console`: a guest's serial port, or a port of its virtio console.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::{Context as _, Result};
use clap::Args;
use hyper::Method;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::client::{Client, Query, Refusal, collect, empty, escape};
use crate::output;

/// How long one request waits for output, ms.
const WAIT_MS: u64 = 20_000;
/// Detaches: Ctrl-].
const DETACH: u8 = 0x1d;

/// Which port of which VM.
#[derive(Args)]
pub(crate) struct Of {
    /// Name or id.
    vm: String,
    /// A port of the virtio console, by index (0 is the terminal) or name, and not the serial port.
    #[arg(long)]
    port: Option<String>,
}

impl Of {
    fn path(&self, what: &str) -> String {
        format!("/v1/vms/{}/{what}", escape(&self.vm))
    }

    fn query(&self, client: &Client) -> Query {
        client.query().with_some("port", self.port.as_ref())
    }
}

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    roost vm logs web\n  \
    roost vm logs web --follow --from 4096\n  \
    roost vm logs web --port 0              the virtio console's terminal")]
pub(crate) struct Logs {
    #[command(flatten)]
    of: Of,
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

async fn read(client: &Client, of: &Of, from: u64, wait_ms: u64) -> Result<Piece> {
    let path = of.path("logs");
    let query = of.query(client).with("from", &from);
    let query = query.with("wait_ms", &wait_ms);
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
            let piece = read(client, &self.of, from, wait).await?;
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

/// Joins the terminal with a port of the guest until the guest ends or the user detaches.
pub(crate) async fn attach(client: &Client, of: &Of) -> Result<()> {
    // An error is told before the terminal is raw.
    let first = read(client, of, u64::MAX, 0).await?;
    if first.bytes.is_empty() && !first.is_live {
        anyhow::bail!("{} does not run", output::printable(&of.vm));
    }
    if io::stdin().is_terminal() {
        output::line("connected; Ctrl-] detaches")?;
    }
    let terminal = RawTerminal::enter()?;
    let result = tokio::select! {
        result = show(client, of, first.end()) => result,
        result = send(client, of) => result,
        result = follow_size(client, of) => result,
    };
    drop(terminal);
    result
}

async fn show(client: &Client, of: &Of, mut from: u64) -> Result<()> {
    loop {
        let piece = read(client, of, from, WAIT_MS).await?;
        print(&piece.bytes)?;
        from = piece.end();
        if piece.bytes.is_empty() && !piece.is_live {
            return Ok(());
        }
    }
}

async fn send(client: &Client, of: &Of) -> Result<()> {
    let path = of.path("console-input");
    let mut stdin = tokio::io::stdin();
    let mut buffer = [0; 4096];
    loop {
        let count = stdin.read(&mut buffer).await?;
        let typed = &buffer[..count];
        let detach = typed.iter().position(|byte| *byte == DETACH);
        let mut rest = &typed[..detach.unwrap_or(count)];
        while !rest.is_empty() {
            let answer = client
                .post_bytes(&path, of.query(client), rest.to_vec())
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

/// Tells the guest the terminal's size, now and whenever it changes. Returns with an error only: there
/// may be no terminal, or a port without a size.
async fn follow_size(client: &Client, of: &Of) -> Result<()> {
    if of.port.is_none() || !io::stdin().is_terminal() {
        return std::future::pending().await;
    }
    let mut changes = signal(SignalKind::window_change()).context("the terminal's size")?;
    loop {
        let size = tcgetwinsize(io::stdin()).context("the terminal's size")?;
        let size = serde_json::json!({ "columns": size.ws_col, "rows": size.ws_row });
        let body = serde_json::to_vec(&size)?;
        let path = of.path("console-size");
        if let Err(error) = client.post_bytes(&path, of.query(client), body).await {
            let problem = error.downcast_ref().map(|Refusal { problem, .. }| problem);
            return match problem.and_then(|problem| problem["type"].as_str()) {
                // Nothing to tell it; or its end, which is shown when all output is.
                Some("urn:roost:problem:not-a-terminal" | "urn:roost:problem:not-running") => {
                    std::future::pending().await
                }
                _ => Err(error),
            };
        }
        if changes.recv().await.is_none() {
            return std::future::pending().await;
        }
    }
}
