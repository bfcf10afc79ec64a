//! `roost serve`: the host.

use std::fs::File;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use roost_engine::{
    Blobs, ChildCompiler, Compiler, Config, Engine, Faults, PolicyHost, PolicyRuntime,
    RuntimeConfig, Store, StoreServices,
};
use roost_worker::{WorkerBackend, check_kvm};
use tracing_subscriber::EnvFilter;

use crate::capacity::VmLimits;
use crate::ending::{self, Signals};
use crate::plugin::Limits;
use crate::service::{self, Manager};

/// Descriptors that a host with thousands of VMs needs: a few for each.
const DESCRIPTORS: u64 = 65_536;

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    roost serve --data /var/lib/roost\n  \
    roost serve --data /var/lib/roost --stop-vms --stop-vms-deadline 120\n  \
    RUST_LOG=debug roost serve --data ./data --log json")]
pub(crate) struct Serve {
    /// Where the host keeps its state; made if it is not there.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where to listen.  [default: DIR/roost.sock]
    #[arg(long = "listen", value_name = "SOCKET")]
    listen: Option<PathBuf>,
    /// Length of a usage window, seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    usage_window: u64,
    /// How often counters are read and made durable, ms: what a crash of a worker can cost.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u64).range(10..))]
    counter_interval: u64,
    /// How often records are compared with what is there, seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    audit_interval: u64,
    /// Shut the VMs down when the host ends; the next one boots them again.  [default: VMs go on]
    #[arg(long)]
    stop_vms: bool,
    /// How long guests may take to end by themselves then, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "stop_vms", value_parser = clap::value_parser!(u64).range(0..=600))]
    stop_vms_deadline: u64,
    /// Die at a point of the lifecycle: for tests of this program.
    #[arg(long, env = "ROOST_FAULT", value_name = "FAULT", hide = true)]
    fault: Option<String>,
    /// How to log.
    #[arg(long, value_enum, default_value_t = Log::Human)]
    log: Log,
    #[command(flatten)]
    capacity: VmLimits,
    #[command(flatten)]
    limits: Limits,
}

#[derive(Clone, Copy, ValueEnum)]
enum Log {
    Human,
    Json,
}

impl Serve {
    pub(crate) fn run(self) -> Result<()> {
        // Before anything else is opened: it is known by its number.
        let passed = service::passed_socket()?;
        ensure!(
            passed.is_none() || self.listen.is_none(),
            "--listen names a socket, and the service manager passed one: leave one of them out"
        );
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr);
        match self.log {
            Log::Human => log.init(),
            Log::Json => log.json().init(),
        }
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        raise_descriptor_limit();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        runtime.block_on(self.host(passed))
    }

    async fn host(self, passed: Option<UnixListener>) -> Result<()> {
        let mut signals = Signals::new().context("signals can't be waited for")?;
        let kvm = File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .context(
                "/dev/kvm can't be opened: Roost needs KVM, and a user that may read and write it",
            )?;
        check_kvm(&kvm).context("/dev/kvm is there, but no VM can be made with it")?;
        let store = Store::open_keeping(&self.data.join("store"), self.limits.journal())?;
        let blobs = Blobs::open(&self.data.join("blobs"))?;
        let executable = std::env::current_exe().context("the path of this program")?;
        let compiler = ChildCompiler::new(
            executable.clone(),
            [crate::COMPILE.into()],
            self.limits.compiling(),
        );
        let faults = self.fault.as_deref().map(Faults::arm).transpose()?;
        let faults = faults.unwrap_or_default();
        let backend = WorkerBackend::new(executable, kvm).probed(Arc::new(faults.clone()));
        let backend = Arc::new(backend);
        let config = Config {
            usage_window: Duration::from_secs(self.usage_window),
            counter_interval: Duration::from_millis(self.counter_interval),
            audit_interval: Some(Duration::from_secs(self.audit_interval)),
            capacity: self.capacity.capacity()?,
            faults,
            ..self.limits.config(self.data.join("run"))
        };
        let services = StoreServices::new(store.clone(), config.kv_quota);
        let runtime = PolicyRuntime::with(RuntimeConfig {
            limits: self.limits.calls(),
            compiler: Compiler::Child(compiler),
            cache: Some(self.data.join("policies")),
            services: Some(Arc::new(services)),
        })?;
        let policies = PolicyHost::with_strikes(runtime, self.limits.strikes());
        let socket = match passed {
            Some(passed) => Socket::passed(passed)?,
            None => Socket::bind(self.listen.unwrap_or_else(|| self.data.join("roost.sock")))?,
        };
        let engine = Engine::start(config, store, blobs, policies, backend).await?;
        tracing::info!(socket = %socket.path.display(), "the host is ready");
        crate::output::line(&format!("ready: {}", socket.path.display()))?;
        let manager = Manager::new().context("no thread can be started")?;
        let status = format!("answers on {}", socket.path.display());
        tokio::spawn(manager.clone().ready(status, engine.clone()));

        let vms = self
            .stop_vms
            .then(|| Duration::from_secs(self.stop_vms_deadline));
        let mut in_order = false;
        let stop = async {
            in_order = ending::until_stopped(&mut signals, &manager, &engine, vms).await;
        };
        roost_api::serve(socket.listener, engine.clone(), stop).await;
        if in_order {
            engine.shutdown().await;
        }
        if let Some(path) = socket.own {
            // A socket that nobody listens on is only in the way.
            let _ = std::fs::remove_file(&path);
        }
        Ok(())
    }
}

/// Where requests come from.
struct Socket {
    listener: tokio::net::UnixListener,
    /// For people.
    path: PathBuf,
    /// What is removed at the end: nothing where somebody else listens on, too.
    own: Option<PathBuf>,
}

impl Socket {
    fn bind(path: PathBuf) -> Result<Self> {
        let listener =
            roost_api::bind(&path).with_context(|| format!("no socket at {}", path.display()))?;
        Ok(Self {
            listener,
            path: path.clone(),
            own: Some(path),
        })
    }

    /// The one that a service manager made. It goes on listening when this host has ended.
    fn passed(listener: UnixListener) -> Result<Self> {
        let path = listener.local_addr()?;
        let path = path.as_pathname().map(PathBuf::from);
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener: tokio::net::UnixListener::from_std(listener)?,
            path: path.unwrap_or_else(|| "a socket without a name".into()),
            own: None,
        })
    }
}

/// Raises the soft limit as far as this process may.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit
        .maximum
        .map_or(DESCRIPTORS, |maximum| maximum.min(DESCRIPTORS));
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit {
            current: Some(wanted),
            maximum: limit.maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, wanted, "the limit of descriptors could not be raised");
        }
    }
}
