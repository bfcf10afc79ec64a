//! The vCPUs of a VM and the threads that run them.
//!
//! Each thread waits until the VM is to run ([`Run::enter`]), is in the guest until the guest ends
//! or somebody calls it back ([`super::kick`]), and looks again. The thread on which the guest
//! ends calls the others back itself, so that a VM stops as one, whoever watches it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use kvm_ioctls::{VcpuExit, VcpuFd};
use roost_model::{Exits, GuestExit};

use super::run::Run;
use super::shared_page::SharedPage;
use super::{KvmError, Request as _, kick};
use crate::counters::{ExitCounters, own_cpu_clock, read_cpu_clock};
use crate::devices::Buses;

/// Stack of a vCPU thread: it calls KVM and a few devices, none of them deep.
const STACK_BYTES: usize = 128 << 10;

/// A vCPU's thread as the rest of the VM sees it.
pub(crate) struct Vcpu {
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

/// What the thread and the others both use.
struct Shared {
    page: SharedPage,
    exits: ExitCounters,
    life: Mutex<Life>,
}

/// A thread's life. The thread leaves `Running` itself, under the lock: whoever holds the lock and
/// sees it may use the thread's id and clock.
enum Life {
    NotStarted,
    Running {
        thread: libc::pthread_t,
        clock: Option<libc::clockid_t>,
    },
    /// CPU time that it took in all, ns.
    Ended(u64),
}

/// Starts a thread for each vCPU. They wait until the VM is to run.
///
/// Where one can't be started, the VM is ended, and the others end with it.
pub(crate) fn start(
    vcpus: Vec<VcpuFd>,
    buses: &Arc<Buses>,
    run: &Arc<Run>,
) -> Result<Vec<Vcpu>, KvmError> {
    kick::prepare_process()?;
    let all = vcpus
        .iter()
        .map(|vcpu| Shared::new(vcpu).map(Arc::new))
        .collect::<Result<Arc<[_]>, _>>()?;
    let mut started = Vec::with_capacity(vcpus.len());
    for (index, (vcpu, shared)) in vcpus.into_iter().zip(all.iter()).enumerate() {
        let (all, buses, run) = (Arc::clone(&all), Arc::clone(buses), Arc::clone(run));
        let (of_thread, on_failure) = (Arc::clone(shared), Arc::clone(&run));
        let thread = thread::Builder::new()
            .name(format!("vcpu{index}"))
            .stack_size(STACK_BYTES)
            .spawn(move || of_thread.live(vcpu, &buses, &run, &all))
            .request("clone of a vCPU thread")
            .inspect_err(|_| on_failure.end(GuestExit::Stopped))?;
        started.push(Vcpu {
            thread: Some(thread),
            shared: Arc::clone(shared),
        });
    }
    Ok(started)
}

/// Calls a vCPU out of the guest from elsewhere.
#[derive(Clone)]
pub(crate) struct Kicker(Arc<Shared>);

impl Kicker {
    pub(crate) fn kick(&self) {
        self.0.kick();
    }
}

impl Vcpu {
    pub(crate) fn kicker(&self) -> Kicker {
        Kicker(Arc::clone(&self.shared))
    }

    /// Calls the thread out of the guest.
    pub(crate) fn kick(&self) {
        self.shared.kick();
    }

    pub(crate) fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // What could panic in it is caught there and became the guest's exit.
            let _ = thread.join();
        }
    }

    /// CPU time of the thread so far, ns.
    pub(crate) fn cpu_ns(&self) -> u64 {
        match *self.shared.life() {
            Life::NotStarted | Life::Running { clock: None, .. } => 0,
            Life::Running {
                clock: Some(clock), ..
            } => read_cpu_clock(clock),
            Life::Ended(ns) => ns,
        }
    }

    pub(crate) fn add_exits(&self, sum: &mut Exits) {
        self.shared.exits.add_to(sum);
    }
}

