//! What a VM can be like, given what was asked and what was answered so far.
//!
//! Requests that overlap may take effect in either order, and nobody knows whether one took effect
//! whose answer died with its host. So the model keeps every *world* that explains all answers so
//! far. An answer is legal if one of them, after some of the requests that are under way took
//! effect, gives it; the other worlds are then given up. That is what it means for the host to be
//! linearizable, and what each request does to a world is the transition table's.
//!
//! What comes without being asked for (a guest that ends, a worker that was killed, what a recovery
//! policy makes of it) may happen at any time from when it has a reason until the next rest.
//! Whether it happened *once* for each reason is what the event log is asked: see `chronicle`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use roost_model::{Failure, FailureKind, Verb, VmState, transition};

use super::plan::Guest;

/// Stands beside the places where a VM has been: it has gone from one of them to none.
const DELETED: u8 = 1 << 7;

/// Worlds that are looked at for one answer. More come of no plan that a seed makes.
const MAX_WORLDS: usize = 200_000;

/// What a VM is when nothing is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum At {
    /// There is none of that name.
    Absent,
    Stopped,
    Running,
    Paused,
    Failed,
}

impl At {
    const ALL: [Self; 5] = [
        Self::Absent,
        Self::Stopped,
        Self::Running,
        Self::Paused,
        Self::Failed,
    ];

    /// The state as the table knows it.
    pub(super) fn state(self) -> VmState {
        match self {
            Self::Absent => VmState::Deleted,
            Self::Stopped => VmState::Stopped,
            Self::Running => VmState::Running,
            Self::Paused => VmState::Paused,
            Self::Failed => VmState::Failed {
                failure: Failure {
                    kind: FailureKind::WorkerExit,
                    detail: String::new(),
                },
            },
        }
    }

    /// The settled state of that name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|at| *at != Self::Absent && at.state().name() == name)
    }

    fn of(state: &VmState) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|at| at.state().name() == state.name())
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Create(Guest),
    Verb(Verb),
    Look,
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// There is a new VM.
    Created,
    /// There is one of that name.
    Taken,
    /// There is none of that name.
    Missing,
    /// A policy said no.
    Denied,
    /// The verb is not legal in that state.
    Illegal(At),
    /// The verb will not be legal once what is accepted is done, which ends with this one.
    Untimely(Verb),
    /// The verb was not legal any more when its turn came.
    TooLate,
    /// The VM is being deleted.
    Deleting,
    /// The operation succeeded.
    Done,
    /// It failed.
    Failed,
    /// The VM is in the state of that name.
    Seen(String),
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created => write!(f, "created"),
            Self::Taken => write!(f, "the name is taken"),
            Self::Missing => write!(f, "there is none"),
            Self::Denied => write!(f, "denied"),
            Self::Illegal(at) => write!(f, "not legal, it is {}", at.state().name()),
            Self::Untimely(after) => write!(f, "will not be legal after {}", after.name()),
            Self::TooLate => write!(f, "not legal any more"),
            Self::Deleting => write!(f, "it is being deleted"),
            Self::Done => write!(f, "done"),
            Self::Failed => write!(f, "failed"),
            Self::Seen(state) => write!(f, "it is {state}"),
        }
    }
}

/// One way in which everything can have been.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    at: At,
    guest: Guest,
    /// Requests to hosts before this one take no effect any more: a new host finishes what an
    /// earlier one wrote down before it takes a request.
    host: u64,
    /// Requests that took effect, and what they will be answered.
    effects: BTreeMap<u64, Effect>,
    /// For each request that is not answered, where the VM has been since it was made, where it may
    /// have been refused; and [`DELETED`].
    been: BTreeMap<u64, u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Effect {
    Created,
    Done,
    Failed,
}

impl World {
    fn new(at: At, guest: Guest) -> Self {
        Self {
            at,
            guest,
            host: 0,
            effects: BTreeMap::new(),
            been: BTreeMap::new(),
        }
    }

    fn gone_to(&self, at: At) -> Self {
        let mut world = self.clone();
        world.at = at;
        for been in world.been.values_mut() {
            *been |= at.bit();
            if at == At::Absent {
                *been |= DELETED;
            }
        }
        world
    }

    /// Whether it was deleted since the request was made.
    fn was_deleted(&self, request: u64) -> bool {
        let been = self.been.get(&request).copied().unwrap_or_default();
        been & DELETED != 0
    }

