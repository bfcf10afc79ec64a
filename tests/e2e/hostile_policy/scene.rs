//! A host on which a hostile component is tried while VMs come and go.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::Value;

use crate::host::Host;

/// What becomes of a hostile component.
pub(crate) enum Fate {
    /// It is refused when it is pushed, in these words.
    Refused(&'static str),
    /// It is taken, and when it is asked about a VM that does not go away, it makes no decision:
    /// the kind of failure, and words of the error.
    Fails(&'static str, &'static str),
    /// It is taken, it decides, and this shows that nobody is the worse for it.
    Harmless(fn(&Host)),
}

/// What is tried.
pub(crate) struct Case {
    /// The component; it may look at the host, for what it is to be hostile to.
    pub(crate) component: fn(&Host) -> Vec<u8>,
    /// Options of the host.
    pub(crate) options: &'static [&'static str],
    /// Options of the push.
    pub(crate) push: &'static [&'static str],
    pub(crate) fate: Fate,
}

/// A component that is to be refused.
pub(crate) const fn refused(component: fn(&Host) -> Vec<u8>, said: &'static str) -> Case {
    of(component, Fate::Refused(said))
}

/// A component that is taken and then makes no decision.
pub(crate) const fn fails(
    component: fn(&Host) -> Vec<u8>,
    kind: &'static str,
    said: &'static str,
) -> Case {
    of(component, Fate::Fails(kind, said))
}

/// A component that is taken and decides.
pub(crate) const fn harmless(component: fn(&Host) -> Vec<u8>, shown: fn(&Host)) -> Case {
    of(component, Fate::Harmless(shown))
}

const fn of(component: fn(&Host) -> Vec<u8>, fate: Fate) -> Case {
    Case {
        component,
        options: &[],
        push: &[],
        fate,
    }
}

/// The name of the hostile plugin.
pub(crate) const NAME: &str = "hostile";

/// Tries it. All the while VMs are created, booted and deleted beside it, and one more of those
/// begins after it was tried.
pub(crate) fn contained(case: &Case) {
    let host = Host::start_with(case.options);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let over = Over(&done);
        let bystanders = scope.spawn(|| live_and_die(&host, &done));
        attempt(&host, case);
        drop(over);
        bystanders.join().unwrap();
    });
    let left = host.roost(&["vm", "list"]);
    let left = left["items"].as_array().unwrap().iter();
    let left: Vec<_> = left.filter(|vm| is_bystander(vm)).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Ends the bystanders, also where the attempt panics.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

const BYSTANDER: &str = "bystander";

fn is_bystander(vm: &Value) -> bool {
    vm["name"].as_str() == Some(BYSTANDER) || vm["spec"]["name"].as_str() == Some(BYSTANDER)
}

/// VMs that have nothing to do with it.
fn live_and_die(host: &Host, done: &AtomicBool) {
    let kernel = host.file("bystander", roost_guests::HELLO);
    loop {
        let last = done.load(Ordering::SeqCst);
        let arguments = ["--kernel", &kernel, "--memory", "64"];
        let create = [&["vm", "create", "--name", BYSTANDER][..], &arguments].concat();
        let vm = host.roost(&create);
        host.roost(&["vm", "boot", BYSTANDER]);
        host.roost(&["vm", "delete", BYSTANDER]);
        assert!(!run_dir(host, &vm).exists(), "it is not cleaned up: {vm}");
        if last {
            return;
        }
    }
}

fn run_dir(host: &Host, vm: &Value) -> PathBuf {
    host.data().join("run").join(vm["id"].as_str().unwrap())
}

fn attempt(host: &Host, case: &Case) {
    let file = host.file("hostile.wasm", &(case.component)(host));
    let push = [&["plugin", "push", NAME, &file][..], case.push].concat();
    if let Fate::Refused(said) = case.fate {
        let error = host.refused(&push);
        assert!(error.contains(said), "{error}");
        return;
    }
    host.roost(&push);
    host.roost(&["plugin", "activate", NAME]);
    match case.fate {
        Fate::Refused(_) => {}
        Fate::Fails(kind, said) => {
            host.roost(&["plugin", "bind", "cleanup", NAME]);
            fails_and_is_cleaned_up(host, kind, said);
        }
        Fate::Harmless(shown) => shown(host),
    }
}

/// A VM that is deleted and does not go away; returns its id and what can't be removed.
pub(crate) fn stuck(host: &Host) -> (String, PathBuf) {
    let kernel = host.file("stuck", roost_guests::HELLO);
    let vm = host.roost(&["vm", "create", "--name", "stuck", "--kernel", &kernel]);
    let run_dir = run_dir(host, &vm);
    // No directory, so it can't be removed as one.
    fs::write(&run_dir, "").unwrap();
    host.roost(&["vm", "delete", "stuck"]);
    (vm["id"].as_str().unwrap().to_owned(), run_dir)
}

/// The calls of the hostile plugin about a VM, newest decision first, each with its decision.
pub(crate) fn calls(host: &Host, hook: &str, vm: &str) -> Vec<(Value, Value)> {
    let journal = host.roost(&["decisions", "--hook", hook, "--plugin", NAME]);
    let decisions = journal["items"].as_array().unwrap().iter();
    decisions
        .filter(|decision| decision["vm"] == vm)
        .flat_map(|decision| {
            let calls = decision["calls"].as_array().unwrap().iter();
            calls.map(|call| (decision.clone(), call.clone()))
        })
        .filter(|(_, call)| call["plugin"] == NAME)
        .collect()
}

/// It makes no decision about a VM that does not go away; the host's own policy does, and once
/// nothing is in the way the VM is gone.
fn fails_and_is_cleaned_up(host: &Host, kind: &str, said: &str) {
    let (vm, run_dir) = stuck(host);
    let (decision, call) = host.until("its failure is in the journal", || {
        let calls = calls(host, "cleanup", &vm);
        calls
            .into_iter()
            .find(|(_, call)| call["outcome"] == "failed")
    });
    assert_eq!(call["failure"], kind, "{call}");
    let error = call["error"].as_str().unwrap();
    assert!(error.contains(said), "{call}");
    assert_eq!(decision["decided_by"]["by"], "builtin", "{decision}");
    assert!(decision["decision"]["retry-after"].is_u64(), "{decision}");
    // A directory takes the file's place at once, so that there is always something to remove.
    let directory = host.dir.path().join("directory");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("control.sock"), "").unwrap();
    let exchanged = rustix::fs::renameat_with(
        rustix::fs::CWD,
        &directory,
        rustix::fs::CWD,
        &run_dir,
        rustix::fs::RenameFlags::EXCHANGE,
    );
    exchanged.unwrap();
    host.until("the VM is gone", || (!run_dir.exists()).then_some(()));
}
