//! Components that nobody wrote, from upload to call: generated ones, policies whose code is
//! generated, and real ones with bytes changed. Nothing may panic, hang or take memory without
//! bound, and every refusal is one of ours.
//!
//! Each case has a seed of its own, which is printed when it fails. `ROOST_FUZZ_ROUNDS=100` makes a
//! hundred times as many cases; `ROOST_FUZZ_SEED` begins elsewhere, such as at a seed that failed.

#[path = "../policies/component.rs"]
mod component;
#[allow(dead_code, reason = "the tests of policies use all of it")]
#[path = "../policies/facts.rs"]
mod facts;
mod random;

use std::collections::BTreeMap;
use std::time::Duration;

use arbitrary::Unstructured;
use roost_policy::{
    AdmissionRequest, CallError, CallLimits, CleanupDecision, LoadError, PolicyRuntime, bundled,
};
use wasm_smith::{Component, Config, Module};

use component::{beside, cleanup_after, policy_of, trapping_module};
use random::{Random, cases};

/// Most memory that this process may ever have had, KiB: what the pooling allocator keeps, a
/// compiler at work on a component of some KB, and as much again.
const MAX_PEAK_KIB: u64 = 2 << 20;

fn runtime() -> PolicyRuntime {
    PolicyRuntime::new(CallLimits {
        deadline: Duration::from_millis(20),
        load_deadline: Duration::from_millis(20),
        slack: Duration::from_secs(60),
        ..CallLimits::default()
    })
    .unwrap()
}

/// Uploads, inspects, and if it is taken has it validate settings and asks every hook. Returns how
/// each hook that it has ended.
fn through_everything(
    runtime: &PolicyRuntime,
    bytes: &[u8],
) -> Result<Vec<Option<CallError>>, LoadError> {
    // What `roost plugin inspect` reads it with.
    let _ = wit_component::decode(bytes);
    let plugin = runtime.load(bytes)?;
    let _ = plugin.validate_settings("{}");
    let observed = roost_policy::ObserverFacts {
        context: facts::context(1),
        event: "{}".to_owned(),
    };
    let ended = [
        plugin
            .admission(&facts::admission(AdmissionRequest::Create))
            .err(),
        plugin.cleanup(&facts::cleanup(1, 1)).err(),
        plugin.recovery(&facts::recovery(1, 1)).err(),
        plugin
            .billing(&facts::billing(vec![facts::window(1)]))
            .err(),
        plugin.observe(&observed).err(),
    ];
    let has = |ended: &Option<CallError>| !matches!(ended, Some(CallError::NotExported(_)));
    Ok(ended.into_iter().filter(has).collect())
}

/// The process is none the worse for it.
fn still_serves(runtime: &PolicyRuntime) {
    let plugin = runtime.load(&cleanup_after(4)).unwrap();
    let decided = plugin.cleanup(&facts::cleanup(1, 1)).unwrap();
    assert_eq!(decided, CleanupDecision::RetryAfter(4));
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    let peak: u64 = peak.unwrap().trim().parse().unwrap();
    assert!(peak < MAX_PEAK_KIB, "{peak} KiB");
}

#[test]
fn generated_components_are_refused_one_way_or_another() {
    let runtime = runtime();
    let mut generated = 0;
    for mut random in cases(0x5eed_0001, 150) {
        let bytes = random.bytes(2048);
        let Ok(component) = Component::new(Config::default(), &mut Unstructured::new(&bytes))
        else {
            continue;
        };
        generated += 1;
        let error = through_everything(&runtime, &component.to_bytes()).unwrap_err();
        // What is well-formed but for us a stranger; never an internal error.
        assert!(
            matches!(
                error,
                LoadError::Compile(_) | LoadError::Import(_) | LoadError::NothingKnown { .. }
            ),
            "{error}"
        );
    }
    assert!(generated > 75, "{generated}");
    still_serves(&runtime);
}