    fn has_been(&self, request: u64, places: &[At]) -> bool {
        let been = self.been.get(&request).copied().unwrap_or_default();
        places.iter().any(|at| been & at.bit() != 0)
    }
}

/// A request without an answer.
#[derive(Debug)]
struct Asked {
    ask: Ask,
    /// The number of the host that it was made to.
    host: u64,
    /// What the requests ask for that were under way at any time since it was made.
    beside: Vec<Ask>,
}

/// All that is known of the VM of one name.
pub(super) struct Vm {
    worlds: BTreeSet<World>,
    asked: BTreeMap<u64, Asked>,
    /// Whether a worker of it was killed since the last rest.
    troubled: bool,
}

impl Vm {
    /// None of that name.
    pub(super) fn absent() -> Self {
        Self {
            worlds: BTreeSet::from([World::new(At::Absent, Guest::Sleeps)]),
            asked: BTreeMap::new(),
            troubled: false,
        }
    }

    /// A request is about to be made to host number `host`.
    pub(super) fn ask(&mut self, request: u64, ask: Ask, host: u64) {
        let beside = self.asked.values().map(|other| other.ask).collect();
        for other in self.asked.values_mut() {
            other.beside.push(ask);
        }
        self.asked.insert(request, Asked { ask, host, beside });
        let worlds = std::mem::take(&mut self.worlds).into_iter();
        let begun = worlds.map(|mut world| {
            world.been.insert(request, world.at.bit());
            world
        });
        self.worlds = begun.collect();
    }

    /// A worker of it is about to be killed.
    pub(super) const fn trouble(&mut self) {
        self.troubled = true;
    }

    /// There will be no answer to a request; it may take effect.
    pub(super) fn lose(&mut self, request: u64) {
        self.forget(request, false);
    }

    /// Nothing is to be learnt from the answer to a request that takes no effect.
    pub(super) fn close(&mut self, request: u64) {
        self.asked.remove(&request);
        self.forget(request, true);
    }

    fn forget(&mut self, request: u64, effect: bool) {
        let worlds = std::mem::take(&mut self.worlds).into_iter();
        let left = worlds.map(|mut world| {
            world.been.remove(&request);
            if effect {
                world.effects.remove(&request);
            }
            world
        });
        self.worlds = left.collect();
    }

    /// A request was answered.
    ///
    /// # Errors
    /// Nothing that can have been explains the answer.
    pub(super) fn answer(&mut self, request: u64, said: &Said) -> Result<(), String> {
        let asked = self.asked.get(&request).ok_or("it was never asked")?;
        let ask = asked.ask;
        self.could_say(ask, said)?;
        if let Said::Seen(state) = said
            && At::named(state).is_none()
        {
            // It passes through that state; where it comes from and goes to is not known yet.
            if !self.any(|world| self.passes(world, request, state))? {
                return Err(self.unexplained(ask, said));
            }
            self.close(request);
            return Ok(());
        }
        if matches!(said, Said::Untimely(_) | Said::Deleting) {
            // Said of what is accepted, which is not done yet; nothing is learnt of where it is.
            if !self.any(|world| self.lies_ahead(world, request, said))? {
                return Err(self.unexplained(ask, said));
            }
            self.close(request);
            return Ok(());
        }
        let legal = self.search(|world| explains(world, request, ask, said))?;
        if legal.is_empty() {
            return Err(self.unexplained(ask, said));
        }
        self.worlds = legal;
        self.close(request);
        Ok(())
    }

    /// Nothing is under way any more: the VM was found like this.
    ///
    /// # Errors
    /// It can't be like this.
    pub(super) fn rest(&mut self, at: At, guest: Option<Guest>) -> Result<(), String> {
        let found =
            |world: &World| world.at == at && guest.is_none_or(|guest| world.guest == guest);
        if !self.any(found)? {
            let guest = guest.map_or(String::new(), |guest| format!(" ({guest:?})"));
            return Err(format!(
                "it is {at:?}{guest} at rest, and can only be {}",
                self.shown()
            ));
        }
        *self = Self::absent();
        let guest = guest.unwrap_or(Guest::Sleeps);
        self.worlds = BTreeSet::from([World::new(at, guest)]);
        Ok(())
    }

