use super::*;

const CREATE: Ask = Ask::Create(Guest::Sleeps);
const BOOT: Ask = Ask::Verb(Verb::Boot);
const PAUSE: Ask = Ask::Verb(Verb::Pause);
const DELETE: Ask = Ask::Verb(Verb::Delete);

/// A VM after requests one after another, each of which was answered so.
fn vm(told: &[(Ask, Said)]) -> Result<Vm, String> {
    let mut vm = Vm::absent();
    for (request, (ask, said)) in told.iter().enumerate() {
        vm.ask(request as u64, *ask, 0);
        vm.answer(request as u64, said)?;
    }
    Ok(vm)
}

fn running() -> Vm {
    vm(&[(CREATE, Said::Created), (BOOT, Said::Done)]).unwrap()
}

#[test]
fn one_request_after_another_is_answered_by_the_table() {
    let mut vm = running();
    vm.rest(At::Running, Some(Guest::Sleeps)).unwrap();
    for (ask, said) in [
        (CREATE, Said::Created),
        (BOOT, Said::Done),
        (PAUSE, Said::Failed),
        (PAUSE, Said::Illegal(At::Stopped)),
        (PAUSE, Said::Illegal(At::Running)),
        (PAUSE, Said::Missing),
        (BOOT, Said::Illegal(At::Paused)),
        (Ask::Look, Said::Seen("paused".to_owned())),
        (Ask::Look, Said::Seen("pausing".to_owned())),
        (DELETE, Said::Failed),
    ] {
        let mut vm = running();
        vm.ask(9, ask, 0);
        assert!(vm.answer(9, &said).is_err(), "{ask:?} {said}");
    }
    for (ask, said) in [
        (CREATE, Said::Taken),
        (BOOT, Said::Illegal(At::Running)),
        (PAUSE, Said::Done),
        (Ask::Look, Said::Seen("running".to_owned())),
        (DELETE, Said::Done),
    ] {
        let mut vm = running();
        vm.ask(9, ask, 0);
        vm.answer(9, &said).unwrap();
    }
}

#[test]
fn requests_that_overlap_take_effect_in_either_order() {
    for (first, second) in [
        // Boot, then pause.
        (Said::Done, Said::Done),
        // Pause was refused before the boot.
        (Said::Done, Said::Illegal(At::Stopped)),
    ] {
        for order in [[0, 1], [1, 0]] {
            let mut vm = vm(&[(CREATE, Said::Created)]).unwrap();
            vm.ask(10, BOOT, 0);
            vm.ask(11, PAUSE, 0);
            for at in order {
                let said = [&first, &second][at];
                vm.answer(10 + at as u64, said).unwrap();
            }
            let at = if second == Said::Done {
                At::Paused
            } else {
                At::Running
            };
            vm.rest(at, None).unwrap();
        }
    }
    // The pause was made after the boot was answered: it can't have been refused before.
    let mut vm = vm(&[(CREATE, Said::Created)]).unwrap();
    vm.ask(10, BOOT, 0);
    vm.answer(10, &Said::Done).unwrap();
    vm.ask(11, PAUSE, 0);
    assert!(vm.answer(11, &Said::Illegal(At::Stopped)).is_err());
}

#[test]
fn nothing_is_refused_for_what_nobody_asked_for_or_what_is_done() {
    let refused = |vm: &mut Vm| vm.answer(11, &Said::Untimely(Verb::Boot));
    let mut vm = vm(&[(CREATE, Said::Created)]).unwrap();
    vm.ask(10, BOOT, 0);
    vm.ask(11, BOOT, 0);
    vm.answer(10, &Said::Done).unwrap();
    refused(&mut vm).unwrap();
    let mut done = running();
    done.ask(11, BOOT, 0);
    refused(&mut done).unwrap_err();
    let mut recovered = running();
    recovered.trouble();
    recovered.ask(11, BOOT, 0);
    refused(&mut recovered).unwrap();
}

#[test]
fn a_lost_request_may_have_taken_effect_until_another_host_took_one() {
    for at in [At::Running, At::Paused] {
        let mut vm = running();
        vm.ask(10, PAUSE, 0);
        vm.lose(10);
        vm.rest(at, None).unwrap();
    }
    let mut vm = running();
    vm.ask(10, PAUSE, 0);
    vm.lose(10);
    assert!(vm.rest(At::Stopped, None).is_err());
    // The next host paused it for somebody else: the lost request did not, and will not.
    let mut vm = running();
    vm.ask(10, DELETE, 0);
    vm.lose(10);
    vm.ask(11, PAUSE, 1);
    vm.answer(11, &Said::Done).unwrap();
    assert!(vm.rest(At::Absent, None).is_err());
}

#[test]
fn a_killed_worker_explains_failures_and_recovery_and_nothing_else_does() {
    for at in [At::Running, At::Failed, At::Stopped, At::Absent] {
        let mut vm = running();
        vm.trouble();
        vm.rest(at, None).unwrap();
        assert_eq!(running().rest(at, None).is_ok(), at == At::Running);
    }
    let mut vm = running();
    vm.trouble();
    vm.ask(9, PAUSE, 0);
    vm.answer(9, &Said::Failed).unwrap();
    let mut vm = running();
    vm.trouble();
    assert!(vm.rest(At::Paused, None).is_err());
}

#[test]
fn guests_that_end_do_so_by_themselves() {
    for (guest, at, possible) in [
        (Guest::Ends, At::Stopped, true),
        (Guest::Ends, At::Failed, false),
        (Guest::Crashes, At::Failed, true),
        (Guest::Sleeps, At::Stopped, false),
    ] {
        let mut vm = vm(&[(Ask::Create(guest), Said::Created), (BOOT, Said::Done)]).unwrap();
        assert_eq!(
            vm.rest(at, Some(guest)).is_ok(),
            possible,
            "{guest:?} {at:?}"
        );
    }
}

#[test]
fn a_delete_that_finds_another_under_way_is_done_with_it_and_deletes_nothing_else() {
    let mut joined = vm(&[(CREATE, Said::Created)]).unwrap();
    joined.ask(10, DELETE, 0);
    joined.ask(11, DELETE, 0);
    joined.answer(10, &Said::Done).unwrap();
    joined.answer(11, &Said::Done).unwrap();
    // That there was no VM before is no end of one.
    let mut alone = Vm::absent();
    alone.ask(0, DELETE, 0);
    alone.ask(1, CREATE, 0);
    alone.answer(1, &Said::Created).unwrap();
    alone.answer(0, &Said::Done).unwrap();
    assert!(alone.rest(At::Stopped, None).is_err());
    let mut never = Vm::absent();
    never.ask(0, DELETE, 0);
    assert!(never.answer(0, &Said::Done).is_err());
}
