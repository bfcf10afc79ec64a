//! What holds because each guest has a process of its own.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use futures_util::FutureExt as _;
use roost_guests::{HELLO, RESET};
use roost_model::GuestExit;
use roost_worker::{
    AdoptError, Adoption, ControlError, GuestState, HandleEvent, LaunchError, VmHandle,
    WorkerBackend, WorkerIdentity,
};

use crate::fixture::{Fixture, event, kvm, output, processes_in, within};

fn identity(handle: &Arc<dyn VmHandle>) -> WorkerIdentity {
    handle.identity().expect("a worker has an identity")
}

fn exists(worker: WorkerIdentity) -> bool {
    Path::new(&format!("/proc/{}", worker.pid)).exists()
}

fn kill(worker: WorkerIdentity) {
    let pid = rustix::process::Pid::from_raw(worker.pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_killed_worker_is_noticed_once_and_reaped() {
    let fixture = Fixture::worker();
    let handle = fixture.boot(HELLO).await;
    output(&handle, 0, "tick 1\n").await;

    kill(identity(&handle));

    assert_eq!(
        event(&handle).await,
        HandleEvent::Gone {
            status: "signal 9".to_owned()
        }
    );
    assert!(!exists(identity(&handle)));
    assert!(handle.next_event().now_or_never().is_none());
    assert_eq!(handle.counters().await, Err(ControlError::Gone));
    assert_eq!(handle.serial_wait(1 << 40).await, Err(ControlError::Gone));
    handle.quit().await.unwrap();
}

#[tokio::test]
async fn a_worker_that_quits_is_reaped_and_leaves_no_socket() {
    let fixture = Fixture::worker();
    let handle = fixture.boot(HELLO).await;
    handle.quit().await.unwrap();
    assert_eq!(
        event(&handle).await,
        HandleEvent::Gone {
            status: "exit status 0".to_owned()
        }
    );
    assert!(!exists(identity(&handle)));
    assert_eq!(std::fs::read_dir(fixture.run_dir()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_guest_goes_on_without_a_host_and_is_adopted() {
    let fixture = Fixture::worker();
    let handle = fixture.boot(HELLO).await;
    let worker = identity(&handle);
    let seen = output(&handle, 0, "tick 1\n").await;
    drop(handle);

    let adoption = Adoption {
        pid: Some(worker.pid),
        start_ticks: Some(worker.start_ticks),
        ..fixture.adoption()
    };
    let handle = within(fixture.backend.adopt(&adoption)).await.unwrap();

    assert_eq!(identity(&handle), worker);
    assert_eq!(handle.state(), GuestState::Running);
    output(&handle, seen, "tick").await;
    kill(worker);
    assert_eq!(
        event(&handle).await,
        HandleEvent::Gone {
            status: "unknown".to_owned()
        }
    );
}

#[tokio::test]
async fn a_guests_end_is_told_to_every_host_until_one_acknowledges() {
    let fixture = Fixture::worker();
    let handle = fixture.boot(RESET).await;
    let first = event(&handle).await;
    drop(handle);

    let handle = fixture.adopt().await;
    assert_eq!(handle.state(), GuestState::Exited);
    assert_eq!(event(&handle).await, first);
    let HandleEvent::GuestExited {
        sequence,
        exit: GuestExit::Reset,
        ..
    } = first
    else {
        panic!("expected a reset, found {first:?}");
    };
    handle.acknowledge(sequence).await.unwrap();
    drop(handle);

    let handle = fixture.adopt().await;
    // An answer to a request comes after every event of the welcome.
    handle.counters().await.unwrap();
    assert!(handle.next_event().now_or_never().is_none());
    assert_eq!(handle.stop().await.unwrap().0, GuestExit::Reset);
    handle.quit().await.unwrap();
}

#[tokio::test]
async fn a_newer_host_replaces_the_older() {
    let fixture = Fixture::worker();
    let older = fixture.boot(HELLO).await;
    let newer = fixture.adopt().await;

    newer.counters().await.unwrap();
    // The older one is told so, or finds out by asking.
    within(async { while older.counters().await.is_ok() {} }).await;

    assert_eq!(older.counters().await, Err(ControlError::Disconnected));
    assert!(older.next_event().now_or_never().is_none());
    newer.counters().await.unwrap();
    newer.quit().await.unwrap();
}

#[tokio::test]
async fn only_the_recorded_worker_is_adopted() {
    let fixture = Fixture::worker();
    let handle = fixture.boot(HELLO).await;
    let worker = identity(&handle);
    let good = fixture.adoption();
    let wrong = [
        Adoption {
            nonce: "f".repeat(32),
            ..good.clone()
        },
        Adoption {
            nonce: String::new(),
            ..good.clone()
        },
        Adoption {
            incarnation: 2,
            ..good.clone()
        },
        Adoption {
            pid: Some(worker.pid + 1),
            ..good.clone()
        },
        Adoption {
            start_ticks: Some(worker.start_ticks + 1),
            ..good.clone()
        },
        Adoption {
            vm: Fixture::worker().vm,
            ..good.clone()
        },
    ];
    for adoption in &wrong {
        let error = within(fixture.backend.adopt(adoption))
            .await
            .err()
            .expect("it is wrong");
        assert!(matches!(error, AdoptError::WrongIdentity { .. }), "{error}");
    }
    let handle = within(fixture.backend.adopt(&good)).await.unwrap();
    assert_eq!(identity(&handle), worker);
    handle.quit().await.unwrap();
}

#[tokio::test]
async fn where_no_worker_is_none_is_adopted() {
    let fixture = Fixture::worker();
    let adopt = || async {
        within(fixture.backend.adopt(&fixture.adoption()))
            .await
            .err()
    };
    assert!(
        matches!(adopt().await, Some(AdoptError::NoWorker)),
        "no directory"
    );
    std::fs::create_dir(fixture.run_dir()).unwrap();
    assert!(
        matches!(adopt().await, Some(AdoptError::NoWorker)),
        "no socket"
    );
    let socket = fixture.run_dir().join("control.sock");
    drop(std::os::unix::net::UnixListener::bind(socket).unwrap());
    assert!(
        matches!(adopt().await, Some(AdoptError::NoWorker)),
        "nobody listens"
    );
}

#[tokio::test]
async fn killing_names_a_process_by_its_start_and_is_idempotent() {
    let fixture = Fixture::worker();
    let handle = fixture.boot(HELLO).await;
    let worker = identity(&handle);
    let other = WorkerIdentity {
        start_ticks: worker.start_ticks + 1,
        ..worker
    };
    assert!(!fixture.backend.kill(other).await.unwrap());
    handle.counters().await.unwrap();
    assert!(fixture.backend.kill(worker).await.unwrap());
    assert_eq!(
        event(&handle).await,
        HandleEvent::Gone {
            status: "signal 9".to_owned()
        }
    );
    assert!(!fixture.backend.kill(worker).await.unwrap());
}

#[tokio::test]
async fn a_worker_holds_nothing_that_it_was_not_given() {
    let fixture = Fixture::worker();
    // A descriptor that is inherited by whatever this process starts.
    let secret = File::create(fixture.dir.path().join("secret")).unwrap();
    let inherited = rustix::io::dup(secret.as_fd()).unwrap();
    let flags = rustix::io::fcntl_getfd(&inherited).unwrap();
    assert!(!flags.contains(rustix::io::FdFlags::CLOEXEC));

    let handle = fixture.boot(HELLO).await;

    let log = fixture.run_dir().join("worker.log");
    for entry in std::fs::read_dir(format!("/proc/{}/fd", identity(&handle).pid)).unwrap() {
        let entry = entry.unwrap();
        let target = std::fs::read_link(entry.path()).unwrap();
        let text = target.to_str().unwrap();
        let expected = match entry.file_name().to_str().unwrap() {
            "0" | "1" => text == "/dev/null",
            "2" => target == log,
            _ => {
                text.starts_with("socket:")
                    || text.starts_with("anon_inode:kvm-v")
                    || text == "anon_inode:[eventfd]"
                    || text == "/dev/kvm"
            }
        };
        assert!(expected, "{:?} is {text}", entry.file_name());
    }
    handle.quit().await.unwrap();
}

#[tokio::test]
async fn a_worker_has_a_session_of_its_own_and_can_gain_no_privileges() {
    let fixture = Fixture::worker();
    let handle = fixture.boot(HELLO).await;
    let pid = identity(&handle).pid;
    let raw = rustix::process::Pid::from_raw(pid.try_into().unwrap());
    assert_eq!(rustix::process::getsid(raw).unwrap(), raw.unwrap());
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("NoNewPrivs:\t1\n"), "{status}");
    let directory = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
    assert_eq!(directory, Path::new("/"));
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert_eq!(environment, b"MALLOC_ARENA_MAX=1\0");
    handle.quit().await.unwrap();
}

#[tokio::test]
async fn a_run_directory_may_be_deeper_than_a_socket_address_is_long() {
    let fixture = Fixture::worker();
    let run_dir = fixture.dir.path().join("d".repeat(120)).join("run");
    let launch = roost_worker::Launch {
        run_dir: run_dir.clone(),
        ..fixture.launch_of(HELLO, "")
    };
    drop(within(fixture.backend.launch(launch)).await.unwrap());
    let mode = std::fs::metadata(&run_dir).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);

    let adoption = Adoption {
        run_dir,
        ..fixture.adoption()
    };
    let handle = within(fixture.backend.adopt(&adoption)).await.unwrap();

    assert_eq!(handle.state(), GuestState::Built);
    handle.quit().await.unwrap();
}

#[tokio::test]
async fn what_an_incarnation_before_left_is_replaced() {
    let fixture = Fixture::worker();
    let first = fixture.boot(HELLO).await;
    kill(identity(&first));
    event(&first).await;
    assert!(fixture.run_dir().join("control.sock").exists());

    let second = fixture.boot(HELLO).await;

    output(&second, 0, "tick 1\n").await;
    second.quit().await.unwrap();
}

#[tokio::test]
async fn a_worker_that_nobody_adopted_does_not_outlive_the_next_launch() {
    let fixture = Fixture::worker();
    let forgotten = fixture.boot(HELLO).await;

    let next = fixture.boot(HELLO).await;

    assert_eq!(
        event(&forgotten).await,
        HandleEvent::Gone {
            status: "signal 9".to_owned()
        }
    );
    assert_ne!(identity(&next), identity(&forgotten));
    next.counters().await.unwrap();
    next.quit().await.unwrap();
}

#[tokio::test]
async fn a_launch_that_fails_leaves_no_process() {
    let fixture = Fixture::worker();
    let error = fixture
        .try_launch(b"no kernel")
        .await
        .err()
        .expect("it is no kernel");
    assert!(matches!(error, LaunchError::Build(_)), "{error}");
    assert_eq!(processes_in(&fixture.run_dir()), Vec::<i32>::new());
}

#[tokio::test]
async fn a_launch_that_is_given_up_leaves_no_process() {
    let fixture = Fixture::worker();
    // As far as a single poll goes, and as far as the process's start.
    assert!(fixture.try_launch(HELLO).now_or_never().is_none());
    within(async {
        while !processes_in(&fixture.run_dir()).is_empty() || fixture.run_dir().exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_executable_that_is_no_worker_is_a_typed_error() {
    let fixture = Fixture::new(WorkerBackend::new("/nonexistent/roost".into(), kvm()));
    let error = fixture
        .try_launch(HELLO)
        .await
        .err()
        .expect("there is no such file");
    assert!(matches!(error, LaunchError::Spawn { .. }), "{error}");
    assert!(!fixture.run_dir().exists());

    let fixture = Fixture::new(WorkerBackend::new("/bin/false".into(), kvm()));
    let error = fixture
        .try_launch(HELLO)
        .await
        .err()
        .expect("it is no worker");
    assert!(
        matches!(
            error,
            LaunchError::WorkerEnded { .. } | LaunchError::Handover(_)
        ),
        "{error}"
    );
    assert!(!fixture.run_dir().exists());
}
