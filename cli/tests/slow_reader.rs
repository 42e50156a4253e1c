//! A program at this machine's end of a tunnel that reads slowly, through a small buffer: it gets all that came before a reset, and
//! then the reset.

mod common;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};

use common::{PATIENCE, Place, Server};

const ANSWER: usize = 100_000;

/// Answers each connection's first byte and, once the system at the other end has all of it, closes with one byte unread: a reset.
fn rude() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let to = stream.peer_addr().unwrap();
                stream.peek(&mut [0; 2]).unwrap();
                stream.read_exact(&mut [0]).unwrap();
                stream.write_all(&vec![b'y'; ANSWER]).unwrap();
                let start = Instant::now();
                while unsent(at, to) > 0 {
                    assert!(start.elapsed() < PATIENCE);
                    thread::sleep(Duration::from_millis(5));
                }
            });
        }
    });
    at
}

/// What the system has to send from here to there still, as it lists it itself.
fn unsent(from: SocketAddr, to: SocketAddr) -> u64 {
    let name = |at: SocketAddr| match at {
        SocketAddr::V4(at) => format!("{:08X}:{:04X}", at.ip().to_bits().swap_bytes(), at.port()),
        SocketAddr::V6(_) => panic!("{at}"),
    };
    let (from, to) = (name(from), name(to));
    let all = fs::read_to_string("/proc/net/tcp").unwrap();
    let mut rows = all
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| row[1] == from && row[2] == to).unwrap();
    u64::from_str_radix(row[4].split(':').next().unwrap(), 16).unwrap()
}

/// How much comes to a reader with a small buffer that takes its time, and what comes then.
fn read_slowly(at: &str) -> (usize, ErrorKind) {
    let at: SocketAddr = at.parse().unwrap();
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
    sockopt::set_socket_recv_buffer_size(&socket, 4096).unwrap();
    rustix::net::connect(&socket, &at).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"ab").unwrap();
    let (mut all, mut some) = (0, [0; 1000]);
    loop {
        match stream.read(&mut some) {
            Ok(0) => return (all, ErrorKind::UnexpectedEof),
            Ok(n) => all += n,
            Err(e) => return (all, e.kind()),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_answer_before_a_reset_arrives_whole_and_then_the_reset() {
    let place = Place::new();
    let service = format!("rude=tcp:{}", rude());
    let server = place.serve(&["tcp:127.0.0.1:0", "--allow=any", "--service", &service]);
    let at = server.address();
    let words = ["forward", &at, "--trust", "any", "-L", "127.0.0.1:0=rude"];
    let forward = Server::start(&place, &words);
    let local = forward.address();
    let seen = read_slowly(local.strip_prefix("tcp:").unwrap());
    assert_eq!(seen, (ANSWER, ErrorKind::ConnectionReset), "forward");
    let to = format!("tcp:{}", rude());
    let pipe = Server::start(&place, &["pipe", "--listen", "tcp:127.0.0.1:0", &to]);
    let local = pipe.address();
    let seen = read_slowly(local.strip_prefix("tcp:").unwrap());
    assert_eq!(seen, (ANSWER, ErrorKind::ConnectionReset), "pipe");
}

/// The failure of a command is told as a cut where there is no status.
#[test]
fn what_a_command_said_before_it_failed_arrives_whole() {
    let place = Place::new();
    let says = format!("exec:sh -c 'head -c {ANSWER} /dev/zero; exit 3'");
    let service = format!("fails={says}");
    let server = place.serve(&["tcp:127.0.0.1:0", "--allow=any", "--service", &service]);
    let at = server.address();
    let words = ["forward", &at, "--trust", "any", "-L", "127.0.0.1:0=fails"];
    let forward = Server::start(&place, &words);
    let local = forward.address();
    let seen = read_slowly(local.strip_prefix("tcp:").unwrap());
    assert_eq!(seen, (ANSWER, ErrorKind::ConnectionReset), "forward");
    let pipe = Server::start(&place, &["pipe", "--listen", "tcp:127.0.0.1:0", &says]);
    let local = pipe.address();
    let seen = read_slowly(local.strip_prefix("tcp:").unwrap());
    assert_eq!(seen, (ANSWER, ErrorKind::ConnectionReset), "pipe");
}
