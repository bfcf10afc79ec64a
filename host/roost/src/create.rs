//! `roost vm create`: a spec from flags, a file, or both.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use hyper::Method;
use serde_json::{Map, Value, json};

use crate::cli::Format;
use crate::client::{Client, Query};
use crate::output::{self, text};

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    roost vm create --name web --kernel ./vmlinux --initrd ./initrd.img --cmdline console=ttyS0\n  \
    roost vm create --name db --kernel linux:6.1 --vcpus 2 --memory 512 --label tier=data \\\n      \
        --disk name=root,image=debian:12,size=4096 --disk name=data,size=1024 \\\n      \
        --network name=eth0,bridge=br0 --rng --vsock\n  \
    roost vm create --spec web.yaml --name web-2 --boot-deadline 30")]
pub(crate) struct Create {
    /// Unique within the tenant.
    #[arg(long, required_unless_present = "spec")]
    name: Option<String>,
    /// The kernel: a file, which is uploaded, or an image (sha256:… or name:tag).
    #[arg(long, required_unless_present = "spec")]
    kernel: Option<String>,
    /// The initial RAM disk: a file or an image.
    #[arg(long)]
    initrd: Option<String>,
    /// The kernel's command line.
    #[arg(long)]
    cmdline: Option<String>,
    /// Number of vCPUs.  [default: 1]
    #[arg(long)]
    vcpus: Option<u64>,
    /// Memory, MiB.  [default: 128]
    #[arg(long, value_name = "MIB")]
    memory: Option<u64>,
    /// A label; may be given more than once.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// A disk; may be given more than once. name=NAME, then image=FILE or IMAGE and size=MIB (one
    /// of them or both), read-only, and the limits bytes=PER_SECOND and operations=PER_SECOND.
    #[arg(long = "disk", value_name = "KEY=VALUE,…")]
    disks: Vec<String>,
    /// A network interface; may be given more than once. name=NAME, bridge=BRIDGE, mac=ADDRESS, and
    /// the limits rx-bytes, rx-operations, tx-bytes and tx-operations, each =PER_SECOND.
    #[arg(long = "network", value_name = "KEY=VALUE,…")]
    networks: Vec<String>,
    /// A vsock device.
    #[arg(long)]
    vsock: bool,
    /// An entropy device.
    #[arg(long)]
    rng: bool,
    /// A memory balloon; with deflate-on-oom, free-page-reporting or both.
    #[arg(long, value_name = "FEATURE,…", num_args = 0..=1, default_missing_value = "")]
    balloon: Option<String>,
    /// A virtio console beside the serial port.
    #[arg(long)]
    console: bool,
    /// A named port of the virtio console beside its terminal, which the guest finds as
    /// /dev/virtio-ports/NAME; may be given more than once, and --console need not be.
    #[arg(long = "console-port", value_name = "NAME")]
    console_ports: Vec<String>,
    /// Which CPU the guest sees.  [default: host]
    #[arg(long, value_enum)]
    cpu_template: Option<CpuTemplate>,
    /// Where its memory comes from.  [default: anonymous]
    #[arg(long, value_enum)]
    memory_backing: Option<MemoryBacking>,
    /// Boot the VM again when its guest resets the machine, instead of stopping it.
    #[arg(long)]
    reboot_on_reset: bool,
    /// Ask the recovery policy when the guest ends by itself, powers the machine off say; without
    /// this the VM is stopped.
    #[arg(long)]
    recover_on_end: bool,
    /// Most bytes that it may print on its serial port each second.
    #[arg(long, value_name = "BYTES")]
    serial_limit: Option<u64>,
    /// How long the guest may run before it prints its first byte, seconds; then it has stalled,
    /// and the recovery policy decides.  [default: as long as it likes]
    #[arg(long, value_name = "SECONDS")]
    boot_deadline: Option<u64>,
    /// A spec as YAML or JSON; flags beside it win.
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum CpuTemplate {
    Host,
    #[value(name = "x86-64-v2")]
    X8664V2,
}

#[derive(Clone, Copy, ValueEnum)]
enum MemoryBacking {
    Anonymous,
    Memfd,
    Hugetlbfs,
}

impl Create {
    pub(crate) async fn run(self, client: &Client) -> Result<()> {
        let spec = self.spec(client).await?;
        let vm = client
            .send_json(Method::POST, "/v1/vms", &Value::Object(spec))
            .await?;
        match client.output {
            Format::Json => output::json(&vm),
            Format::Table => {
                let (name, id) = (text(&vm, "/spec/name"), text(&vm, "/id"));
                output::line(&format!("{name} created ({id})"))
            }
        }
    }

