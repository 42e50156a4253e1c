//! Crowds of clients on one `cepa forward`, all over one session: those that come at once, that leave at once, that find
//! nobody, and that are refused. A witness on the same session goes on through all of it.
//!
//! The loads are those of `cepa-bench load`, which has them at full size and with figures; here none depends on how fast the
//! machine is.
#![cfg(target_os = "linux")] // counts what the kernel says about a process

mod common;
#[path = "../../benches/src/load/rig.rs"]
mod rig;
#[path = "../../benches/src/load/scenarios.rs"]
mod scenarios;
#[path = "../../benches/src/tool.rs"]
mod tool;

use std::time::Duration;

use common::bin;
use rig::{Rig, Witness};
use scenarios::{Came, Counts};
use tokio::net::TcpStream;

/// For one client of a crowd, on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);

/// What either process may have in memory, in bytes: debug builds are large.
const MEMORY: f64 = 256.0 * 1024.0 * 1024.0;

/// Both processes and the witness; its end says whether that was disturbed.
struct Beside {
    rig: Rig,
    witness: Witness,
}

impl Beside {
    async fn start(descriptors: Option<usize>, words: &[&str]) -> Self {
        // Two ends of each client are here.
        cepa::transports::raise_descriptor_limit();
        let rig = Rig::start(bin(), descriptors, words).unwrap();
        let witness = Witness::start(&rig).await.unwrap();
        Self { rig, witness }
    }

    fn at(&self, service: &str) -> std::net::SocketAddr {
        self.rig.local(service).unwrap()
    }

    /// The witness has gone on, over the first session, and neither process has grown.
    #[track_caller]
    fn goes_on(&mut self) {
        let (seen, _) = self.witness.take();
        assert_eq!(seen.failures, [""; 0], "{:?}", self.rig.said());
        assert!(
            seen.memory.iter().all(|most| *most < MEMORY),
            "{:?}",
            seen.memory
        );
        assert!(self.rig.is_running(), "{:?}", self.rig.said());
    }

    /// How many lines of either process have this in them.
    fn lines_with(&mut self, what: &str) -> usize {
        let said = self.rig.said().into_iter().flatten();
        said.filter(|line| line.contains(what)).count()
    }
}

#[track_caller]
fn all(came: &Came, what: &str, clients: usize) {
    assert_eq!(came.counts, Counts::from([(what.to_owned(), clients)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn six_hundred_connections_are_open_at_once_on_one_session() {
    let mut beside = Beside::start(None, &[]).await;
    let came = scenarios::crowd(beside.at("echo"), 600, LIMIT)
        .await
        .unwrap();
    all(&came, "answered twice", 600);
    beside.goes_on();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_server_has_room_for_a_third_of_them_the_others_wait_for_their_turn() {
    // Room for 72 substreams of a peer.
    let mut beside = Beside::start(Some(300), &[]).await;
    let stay = Duration::from_millis(100);
    let came = scenarios::turns(beside.at("echo"), 300, stay, LIMIT).await;
    all(&came.unwrap(), "had its turn", 300);
    assert_eq!(beside.lines_with("file descriptors"), 0, "none was refused");
    beside.goes_on();
}

/// The two of the witness are all that there is room for.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_room_is_reported_and_holds_up_nobody() {
    let mut beside = Beside::start(None, &["--connections-a-session", "2"]).await;
    let left = scenarios::leave(beside.at("echo"), 20, 400).await.unwrap();
    all(&left, "left", 20);
    let waiting = TcpStream::connect(beside.at("echo")).await.unwrap();
    tokio::time::timeout(LIMIT, async {
        while beside.lines_with("a connection waits") == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .unwrap();
    beside.goes_on();
    drop(waiting);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_that_reset_after_a_byte_are_nobody_elses_trouble() {
    let mut beside = Beside::start(None, &[]).await;
    let came = scenarios::leave(beside.at("echo"), 300, 400).await.unwrap();
    all(&came, "left", 300);
    // Behind them there is room, and the session is the same.
    let came = scenarios::crowd(beside.at("echo"), 10, LIMIT)
        .await
        .unwrap();
    all(&came, "answered twice", 10);
    let lines = beside.lines_with("connection lost");
    assert!(lines < 10, "{lines} lines, one a minute would do");
    beside.goes_on();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_down_resets_each_client() {
    let mut beside = Beside::start(None, &[]).await;
    let came = scenarios::knock(beside.at("down"), 300, 400).await.unwrap();
    // An end in order would look like an empty answer.
    all(&came, "reset", 300);
    let lines = beside.lines_with("down");
    assert!(
        lines < 10,
        "{lines} lines, one a minute at each end would do"
    );
    beside.goes_on();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_closes_at_once_ends_each_client_in_order() {
    let mut beside = Beside::start(None, &[]).await;
    let came = scenarios::knock(beside.at("shut"), 1200, 400)
        .await
        .unwrap();
    all(&came, "ended", 1200);
    beside.goes_on();
}
