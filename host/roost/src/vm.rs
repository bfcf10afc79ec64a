//! `roost vm` and `roost image`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::Format;
use crate::client::{Client, Refusal, escape};
use crate::console;
use crate::control::{self, Balloon, Button, Limit, Press};
use crate::create::Create;
use crate::operations;
use crate::output::{self, text, time};

#[derive(Subcommand)]
pub(crate) enum Vm {
    /// Create a VM; it is stopped afterwards.
    Create(Box<Create>),
    /// Boot a VM.
    Boot(Verb),
    /// Stop a VM.
    Shutdown(Stop),
    /// Hold a VM's vCPUs; its memory stays.
    Pause(Verb),
    /// Let a paused VM run on.
    Resume(Verb),
    /// Stop a VM and boot it again.
    Reboot(Stop),
    /// Delete a VM with all that it has. None there: fine.
    Delete(Verb),
    /// List VMs.
    List,
    /// Show a VM.
    Show {
        /// Name or id.
        vm: String,
    },
    /// Show what a running VM's devices report.
    Devices {
        /// Name or id.
        vm: String,
    },
    /// Press a button of a running VM.
    Press(Press),
    /// Ask a running VM's guest for memory.
    Balloon(Balloon),
    /// Limit how much a running VM may read, write, send, receive or print.
    #[command(subcommand)]
    Limit(Limit),
    /// Print what a VM printed on its serial port, or on a port of its console.
    Logs(console::Logs),
    /// Talk to a VM's serial port, or a port of its console; Ctrl-] detaches.
    Console(console::Of),
}

#[derive(Args)]
#[command(after_help = "Example:\n  roost vm boot web && roost vm logs web --follow")]
pub(crate) struct Verb {
    /// Name or id.
    vm: String,
    /// Return once the operation is accepted.
    #[arg(long)]
    no_wait: bool,
    /// How long to wait, seconds.
    #[arg(long, default_value_t = 60)]
    timeout: u64,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    roost vm shutdown web                   stop it at once\n  \
    roost vm shutdown web --deadline 30     press the power button, stop it after 30 s\n  \
    roost vm reboot web --deadline 30 --button ctrl-alt-delete")]
pub(crate) struct Stop {
    #[command(flatten)]
    verb: Verb,
    /// Tell the guest to end by itself, and stop it only after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    deadline: Option<u64>,
    /// What tells it.
    #[arg(long, value_enum, default_value_t, requires = "deadline")]
    button: Button,
}

#[derive(Subcommand)]
pub(crate) enum Image {
    /// Store a file.
    #[command(after_help = "Example:\n  roost image push ./vmlinux --tag linux:6.1")]
    Push {
        /// The file.
        file: PathBuf,
        /// A name for it.
        #[arg(long, value_name = "NAME:TAG")]
        tag: Option<String>,
    },
    /// List what is stored.
    List,
}

fn path(vm: &str) -> String {
    format!("/v1/vms/{}", escape(vm))
}

impl Vm {
    pub(crate) async fn run(self, client: &Client) -> Result<()> {
        match self {
            Self::Create(create) => create.run(client).await,
            Self::Boot(verb) => verb.run(client, "boot").await,
            Self::Shutdown(stop) => stop.run(client, "shutdown").await,
            Self::Pause(verb) => verb.run(client, "pause").await,
            Self::Resume(verb) => verb.run(client, "resume").await,
            Self::Reboot(stop) => stop.run(client, "reboot").await,
            Self::Delete(verb) => verb.delete(client).await,
            Self::List => {
                let vms = client.get("/v1/vms", client.query()).await?;
                let headings = [
                    "NAME",
                    "ID",
                    "TENANT",
                    "STATE",
                    "INCARNATION",
                    "VCPUS",
                    "MIB",
                    "WORKER",
                ];
                output::list(client.output, &vms, &headings, |vm| {
                    let members = [
                        "/spec/name",
                        "/id",
                        "/spec/tenant",
                        "/state",
                        "/incarnation",
                        "/spec/vcpus",
                        "/spec/memory_mib",
                        "/worker/pid",
                    ];
                    members.iter().map(|member| text(vm, member)).collect()
                })
            }
            Self::Show { vm } => {
                let vm = client.get(&path(&vm), client.query()).await?;
                show(client.output, &vm)
            }
            Self::Devices { vm } => control::devices(client, &vm).await,
            Self::Press(press) => press.run(client).await,
            Self::Balloon(balloon) => balloon.run(client).await,
            Self::Limit(limit) => limit.run(client).await,
            Self::Logs(logs) => logs.run(client).await,
            Self::Console(of) => console::attach(client, &of).await,
        }
    }
}

fn show(format: Format, vm: &Value) -> Result<()> {
    if format == Format::Json {
        return output::json(vm);
    }
    let row = |label: &str, value: String| vec![label.to_owned(), value];
    let mut rows = vec![
        row("id", text(vm, "/id")),
        row("tenant", text(vm, "/spec/tenant")),
        row("state", text(vm, "/state")),
        row("desired", text(vm, "/desired")),
        row("incarnation", text(vm, "/incarnation")),
        row("vcpus", text(vm, "/spec/vcpus")),
        row("memory", format!("{} MiB", text(vm, "/spec/memory_mib"))),
        row("kernel", text(vm, "/kernel")),
        row("cmdline", text(vm, "/spec/cmdline")),
        row("created", time(vm, "/created_at_ms")),
    ];
    for (label, member) in [
        ("failure", "/failure/detail"),
        ("initrd", "/initrd"),
        ("worker", "/worker/pid"),
        ("labels", "/spec/labels"),
    ] {
        let value = text(vm, member);
        if !value.is_empty() {
            rows.push(row(label, value));
        }
    }
    output::table(&["NAME", &text(vm, "/spec/name")], &rows)
}

impl Stop {
    async fn run(self, client: &Client, verb: &str) -> Result<()> {
        let mut query = self.verb.query(client);
        if let Some(seconds) = self.deadline {
            query = query
                .with("deadline_ms", &seconds.saturating_mul(1000))
                .with("button", &self.button.name());
        }
        let path = format!("{}/{verb}", path(&self.verb.vm));
        let operation = client.post(&path, query).await?;
        self.verb.report(client.output, verb, &operation)
    }
}

impl Verb {
    async fn run(self, client: &Client, verb: &str) -> Result<()> {
        let path = format!("{}/{verb}", path(&self.vm));
        let operation = client.post(&path, self.query(client)).await?;
        self.report(client.output, verb, &operation)
    }

