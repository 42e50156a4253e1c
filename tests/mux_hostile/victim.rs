//! The example `mux_victim` says what its header promises, to a peer of raw bytes over TCP.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use crate::alone;
use crate::attacker::{DATA, FIN, GO_AWAY, RST, SYN, WINDOW, data, header};

/// A guard against hanging; it answers in milliseconds.
const LIMIT: Duration = Duration::from_secs(60);

struct Victim {
    _child: Child,
    port: u16,
    /// Of streams, and of sessions.
    reported: Lines<BufReader<ChildStderr>>,
    sessions: Lines<BufReader<ChildStdout>>,
}

fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).expect("target/PROFILE/deps/test");
    let program = profile.join("examples/mux_victim");
    assert!(
        program.is_file(),
        "{} is missing: run `cargo build --examples` first",
        program.display()
    );
    program
}

impl Victim {
    async fn start(mode: &str) -> Self {
        let mut child = Command::new(program())
            .args([mode, "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(out.next_line().await.unwrap().unwrap(), "ready");
        let port = out.next_line().await.unwrap().unwrap();
        let port = port.strip_prefix("port ").unwrap().parse().unwrap();
        let reported = BufReader::new(child.stderr.take().unwrap()).lines();
        Self {
            _child: child,
            port,
            reported,
            sessions: out,
        }
    }

    async fn attack(&self, wire: &[u8]) -> TcpStream {
        let mut peer = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        peer.write_all(wire).await.unwrap();
        peer
    }

    async fn line(&mut self) -> String {
        self.reported.next_line().await.unwrap().unwrap()
    }

    async fn session(&mut self) -> String {
        self.sessions.next_line().await.unwrap().unwrap()
    }

    /// So many lines, in alphabetical order: streams are read side by side.
    async fn lines(&mut self, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        for _ in 0..count {
            lines.push(self.line().await);
        }
        lines.sort();
        lines
    }
}

fn in_real_time(test: impl Future<Output = ()>) {
    let _alone = alone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { tokio::time::timeout(LIMIT, test).await.expect("a hang") });
}

#[test]
fn discard_distinguishes_every_end_from_every_other() {
    in_real_time(async {
        let mut victim = Victim::start("discard").await;
        let clean = [data(SYN | FIN, 1, &[7; 5000]), data(SYN, 3, b"abc")].concat();
        // Two sessions side by side.
        let mut one = victim.attack(&clean).await;
        assert_eq!(victim.line().await, "stream total 5000 end=clean EOF");
        let mut other = victim.attack(&data(SYN, 1, b"xy")).await;
        // With an unread answer the kernel would make a reset of its end. It is an acknowledgement, and the
        // ping that measures the path.
        other.read_exact(&mut [0; 24]).await.unwrap();
        one.write_all(&header(WINDOW, RST, 3, 0)).await.unwrap();
        assert_eq!(
            victim.line().await,
            "stream total 3 end=ERR the peer reset the stream (code 0)"
        );
        one.write_all(&header(GO_AWAY, 0, 0, 0)).await.unwrap();
        one.shutdown().await.unwrap();
        assert_eq!(victim.session().await, "session end=clean");
        drop(other);
        let cut = "the connection ended without a go-away, so it was cut";
        assert_eq!(victim.line().await, format!("stream total 2 end=ERR {cut}"));
        assert_eq!(victim.session().await, format!("session end=ERR {cut}"));
    });
}

#[test]
fn hold_reads_when_the_session_is_over() {
    in_real_time(async {
        let mut victim = Victim::start("hold").await;
        let wire = [
            data(SYN, 1, &vec![1; 100_000]),
            data(SYN | FIN, 3, &[2; 10]),
            header(DATA, 0, 1, 200_000).to_vec(),
        ]
        .concat();
        let mut peer = victim.attack(&wire).await;
        let mut answer = Vec::new();
        peer.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer[answer.len() - 12..], header(GO_AWAY, 0, 0, 1));
        drop(peer);
        let reason =
            "the peer broke the multiplexing protocol: stream 1: more data than its window";
        assert_eq!(victim.session().await, format!("session end=ERR {reason}"));
        assert_eq!(
            victim.lines(2).await,
            [
                "stream total 10 end=clean EOF".into(),
                format!("stream total 100000 end=ERR {reason}"),
            ]
        );
    });
}

#[test]
fn drop_resets_at_once() {
    in_real_time(async {
        let mut victim = Victim::start("drop").await;
        let mut peer = victim.attack(&header(WINDOW, SYN, 1, 0)).await;
        assert_eq!(victim.line().await, "stream total 0 end=ERR dropped here");
        let mut answer = [0; 12];
        peer.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, header(WINDOW, RST, 1, 0));
    });
}

#[test]
fn what_it_can_not_be_is_answered_with_how_it_is_called() {
    in_real_time(async {
        for words in [&["hold"][..], &["keep", "0"], &["hold", "70000"]] {
            let done = Command::new(program()).args(words).output().await.unwrap();
            assert_eq!(done.status.code(), Some(2), "{words:?}");
            assert!(done.stdout.is_empty());
            assert_eq!(
                String::from_utf8(done.stderr).unwrap(),
                "usage: mux_victim hold|discard|drop PORT\n"
            );
        }
    });
}
