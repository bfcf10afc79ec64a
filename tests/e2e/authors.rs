//! The newcomer's path of `docs/plugin-authors.md`: each command as it is written there, in order,
//! with a real host, a real VM and the tools of the language.

#[allow(dead_code)]
#[path = "host.rs"]
mod host;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use host::Host;
use serde_json::Value;

const GUIDE: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/plugin-authors.md"
));
/// Incidents until a bad revision must be in quarantine: several times what a host tolerates.
const PATIENCE: usize = 20;

/// What of the path depends on the language.
struct Language {
    name: &'static str,
    source: &'static str,
    /// From three restarts to four.
    edit: (&'static str, &'static str),
    /// The beginning of a decision, and the same with a failure before it.
    bad: (&'static str, &'static str),
    /// What an operator reads of that failure.
    failure: &'static str,
}

const RUST: Language = Language {
    name: "rust",
    source: "src/lib.rs",
    edit: ("max_restarts: 3,", "max_restarts: 4,"),
    bad: (
        "if matches!(facts.vm.desired",
        "assert!(facts.attempts > 1000, \"no more restarts\");\n        if matches!(facts.vm.desired",
    ),
    failure: "no more restarts",
};
const JS: Language = Language {
    name: "js",
    source: "policy.js",
    edit: ("max_restarts: 3,", "max_restarts: 4,"),
    bad: (
        "decide(facts) {",
        "decide(facts) {\n    throw new Error(\"no more restarts\");",
    ),
    failure: "no more restarts",
};
const PYTHON: Language = Language {
    name: "python",
    source: "policy.py",
    edit: (
        "DEFAULTS = {\"max_restarts\": 3",
        "DEFAULTS = {\"max_restarts\": 4",
    ),
    bad: (
        "        settings = DEFAULTS | json.loads(facts.context.settings)",
        "        raise RuntimeError(\"no more restarts\")",
    ),
    failure: "no more restarts",
};
const C: Language = Language {
    name: "c",
    source: "policy.c",
    edit: (".max_restarts = 3,", ".max_restarts = 4,"),
    bad: (
        "  struct settings settings;",
        "  struct settings settings;\n  roost_fail(\"no more restarts\");",
    ),
    failure: "no more restarts",
};

/// An author with a shell, beside a host.
struct Author {
    host: Host,
    folder: PathBuf,
    path: OsString,
}

impl Author {
    fn new() -> Self {
        // Interpreters of languages are large, and the machine may be busy.
        let host = Host::start_with(&["--compile-time", "1800"]);
        let folder = host.dir.path().join("work");
        fs::create_dir(&folder).unwrap();
        let roost = Path::new(env!("CARGO_BIN_EXE_roost")).parent().unwrap();
        let path = std::env::var_os("PATH").unwrap();
        let folders = [roost.to_owned()]
            .into_iter()
            .chain(std::env::split_paths(&path));
        let path = std::env::join_paths(folders).unwrap();
        Self { host, folder, path }
    }

    /// Runs a line of shell in the author's folder.
    fn shell(&self, line: &str) -> Output {
        // One folder for what cargo builds of every project of these tests.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("authors");
        Command::new("sh")
            .args(["-c", line])
            .current_dir(&self.folder)
            .env("PATH", &self.path)
            .env("ROOST_SOCKET", self.host.data().join("roost.sock"))
            .env("CARGO_TARGET_DIR", target)
            .output()
            .unwrap()
    }

    /// Runs a line that must succeed, and returns what it prints.
    fn does(&self, line: &str) -> String {
        let output = self.shell(line);
        let printed = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}\n{printed}{errors}");
        printed
    }

    /// The same for a line that the guide shows.
    fn follows(&self, line: &str) -> String {
        assert!(
            GUIDE.lines().any(|shown| shown.trim() == line),
            "the guide does not show {line:?}"
        );
        self.does(line)
    }

    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.does(&format!("{line} -o json"))).unwrap()
    }

    /// Kills the worker of `web`, and waits for the next incarnation to run.
    fn has_an_incident(&self) {
        let before = self.json("roost vm show web");
        if before["state"] != "running" {
            self.does("roost vm boot web");
        }
        let before = self.json("roost vm show web")["incarnation"]
            .as_u64()
            .unwrap();
        self.follows(
            r#"kill -9 "$(roost vm show web -o json | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')""#,
        );
        self.host.until("what becomes of the VM", || {
            let incidents = self.json("roost incidents web --limit 1");
            let incident = &incidents["items"][0];
            if incident["incarnation"] != before {
                return None;
            }
            let vm = self.json("roost vm show web");
            let again = vm["incarnation"].as_u64() > Some(before) && vm["state"] == "running";
            let restarts = incident["decision"]["action"] == "restart";
            (again || (incident["decision"].is_object() && !restarts)).then_some(())
        });
    }

    /// Changes the source of the policy.
    fn edits(&self, language: &Language, (from, to): (&str, &str)) {
        let file = self.folder.join(language.source);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{from:?} is not in {}", file.display());
        fs::write(&file, text.replacen(from, to, 1)).unwrap();
    }

    fn newest_decision(&self) -> Value {
        let decisions = self.json("roost decisions --hook recovery --limit 1");
        decisions["items"][0].clone()
    }
}

