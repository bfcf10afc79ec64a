//! A node that lacks something: KVM, memory, descriptors. What can't be done is refused by the name
//! of what lacks, and everything else goes on.

#[allow(dead_code)]
#[path = "host.rs"]
mod host;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use host::{Host, PATIENCE, kill};
use roost_model::DESCRIPTORS_PER_VM;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

/// Runs `roost serve` where a command has changed `/dev`; what it writes to its standard error.
fn refused_after(change: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let flags: &[&str] = if is_root {
        &["-m"]
    } else {
        &["-U", "-r", "-m"]
    };
    let output = Command::new("unshare")
        .args(flags)
        .args(["sh", "-c", &format!(r#"{change} && exec "$@""#), "sh"])
        .arg(env!("CARGO_BIN_EXE_roost"))
        .args(["serve", "--data"])
        .arg(&data)
        .output()
        .expect("unshare(1), of util-linux or busybox, is there");
    assert!(!output.status.success());
    assert!(!data.exists(), "nothing is made");
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(error.lines().count(), 1, "one sentence: {error}");
    assert!(error.starts_with("roost: /dev/kvm "), "{error}");
    error
}

#[test]
fn a_host_without_kvm_does_not_start_and_says_why_in_one_sentence() {
    let error = refused_after("mount -t tmpfs tmpfs /dev");
    assert!(error.contains("can't be opened"), "{error}");
    assert!(error.contains("No such file or directory"), "{error}");
    let error = refused_after("mount --bind /dev/null /dev/kvm");
    assert!(
        error.contains("no VM can be made with it: KVM_GET_API_VERSION"),
        "{error}"
    );
}

#[test]
fn a_vm_that_there_is_no_memory_for_fails_by_that_name_and_the_others_go_on() {
    let host = Host::start_with(&["--max-memory", "2000000"]);
    host.boot_hello("web");
    let kernel = host.file("hello", roost_guests::HELLO);
    host.roost(&["image", "push", &kernel, "--tag", "hello:1"]);
    // Huge pages are set aside at once, and no machine of ours has so many.
    let spec =
        br#"{"name":"big","kernel":"hello:1","memory_mib":1048576,"memory_backing":"hugetlbfs"}"#;
    let spec = host.file("spec.json", spec);
    host.roost(&["vm", "create", "--spec", &spec]);
    let error = host.refused(&["vm", "boot", "big"]);
    assert!(error.contains("there is no memory for the VM"), "{error}");
    let vm = host.roost(&["vm", "show", "big"]);
    assert_eq!(vm["state"], "failed");
    assert_eq!(vm["failure"]["kind"], "no-memory");
    assert_eq!(vm["worker"], serde_json::Value::Null);

    let web = host.roost(&["vm", "show", "web"]);
    let run: Vec<_> = fs::read_dir(host.data().join("run")).unwrap().collect();
    assert_eq!(run.len(), 1, "{run:?} beside that of {web}");
    let audit = host.roost(&["audit"]);
    assert_eq!(audit["divergences"], serde_json::json!([]));
    let before = host.log("web").len();
    host.until("more ticks", || {
        (host.log("web").len() > before).then_some(())
    });
    // It is as any VM that failed.
    host.roost(&["vm", "delete", "big"]);
}

/// The numbers of the descriptors that a host has open.
fn open_files(host: &Host) -> Vec<u64> {
    let entries = fs::read_dir(format!("/proc/{}/fd", host.pid())).unwrap();
    let numbers = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    numbers.map(|number| number.parse().unwrap()).collect()
}

/// Changes how many files the host may have open; returns what it was.
fn limit_files(host: &Host, current: Option<u64>) -> Rlimit {
    let pid = Pid::from_raw(i32::try_from(host.pid()).unwrap());
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    prlimit(pid, Resource::Nofile, Rlimit { current, maximum }).unwrap()
}

/// A limit with which the host can open so many more files and no others.
fn limit_for(host: &Host, more: u64) -> u64 {
    let open = open_files(host);
    let free = |limit: u64| limit - open.iter().filter(|number| **number < limit).count() as u64;
    (0..).find(|limit| free(*limit) == more).unwrap()
}

fn request(host: &Host, head: &str) -> (UnixStream, String) {
    let mut stream = UnixStream::connect(host.data().join("roost.sock")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "{head} HTTP/1.1\r\nhost: roost\r\ncontent-length: 0\r\n\r\n"
    )
    .unwrap();
    let mut answer = vec![0; 16 << 10];
    let length = stream.read(&mut answer).unwrap();
    answer.truncate(length);
    (stream, String::from_utf8(answer).unwrap())
}

#[test]
fn a_running_vm_takes_as_many_descriptors_of_the_host_as_are_counted_for_it() {
    let host = Host::start();
    let kernel = host.file("hello", roost_guests::HELLO);
    host.roost(&["image", "push", &kernel, "--tag", "hello:1"]);
    let spec = br#"{"kernel":"hello:1","memory_mib":64,"vsock":true,"console":true,"rng":true,
        "balloon":{},"disks":[{"name":"data","size_mib":1}],"name":"devices"}"#;
    let spec = host.file("spec.json", spec);
    host.roost(&["vm", "create", "--spec", &spec]);
    for name in ["plain", "another"] {
        host.roost(&[
            "vm", "create", "--name", name, "--kernel", "hello:1", "--memory", "64",
        ]);
    }
    // What is opened once, with the first VM, is not a VM's.
    host.roost(&["vm", "boot", "plain"]);
    host.roost(&["vm", "shutdown", "plain"]);
    let base = settled_files(&host);
    let per_vm = usize::try_from(DESCRIPTORS_PER_VM).unwrap();
    for (number, name) in (1..).zip(["plain", "devices", "another"]) {
        host.roost(&["vm", "boot", name]);
        assert_eq!(settled_files(&host), base + number * per_vm, "{name}");
    }
    for name in ["plain", "devices", "another"] {
        host.roost(&["vm", "shutdown", name]);
    }
    assert_eq!(settled_files(&host), base);
}

/// How many files the host has open when nothing is under way: the least that is seen in a while.
fn settled_files(host: &Host) -> usize {
    let end = Instant::now() + Duration::from_secs(2);
    let mut least = usize::MAX;
    while Instant::now() < end {
        least = least.min(open_files(host).len());
    }
    least
}

#[test]
fn without_descriptors_requests_are_refused_by_the_limit_and_with_them_all_goes_on() {
    let host = Host::start();
    host.boot_hello("web");
    let kernel = host.file("hello", roost_guests::HELLO);
    host.roost(&[
        "vm", "create", "--name", "more", "--kernel", &kernel, "--memory", "64",
    ]);
    // Enough for some connections, and not for a boot or for images to be looked into.
    let limit = limit_for(&host, 6);
    let before = limit_files(&host, Some(limit));

    let error = host.refused(&["vm", "boot", "more"]);
    assert!(
        error.contains(&format!(
            "the limit of open files is {limit} (RLIMIT_NOFILE)"
        )),
        "{error}"
    );
    assert!(error.contains("16 more are needed"), "{error}");
    assert_eq!(host.roost(&["vm", "show", "more"])["state"], "stopped");
    let (_, answer) = request(&host, "POST /v1/vms/more/boot");
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(
        answer.contains("urn:roost:problem:no-descriptors"),
        "{answer}"
    );
    assert!(answer.contains(&format!(r#""most":{limit}"#)), "{answer}");
    let create = ["vm", "create", "--name", "new", "--kernel", "sha256:0"];
    assert!(!host.refused(&create).contains("panicked"));
    let (_, answer) = request(&host, "GET /readyz");
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("RLIMIT_NOFILE"), "{answer}");

    // A worker that is lost now is not given up for want of descriptors.
    kill(host.worker("web").unwrap());
    host.until("the incident", || {
        (host.roost(&["vm", "show", "web"])["state"] == "failed").then_some(())
    });

    // Connections that are held use up what is left; the next is told so, rather than left waiting.
    let mut held = Vec::new();
    let refusal = loop {
        let (stream, answer) = request(&host, "GET /healthz");
        if !answer.starts_with("HTTP/1.1 200") {
            break answer;
        }
        held.push(stream);
        assert!(
            held.len() < 20,
            "connections are accepted without descriptors"
        );
    };
    assert!(refusal.starts_with("HTTP/1.1 503"), "{refusal}");
    assert!(
        refusal.contains("urn:roost:problem:no-descriptors"),
        "{refusal}"
    );
    assert!(refusal.contains("RLIMIT_NOFILE"), "{refusal}");

    drop(held);
    limit_files(&host, before.current);
    host.roost(&["vm", "boot", "more"]);
    host.until("recovery", || {
        let vm = host.roost(&["vm", "show", "web"]);
        (vm["state"] == "running" && vm["incarnation"] == 2).then_some(())
    });
    assert_eq!(host.roost(&["vm", "show", "web"])["recovery_attempts"], 1);
    let (_, answer) = request(&host, "GET /readyz");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_host_that_may_open_little_takes_as_many_vms_as_it_has_descriptors_for() {
    let host = Host::start_with_files(64, &[]);
    let kernel = host.file("hello", roost_guests::HELLO);
    host.roost(&["image", "push", &kernel, "--tag", "hello:1"]);
    let create = |number: usize| {
        let name = format!("vm-{number}");
        host.run(&[
            "vm", "create", "--name", &name, "--kernel", "hello:1", "--memory", "64",
        ])
    };
    let created = (0..100)
        .take_while(|number| create(*number).status.success())
        .count();
    assert_eq!(created, 10, "half of 64, three for each");
    let error = create(created);
    let error = String::from_utf8_lossy(&error.stderr);
    let expected = "the limit max-descriptors is 32, 30 are in use and 3 were requested";
    assert!(error.contains(expected), "{error}");
    // What else the host has open may leave less than that: then a boot is refused, and not tried.
    let boot = |number: usize| host.run(&["vm", "boot", &format!("vm-{number}")]);
    for number in 0..created {
        let output = boot(number);
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(error.contains("the limit of open files is 64"), "{error}");
        }
    }
    let vms = host.roost(&["vm", "list"]);
    let states = vms["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|vm| &vm["state"]);
    assert!(
        states
            .into_iter()
            .all(|state| state == "running" || state == "stopped")
    );
    host.roost(&["vm", "delete", "vm-0"]);
    assert!(create(created).status.success());
}

#[test]
fn a_host_that_could_not_take_over_the_vms_that_run_does_not_start_and_they_go_on() {
    let mut host = Host::start();
    host.boot_hello("web");
    let worker = host.worker("web").unwrap();
    host.kill();
    let output = host.try_serve_with_files(34);
    assert!(!output.status.success());
    let error = String::from_utf8(output.stderr).unwrap();
    let expected = "the VMs that run (1), this host needs 35 open files, and it may have 34";
    assert!(error.contains(expected), "{error}");
    host.start_again();
    host.until("adoption", || {
        (host.worker("web") == Some(worker)).then_some(())
    });
    host.until("its state", || {
        (host.roost(&["vm", "show", "web"])["state"] == "running").then_some(())
    });
}