    async fn spec(self, client: &Client) -> Result<Map<String, Value>> {
        let mut spec = match &self.spec {
            None => Map::new(),
            Some(file) => read_spec(file).await?,
        };
        let mut set = |field: &str, value: Option<Value>| {
            if let Some(value) = value {
                spec.insert(field.to_owned(), value);
            }
        };
        set("name", self.name.map(Value::from));
        set("tenant", client.tenant.clone().map(Value::from));
        set("cmdline", self.cmdline.map(Value::from));
        set("vcpus", self.vcpus.map(Value::from));
        set("memory_mib", self.memory.map(Value::from));
        for (field, image) in [("kernel", self.kernel), ("initrd", self.initrd)] {
            if let Some(image) = image {
                set(field, Some(upload_if_file(client, &image).await?.into()));
            }
        }
        let mut labels = Map::new();
        for label in &self.labels {
            let Some((key, value)) = label.split_once('=') else {
                bail!("label {label:?} is not of the form KEY=VALUE");
            };
            labels.insert(key.to_owned(), value.into());
        }
        set("labels", (!labels.is_empty()).then(|| labels.into()));

        let mut disks = Vec::new();
        for text in &self.disks {
            let mut disk = disk(text)?;
            if let Some(image) = disk["image"].as_str() {
                disk["image"] = upload_if_file(client, image).await?.into();
            }
            disks.push(disk);
        }
        set("disks", (!disks.is_empty()).then(|| disks.into()));
        let networks = self.networks.iter().map(|text| network(text));
        let networks = networks.collect::<Result<Vec<_>>>()?;
        set("networks", (!networks.is_empty()).then(|| networks.into()));
        for (field, is_set) in [
            ("vsock", self.vsock),
            ("rng", self.rng),
            ("console", self.console || !self.console_ports.is_empty()),
        ] {
            set(field, is_set.then(|| true.into()));
        }
        let ports = self.console_ports;
        set("console_ports", (!ports.is_empty()).then(|| ports.into()));
        set("balloon", self.balloon.as_deref().map(balloon).transpose()?);
        set(
            "cpu_template",
            self.cpu_template.map(|template| match template {
                CpuTemplate::Host => "host".into(),
                CpuTemplate::X8664V2 => "x86-64-v2".into(),
            }),
        );
        set(
            "memory_backing",
            self.memory_backing.map(|backing| match backing {
                MemoryBacking::Anonymous => "anonymous".into(),
                MemoryBacking::Memfd => "memfd".into(),
                MemoryBacking::Hugetlbfs => "hugetlbfs".into(),
            }),
        );
        set("on_reset", self.reboot_on_reset.then(|| "reboot".into()));
        set("on_end", self.recover_on_end.then(|| "recover".into()));
        let per_second = |bytes| json!({ "per_second": bytes });
        set("serial_limit", self.serial_limit.map(per_second));
        let ms = |seconds: u64| seconds.saturating_mul(1000).into();
        set("boot_deadline_ms", self.boot_deadline.map(ms));
        Ok(spec)
    }
}

/// Most bytes of a spec file: what the API takes.
const MAX_SPEC_BYTES: u64 = 64 << 10;

async fn read_spec(file: &Path) -> Result<Map<String, Value>> {
    let failed = || format!("{} can't be read", file.display());
    let size = tokio::fs::metadata(file).await.with_context(failed)?.len();
    if size > MAX_SPEC_BYTES {
        bail!(
            "{} has {size} bytes; a spec has at most {MAX_SPEC_BYTES}",
            file.display()
        );
    }
    let content = tokio::fs::read_to_string(file).await.with_context(failed)?;
    // JSON is YAML too.
    serde_saphyr::from_str(&content)
        .with_context(|| format!("{} is neither a YAML nor a JSON mapping", file.display()))
}

/// The image that `text` names; a file is uploaded and named by its digest.
async fn upload_if_file(client: &Client, text: &str) -> Result<String> {
    let file = Path::new(text);
    if text.starts_with("sha256:") || !file.is_file() {
        if text.contains('/') {
            bail!("there is no file {text}");
        }
        return Ok(text.to_owned());
    }
    let image = client
        .post_file("/v1/images", Query::default(), file)
        .await?;
    Ok(output::text(&image, "/digest"))
}

/// `key=value,key,…` as pairs.
fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(',')
        .filter(|part| !part.is_empty())
        .map(|part| part.split_once('=').unwrap_or((part, "")))
}

