//! Compilation in a child process within limits, and the cache of what comes of it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use roost_policy::{
    CallLimits, ChildCompiler, CleanupDecision, CompileError, CompileLimits, Compiler, LoadError,
    PolicyRuntime, RuntimeConfig,
};

use crate::component::cleanup_after;
use crate::facts;

/// The example of that name, which cargo builds along with the tests.
fn child_program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    profile.join("examples/compile_component")
}

fn child(limits: CompileLimits) -> Compiler {
    Compiler::Child(ChildCompiler::new(child_program(), [], limits))
}

fn runtime(compiler: Compiler, cache: Option<&Path>) -> PolicyRuntime {
    PolicyRuntime::with(RuntimeConfig {
        limits: CallLimits {
            deadline: Duration::from_secs(2),
            ..CallLimits::default()
        },
        compiler,
        cache: cache.map(Path::to_owned),
        services: None,
    })
    .unwrap()
}

fn decides(runtime: &PolicyRuntime, component: &[u8]) -> CleanupDecision {
    let plugin = runtime.load(component).unwrap();
    plugin.cleanup(&facts::cleanup(1, 1)).unwrap()
}

/// A component with so many functions of so many instructions that compiling it takes long, or
/// much memory.
fn costly(functions: usize, instructions: usize) -> Vec<u8> {
    let body: String = (0..instructions)
        .map(|n| format!("local.get 0 i64.const {n} i64.add local.get 1 i64.mul local.set 0 "))
        .collect();
    let functions: String = (0..functions)
        .map(|_| format!("(func (param i64 i64) (result i64) {body} local.get 0)"))
        .collect();
    wat::parse_str(format!("(component (core module {functions}))")).unwrap()
}

fn refused(limits: CompileLimits, component: &[u8]) -> LoadError {
    let runtime = runtime(child(limits), None);
    let error = runtime.load(component).err().expect("it is refused");
    // And the next one is compiled as if nothing had happened.
    let ample = self::runtime(child(CompileLimits::default()), None);
    assert_eq!(
        decides(&ample, &cleanup_after(5)),
        CleanupDecision::RetryAfter(5)
    );
    error
}

#[test]
fn what_the_child_compiles_runs() {
    let runtime = runtime(child(CompileLimits::default()), None);
    assert_eq!(
        decides(&runtime, &cleanup_after(7)),
        CleanupDecision::RetryAfter(7)
    );
}

#[test]
fn what_does_not_compile_is_refused_in_the_compilers_words() {
    let mut damaged = cleanup_after(5);
    damaged.truncate(damaged.len() / 2);
    let error = refused(CompileLimits::default(), &damaged);
    assert!(matches!(&error, LoadError::Compile(_)), "{error}");
    let here = runtime(Compiler::InProcess, None)
        .load(&damaged)
        .err()
        .unwrap();
    assert_eq!(error.to_string(), here.to_string());
}

#[test]
fn a_component_that_takes_too_long_to_compile_is_refused_at_the_deadline() {
    let limits = CompileLimits {
        deadline: Duration::from_millis(300),
        ..CompileLimits::default()
    };
    let error = refused(limits, &costly(1000, 400));
    assert!(
        matches!(error, LoadError::Compiler(CompileError::Deadline(_))),
        "{error}"
    );
}

#[test]
fn a_component_that_takes_too_much_memory_to_compile_is_refused() {
    let limits = CompileLimits {
        memory_bytes: 192 << 20,
        ..CompileLimits::default()
    };
    let error = refused(limits, &costly(1, 300_000));
    assert!(
        matches!(error, LoadError::Compiler(CompileError::Memory(_))),
        "{error}"
    );
}

#[test]
fn native_code_larger_than_the_limit_is_refused() {
    let limits = CompileLimits {
        artifact_bytes: 1000,
        ..CompileLimits::default()
    };
    let error = refused(limits, &cleanup_after(5));
    assert!(
        matches!(error, LoadError::Compiler(CompileError::Artifact(1000))),
        "{error}"
    );
}

#[test]
fn a_child_that_can_not_be_started_or_does_something_else_is_an_error() {
    let wrong = |program: &str, arguments: &[&str]| {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        let limits = CompileLimits {
            deadline: Duration::from_secs(1),
            ..CompileLimits::default()
        };
        let child = ChildCompiler::new(program.into(), arguments, limits);
        let runtime = runtime(Compiler::Child(child), None);
        runtime
            .load(&cleanup_after(5))
            .err()
            .expect("it is refused")
    };
    for (program, arguments) in [
        ("/nonexistent", &[][..]),
        ("/bin/false", &[]),
        ("/bin/true", &[]),
    ] {
        let error = wrong(program, arguments);
        assert!(
            matches!(error, LoadError::Compiler(CompileError::Process(_))),
            "{program}: {error}"
        );
    }
    // One that neither ends nor reads nor writes.
    let error = wrong("/bin/sh", &["-c", "exec sleep 1000"]);
    assert!(
        matches!(error, LoadError::Compiler(CompileError::Deadline(_))),
        "{error}"
    );
    // One that answers with something that is no native code.
    let error = wrong("/bin/sh", &["-c", "echo no"]);
    assert!(matches!(error, LoadError::Compile(_)), "{error}");
}

