//! `roost store`: what a host has written down.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, bail};
use clap::{Args, Subcommand};
use http_body_util::BodyExt as _;
use hyper::Method;
use roost_store::{BackupError, CheckReport, NewBackup, RestoreError};
use serde::Serialize;
use tokio::time::timeout;

use crate::cli::Format;
use crate::client::{Client, Query, empty};
use crate::output;

/// Longest that the host may take for the next piece of a backup.
const PIECE_TIMEOUT: Duration = Duration::from_secs(60);
/// Where the store is in a host's data directory.
const STORE: &str = "store";

#[derive(Subcommand)]
pub(crate) enum Store {
    Backup(Backup),
    Restore(Restore),
    Check(Check),
    Compact(Compact),
}

/// Copy the records of a host to a file, while it runs.
///
/// The copy is of one moment, and is checked before it gets its name. Images, disks and policies'
/// compiled code are not in it.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    roost store backup /backup/roost-1.redb\n  \
    roost store backup --data /var/lib/roost /backup/roost-1.redb    no host runs there")]
pub(crate) struct Backup {
    /// The file to write, for its owner alone.
    file: PathBuf,
    /// Read this data directory, on which no host runs, instead of asking a host.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Replace the file if it is there.
    #[arg(long)]
    force: bool,
}

/// Put a backup in the place of a host's records. No host may run there.
///
/// The backup is checked first. Records that are replaced are kept beside the new ones.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    roost store restore /backup/roost-1.redb --data /var/lib/roost\n  \
    roost store restore /backup/roost-1.redb --data /var/lib/roost --force\n\n\
    Shut down VMs that were booted since the backup first: older records do not know their workers.")]
pub(crate) struct Restore {
    /// The backup.
    file: PathBuf,
    /// The host's data directory; made if it is not there.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Replace the records that are there.
    #[arg(long)]
    force: bool,
}

/// Look for damage, and change nothing. Ends with status 1 if there is any.
///
/// It reads the checksum of each page, each value, and looks whether rows that belong together are
/// all there.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    roost store check --data /var/lib/roost    no host runs there\n  \
    roost store check /backup/roost-1.redb")]
#[group(required = true, multiple = false)]
pub(crate) struct Check {
    /// A backup.
    file: Option<PathBuf>,
    /// A host's data directory.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Give the space of removed records back to the disk. No host may run there.
///
/// It needs no space itself and may be interrupted at any time.
#[derive(Args)]
#[command(after_help = "Example:\n  roost store compact --data /var/lib/roost")]
pub(crate) struct Compact {
    /// The host's data directory.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

impl Store {
    pub(crate) async fn run(self, client: &Client) -> Result<()> {
        match self {
            Self::Backup(backup) => backup.run(client).await,
            Self::Restore(restore) => restore.run(client.output),
            Self::Check(check) => check.run(client.output),
            Self::Compact(compact) => compact.run(client.output),
        }
    }
}

impl Backup {
    async fn run(self, client: &Client) -> Result<()> {
        let report = match &self.data {
            Some(data) => roost_store::back_up(&data.join(STORE), &self.file, self.force)
                .map_err(|error| explained(error.into()))?,
            None => self.of_host(client).await?,
        };
        print(client.output, &report, || {
            format!(
                "{}: {} bytes, {} events, no problems",
                report.path.display(),
                report.size_bytes,
                report.last_event
            )
        })
    }

    /// Takes the backup that the host makes.
    async fn of_host(&self, client: &Client) -> Result<CheckReport> {
        let mut file =
            NewBackup::create(&self.file, self.force).map_err(|error| explained(error.into()))?;
        let query = Query::default();
        let answer = client
            .send(Method::GET, "/v1/store/backup", &query, empty(), &[])
            .await?;
        let mut body = answer.into_body();
        loop {
            let frame = timeout(PIECE_TIMEOUT, body.frame()).await;
            let Some(frame) = frame.context("the host sent nothing more of the backup")? else {
                break;
            };
            let frame = frame.context("the backup broke off")?;
            if let Some(piece) = frame.data_ref() {
                let written = file.file().write_all(piece);
                written.with_context(|| format!("{} can't be written", self.file.display()))?;
            }
        }
        Ok(file.finish()?)
    }
}

impl Restore {
    fn run(self, format: Format) -> Result<()> {
        let restored = roost_store::restore(&self.file, &self.data.join(STORE), self.force);
        let report = restored.map_err(|error| explained(error.into()))?;
        print(format, &report, || {
            let kept = report.replaced.as_ref().map(|kept| kept.display());
            let kept = kept.map(|kept| format!("; what was there is {kept}"));
            format!(
                "{}: {} bytes, {} events{}",
                report.path.display(),
                report.size_bytes,
                report.last_event,
                kept.unwrap_or_default()
            )
        })
    }
}

impl Check {
    fn run(self, format: Format) -> Result<()> {
        let report = match (&self.file, &self.data) {
            (Some(file), _) => roost_store::check_file(file)?,
            (None, Some(data)) => roost_store::check(&data.join(STORE))?,
            (None, None) => bail!("either a file or --data says what to check"),
        };
        match format {
            Format::Json => output::json(&serde_json::to_value(&report)?)?,
            Format::Table => print_tables(&report)?,
        }
        if report.problem_count > 0 {
            bail!("{}: {}", report.path.display(), report.verdict());
        }
        Ok(())
    }
}

impl Compact {
    fn run(self, format: Format) -> Result<()> {
        let report = roost_store::compact(&self.data.join(STORE))?;
        print(format, &report, || {
            format!(
                "{}: {} bytes, {} before",
                report.path.display(),
                report.after_bytes,
                report.before_bytes
            )
        })
    }
}

/// The tables, and the problems if there are any.
fn print_tables(report: &CheckReport) -> Result<()> {
    let rows: Vec<_> = (report.tables.iter())
        .map(|table| {
            vec![
                table.name.clone(),
                table.rows.to_string(),
                table.bytes.to_string(),
            ]
        })
        .collect();
    output::table(&["TABLE", "ROWS", "BYTES"], &rows)?;
    if report.problems.is_empty() {
        let (schema, events) = (report.schema, report.last_event);
        return output::line(&format!(
            "\n{}: schema {schema}, {} bytes, {events} events, no problems",
            report.path.display(),
            report.size_bytes
        ));
    }
    output::line("")?;
    let rows: Vec<_> = (report.problems.iter())
        .map(|problem| {
            vec![
                problem.table.clone(),
                problem.key.clone().unwrap_or_default(),
                problem.what.clone(),
            ]
        })
        .collect();
    output::table(&["TABLE", "KEY", "PROBLEM"], &rows)
}

/// The error, and what to do about a file that is in the way.
fn explained(error: Error) -> Error {
    let is_in_the_way = matches!(error.downcast_ref(), Some(BackupError::Exists(_)))
        || matches!(error.downcast_ref(), Some(RestoreError::Exists(_)));
    if is_in_the_way {
        Error::msg(format!("{error}; --force replaces it"))
    } else {
        error
    }
}

fn print(format: Format, report: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
    match format {
        Format::Json => output::json(&serde_json::to_value(report)?),
        Format::Table => output::line(&text()),
    }
}