    /// That the answer is one that the request can have at all.
    fn could_say(&self, ask: Ask, said: &Said) -> Result<(), String> {
        let could = match (ask, said) {
            (Ask::Create(_), Said::Created | Said::Taken | Said::Denied)
            | (Ask::Look, Said::Seen(_) | Said::Missing)
            | (
                Ask::Verb(_),
                Said::Done
                | Said::Failed
                | Said::Missing
                | Said::Untimely(_)
                | Said::TooLate
                | Said::Deleting,
            )
            | (Ask::Verb(Verb::Boot), Said::Denied) => true,
            (Ask::Verb(verb), Said::Illegal(at)) => transition::request(&at.state(), verb).is_err(),
            _ => false,
        };
        if could {
            Ok(())
        } else {
            Err(format!("{ask:?} is never answered like this: {said}"))
        }
    }

    fn unexplained(&self, ask: Ask, said: &Said) -> String {
        format!(
            "{ask:?} was answered: {said}; before that it can only have been {}, under way beside \
             it: {:?}",
            self.shown(),
            self.asked
                .values()
                .map(|asked| asked.ask)
                .collect::<Vec<_>>()
        )
    }

    /// Where it can be, for a person.
    fn shown(&self) -> String {
        let places: BTreeSet<String> = self
            .worlds
            .iter()
            .map(|world| format!("{:?} ({:?})", world.at, world.guest))
            .collect();
        let trouble = if self.troubled { ", troubled" } else { "" };
        let places = places.into_iter().collect::<Vec<_>>().join(" or ");
        format!("{places}{trouble}")
    }

    fn any(&self, found: impl Fn(&World) -> bool) -> Result<bool, String> {
        Ok(!self.search(found)?.is_empty())
    }

    /// The first worlds on every way on from here that are `found`.
    fn search(&self, found: impl Fn(&World) -> bool) -> Result<BTreeSet<World>, String> {
        let mut legal = BTreeSet::new();
        let mut seen: BTreeSet<World> = self.worlds.clone();
        let mut next: Vec<World> = self.worlds.iter().cloned().collect();
        while let Some(world) = next.pop() {
            if found(&world) {
                legal.insert(world);
                continue;
            }
            for further in self.further(&world) {
                if seen.insert(further.clone()) {
                    next.push(further);
                }
            }
            if seen.len() > MAX_WORLDS {
                return Err(format!(
                    "there are more than {MAX_WORLDS} ways to explain it"
                ));
            }
        }
        Ok(legal)
    }

    /// What can be next.
    fn further(&self, world: &World) -> Vec<World> {
        let mut further: Vec<World> = self
            .by_itself(world)
            .iter()
            .map(|at| world.gone_to(*at))
            .collect();
        for (request, asked) in &self.asked {
            if world.effects.contains_key(request) || asked.host < world.host {
                continue;
            }
            for (effect, at) in self.effects(asked.ask, world) {
                let mut after = world.gone_to(at);
                if let Ask::Create(guest) = asked.ask {
                    after.guest = guest;
                }
                after.host = asked.host;
                after.effects.insert(*request, effect);
                further.push(after);
            }
        }
        further
    }