fn newcomers_path(language: &Language) {
    let mut author = Author::new();
    author.host.boot_hello("web");

    // New.
    let new = format!("roost plugin new --lang {} night-watch", language.name);
    author.follows(&new);
    author.folder.push("night-watch");
    author.follows("roost plugin build");
    assert!(
        author
            .follows("roost plugin test")
            .contains("4 passed, 0 failed")
    );

    // Edit, and see what the test says about it.
    author.edits(language, language.edit);
    author.does("roost plugin build");
    let output = author.shell("roost plugin test");
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(!output.status.success(), "{printed}");
    assert!(
        printed.contains("- \"restart 1 of 3\"\n        + \"restart 1 of 4\""),
        "{printed}"
    );
    author.follows("sed -i 's/of 3/of 4/' fixtures/first-incident.json");
    author.follows(r#"sed -i 's/"attempts": 3/"attempts": 4/' fixtures/too-many-restarts.json"#);
    author.does("roost plugin test");
    author.follows("roost plugin run fixtures/first-incident.json");
    author.follows("roost plugin inspect");
    author.follows("roost plugin bench fixtures/first-incident.json");

    // To a host, in monitor mode.
    author.follows("roost plugin push night-watch night-watch.wasm");
    author.follows("roost plugin activate night-watch");
    author.follows("roost plugin bind recovery night-watch --priority 200 --mode monitor");
    author.has_an_incident();
    author.follows("roost decisions --plugin night-watch --differs");
    let differing = author.json("roost decisions --plugin night-watch --differs");
    let decision = &differing["items"][0];
    assert_eq!(
        decision["decided_by"]["plugin"], "recovery-restart",
        "{differing}"
    );

    // Replay over what was recorded, and keep it as a test case.
    author.follows("roost plugin replay night-watch");
    let replayed = author.json("roost plugin replay night-watch");
    assert!(replayed["differing"].as_u64().unwrap() > 0, "{replayed}");
    let number = &decision["number"];
    author.does(&format!(
        "roost decisions {number} --fixture > recorded.json"
    ));
    author.does("roost plugin run recorded.json");

    // Enforce.
    author.follows("roost plugin bind recovery night-watch --priority 200");
    author.has_an_incident();
    let decision = author.newest_decision();
    assert_eq!(
        decision["decided_by"]["plugin"], "night-watch",
        "{decision}"
    );
    assert_eq!(decision["decided_by"]["revision"], 1);

    // A bad revision is quarantined by itself, and the VM comes back all the while.
    author.edits(language, language.bad);
    author.does("roost plugin build");
    author.does("roost plugin push night-watch night-watch.wasm");
    author.does("roost plugin activate night-watch");
    author.follows("roost plugin diff night-watch 1 2");
    let quarantined = (0..PATIENCE).any(|_| {
        author.has_an_incident();
        author.json("roost plugin show night-watch")["revisions"][1]["state"] == "quarantined"
    });
    assert!(
        quarantined,
        "{}",
        author.json("roost plugin show night-watch")
    );
    author.follows("roost plugin show night-watch");
    let log = author.follows("roost plugin logs night-watch");
    assert!(log.contains(language.failure), "{log}");

    // Back.
    author.follows("roost plugin rollback night-watch");
    author.does("roost vm shutdown web || true");
    author.does("roost vm boot web");
    author.has_an_incident();
    let decision = author.newest_decision();
    assert_eq!(
        decision["decided_by"]["plugin"], "night-watch",
        "{decision}"
    );
    assert_eq!(decision["decided_by"]["revision"], 1);
}

#[test]
fn a_newcomer_gets_from_nothing_to_a_policy_in_use_and_back_in_rust() {
    newcomers_path(&RUST);
}

#[test]
#[ignore = "needs the tools of JavaScript: cargo xtask test --languages"]
fn a_newcomer_gets_from_nothing_to_a_policy_in_use_and_back_in_javascript() {
    newcomers_path(&JS);
}

#[test]
#[ignore = "needs the tools of Python: cargo xtask test --languages"]
fn a_newcomer_gets_from_nothing_to_a_policy_in_use_and_back_in_python() {
    newcomers_path(&PYTHON);
}

#[test]
#[ignore = "needs zig: cargo xtask test --languages"]
fn a_newcomer_gets_from_nothing_to_a_policy_in_use_and_back_in_c() {
    newcomers_path(&C);
}
