//! How a program on the host says which port of the guest it wants, as with Firecracker: it writes
//! `CONNECT <port>\n`, and reads `OK <port at the host's end>\n`.

use std::os::unix::net::UnixStream;

use rustix::net::{RecvFlags, recv};

/// Most bytes of the line, with its end.
const LINE_BYTES: usize = 32;

/// What was found on a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// The whole line; what follows it is left to be read.
    Connect(u32),
    /// The beginning of one at most.
    Unfinished,
    /// Something else, or the end.
    Wrong,
}

/// Looks for the line on `socket`, which does not block. Until it is there whole, it is left in the
/// socket.
pub(super) fn read(socket: &UnixStream) -> Line {
    let mut line = [0; LINE_BYTES];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let there = match recv(socket, &mut line[..], flags) {
        Ok((0, _)) => return Line::Wrong,
        Ok((read, _)) => line.split_at(read.min(LINE_BYTES)).0,
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Line::Unfinished,
        Err(_) => return Line::Wrong,
    };
    let Some(end) = there.iter().position(|byte| *byte == b'\n') else {
        return match there.len() {
            LINE_BYTES => Line::Wrong,
            _ => Line::Unfinished,
        };
    };
    let (text, _) = there.split_at(end);
    let Some(port) = parse(text) else {
        return Line::Wrong;
    };
    let mut taken = [0; LINE_BYTES];
    let (taken, _) = taken.split_at_mut(end + 1);
    match recv(socket, &mut *taken, RecvFlags::DONTWAIT) {
        Ok((read, _)) if read == end + 1 => Line::Connect(port),
        _ => Line::Wrong,
    }
}

/// The port of a line without its end.
fn parse(line: &[u8]) -> Option<u32> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_ascii_whitespace();
    let (verb, port, rest) = (words.next()?, words.next()?, words.next());
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    let is_connect = verb.eq_ignore_ascii_case("CONNECT") && is_number && rest.is_none();
    port.parse().ok().filter(|_| is_connect)
}

/// The answer when the guest has accepted.
pub(super) fn answer(port: u32) -> String {
    format!("OK {port}\n")
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::Shutdown;

    use super::*;

    fn pair() -> (UnixStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (ours, theirs)
    }

    #[test]
    fn a_line_that_comes_in_pieces_is_taken_whole_and_nothing_after_it() {
        let (mut ours, mut theirs) = pair();
        assert_eq!(read(&ours), Line::Unfinished);
        for piece in ["CONN", "ECT ", "52"] {
            theirs.write_all(piece.as_bytes()).unwrap();
            assert_eq!(read(&ours), Line::Unfinished);
        }
        theirs.write_all(b"\nfirst words").unwrap();
        assert_eq!(read(&ours), Line::Connect(52));
        let mut rest = [0; 11];
        ours.read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b"first words");
    }

    #[test]
    fn ports_of_32_bits_are_accepted_and_anything_else_is_not() {
        let long = format!("CONNECT {:0>24}\n", 7);
        for (line, expected) in [
            ("CONNECT 0\n", Line::Connect(0)),
            ("connect 4294967295\r\n", Line::Connect(u32::MAX)),
            ("CONNECT 4294967296\n", Line::Wrong),
            ("CONNECT -1\n", Line::Wrong),
            ("CONNECT +1\n", Line::Wrong),
            ("CONNECT 5 5\n", Line::Wrong),
            ("CONNECT\n", Line::Wrong),
            ("\n", Line::Wrong),
            ("GET / HTTP/1.1\n", Line::Wrong),
            ("CONNECT \u{665}\n", Line::Wrong),
            (&long[1..], Line::Wrong),
            ("CONNECT 00000000000000000000001\n", Line::Connect(1)),
            (&long, Line::Wrong),
            ("CONNECT 1                               ", Line::Wrong),
        ] {
            let (ours, mut theirs) = pair();
            theirs.write_all(line.as_bytes()).unwrap();
            assert_eq!(read(&ours), expected, "{line:?}");
        }
    }

    #[test]
    fn an_end_is_not_waited_for() {
        let (ours, theirs) = pair();
        theirs.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read(&ours), Line::Wrong);
    }
}
