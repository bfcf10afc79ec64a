//! `roost plugin`: what authors and operators do with policies.
//!
//! Some commands need no host: `new`, `build`, `inspect`, `run`, `test` and `bench` work on a
//! project or a component here, in process. The others talk to a host.

mod bench;
mod bindings;
mod build;
mod component;
mod decisions;
mod fixture;
mod inspect;
mod limits;
mod local_host;
mod logs;
mod new;
mod project;
mod replay;
mod report;
mod revisions;
mod run;
mod show;
mod templates;
mod test;

use anyhow::Result;
use clap::Subcommand;

use crate::client::Client;

pub(crate) use decisions::Decisions;
pub(crate) use limits::Limits;

#[derive(Subcommand)]
pub(crate) enum Plugin {
    New(new::New),
    Build(build::Build),
    Inspect(inspect::Inspect),
    Run(run::Run),
    Test(test::Test),
    Bench(bench::Bench),
    Push(revisions::Push),
    Activate(revisions::Activate),
    Rollback(revisions::Rollback),
    Shadow(revisions::Shadow),
    Readmit(revisions::Readmit),
    Download(revisions::Download),
    Replay(replay::Replay),
    Diff(revisions::Diff),
    Bind(bindings::Bind),
    Unbind(bindings::Unbind),
    Bindings(bindings::List),
    List(show::List),
    Show(show::Show),
    Logs(logs::Logs),
}

impl Plugin {
    pub(crate) async fn run(self, client: &Client) -> Result<()> {
        let format = client.output;
        match self {
            Self::New(command) => command.run(format),
            Self::Build(command) => command.run(format),
            Self::Inspect(command) => command.run(format),
            Self::Run(command) => command.run(format),
            Self::Test(command) => command.run(format),
            Self::Bench(command) => command.run(format),
            Self::Push(command) => command.run(client).await,
            Self::Activate(command) => command.run(client).await,
            Self::Rollback(command) => command.run(client).await,
            Self::Shadow(command) => command.run(client).await,
            Self::Readmit(command) => command.run(client).await,
            Self::Download(command) => command.run(client).await,
            Self::Replay(command) => command.run(client).await,
            Self::Diff(command) => command.run(client).await,
            Self::Bind(command) => command.run(client).await,
            Self::Unbind(command) => command.run(client).await,
            Self::Bindings(command) => command.run(client).await,
            Self::List(command) => command.run(client).await,
            Self::Show(command) => command.run(client).await,
            Self::Logs(command) => command.run(client).await,
        }
    }
}