/// The only artifact in a cache.
fn artifact(cache: &Path) -> PathBuf {
    let mut found: Vec<_> = fs::read_dir(cache)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "artifact"))
        .collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn what_was_compiled_once_is_not_compiled_again() {
    let scratch = tempfile::tempdir().unwrap();
    let cache = scratch.path().join("policies");
    let component = cleanup_after(5);
    let first = runtime(child(CompileLimits::default()), Some(&cache));
    assert_eq!(decides(&first, &component), CleanupDecision::RetryAfter(5));
    let statistics = first.cache_statistics();
    assert_eq!((statistics.hits, statistics.misses), (0, 1));

    // Whoever compiles, here or in a child, compiles to the same; and this one could not.
    let none = ChildCompiler::new("/nonexistent".into(), [], CompileLimits::default());
    let second = runtime(Compiler::Child(none), Some(&cache));
    assert_eq!(decides(&second, &component), CleanupDecision::RetryAfter(5));
    let statistics = second.cache_statistics();
    assert_eq!((statistics.hits, statistics.misses), (1, 0));
}

#[test]
fn the_cache_is_nobody_elses() {
    let scratch = tempfile::tempdir().unwrap();
    let cache = scratch.path().join("a/policies");
    decides(
        &runtime(Compiler::InProcess, Some(&cache)),
        &cleanup_after(5),
    );
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&cache), 0o700);
    for entry in fs::read_dir(&cache).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).unwrap();
    drop(runtime(Compiler::InProcess, Some(&cache)));
    assert_eq!(mode(&cache), 0o700);
}

#[test]
fn an_artifact_that_was_damaged_or_exchanged_anywhere_is_compiled_anew() {
    let scratch = tempfile::tempdir().unwrap();
    let cache = scratch.path().join("policies");
    let component = cleanup_after(5);
    decides(&runtime(Compiler::InProcess, Some(&cache)), &component);
    let path = artifact(&cache);
    let whole = fs::read(&path).unwrap();

    let other = scratch.path().join("other");
    decides(&runtime(Compiler::InProcess, Some(&other)), &component);
    let of_another_installation = fs::read(artifact(&other)).unwrap();

    let mut cases = vec![
        ("empty", Vec::new()),
        ("cut within its seal", whole[..20].to_vec()),
        ("cut", whole[..whole.len() - 1].to_vec()),
        ("longer", [&whole[..], b"x"].concat()),
        ("of another installation", of_another_installation),
    ];
    for position in [0, 31, 32, whole.len() / 2, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[position] ^= 1;
        cases.push(("changed", damaged));
    }
    for (what, bytes) in cases {
        fs::write(&path, bytes).unwrap();
        let runtime = runtime(Compiler::InProcess, Some(&cache));
        assert_eq!(
            decides(&runtime, &component),
            CleanupDecision::RetryAfter(5),
            "{what}"
        );
        assert_eq!(runtime.cache_statistics().damaged, 1, "{what}");
        assert_eq!(fs::read(&path).unwrap(), whole, "{what}");
    }
    assert!(whole.len() > 100);
}

#[test]
fn an_artifact_under_the_name_of_another_component_is_not_taken_for_it() {
    let scratch = tempfile::tempdir().unwrap();
    let cache = scratch.path().join("policies");
    let runtime = runtime(Compiler::InProcess, Some(&cache));
    decides(&runtime, &cleanup_after(5));
    let five = artifact(&cache);
    let bytes = fs::read(&five).unwrap();
    fs::remove_file(&five).unwrap();
    decides(&runtime, &cleanup_after(6));
    fs::write(artifact(&cache), bytes).unwrap();
    assert_eq!(
        decides(&runtime, &cleanup_after(6)),
        CleanupDecision::RetryAfter(6)
    );
    assert_eq!(runtime.cache_statistics().damaged, 1);
}

#[test]
fn a_link_in_the_cache_is_not_followed() {
    let scratch = tempfile::tempdir().unwrap();
    let cache = scratch.path().join("policies");
    let runtime = runtime(Compiler::InProcess, Some(&cache));
    decides(&runtime, &cleanup_after(5));
    let path = artifact(&cache);
    let elsewhere = scratch.path().join("elsewhere");
    fs::rename(&path, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    decides(&runtime, &cleanup_after(5));
    assert_eq!(runtime.cache_statistics().damaged, 1);
    assert!(fs::symlink_metadata(&path).unwrap().is_file());
}

#[test]
fn a_cache_that_can_not_be_made_is_an_error_with_its_path() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("file");
    fs::write(&file, "").unwrap();
    let config = RuntimeConfig {
        cache: Some(file.clone()),
        ..RuntimeConfig::default()
    };
    let error = PolicyRuntime::with(config).err().unwrap().to_string();
    assert!(error.contains(&*file.to_string_lossy()), "{error}");
}

#[test]
fn a_full_disk_costs_the_cache_and_nothing_else() {
    let scratch = tempfile::tempdir().unwrap();
    let cache = scratch.path().join("policies");
    let runtime = runtime(Compiler::InProcess, Some(&cache));
    // What can't be written to, root or not.
    fs::remove_dir_all(&cache).unwrap();
    assert_eq!(
        decides(&runtime, &cleanup_after(5)),
        CleanupDecision::RetryAfter(5)
    );
    assert_eq!(runtime.cache_statistics().write_errors, 1);
}
