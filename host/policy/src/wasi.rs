//! Standard WASI 0.2 with nothing inside, for components whose toolchain insists on it.
//!
//! There are no directories, sockets, arguments or environment. The time is that of the facts and
//! stands still; what is random comes from the facts' seed. What is written to the standard
//! streams goes to the host's log. Nothing waits: a stream is always ready, and whoever wants to
//! sleep gets a trap, as with everything that is not here.
//!
//! `wasmtime-wasi` does all of this and more, but its synchronous functions block the thread in a
//! Tokio runtime of their own, out of reach of a call's deadline.

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker, LinkerInstance, Resource, ResourceType, Val};
use wasmtime::{Engine, StoreContextMut};

use crate::bindings::Level;
use crate::bindings::host::Host as _;
use crate::call::CallState;

/// How names of its interfaces begin.
pub(crate) const PACKAGE: &str = "wasi:";
/// The packages that are offered, empty. HTTP is not among them.
const OFFERED: [&str; 6] = ["cli", "clocks", "filesystem", "io", "random", "sockets"];
/// The minor version that is offered.
const VERSION: &str = "0.2.";
/// Most random bytes of one call.
const MAX_RANDOM_BYTES: u64 = 65_536;
/// What an output stream says that it takes at once, bytes.
const STREAM_BYTES: u64 = 4096;

/// Whether `import` is an interface that is here.
pub(crate) fn offers(import: &str) -> bool {
    parts(import).is_some()
}

/// The package and the interface of an import, such as `cli` and `environment`.
fn parts(import: &str) -> Option<(&str, &str)> {
    let (path, version) = import.strip_prefix(PACKAGE)?.split_once('@')?;
    let (package, interface) = path.split_once('/')?;
    (OFFERED.contains(&package) && version.starts_with(VERSION)).then_some((package, interface))
}

/// What a call knows of the time and of randomness.
#[derive(Debug, Default)]
pub(crate) struct State {
    now_ms: u64,
    random: u64,
}

impl State {
    pub(crate) const fn begin(&mut self, now_ms: u64, seed: u64) {
        self.now_ms = now_ms;
        self.random = seed;
    }

    /// The next number: `SplitMix64` (Steele, Lea, Flood, "Fast splittable pseudorandom number
    /// generators", 2014).
    const fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Something that a component holds a handle to. There is nothing behind it.
struct Pollable;
struct Output;
struct Input;
struct Other;

/// Standard output and standard error, as the numbers that their handles stand for.
const STDOUT: u32 = 1;
const STDERR: u32 = 2;

/// Links what `component` imports of it.
pub(crate) fn add_to_linker(
    linker: &mut Linker<CallState>,
    component: &Component,
    engine: &Engine,
) -> wasmtime::Result<()> {
    for (import, item) in component.component_type().imports(engine) {
        let (Some((_, interface)), ComponentItem::ComponentInstance(instance)) =
            (parts(import), &item.ty)
        else {
            continue;
        };
        let mut linked = linker.instance(import)?;
        for (name, export) in instance.exports(engine) {
            match export.ty {
                ComponentItem::Resource(_) => resource(&mut linked, name)?,
                ComponentItem::ComponentFunc(_) => function(&mut linked, interface, name)?,
                _ => {}
            }
        }
    }
    Ok(())
}

fn resource(linked: &mut LinkerInstance<'_, CallState>, name: &str) -> wasmtime::Result<()> {
    let of = match name {
        "pollable" => ResourceType::host::<Pollable>(),
        "output-stream" => ResourceType::host::<Output>(),
        "input-stream" => ResourceType::host::<Input>(),
        _ => ResourceType::host::<Other>(),
    };
    linked.resource(name, of, |_, _| Ok(()))
}

type Answer = wasmtime::Result<Val>;
type Context<'a> = StoreContextMut<'a, CallState>;

fn function(
    linked: &mut LinkerInstance<'_, CallState>,
    interface: &str,
    name: &str,
) -> wasmtime::Result<()> {
    let Some(answer) = known(interface, name) else {
        let denied = format!("wasi {interface}#{name}, which is not available to policies");
        return linked.func_new(name, move |_, _, _, _| {
            wasmtime::bail!("it called {denied}")
        });
    };
    linked.func_new(name, move |store, _, arguments, results| {
        let answer = answer(store, arguments)?;
        if let Some(result) = results.first_mut() {
            *result = answer;
        }
        Ok(())
    })
}

fn known(interface: &str, name: &str) -> Option<fn(Context<'_>, &[Val]) -> Answer> {
    Some(match (interface, name) {
        ("wall-clock", "now") => |store, _| Ok(moment(store.data().wasi.now_ms)),
        ("wall-clock", "resolution") => |_, _| Ok(moment(1)),
        ("monotonic-clock", "now") => {
            |store, _| Ok(Val::U64(store.data().wasi.now_ms.saturating_mul(1_000_000)))
        }
        ("monotonic-clock", "resolution") => |_, _| Ok(Val::U64(1_000_000)),
        ("random" | "insecure", "get-random-bytes" | "get-insecure-random-bytes") => random_bytes,
        ("random" | "insecure", "get-random-u64" | "get-insecure-random-u64") => {
            |mut store, _| Ok(Val::U64(store.data_mut().wasi.next()))
        }
        ("insecure-seed", "insecure-seed") => |mut store, _| {
            let state = &mut store.data_mut().wasi;
            Ok(Val::Tuple(vec![
                Val::U64(state.next()),
                Val::U64(state.next()),
            ]))
        },
        ("environment", "get-environment" | "get-arguments") | ("preopens", "get-directories") => {
            |_, _| Ok(Val::List(Vec::new()))
        }
        ("environment", "initial-cwd") => |_, _| Ok(Val::Option(None)),
        (_, "get-terminal-stdin" | "get-terminal-stdout" | "get-terminal-stderr") => {
            |_, _| Ok(Val::Option(None))
        }
        ("stdin", "get-stdin") => |store, _| handle::<Input>(store, 0),
        ("stdout", "get-stdout") => |store, _| handle::<Output>(store, STDOUT),
        ("stderr", "get-stderr") => |store, _| handle::<Output>(store, STDERR),
        ("streams", "[method]output-stream.check-write") => {
            |_, _| Ok(Val::Result(Ok(Some(Box::new(Val::U64(STREAM_BYTES))))))
        }
        (
            "streams",
            "[method]output-stream.write" | "[method]output-stream.blocking-write-and-flush",
        ) => write,
        ("streams", "[method]output-stream.flush" | "[method]output-stream.blocking-flush") => {
            |_, _| Ok(Val::Result(Ok(None)))
        }
        ("streams", "[method]input-stream.read" | "[method]input-stream.blocking-read") => {
            |_, _| {
                let closed = Val::Variant("closed".to_owned(), None);
                Ok(Val::Result(Err(Some(Box::new(closed)))))
            }
        }
        ("streams", "[method]output-stream.subscribe" | "[method]input-stream.subscribe") => {
            |store, _| handle::<Pollable>(store, 0)
        }
        ("poll", "[method]pollable.ready") => |_, _| Ok(Val::Bool(true)),
        ("poll", "[method]pollable.block") => |_, _| Ok(Val::Bool(true)),
        ("poll", "poll") => |_, arguments| {
            let count = match arguments {
                [Val::List(pollables)] => u32::try_from(pollables.len()).unwrap_or(u32::MAX),
                _ => 0,
            };
            Ok(Val::List((0..count).map(Val::U32).collect()))
        },
        _ => return None,
    })
}

/// `wasi:clocks/wall-clock.datetime`.
fn moment(ms: u64) -> Val {
    let nanoseconds = u32::try_from(ms % 1000).unwrap_or(0) * 1_000_000;
    Val::Record(vec![
        ("seconds".to_owned(), Val::U64(ms / 1000)),
        ("nanoseconds".to_owned(), Val::U32(nanoseconds)),
    ])
}

fn handle<T: 'static>(store: Context<'_>, number: u32) -> Answer {
    let handle = Resource::<T>::new_own(number).try_into_resource_any(store)?;
    Ok(Val::Resource(handle))
}

