//! Peers that are not the host, or behave as if they were not.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;

use roost_guests::{HELLO, STORM};

use crate::fixture::{Fixture, NONCE, output, within};

fn connect(fixture: &Fixture) -> UnixStream {
    let stream = UnixStream::connect(fixture.run_dir().join("control.sock")).unwrap();
    stream
        .set_read_timeout(Some(std::time::Duration::from_secs(60)))
        .unwrap();
    stream
}

fn send(stream: &mut UnixStream, json: &str) {
    let length = u32::try_from(json.len()).unwrap().to_le_bytes();
    stream
        .write_all(&[&length, json.as_bytes()].concat())
        .unwrap();
}

fn receive(stream: &mut UnixStream) -> String {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut body = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut body).unwrap();
    String::from_utf8(body).unwrap()
}

/// Whether the worker closed the connection without another word.
fn is_closed(stream: &mut UnixStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[tokio::test]
async fn what_is_no_hello_ends_the_connection_and_nothing_else() {
    let fixture = Fixture::worker();
    let handle = fixture.boot(HELLO).await;
    let long = "x".repeat(5000);
    let garbage: [&[u8]; 6] = [
        &[0xff; 64],
        b"\x04\0\0\0null",
        b"\x02\0\0\0{}",
        b"\0\0\0\0",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        long.as_bytes(),
    ];
    for bytes in garbage {
        let mut stream = connect(&fixture);
        // The worker may have closed already.
        let _ = stream.write_all(bytes);
        assert!(is_closed(&mut stream), "{:?}", &bytes[..4]);
    }
    let mut impatient = connect(&fixture);
    send(
        &mut impatient,
        r#"{"type":"request","id":1,"request":{"do":"quit"}}"#,
    );
    assert!(is_closed(&mut impatient));
    output(
        &handle,
        handle.counters().await.unwrap().serial_tx_bytes,
        "tick",
    )
    .await;
    handle.quit().await.unwrap();
}

#[tokio::test]
async fn a_wrong_nonce_is_refused_in_words_and_the_host_stays_connected() {
    let fixture = Fixture::worker();
    let handle = fixture.boot(HELLO).await;
    let mut stream = connect(&fixture);
    send(
        &mut stream,
        r#"{"type":"hello","version":1,"nonce":"guess"}"#,
    );
    assert_eq!(
        receive(&mut stream),
        r#"{"type":"refused","reason":"wrong-nonce"}"#
    );
    assert!(is_closed(&mut stream));
    handle.counters().await.unwrap();
    handle.quit().await.unwrap();
}

#[tokio::test]
async fn silent_peers_time_out_and_do_not_keep_a_host_out() {
    let fixture = Fixture::worker();
    let handle = fixture.boot(HELLO).await;
    let mut silent: Vec<_> = (0..4).map(|_| connect(&fixture)).collect();
    // Half a hello is no better than none.
    silent[0].write_all(b"\x40\0\0\0{").unwrap();
    drop(handle);

    let handle = fixture.adopt().await;

    assert!(silent.iter_mut().all(is_closed));
    handle.counters().await.unwrap();
    handle.quit().await.unwrap();
}

#[tokio::test]
async fn a_host_that_breaks_the_protocol_is_dropped_and_can_come_back() {
    let fixture = Fixture::worker();
    drop(fixture.boot(HELLO).await);
    for nonsense in [
        &b"\xff\xff\xff\xff"[..],
        b"\x05\0\0\0hello",
        b"\x02\0\0\0[]",
    ] {
        let mut stream = connect(&fixture);
        send(
            &mut stream,
            &format!(r#"{{"type":"hello","version":1,"nonce":"{NONCE}"}}"#),
        );
        assert!(receive(&mut stream).contains("welcome"));
        stream.write_all(nonsense).unwrap();
        assert!(is_closed(&mut stream));
    }
    let handle = fixture.adopt().await;
    handle.quit().await.unwrap();
}

#[tokio::test]
async fn a_host_that_asks_and_never_reads_does_not_grow_the_worker() {
    let fixture = Fixture::worker();
    let handle = fixture.boot(STORM).await;
    let mut end = 0;
    while end < 64 << 10 {
        end = within(handle.serial_wait(end)).await.unwrap();
    }
    let pid = handle.identity().unwrap().pid;
    drop(handle);

    let mut greedy = connect(&fixture);
    send(
        &mut greedy,
        &format!(r#"{{"type":"hello","version":1,"nonce":"{NONCE}"}}"#),
    );
    greedy.set_nonblocking(true).unwrap();
    let request =
        r#"{"type":"request","id":1,"request":{"do":"serial-read","from":0,"max":65536}}"#;
    let length = u32::try_from(request.len()).unwrap().to_le_bytes();
    let frame = [&length, request.as_bytes()].concat();
    // Until the worker takes no more: each of these asks for 64 KiB.
    let mut asked = 0_u32;
    let mut idle = 0;
    while idle < 3 {
        match greedy.write(&frame) {
            Ok(count) if count == frame.len() => (asked, idle) = (asked + 1, 0),
            _ => {
                // A host beside it is served while the worker waits.
                idle += 1;
                tokio::task::yield_now().await;
            }
        }
    }
    assert!(asked > 100, "{asked}");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let anonymous = status
        .lines()
        .find_map(|line| line.strip_prefix("VmData:"))
        .unwrap();
    let kib: u64 = anonymous.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(
        kib < (64 << 10) + (32 << 10),
        "{kib} KiB, guest memory included"
    );

    let handle = fixture.adopt().await;
    handle.quit().await.unwrap();
}

#[tokio::test]
async fn an_unknown_request_is_answered_as_unsupported() {
    let fixture = Fixture::worker();
    drop(fixture.boot(HELLO).await);
    let mut stream = connect(&fixture);
    send(
        &mut stream,
        &format!(r#"{{"type":"hello","version":9,"nonce":"{NONCE}"}}"#),
    );
    assert!(receive(&mut stream).contains("welcome"));
    send(
        &mut stream,
        r#"{"type":"request","id":5,"request":{"do":"levitate"}}"#,
    );
    assert_eq!(
        receive(&mut stream),
        r#"{"type":"response","id":5,"response":{"did":"failed","error":{"because":"unsupported"}}}"#
    );
    fixture.adopt().await.quit().await.unwrap();
}
