//! What holds on every backend.

use std::sync::Arc;

use futures_util::FutureExt as _;
use roost_guests::{BURN, ECHO, HELLO, RESET, STORM, TRIPLE_FAULT, VIRTIO_CONSOLE};
use roost_model::GuestExit;
use roost_worker::{ConsoleSize, ControlError, GuestState, HandleEvent, LaunchError, VmHandle};

use crate::fixture::{Fixture, event, output, within};

macro_rules! on_both {
    ($($promise:ident)*) => {
        mod worker {
            $(#[tokio::test] async fn $promise() {
                super::$promise(crate::fixture::Fixture::worker()).await;
            })*
        }
        mod in_process {
            $(#[tokio::test] async fn $promise() {
                super::$promise(crate::fixture::Fixture::in_process()).await;
            })*
        }
    };
}

on_both! {
    a_guest_runs_when_it_is_resumed_and_not_before
    a_paused_guest_stands_still_and_goes_on
    a_stopped_guest_says_so_again_and_keeps_its_output
    a_guest_that_resets_the_machine_ends_with_an_event
    a_guest_that_faults_ends_with_an_event
    a_guest_that_ends_at_once_was_resumed_all_the_same
    an_event_is_not_lost_when_the_wait_for_it_is_given_up
    a_guest_receives_what_is_written
    a_storm_of_output_stays_bounded_and_can_be_stopped
    waiting_for_output_ends_with_the_guest
    a_console_port_is_read_written_and_resized_and_keeps_its_output
    waiting_for_a_console_port_ends_with_the_guest
    a_console_port_that_is_not_there_is_refused_with_those_that_are
    quitting_twice_is_fine
    a_file_that_is_no_kernel_is_refused_and_leaves_nothing
    memory_that_can_not_be_had_is_refused
}

async fn a_guest_runs_when_it_is_resumed_and_not_before(fixture: Fixture) {
    let handle = within(
        fixture
            .backend
            .launch(fixture.launch_of(HELLO, "colour=blue")),
    )
    .await;
    let handle = handle.unwrap();
    assert_eq!(handle.state(), GuestState::Built);
    assert_eq!(handle.counters().await.unwrap().exits.total(), 0);

    handle.resume().await.unwrap();

    assert_eq!(handle.state(), GuestState::Running);
    let at = output(&handle, 0, "cmdline: colour=blue").await;
    output(&handle, at, "memory: 64 MiB").await;
    let counters = handle.counters().await.unwrap();
    assert!(counters.serial_tx_bytes >= at, "{counters:?}");
    assert!(
        counters.running_ns > 0 && counters.exits.io_out > 0,
        "{counters:?}"
    );
    handle.quit().await.unwrap();
}

async fn a_paused_guest_stands_still_and_goes_on(fixture: Fixture) {
    let handle = fixture.boot(HELLO).await;
    output(&handle, 0, "tick 1\n").await;

    handle.pause().await.unwrap();
    let before = handle.counters().await.unwrap();
    handle.pause().await.unwrap();

    assert_eq!(handle.state(), GuestState::Paused);
    let after = handle.counters().await.unwrap();
    assert_eq!(
        (after.exits, after.running_ns),
        (before.exits, before.running_ns)
    );
    assert_eq!(after.serial_tx_bytes, before.serial_tx_bytes);
    handle.resume().await.unwrap();
    handle.resume().await.unwrap();
    assert_eq!(handle.state(), GuestState::Running);
    output(&handle, before.serial_tx_bytes, "tick").await;
    handle.quit().await.unwrap();
}

async fn a_stopped_guest_says_so_again_and_keeps_its_output(fixture: Fixture) {
    let handle = fixture.boot(HELLO).await;
    output(&handle, 0, "tick 1\n").await;

    let (exit, counters) = handle.stop().await.unwrap();

    assert_eq!(exit, GuestExit::Stopped);
    assert_eq!(handle.stop().await.unwrap(), (exit, counters));
    assert_eq!(handle.counters().await.unwrap(), counters);
    assert_eq!(handle.state(), GuestState::Exited);
    assert_eq!(handle.resume().await, Err(ControlError::GuestEnded));
    assert_eq!(handle.pause().await, Err(ControlError::GuestEnded));
    assert_eq!(
        handle.serial_write(b"x").await,
        Err(ControlError::GuestEnded)
    );
    let all = handle.serial_read(0, usize::MAX).await.unwrap();
    assert_eq!(all.bytes.len() as u64, counters.serial_tx_bytes);
    let part = handle.serial_read(6, 4).await.unwrap();
    assert_eq!((part.offset, &part.bytes[..]), (6, &b"from"[..]));
    let past = handle.serial_read(u64::MAX, 4).await.unwrap();
    assert_eq!(
        (past.offset, past.bytes.len()),
        (counters.serial_tx_bytes, 0)
    );
    handle.quit().await.unwrap();
}

