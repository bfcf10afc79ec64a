//! What plugins may ask of the host, and what they are not granted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use roost_model::{Grant, Hook};
use roost_policy::{
    ActivePlugin, CallLimits, CallOutcome, CallRecord, Caller, CleanupDecision, Decided,
    FailureKind, HostEvent, HostServices, HostView, KvUsage, Level, LoadError, LogLine, PolicyHost,
    PolicyRuntime, RuntimeConfig, Vm, VmFilter,
};

use crate::component::{cleanup_importing, describing_with};
use crate::{binding, delay, facts, subject};

/// A host of two tenants with a VM each, and values that are committed as an engine would.
#[derive(Default)]
struct Store {
    values: Mutex<BTreeMap<(String, String), Vec<u8>>>,
    opened: Mutex<Vec<Caller>>,
    broken: bool,
}

struct View(BTreeMap<String, Vec<u8>>);

fn vm(id: &str, tenant: &str) -> Vm {
    Vm {
        id: id.to_owned(),
        tenant: tenant.to_owned(),
        ..facts::vm()
    }
}

impl HostServices for Store {
    fn open(&self, caller: &Caller) -> Result<Box<dyn HostView>, String> {
        if self.broken {
            return Err("the store is gone".to_owned());
        }
        self.opened.lock().unwrap().push(caller.clone());
        let values = self.values.lock().unwrap();
        let own = values
            .iter()
            .filter(|((plugin, _), _)| *plugin == caller.plugin);
        Ok(Box::new(View(
            own.map(|((_, key), value)| (key.clone(), value.clone()))
                .collect(),
        )))
    }
}

impl HostView for View {
    // Careless: it shows everybody's. The policy host must not rely on it.
    fn vm(&self, id: &str) -> Result<Option<Vm>, String> {
        Ok(Some(vm(id, if id == "vm-a" { "acme" } else { "other" })))
    }
    fn vms(&self, _: &VmFilter, _: usize) -> Result<Vec<Vm>, String> {
        Ok(vec![
            vm("vm-a", "acme"),
            vm("vm-b", "other"),
            vm("vm-c", "acme"),
        ])
    }
    fn history(&self, _: &str, limit: usize) -> Result<Vec<HostEvent>, String> {
        let event = |number| HostEvent {
            number,
            at_ms: 1,
            kind: "vm-booted".to_owned(),
            detail: "{}".to_owned(),
            attributes: Vec::new(),
        };
        Ok((0..limit as u64).map(event).collect())
    }
    fn kv_get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(self.0.get(key).cloned())
    }
    fn kv_list(&self, prefix: &str, _: Option<&str>, n: usize) -> Result<Vec<String>, String> {
        Ok(self
            .0
            .keys()
            .filter(|key| key.starts_with(prefix))
            .take(n)
            .cloned()
            .collect())
    }
    fn kv_usage(&self) -> Result<KvUsage, String> {
        Ok(KvUsage {
            keys: self.0.len() as u64,
            bytes: self.0.iter().map(|(k, v)| (k.len() + v.len()) as u64).sum(),
            max_keys: 2,
            max_bytes: 100,
        })
    }
}

const HOST: &str = "roost:policy/host@0.1.0";