/// What generated code may be made of.
fn code() -> Config {
    Config {
        max_imports: 0,
        allow_start_export: true,
        exceptions_enabled: false,
        gc_enabled: false,
        memory64_enabled: false,
        custom_descriptors_enabled: false,
        wide_arithmetic_enabled: false,
        relaxed_simd_enabled: false,
        shared_everything_threads_enabled: false,
        threads_enabled: false,
        ..Config::default()
    }
}

#[test]
fn policies_made_of_generated_code_decide_or_fail_within_their_limits() {
    let runtime = runtime();
    let mut ends: BTreeMap<String, u32> = BTreeMap::new();
    let shape = wat::parse_str(trapping_module()).unwrap();
    let mut count = |end: &str| *ends.entry(end.to_owned()).or_default() += 1;
    for mut random in cases(0x5eed_0002, 250) {
        // Little randomness makes short functions, of which some answer.
        let length = 64 << random.below(6);
        let bytes = random.bytes(length);
        let config = Config {
            exports: Some(shape.clone()),
            max_memory32_bytes: 1 << 20,
            max_memories: 0,
            disallow_traps: random.below(2) == 0,
            // `externref` needs a garbage collector.
            reference_types_enabled: false,
            ..code()
        };
        let Ok(module) = Module::new(config, &mut Unstructured::new(&bytes)) else {
            continue;
        };
        match through_everything(&runtime, &policy_of(&module.to_bytes())) {
            Ok(calls) => {
                assert_eq!(calls.len(), 5);
                for ended in calls {
                    let end = ended.as_ref().map_or("a decision", |error| match error {
                        CallError::Deadline(_) => "a deadline",
                        CallError::Memory { .. } => "memory",
                        CallError::Trap { .. } => "a trap",
                        CallError::Nonsense(_) => "nonsense",
                        other => panic!("{other}"),
                    });
                    count(end);
                }
            }
            Err(LoadError::Describe(_)) => count("a refusal"),
            // Such as for more tables than a module may have.
            Err(LoadError::Compile(_)) => count("no native code"),
            Err(error) => panic!("{error}"),
        }
    }
    for end in [
        "a refusal",
        "a decision",
        "a trap",
        "a deadline",
        "nonsense",
    ] {
        assert!(ends.contains_key(end), "{ends:?}");
    }
    still_serves(&runtime);
}

#[test]
fn policies_beside_generated_code_end_within_their_limits() {
    let runtime = runtime();
    let (mut generated, mut loaded) = (0, 0);
    for mut random in cases(0x5eed_0003, 60) {
        let bytes = random.bytes(2048);
        let config = Config {
            min_exports: 1,
            ..code()
        };
        let Ok(module) = Module::new(config, &mut Unstructured::new(&bytes)) else {
            continue;
        };
        generated += 1;
        // Beside a policy that works, in the same component: its start function runs, its memories
        // and tables are made.
        match through_everything(&runtime, &beside(&module.to_bytes(), 1)) {
            Ok(_) => loaded += 1,
            Err(LoadError::Compile(_) | LoadError::Describe(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(generated > 30 && loaded > 0, "{generated}, {loaded}");
    still_serves(&runtime);
}

#[test]
fn damaged_policies_are_refused_or_fail_within_their_limits() {
    let runtime = runtime();
    let (mut tried, mut taken) = (0, 0);
    let small = cleanup_after(4);
    for mut random in cases(0x5eed_0004, 200) {
        let original = if random.below(20) == 0 {
            bundled()[random.below(bundled().len())].bytes
        } else {
            &small
        };
        let mut bytes = original.to_vec();
        damage(&mut bytes, &mut random);
        tried += 1;
        taken += usize::from(through_everything(&runtime, &bytes).is_ok());
    }
    // Some damage is to names, which nobody reads.
    assert!((1..tried).contains(&taken), "{taken}");
    still_serves(&runtime);
}

/// Changes or removes some bytes behind the header.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let position = 8 + random.below(bytes.len() - 8);
        match random.below(3) {
            0 => bytes[position] ^= 1 << random.below(8),
            1 => bytes[position] = random.byte(),
            _ => {
                let end = (position + 1 + random.below(8)).min(bytes.len());
                drop(bytes.drain(position..end));
            }
        }
    }
}