fn number(what: &str, key: &str, value: &str) -> Result<Value> {
    let number: u64 = value
        .parse()
        .with_context(|| format!("--{what}: {key}={value:?} is not a number"))?;
    Ok(number.into())
}

fn disk(text: &str) -> Result<Value> {
    let mut disk = json!({});
    for (key, value) in pairs(text) {
        match key {
            "name" | "image" => disk[key] = value.into(),
            "size" => disk["size_mib"] = number("disk", key, value)?,
            "read-only" if value.is_empty() => disk["read_only"] = true.into(),
            "bytes" | "operations" => {
                disk["limits"][key]["per_second"] = number("disk", key, value)?;
            }
            _ => bail!(
                "--disk: {key:?} is not known; there are name=, image=, size=, read-only, bytes=, \
                 operations="
            ),
        }
    }
    Ok(disk)
}

fn network(text: &str) -> Result<Value> {
    let mut network = json!({});
    for (key, value) in pairs(text) {
        match key {
            "name" | "bridge" | "mac" => network[key] = value.into(),
            "rx-bytes" | "rx-operations" | "tx-bytes" | "tx-operations" => {
                let (direction, bucket) = key.split_once('-').unwrap_or_default();
                network[format!("{direction}_limits")][bucket]["per_second"] =
                    number("network", key, value)?;
            }
            _ => bail!(
                "--network: {key:?} is not known; there are name=, bridge=, mac=, rx-bytes=, \
                 rx-operations=, tx-bytes=, tx-operations="
            ),
        }
    }
    Ok(network)
}

fn balloon(text: &str) -> Result<Value> {
    let mut balloon = json!({});
    for (key, value) in pairs(text) {
        match (key, value) {
            ("deflate-on-oom" | "free-page-reporting", "") => {
                balloon[key.replace('-', "_")] = true.into();
            }
            _ => bail!(
                "--balloon: {key:?} is not known; there are deflate-on-oom and free-page-reporting"
            ),
        }
    }
    Ok(balloon)
}

#[cfg(test)]
mod tests {
    use roost_model::VmSpec;

    use super::*;

    #[test]
    fn devices_of_flags_are_those_of_the_spec() {
        let spec = json!({
            "name": "a",
            "kernel": "k:1",
            "disks": [disk("name=root,image=debian:12,size=64,bytes=1000,operations=5").unwrap(),
                disk("name=ro,image=debian:12,read-only").unwrap()],
            "networks": [network("name=eth0,bridge=br0,mac=02:00:00:00:00:01,tx-bytes=9").unwrap()],
            "balloon": balloon("deflate-on-oom,free-page-reporting").unwrap(),
        });
        let spec: VmSpec = serde_json::from_value(spec).unwrap();
        assert_eq!(spec.validate(), Ok(()));
        assert_eq!(spec.disks[0].size_mib, Some(64));
        assert_eq!(spec.disks[0].limits.operations.unwrap().per_second, 5);
        assert!(spec.disks[1].read_only);
        assert_eq!(spec.networks[0].tx_limits.bytes.unwrap().per_second, 9);
        assert!(spec.balloon.unwrap().deflate_on_oom);
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (error, word) in [
            (disk("name=a,sise=3"), "sise"),
            (disk("size=many"), "many"),
            (network("name=a,tap=x"), "tap"),
            (balloon("inflate"), "inflate"),
        ] {
            let error = format!("{:#}", error.unwrap_err());
            assert!(error.contains(word), "{error}");
        }
    }

    #[tokio::test]
    async fn a_spec_is_yaml_or_json() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("spec");
        for text in [
            "name: web\nkernel: linux:6.1\ndisks:\n- name: root\n  image: debian:12\n",
            r#"{"name":"web","kernel":"linux:6.1","disks":[{"name":"root","image":"debian:12"}]}"#,
        ] {
            std::fs::write(&file, text).unwrap();
            let spec = Value::Object(read_spec(&file).await.unwrap());
            let spec: VmSpec = serde_json::from_value(spec).unwrap();
            assert_eq!(spec.disks.len(), 1);
        }
        for bad in ["[1, 2]", "name: [", "just words"] {
            std::fs::write(&file, bad).unwrap();
            assert!(read_spec(&file).await.is_err(), "{bad}");
        }
    }
}