fn random_bytes(mut store: Context<'_>, arguments: &[Val]) -> Answer {
    let count = match arguments {
        [Val::U64(count)] if *count <= MAX_RANDOM_BYTES => *count,
        _ => wasmtime::bail!("it wanted more than {MAX_RANDOM_BYTES} random bytes at once"),
    };
    let state = &mut store.data_mut().wasi;
    let bytes = (0..count.div_ceil(8)).flat_map(|_| state.next().to_le_bytes());
    let count = usize::try_from(count).unwrap_or(0);
    Ok(Val::List(bytes.take(count).map(Val::U8).collect()))
}

/// Lines of the standard streams become lines of the log.
fn write(mut store: Context<'_>, arguments: &[Val]) -> Answer {
    if let [Val::Resource(stream), Val::List(bytes)] = arguments {
        let stream = Resource::<Output>::try_from_resource_any(*stream, &mut store)?.rep();
        let bytes: Vec<u8> = bytes
            .iter()
            .filter_map(|byte| match byte {
                Val::U8(byte) => Some(*byte),
                _ => None,
            })
            .collect();
        let level = if stream == STDERR {
            Level::Error
        } else {
            Level::Info
        };
        for line in String::from_utf8_lossy(&bytes)
            .lines()
            .filter(|line| !line.is_empty())
        {
            store.data_mut().access.log(level, line.to_owned())?;
        }
    }
    Ok(Val::Result(Ok(None)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_empty_packages_of_the_known_version_are_offered() {
        assert!(offers("wasi:cli/environment@0.2.3"));
        assert!(offers("wasi:io/streams@0.2.0"));
        for other in [
            "wasi:http/outgoing-handler@0.2.3",
            "wasi:cli/environment@0.3.0",
            "wasi:cli/environment",
            "wasi:cli",
            "roost:policy/host@0.1.0",
        ] {
            assert!(!offers(other), "{other}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let numbers = |seed| {
            let mut state = State::default();
            state.begin(0, seed);
            [state.next(), state.next(), state.next()]
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
        // The first output of the reference implementation for seed 0.
        assert_eq!(numbers(0)[0], 0xe220_a839_7b1d_cdaf);
    }
}