    /// Where it can go without being asked.
    fn by_itself(&self, world: &World) -> &'static [At] {
        let recovers = self.troubled || world.guest == Guest::Crashes;
        match world.at {
            At::Running if self.troubled && world.guest == Guest::Ends => {
                &[At::Failed, At::Stopped]
            }
            At::Running if recovers => &[At::Failed],
            At::Running if world.guest == Guest::Ends => &[At::Stopped],
            At::Paused if self.troubled => &[At::Failed],
            At::Failed if recovers => &[At::Running, At::Stopped, At::Absent],
            _ => &[],
        }
    }

    /// What a request can do to it.
    fn effects(&self, ask: Ask, world: &World) -> Vec<(Effect, At)> {
        match ask {
            Ask::Create(_) if world.at == At::Absent => vec![(Effect::Created, At::Stopped)],
            Ask::Create(_) | Ask::Look => Vec::new(),
            Ask::Verb(verb) => {
                let Ok(row) = transition::request(&world.at.state(), verb) else {
                    return Vec::new();
                };
                let mut effects = Vec::new();
                if let Some(to) = At::of(&row.to) {
                    effects.push((Effect::Done, to));
                }
                // It fails only with its worker; a guest may also end while it is to be paused.
                match verb {
                    Verb::Pause if self.troubled || world.guest != Guest::Sleeps => {
                        effects.push((Effect::Failed, At::Running));
                    }
                    Verb::Boot | Verb::Resume | Verb::Reboot if self.troubled => {
                        effects.push((Effect::Failed, At::Failed));
                    }
                    _ => {}
                }
                effects
            }
        }
    }

    /// Whether what a request was refused for can have been accepted and not been done: somebody
    /// asked for it, or nobody had to.
    fn lies_ahead(&self, world: &World, request: u64, said: &Said) -> bool {
        let was_asked = |verb: Verb| {
            let asked = self.asked.get(&request);
            asked.is_some_and(|asked| asked.beside.contains(&Ask::Verb(verb)))
        };
        let recovers = self.troubled || world.guest == Guest::Crashes;
        match said {
            Said::Untimely(Verb::Boot) if world.guest == Guest::Resets || recovers => true,
            Said::Untimely(after) => was_asked(*after),
            _ => was_asked(Verb::Delete) || world.was_deleted(request) || recovers,
        }
    }

    /// Whether it can be in the state of that name, on the way from here to somewhere else.
    fn passes(&self, world: &World, request: u64, state: &str) -> bool {
        let asked = self.asked.iter().any(|(request, asked)| {
            let Ask::Verb(verb) = asked.ask else {
                return false;
            };
            let is_open = !world.effects.contains_key(request) && asked.host >= world.host;
            let row = transition::request(&world.at.state(), verb);
            let through = |row: transition::Transition| {
                row.through.name() == state || verb == Verb::Reboot && state == "starting"
            };
            is_open && row.is_ok_and(through)
        });
        let recovers = self.troubled || world.guest == Guest::Crashes;
        let by_itself = match state {
            "starting" => recovers || world.guest == Guest::Resets && world.at == At::Running,
            "stopping" => {
                matches!(world.guest, Guest::Ends | Guest::Resets) && world.at == At::Running
            }
            "deleting" => recovers && world.at == At::Failed,
            _ => false,
        };
        // The end of a verb may have been heard of before what was seen on the way to it.
        let has_passed = At::ALL.into_iter().any(|from| {
            let rows = Verb::ALL
                .into_iter()
                .filter_map(|verb| transition::request(&from.state(), verb).ok());
            rows.filter(|row| row.through.name() == state).any(|row| {
                let to = At::of(&row.to).filter(|to| *to != from);
                to.is_some_and(|to| {
                    world.has_been(request, &[from]) && world.has_been(request, &[to])
                })
            })
        });
        asked || by_itself || has_passed
    }
}

/// Whether that request, made in this world, can be answered so.
fn explains(world: &World, request: u64, ask: Ask, said: &Said) -> bool {
    let effect = world.effects.get(&request).copied();
    let refused_at = |places: &[At]| effect.is_none() && world.has_been(request, places);
    match said {
        Said::Created => effect == Some(Effect::Created),
        // A delete that finds another one under way is answered with that one's end.
        Said::Done if ask == Ask::Verb(Verb::Delete) => {
            effect == Some(Effect::Done) || effect.is_none() && world.was_deleted(request)
        }
        Said::Done => effect == Some(Effect::Done),
        Said::Failed => effect == Some(Effect::Failed),
        Said::Taken => refused_at(&[At::Stopped, At::Running, At::Paused, At::Failed]),
        Said::Missing => refused_at(&[At::Absent]),
        Said::Denied if ask == Ask::Verb(Verb::Boot) => refused_at(&[At::Stopped, At::Failed]),
        Said::Denied => refused_at(&[At::Absent]),
        Said::Illegal(at) => refused_at(&[*at]),
        Said::TooLate => At::ALL.into_iter().any(|at| {
            let Ask::Verb(verb) = ask else { return false };
            transition::request(&at.state(), verb).is_err() && refused_at(&[at])
        }),
        Said::Untimely(_) | Said::Deleting => false,
        Said::Seen(state) => At::named(state).is_some_and(|at| {
            // A VM that is booted again when it has reset itself is stopped in between.
            let resets = world.guest == Guest::Resets && at == At::Stopped;
            refused_at(&[at]) || resets && refused_at(&[At::Running])
        }),
    }
}

#[cfg(test)]
mod tests;