    async fn delete(self, client: &Client) -> Result<()> {
        match client.delete(&path(&self.vm), self.query(client)).await {
            Ok(operation) => self.report(client.output, "delete", &operation),
            Err(error) => {
                let gone = error
                    .downcast_ref::<Refusal>()
                    .is_some_and(|r| r.problem["type"] == "urn:roost:problem:vm-not-found");
                match (gone, client.output) {
                    (false, _) => Err(error),
                    (true, Format::Json) => output::json(&json!({ "already_absent": true })),
                    (true, Format::Table) => {
                        output::line(&format!("{} was not there", output::printable(&self.vm)))
                    }
                }
            }
        }
    }

    fn query(&self, client: &Client) -> crate::client::Query {
        let timeout_ms = self.timeout.saturating_mul(1000);
        client
            .query()
            .with("wait", &!self.no_wait)
            .with("timeout_ms", &timeout_ms)
    }

    fn report(&self, format: Format, verb: &str, operation: &Value) -> Result<()> {
        let status = text(operation, "/status");
        if format == Format::Json {
            output::json(operation)?;
        }
        match (status.as_str(), format) {
            ("failed" | "cancelled", _) => bail!("{}: {}", self.vm, operations::story(operation)),
            (_, Format::Json) => Ok(()),
            ("succeeded", _) => output::line(&format!("{}: {verb} done", self.vm)),
            _ => output::line(&format!(
                "{}: {}; see `roost operations`",
                self.vm,
                operations::story(operation)
            )),
        }
    }
}

impl Image {
    pub(crate) async fn run(self, client: &Client) -> Result<()> {
        match self {
            Self::Push { file, tag } => {
                let query = crate::client::Query::default().with_some("tag", tag.as_ref());
                let image = client.post_file("/v1/images", query, &file).await?;
                match client.output {
                    Format::Json => output::json(&image),
                    Format::Table => output::line(&text(&image, "/digest")),
                }
            }
            Self::List => {
                let images = client
                    .get("/v1/images", crate::client::Query::default())
                    .await?;
                output::list(
                    client.output,
                    &images,
                    &["DIGEST", "BYTES", "TAG", "CREATED"],
                    |i| {
                        vec![
                            text(i, "/digest"),
                            text(i, "/size_bytes"),
                            text(i, "/tag"),
                            time(i, "/created_at_ms"),
                        ]
                    },
                )
            }
        }
    }
}
