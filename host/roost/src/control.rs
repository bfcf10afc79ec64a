//! What can be asked of a running VM beside its verbs: buttons, limits, the balloon, its devices.

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::cli::Format;
use crate::client::{Client, escape};
use crate::output::{self, text};

#[derive(Clone, Copy, Default, ValueEnum)]
pub(crate) enum Button {
    /// The ACPI power button
    #[default]
    PowerButton,
    /// Ctrl-Alt-Delete on the keyboard
    CtrlAltDelete,
}

impl Button {
    /// As the API has it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::PowerButton => "power-button",
            Self::CtrlAltDelete => "ctrl-alt-delete",
        }
    }
}

#[derive(Args)]
#[command(after_help = "Example:\n  roost vm press web ctrl-alt-delete")]
pub(crate) struct Press {
    /// Name or id.
    vm: String,
    /// Which button.
    #[arg(value_enum, default_value_t)]
    button: Button,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    roost vm balloon web 64      ask the guest to give 64 MiB of its memory to the host\n  \
    roost vm balloon web 0       give it back")]
pub(crate) struct Balloon {
    /// Name or id.
    vm: String,
    /// How much the guest is to give, MiB in all.
    target_mib: u32,
}

#[derive(Subcommand)]
#[command(
    after_help = "Limits hold until the VM ends; those of its spec hold after that.\n\n\
    Examples:\n  \
    roost vm limit disk web root --bytes 10000000 --operations 500\n  \
    roost vm limit network web eth0 --rx-bytes 1000000 --tx-bytes 1000000\n  \
    roost vm limit serial web --bytes 65536"
)]
pub(crate) enum Limit {
    /// Limit a disk. A limit that is not given is taken away.
    Disk {
        /// Name or id of the VM.
        vm: String,
        /// Name of the disk.
        disk: String,
        /// Bytes a second.
        #[arg(long)]
        bytes: Option<u64>,
        /// Requests a second.
        #[arg(long)]
        operations: Option<u64>,
    },
    /// Limit a network interface. A limit that is not given is taken away.
    Network {
        /// Name or id of the VM.
        vm: String,
        /// Name of the interface.
        network: String,
        /// Bytes a second that the guest may receive.
        #[arg(long)]
        rx_bytes: Option<u64>,
        /// Packets a second that the guest may receive.
        #[arg(long)]
        rx_operations: Option<u64>,
        /// Bytes a second that the guest may send.
        #[arg(long)]
        tx_bytes: Option<u64>,
        /// Packets a second that the guest may send.
        #[arg(long)]
        tx_operations: Option<u64>,
    },
    /// Limit the serial port's output. A limit that is not given is taken away.
    Serial {
        /// Name or id of the VM.
        vm: String,
        /// Bytes a second.
        #[arg(long)]
        bytes: Option<u64>,
    },
}

fn limit(per_second: Option<u64>) -> Value {
    per_second.map_or(Value::Null, |n| json!({ "per_second": n }))
}

fn limits(bytes: Option<u64>, operations: Option<u64>) -> Value {
    json!({ "bytes": limit(bytes), "operations": limit(operations) })
}

async fn send(client: &Client, vm: &str, control: Value) -> Result<()> {
    let path = format!("/v1/vms/{}/control", escape(vm));
    let body = serde_json::to_vec(&control)?;
    let done = client.post_bytes(&path, client.query(), body).await?;
    match client.output {
        Format::Json => output::json(&done),
        Format::Table => Ok(()),
    }
}

impl Press {
    pub(crate) async fn run(self, client: &Client) -> Result<()> {
        let control = json!({ "control": "press", "button": self.button.name() });
        send(client, &self.vm, control).await
    }
}

impl Balloon {
    pub(crate) async fn run(self, client: &Client) -> Result<()> {
        let control = json!({ "control": "balloon", "target_mib": self.target_mib });
        send(client, &self.vm, control).await
    }
}

impl Limit {
    pub(crate) async fn run(self, client: &Client) -> Result<()> {
        match self {
            Self::Disk {
                vm,
                disk,
                bytes,
                operations,
            } => {
                let limits = limits(bytes, operations);
                let control = json!({ "control": "disk-limits", "disk": disk, "limits": limits });
                send(client, &vm, control).await
            }
            Self::Network {
                vm,
                network,
                rx_bytes,
                rx_operations,
                tx_bytes,
                tx_operations,
            } => {
                let path = format!("/v1/vms/{}", escape(&vm));
                let record = client.get(&path, client.query()).await?;
                let networks = record["spec"]["networks"].as_array();
                let index = networks
                    .and_then(|all| all.iter().position(|n| n["name"] == *network))
                    .with_context(|| format!("{vm} has no network {network:?}"))?;
                let control = json!({
                    "control": "network-limits",
                    "index": index,
                    "rx_limits": limits(rx_bytes, rx_operations),
                    "tx_limits": limits(tx_bytes, tx_operations),
                });
                send(client, &vm, control).await
            }
            Self::Serial { vm, bytes } => {
                let control = json!({ "control": "serial-limit", "limit": limit(bytes) });
                send(client, &vm, control).await
            }
        }
    }
}

/// `roost vm devices`.
pub(crate) async fn devices(client: &Client, vm: &str) -> Result<()> {
    let path = format!("/v1/vms/{}/devices", escape(vm));
    let report = client.get(&path, client.query()).await?;
    if client.output == Format::Json {
        return output::json(&report);
    }
    let mut rows = Vec::new();
    for device in report["devices"].as_array().into_iter().flatten() {
        let name = text(device, "/device");
        if let Some(reason) = device["broken"].as_str() {
            rows.push(vec![name.clone(), "broken".to_owned(), reason.to_owned()]);
        }
        for (counter, value) in device["counters"].as_object().into_iter().flatten() {
            rows.push(vec![name.clone(), counter.clone(), value.to_string()]);
        }
    }
    for (fact, value) in report["balloon"].as_object().into_iter().flatten() {
        rows.push(vec!["balloon".to_owned(), fact.clone(), value.to_string()]);
    }
    let dropped = text(&report, "/serial_dropped_bytes");
    rows.push(vec![
        "serial".to_owned(),
        "dropped_bytes".to_owned(),
        dropped,
    ]);
    output::table(&["DEVICE", "WHAT", "VALUE"], &rows)
}