impl Shared {
    fn new(vcpu: &VcpuFd) -> Result<Self, KvmError> {
        Ok(Self {
            page: SharedPage::map(vcpu)?,
            exits: ExitCounters::default(),
            life: Mutex::new(Life::NotStarted),
        })
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kick(&self) {
        self.page.set_immediate_exit(1);
        if let Life::Running { thread, .. } = *self.life() {
            // SAFETY: the thread is alive: it can't leave `Running` while the lock is held.
            unsafe { libc::pthread_kill(thread, kick::signal()) };
        }
    }

    /// The thread, from its start to its end.
    fn live(&self, mut vcpu: VcpuFd, buses: &Buses, run: &Run, all: &[Arc<Self>]) {
        *self.life() = Life::Running {
            // SAFETY: it has no preconditions.
            thread: unsafe { libc::pthread_self() },
            clock: own_cpu_clock(),
        };
        if let Err(error) = kick::prepare_thread() {
            let detail = format!("a vCPU thread can't be called back: {error}");
            run.end(GuestExit::Unexpected { detail });
        }
        while let Some(entered) = run.enter(|| self.page.set_immediate_exit(0)) {
            if entered.was_held {
                // Tells the guest that it did not run, so that its watchdogs don't bark. Refused
                // while the guest doesn't use KVM's clock, and then there is nobody to tell.
                let _ = vcpu.kvmclock_ctrl();
            }
            // A defect of ours must not leave a VM that can be neither paused nor stopped.
            let ended = catch_unwind(AssertUnwindSafe(|| self.run_guest(&mut vcpu, buses)));
            let ended = ended.unwrap_or_else(|_| {
                let detail = "a vCPU thread panicked".to_owned();
                Some(GuestExit::Unexpected { detail })
            });
            // First the end, then leaving: whoever waits for the vCPUs sees why they left.
            if let Some(exit) = ended {
                run.end(exit);
                all.iter().for_each(|vcpu| vcpu.kick());
            }
            run.leave();
        }
        *self.life() = Life::Ended(read_cpu_clock(libc::CLOCK_THREAD_CPUTIME_ID));
    }

    /// Runs the guest until it ends (how it did) or the thread is called back (`None`).
    fn run_guest(&self, vcpu: &mut VcpuFd, buses: &Buses) -> Option<GuestExit> {
        let exits = &self.exits;
        loop {
            match vcpu.run() {
                Ok(VcpuExit::IoOut(port, data)) => {
                    exits.io_out.count();
                    let width = self.page.port_width();
                    let end = buses.ports.write(port, width, data).exit();
                    if end.is_some() {
                        return end;
                    }
                }
                Ok(VcpuExit::IoIn(port, data)) => {
                    exits.io_in.count();
                    buses.ports.read(port, self.page.port_width(), data);
                }
                Ok(VcpuExit::MmioRead(address, data)) => {
                    exits.mmio_read.count();
                    buses.mmio.read(address, data);
                }
                Ok(VcpuExit::MmioWrite(address, data)) => {
                    exits.mmio_write.count();
                    buses.mmio.write(address, data);
                }
                // Registers that KVM doesn't know: a fault in the guest.
                Ok(VcpuExit::X86Rdmsr(access)) => {
                    exits.other.count();
                    *access.error = 1;
                }
                Ok(VcpuExit::X86Wrmsr(access)) => {
                    exits.other.count();
                    *access.error = 1;
                }
                Ok(VcpuExit::Hlt) => {
                    exits.halt.count();
                    return Some(GuestExit::Halt);
                }
                Ok(VcpuExit::Intr) => {
                    exits.interrupted.count();
                    return None;
                }
                // EAGAIN: a vCPU that waits for its start-up interrupt was woken.
                Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                    exits.interrupted.count();
                    return None;
                }
                exit => {
                    exits.other.count();
                    let end = match exit {
                        Ok(VcpuExit::Shutdown) => GuestExit::TripleFault,
                        Ok(VcpuExit::FailEntry(reason, _)) => GuestExit::FailedEntry { reason },
                        Ok(VcpuExit::InternalError) => GuestExit::InternalError {
                            suberror: suberror(vcpu),
                        },
                        Ok(exit) => GuestExit::Unexpected {
                            detail: format!("an exit that is not handled: {exit:?}"),
                        },
                        Err(error) => GuestExit::Unexpected {
                            detail: format!("KVM_RUN: {error}"),
                        },
                    };
                    return Some(end);
                }
            }
        }
    }
}

fn suberror(vcpu: &mut VcpuFd) -> u32 {
    let run = vcpu.get_kvm_run();
    // SAFETY: after KVM_EXIT_INTERNAL_ERROR the kernel has filled this member of the union, and
    // every bit pattern is a number.
    unsafe { run.__bindgen_anon_1.internal.suberror }
}