async fn ends_with(handle: &Arc<dyn VmHandle>, expected: GuestExit) -> u64 {
    let HandleEvent::GuestExited {
        sequence,
        exit,
        counters,
        at_ms,
    } = event(handle).await
    else {
        panic!("expected the guest's end");
    };
    assert_eq!(exit, expected);
    assert!(at_ms > 0);
    assert_eq!(handle.state(), GuestState::Exited);
    assert_eq!(handle.stop().await.unwrap(), (exit, counters));
    sequence
}

async fn a_guest_that_resets_the_machine_ends_with_an_event(fixture: Fixture) {
    let handle = fixture.boot(RESET).await;
    let sequence = ends_with(&handle, GuestExit::Reset).await;
    handle.acknowledge(sequence).await.unwrap();
    handle.acknowledge(sequence).await.unwrap();
    assert_eq!(
        handle.serial_read(0, 100).await.unwrap().bytes,
        b"resetting\n"
    );
    handle.quit().await.unwrap();
}

async fn a_guest_that_faults_ends_with_an_event(fixture: Fixture) {
    let handle = fixture.boot(TRIPLE_FAULT).await;
    ends_with(&handle, GuestExit::TripleFault).await;
    handle.quit().await.unwrap();
}

async fn a_guest_that_ends_at_once_was_resumed_all_the_same(fixture: Fixture) {
    for _ in 0..5 {
        let handle = fixture.launch(TRIPLE_FAULT).await;
        assert_eq!(handle.resume().await, Ok(()));
        ends_with(&handle, GuestExit::TripleFault).await;
        handle.quit().await.unwrap();
    }
}

async fn an_event_is_not_lost_when_the_wait_for_it_is_given_up(fixture: Fixture) {
    let handle = fixture.launch(RESET).await;
    assert!(handle.next_event().now_or_never().is_none());
    handle.resume().await.unwrap();
    ends_with(&handle, GuestExit::Reset).await;
    handle.quit().await.unwrap();
}

async fn a_guest_receives_what_is_written(fixture: Fixture) {
    let handle = fixture.boot(ECHO).await;
    let ready = output(&handle, 0, "ready\n").await;
    assert_eq!(handle.serial_write(b"over and out").await.unwrap(), 12);
    output(&handle, ready, "over and out").await;
    assert_eq!(handle.counters().await.unwrap().serial_rx_bytes, 12);
    handle.quit().await.unwrap();
}

async fn a_storm_of_output_stays_bounded_and_can_be_stopped(fixture: Fixture) {
    let handle = fixture.boot(STORM).await;
    let mut end = 0;
    // More than any ring of output holds.
    while end < 100 << 10 {
        end = within(handle.serial_wait(end)).await.unwrap();
    }
    let chunk = handle.serial_read(0, usize::MAX).await.unwrap();
    assert!(chunk.offset > 0);
    assert!(chunk.bytes.len() <= 128 << 10);
    assert_eq!(handle.stop().await.unwrap().0, GuestExit::Stopped);
    handle.quit().await.unwrap();
}

async fn waiting_for_output_ends_with_the_guest(fixture: Fixture) {
    let handle = fixture.boot(ECHO).await;
    let ready = output(&handle, 0, "ready\n").await;
    let waiting = tokio::spawn({
        let handle = Arc::clone(&handle);
        async move { handle.serial_wait(ready).await }
    });
    handle.stop().await.unwrap();
    assert_eq!(within(waiting).await.unwrap().unwrap(), ready);
    handle.quit().await.unwrap();
}

async fn boot_with_console(fixture: &Fixture, kernel: &[u8]) -> Arc<dyn VmHandle> {
    let mut launch = fixture.launch_of(kernel, "");
    launch.devices.console = true;
    let handle = within(fixture.backend.launch(launch)).await.unwrap();
    handle.resume().await.unwrap();
    handle
}

