//! Components that nobody wrote: generated ones, and real ones with bytes changed, from upload to
//! call. Nothing may panic, and every refusal is one of ours.

use arbitrary::Unstructured;
use roost_policy::{CallLimits, LoadError, PolicyHost, PolicyRuntime, bundled};
use wasm_smith::{Component, Config, Module};

use crate::component::{beside, cleanup_after};
use crate::{active, binding, facts, subject};

/// A cheap generator of bytes: `xorshift64*` (Vigna, 2016).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| (self.next() >> 32) as u8).collect()
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound
    }
}

fn runtime() -> PolicyRuntime {
    let second = std::time::Duration::from_secs(1);
    PolicyRuntime::new(CallLimits {
        deadline: second,
        load_deadline: second,
        ..CallLimits::default()
    })
    .unwrap()
}

/// Uploads, and if it is taken asks every hook.
fn through_everything(runtime: &PolicyRuntime, bytes: &[u8]) -> Result<(), LoadError> {
    let plugin = runtime.load(bytes)?;
    let _ = plugin.validate_settings("{}");
    let _ = plugin.admission(&facts::admission(roost_policy::AdmissionRequest::Create));
    let _ = plugin.cleanup(&facts::cleanup(1, 1));
    let _ = plugin.recovery(&facts::recovery(1, 1));
    let _ = plugin.billing(&facts::billing(vec![facts::window(1)]));
    Ok(())
}

fn still_serves(runtime: &PolicyRuntime) {
    let host = PolicyHost::new(runtime.clone());
    let good = active(
        &host,
        &cleanup_after(4),
        binding(roost_model::Hook::Cleanup, "good", 0),
    );
    host.set_active(vec![good]);
    let decided = host.cleanup(facts::cleanup(1, 1), subject("a", &[]));
    assert_eq!(crate::delay(&decided), 4);
}

#[test]
fn generated_components_are_refused_one_way_or_another() {
    let runtime = runtime();
    let mut random = Random(0x5eed_0001);
    let mut generated = 0;
    for _ in 0..150 {
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

#[test]
fn policies_whose_code_is_generated_end_within_their_limits() {
    let runtime = runtime();
    let mut random = Random(0x5eed_0002);
    let (mut generated, mut loaded) = (0, 0);
    for _ in 0..60 {
        let bytes = random.bytes(2048);
        let config = Config {
            max_imports: 0,
            allow_start_export: true,
            exceptions_enabled: false,
            gc_enabled: false,
            memory64_enabled: false,
            min_exports: 1,
            ..Config::default()
        };
        let Ok(module) = Module::new(config, &mut Unstructured::new(&bytes)) else {
            continue;
        };
        generated += 1;
        let module = module.to_bytes();
        // Beside a policy that works, in the same component: its start function runs, its memories
        // and tables are made.
        let component = beside(&module, 1);
        match through_everything(&runtime, &component) {
            Ok(()) => loaded += 1,
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
    let mut random = Random(0x5eed_0003);
    let mut taken = 0;
    let small = cleanup_after(4);
    for round in 0..200 {
        let original = if round % 20 == 0 {
            bundled()[round / 20 % bundled().len()].bytes
        } else {
            &small
        };
        let mut bytes = original.to_vec();
        for _ in 0..=random.below(4) {
            let position = 8 + random.below(bytes.len() - 8);
            match random.below(3) {
                0 => bytes[position] ^= 1 << random.below(8),
                1 => bytes[position] = random.next() as u8,
                _ => drop(bytes.drain(position..(position + 1 + random.below(8)).min(bytes.len()))),
            }
        }
        taken += usize::from(through_everything(&runtime, &bytes).is_ok());
    }
    // Some damage is to names, which nobody reads.
    assert!((1..200).contains(&taken), "{taken}");
    still_serves(&runtime);
}
