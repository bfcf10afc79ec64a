//! The command line.

use std::io;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::client::Client;
use crate::{drain, observe, operations, plugin, repair, serve, store, vm};

/// A hypervisor host whose lifecycle decisions are WebAssembly components.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  \
        roost serve --data /var/lib/roost\n  \
        roost vm create --name web --kernel ./vmlinux --memory 128\n  \
        roost vm boot web && roost vm logs web --follow\n\n\
        Commands other than serve talk to a host: --socket or ROOST_SOCKET says to which."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

/// What every command that talks to a host takes.
#[derive(Args)]
pub(crate) struct Common {
    /// The host's socket.
    #[arg(
        long,
        global = true,
        env = "ROOST_SOCKET",
        default_value = "/run/roost/roost.sock"
    )]
    pub(crate) socket: PathBuf,
    /// How to print.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    /// Whose VMs.
    #[arg(long, global = true)]
    pub(crate) tenant: Option<String>,
}

/// How to print.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs: what the API answered.
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Run the host.
    Serve(serve::Serve),
    /// Create, boot and otherwise rule VMs.
    #[command(subcommand)]
    Vm(vm::Vm),
    /// Store kernels and initial RAM disks.
    #[command(subcommand)]
    Image(vm::Image),
    /// Write, test and deploy policies.
    #[command(subcommand)]
    Plugin(plugin::Plugin),
    Decisions(plugin::Decisions),
    /// Show what happened.
    Events(observe::Events),
    /// Show what VMs used and what was charged for it.
    Usage(observe::Of),
    Operations(operations::Operations),
    /// Show what happened that nobody asked for.
    Incidents(observe::Of),
    /// Back up, restore, check and compact what a host has written down.
    #[command(subcommand)]
    Store(store::Store),
    /// Show what a person must do, and say that it is done.
    #[command(subcommand)]
    Actions(repair::Actions),
    /// Show what is yet to go away, and have it tried again.
    #[command(subcommand)]
    Cleanup(repair::Cleanup),
    Audit(repair::Audit),
    Drain(drain::Drain),
    /// Print a completion script.
    #[command(after_help = "Example:\n  roost completions bash > /etc/bash_completion.d/roost")]
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
}

impl Cli {
    pub(crate) fn run(self) -> Result<()> {
        let Self { command, common } = self;
        match command {
            Command::Serve(serve) => return serve.run(),
            Command::Completions { shell } => {
                let mut command = Self::command();
                clap_complete::generate(shell, &mut command, "roost", &mut io::stdout());
                return Ok(());
            }
            _ => {}
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let result = runtime.block_on(async {
            let client = Client::new(&common);
            match command {
                Command::Vm(command) => command.run(&client).await,
                Command::Image(command) => command.run(&client).await,
                Command::Plugin(command) => command.run(&client).await,
                Command::Decisions(decisions) => decisions.run(&client).await,
                Command::Events(events) => events.run(&client).await,
                Command::Usage(of) => observe::usage(&client, of).await,
                Command::Operations(operations) => operations.run(&client).await,
                Command::Incidents(of) => observe::incidents(&client, of).await,
                Command::Store(command) => command.run(&client).await,
                Command::Actions(actions) => actions.run(&client).await,
                Command::Cleanup(cleanup) => cleanup.run(&client).await,
                Command::Audit(audit) => audit.run(&client).await,
                Command::Drain(drain) => drain.run(&client).await,
                Command::Serve(_) | Command::Completions { .. } => Ok(()),
            }
        });
        // A console's thread may still wait for standard input.
        runtime.shutdown_background();
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_explains_itself() {
        fn check(command: &clap::Command) {
            assert!(
                command.get_about().is_some(),
                "{} has no description",
                command.get_name()
            );
            command
                .get_subcommands()
                .filter(|c| c.get_name() != "help")
                .for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn every_command_about_the_store_shows_how_it_is_used() {
        let command = Cli::command();
        let store = command.find_subcommand("store").unwrap();
        for command in store.get_subcommands() {
            let name = command.get_name();
            let shown = command.get_after_help().map(ToString::to_string);
            let example = format!("roost store {name}");
            assert!(shown.is_some_and(|help| help.contains(&example)), "{name}");
        }
    }

    #[test]
    fn every_command_about_plugins_shows_how_it_is_used() {
        let command = Cli::command();
        let plugin = command.find_subcommand("plugin").unwrap();
        let decisions = command.find_subcommand("decisions").unwrap();
        for command in plugin.get_subcommands().chain([decisions]) {
            let name = command.get_name();
            let shown = command.get_after_help().map(ToString::to_string);
            let example = format!("roost plugin {name}");
            assert!(
                shown.is_some_and(|help| help.contains(&example) || help.contains("roost decisions")),
                "{name} has no example"
            );
        }
    }
}