/// Waits until the guest has said all of this on its console.
async fn said(handle: &Arc<dyn VmHandle>, all: &str) {
    let mut end = 0;
    while end < all.len() as u64 {
        end = within(handle.console_wait("0", end)).await.unwrap();
    }
    let chunk = handle.console_read("0", 0, usize::MAX).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&chunk.bytes), all);
}

async fn a_console_port_is_read_written_and_resized_and_keeps_its_output(fixture: Fixture) {
    let handle = boot_with_console(&fixture, VIRTIO_CONSOLE).await;
    said(&handle, "who is there?\n").await;
    assert_eq!(handle.console_write("0", b"me").await, Ok(2));
    said(&handle, "who is there?\nme at 80x24\n").await;
    let size = ConsoleSize {
        columns: 132,
        rows: 50,
    };
    handle.console_resize("0", size).await.unwrap();
    handle.console_write("0", b"q").await.unwrap();
    ends_with(&handle, GuestExit::Reset).await;

    let all = "who is there?\nme at 80x24\nq at 132x50\n";
    said(&handle, all).await;
    let part = handle.console_read("0", 4, 2).await.unwrap();
    assert_eq!((part.offset, &part.bytes[..]), (4, &b"is"[..]));
    let ended = Err(ControlError::GuestEnded);
    assert_eq!(handle.console_write("0", b"x").await, ended.map(|()| 0));
    assert_eq!(
        handle.console_resize("0", size).await,
        Err(ControlError::GuestEnded)
    );
    handle.quit().await.unwrap();
}

async fn waiting_for_a_console_port_ends_with_the_guest(fixture: Fixture) {
    let handle = boot_with_console(&fixture, BURN).await;
    let waiting = tokio::spawn({
        let handle = Arc::clone(&handle);
        async move { handle.console_wait("0", 0).await }
    });
    handle.stop().await.unwrap();
    assert_eq!(within(waiting).await.unwrap(), Ok(0));
    handle.quit().await.unwrap();
}

async fn a_console_port_that_is_not_there_is_refused_with_those_that_are(fixture: Fixture) {
    let handle = boot_with_console(&fixture, BURN).await;
    let refusal = |port: &str, ports: &[&str]| ControlError::NoPort {
        port: port.to_owned(),
        ports: ports.iter().map(|&port| port.to_owned()).collect(),
    };
    for port in ["1", "agent", "", "-1", "18446744073709551616"] {
        let no_port = refusal(port, &["0"]);
        let read = handle.console_read(port, 0, 1).await;
        assert_eq!(read, Err(no_port.clone()));
        assert_eq!(handle.console_wait(port, 0).await, Err(no_port.clone()));
        assert_eq!(handle.console_write(port, b"x").await, Err(no_port.clone()));
        let resized = handle.console_resize(port, ConsoleSize::default()).await;
        assert_eq!(resized, Err(no_port));
    }
    handle.quit().await.unwrap();
    let without = fixture.boot(BURN).await;
    let read = without.console_read("0", 0, 1).await;
    assert_eq!(read, Err(refusal("0", &[])));
    without.quit().await.unwrap();
}

async fn quitting_twice_is_fine(fixture: Fixture) {
    let handle = fixture.boot(HELLO).await;
    handle.quit().await.unwrap();
    handle.quit().await.unwrap();
}

async fn a_file_that_is_no_kernel_is_refused_and_leaves_nothing(fixture: Fixture) {
    for file in [
        &b"#!/bin/sh\necho hello\n"[..],
        b"",
        b"\x7fELF",
        &HELLO[..100],
    ] {
        let error = fixture
            .try_launch(file)
            .await
            .err()
            .expect("it is no kernel");
        assert!(matches!(error, LaunchError::Build(_)), "{error}");
        assert!(!fixture.run_dir().exists());
    }
}

async fn memory_that_can_not_be_had_is_refused(fixture: Fixture) {
    let launch = fixture.launch_of(HELLO, "");
    let launch = roost_worker::Launch {
        memory_bytes: 1 << 60,
        ..launch
    };
    let error = within(fixture.backend.launch(launch))
        .await
        .err()
        .expect("nobody has that much");
    assert!(matches!(error, LaunchError::Build(_)), "{error}");
}