fn import(name: &str, parameters: &str, result: &str) -> String {
    format!(r#"(import "{HOST}" "{name}" (func ${name} (param {parameters}) {result}))"#)
}

/// Answers with the number that `value`, an i64, leaves.
fn answering(value: &str) -> String {
    format!("(i64.store (i32.const 520) {value}) i32.const 512")
}

fn host_with(store: &Arc<Store>, component: &[u8], grants: &[Grant]) -> PolicyHost {
    let runtime = PolicyRuntime::with(RuntimeConfig {
        limits: CallLimits {
            deadline: std::time::Duration::from_secs(2),
            ..CallLimits::default()
        },
        services: Some(Arc::clone(store) as Arc<dyn HostServices>),
        ..RuntimeConfig::default()
    });
    let host = PolicyHost::new(runtime.unwrap());
    let plugin = host
        .runtime()
        .load_with(component, &grants.iter().copied().collect())
        .unwrap();
    let binding = binding(Hook::Cleanup, "asking", 100);
    host.set_active(vec![ActivePlugin {
        name: "asking".to_owned(),
        revision: 1,
        settings: "{}".to_owned(),
        plugin,
        bindings: vec![binding],
    }]);
    host
}

fn ask(host: &PolicyHost) -> Decided<CleanupDecision> {
    host.cleanup(facts::cleanup(1, 1), subject("acme", &[]))
}

fn failure(record: &CallRecord) -> (FailureKind, &str) {
    match &record.outcome {
        CallOutcome::Error(failure) => (failure.kind, &failure.message),
        CallOutcome::Decision(decision) => panic!("{decision:?}"),
    }
}

/// Writes `text` to the log at `level` for each decision.
fn logging(level: u8, text: &str) -> Vec<u8> {
    cleanup_importing(
        &import("log", "i32 i32 i32", ""),
        &format!(
            "(call $log (i32.const {level}) (i32.const 1024) (i32.const {})) {}",
            text.replace("\\1b", "x").len(),
            answering("(i64.const 3)")
        ),
        &format!(r#"(data (i32.const 1024) "{text}")"#),
    )
}

/// Adds one to the counter `n`, which has one byte, by swapping, and answers with what it was.
fn counting() -> Vec<u8> {
    cleanup_importing(
        &[
            import("kv-get", "i32 i32 i32", ""),
            import(
                "kv-compare-and-swap",
                "i32 i32 i32 i32 i32 i32 i32 i32 i32",
                "",
            ),
        ]
        .concat(),
        // An option<list<u8>> is at 600: tag, pointer, length. What is allocated is at 32768.
        &format!(
            "(call $kv-get (i32.const 1024) (i32.const 1) (i32.const 600))
             (i32.store8 (i32.const 700) (i32.const 0))
             (if (i32.load8_u (i32.const 600)) (then
                 (i32.store8 (i32.const 700) (i32.load8_u (i32.load (i32.const 604))))))
             (i32.store8 (i32.const 701) (i32.add (i32.load8_u (i32.const 700)) (i32.const 1)))
             (call $kv-compare-and-swap (i32.const 1024) (i32.const 1)
                 (i32.load8_u (i32.const 600)) (i32.const 700) (i32.const 1)
                 (i32.const 1) (i32.const 701) (i32.const 1) (i32.const 640))
             (if (i32.or (i32.load8_u (i32.const 640)) (i32.eqz (i32.load8_u (i32.const 644))))
                 (then unreachable))
             {}",
            answering("(i64.extend_i32_u (i32.load8_u (i32.const 700)))")
        ),
        r#"(data (i32.const 1024) "n")"#,
    )
}

#[test]
fn a_log_is_granted_to_everybody_and_comes_with_the_call() {
    let host = host_with(&Arc::default(), &logging(3, "odd\\1b"), &[Grant::Log]);
    assert!(host.runtime().load(&logging(3, "odd")).is_ok());
    let decided = ask(&host);
    assert_eq!(delay(&decided), 3);
    let line = LogLine {
        level: Level::Warn,
        message: "odd\u{fffd}".to_owned(),
    };
    assert_eq!(decided.calls[0].log, [line]);
}

#[test]
fn what_is_not_granted_is_refused_by_its_name_and_with_the_grant() {
    let runtime = crate::runtime();
    let cases = [
        (import("get-vm", "i32 i32 i32", ""), "get-vm", Grant::Query),
        (
            import("history", "i32 i32 i32 i32", ""),
            "history",
            Grant::Query,
        ),
        (import("kv-get", "i32 i32 i32", ""), "kv-get", Grant::Kv),
        (
            import("kv-delete", "i32 i32", "(result i32)"),
            "kv-delete",
            Grant::Kv,
        ),
        (import("log", "i32 i32 i32", ""), "log", Grant::Log),
    ];
    for (imports, name, needed) in cases {
        let component = cleanup_importing(&imports, "unreachable", "");
        let others: BTreeSet<Grant> = Grant::ALL
            .into_iter()
            .filter(|grant| *grant != needed)
            .collect();
        let error = runtime.load_with(&component, &others).err().unwrap();
        assert!(
            matches!(&error, LoadError::NotGranted { import, grant }
                if *import == format!("{HOST}#{name}") && *grant == needed),
            "{error}"
        );
        assert!(
            error.to_string().contains(&format!("\"{needed}\"")),
            "{error}"
        );
        let plugin = runtime
            .load_with(&component, &BTreeSet::from([needed]))
            .unwrap();
        assert_eq!(plugin.needs(), &BTreeSet::from([needed]));
        assert_eq!(plugin.imports(), [format!("{HOST}#{name}")]);
    }
}

#[test]
fn another_tenants_vm_is_none_whatever_the_engine_shows() {
    let component = |id: &str| {
        cleanup_importing(
            &import("get-vm", "i32 i32 i32", ""),
            &format!(
                "(call $get-vm (i32.const 1024) (i32.const 4) (i32.const 2048)) {}",
                answering("(i64.extend_i32_u (i32.load8_u (i32.const 2048)))")
            ),
            &format!(r#"(data (i32.const 1024) "{id}")"#),
        )
    };
    let store = Arc::default();
    let found = |id| delay(&ask(&host_with(&store, &component(id), &[Grant::Query])));
    assert_eq!(found("vm-a"), 1);
    assert_eq!(found("vm-b"), 0);
    let caller = Caller {
        plugin: "asking".to_owned(),
        tenant: Some("acme".to_owned()),
    };
    assert_eq!(*store.opened.lock().unwrap(), [caller.clone(), caller]);
}

#[test]
fn only_the_tenants_vms_are_listed() {
    // An empty filter is ten zeros: two lists and two options of strings.
    let component = cleanup_importing(
        &import(
            "list-vms",
            "i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32",
            "",
        ),
        &format!(
            "(call $list-vms {} (i32.const 2048)) {}",
            "(i32.const 0)".repeat(10),
            answering("(i64.load32_u (i32.const 2052))")
        ),
        "",
    );
    let host = host_with(&Arc::default(), &component, &[Grant::Query]);
    assert_eq!(delay(&ask(&host)), 2);
}

#[test]
fn values_come_back_with_the_decision_and_are_seen_once_they_are_stored() {
    let store: Arc<Store> = Arc::default();
    let host = host_with(&store, &counting(), &[Grant::Kv]);
    for n in 0..3u8 {
        let decided = ask(&host);
        assert_eq!(delay(&decided), u64::from(n));
        let kv = &decided.calls[0].kv;
        assert_eq!(kv.writes["n"], Some(vec![n + 1]));
        assert_eq!(kv.expected["n"], (n > 0).then(|| vec![n]));
        // Not stored yet: the same answer.
        assert_eq!(delay(&ask(&host)), u64::from(n));
        let key = ("asking".to_owned(), "n".to_owned());
        store.values.lock().unwrap().insert(key, vec![n + 1]);
    }
}

#[test]
fn what_a_call_that_fails_wanted_stored_does_not_come_back() {
    let component = cleanup_importing(
        &import("kv-set", "i32 i32 i32 i32 i32", ""),
        "(call $kv-set (i32.const 1024) (i32.const 1) (i32.const 1024) (i32.const 1)
            (i32.const 600)) unreachable",
        r#"(data (i32.const 1024) "n")"#,
    );
    let decided = ask(&host_with(&Arc::default(), &component, &[Grant::Kv]));
    assert_eq!(failure(&decided.calls[0]).0, FailureKind::Trap);
    assert!(decided.calls[0].kv.is_empty());
}

#[test]
fn a_flood_of_host_calls_ends_the_call() {
    let component = cleanup_importing(
        &import("kv-delete", "i32 i32", "(result i32)"),
        "(loop $again (drop (call $kv-delete (i32.const 1024) (i32.const 1))) br $again)
         unreachable",
        r#"(data (i32.const 1024) "n")"#,
    );
    let decided = ask(&host_with(&Arc::default(), &component, &[Grant::Kv]));
    let (kind, message) = failure(&decided.calls[0]);
    assert_eq!(kind, FailureKind::Nonsense);
    assert!(message.contains("more than 1000 times"), "{message}");
}

#[test]
fn a_host_that_can_not_answer_is_not_the_plugins_fault() {
    let store = Arc::new(Store {
        broken: true,
        ..Store::default()
    });
    let host = host_with(&store, &counting(), &[Grant::Kv]);
    for _ in 0..20 {
        let decided = ask(&host);
        let (kind, message) = failure(&decided.calls[0]);
        assert_eq!(kind, FailureKind::Host);
        assert!(message.contains("the store is gone"), "{message}");
        assert_eq!(decided.quarantine, []);
    }
}

#[test]
fn a_component_that_asks_the_host_while_it_is_loaded_is_refused() {
    let component = describing_with(
        &import("kv-delete", "i32 i32", "(result i32)"),
        "(drop (call $kv-delete (i32.const 1024) (i32.const 1))) i32.const 256",
    );
    let error = crate::runtime()
        .load_with(&component, &BTreeSet::from([Grant::Kv]))
        .err()
        .unwrap();
    assert!(error.to_string().contains("while it is loaded"), "{error}");
}

#[test]
fn functions_of_the_host_that_do_not_exist_or_have_another_type_are_refused() {
    let with = |function: &str| {
        let component =
            format!(r#"(component (import "{HOST}" (instance (export "log" (func {function})))))"#);
        crate::runtime()
            .load(&wat::parse_str(component).unwrap())
            .err()
            .unwrap()
    };
    let exporting_nothing = with("");
    assert!(
        matches!(exporting_nothing, LoadError::NothingKnown { .. }),
        "{exporting_nothing}"
    );
    let component =
        format!(r#"(component (import "{HOST}" (instance (export "shut-down" (func)))))"#);
    let error = crate::runtime()
        .load(&wat::parse_str(component).unwrap())
        .err()
        .unwrap();
    assert!(
        matches!(&error, LoadError::Import(name) if *name == format!("{HOST}#shut-down")),
        "{error}"
    );
}
