//! The end of a node: whatever runs for it ends with it, in order, in bounded time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use cepa::identity::{AcceptAny, Presented, Refusal, TrustPolicy};
use cepa::mux::GoAwayCode;
use cepa::node::{Access, DialError, Node};
use cepa::session::{Session, SessionEnd};

use crate::support::{MeshNode, address, by_hand, config, listening, node, offer_echo, soon};

/// Sets it when it is dropped.
struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn shut_down(end: &SessionEnd) -> bool {
    let code = GoAwayCode::ShuttingDown;
    matches!(end, SessionEnd::GoneAway { code: it } if *it == code)
}

/// A handler that waits for something else than its substream ends too, and not before its peer was told why.
#[tokio::test]
async fn handlers_that_go_on_are_dropped_when_their_time_is_up() {
    let server = node();
    let (dropped, works) = (Arc::new(AtomicBool::new(false)), Dropped);
    server.serve("forever", Access::Anyone, {
        let dropped = Arc::clone(&dropped);
        move |call| {
            let guard = works(Arc::clone(&dropped));
            async move {
                let _stream = call.accept().await;
                std::future::pending::<()>().await;
                drop(guard);
            }
        }
    });
    let (_, at) = listening(&server).await;
    let (session, _) = by_hand(&at).await;
    let _stream = session.open("forever").await.unwrap();
    soon(server.shutdown(Duration::ZERO)).await;
    assert!(dropped.load(Ordering::SeqCst), "the handler still runs");
    let end = soon(session.closed()).await;
    assert!(shut_down(&end), "{end:?}");
}

/// Takes anybody, when it is let go on.
#[derive(Debug)]
struct Slow {
    asked: mpsc::Sender<()>,
    go_on: Mutex<mpsc::Receiver<()>>,
}

impl TrustPolicy for Slow {
    fn decide(&self, _: &Presented<'_>) -> Result<(), Refusal> {
        let _ = self.asked.send(());
        let _ = self.go_on.lock().unwrap().recv();
        Ok(())
    }
}

/// A session that comes up while the node ends is not taken in.
#[tokio::test]
async fn a_session_that_comes_late_ends_with_the_node() {
    let server = node();
    offer_echo(&server);
    let (_, at) = listening(&server).await;
    let (asked, was_asked) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel();
    let mut slow = config();
    slow.stack.trust = Arc::new(Slow {
        asked,
        go_on: Mutex::new(may_go_on),
    });
    let client = MeshNode::new(slow);
    let dials = tokio::spawn({
        let (client, at) = (client.clone(), at.clone());
        async move { client.session(&at).await }
    });
    // It has a session by now, and is asked who that is.
    tokio::task::spawn_blocking(move || was_asked.recv().unwrap())
        .await
        .unwrap();
    soon(client.shutdown(Duration::ZERO)).await;
    drop(go_on);
    let dialled = soon(dials).await.unwrap();
    assert!(matches!(dialled, Err(DialError::ShutDown)), "{dialled:?}");
    assert!(client.sessions().is_empty());
    crate::support::eventually(|| server.sessions().is_empty()).await;
}

/// Who waits for a shutdown may be gone before it is over; what it has begun is done all the same.
#[tokio::test]
async fn a_shutdown_that_was_dropped_is_finished_with_the_last_handle() {
    let server = Node::new(config());
    let handler = async |call: cepa::node::Call| {
        let _stream = call.accept().await;
        std::future::pending::<()>().await;
    };
    server.serve("forever", Access::Anyone, handler).unwrap();
    let at = server.listen(&"tcp:127.0.0.1:0".parse().unwrap()).await;
    let at = address(&format!("cepa://{}@{}", server.id(), at.unwrap()));
    let (session, _) = by_hand(&at).await;
    let _stream = session.open("forever").await.unwrap();
    let down = server.shutdown(Duration::from_secs(3600));
    assert!(futures::poll!(Box::pin(down)).is_pending());
    drop(server);
    let end = soon(session.closed()).await;
    assert!(shut_down(&end), "{end:?}");
}

/// The peer behind a listener's command reads that the node stops, and does not find the line cut.
#[tokio::test]
async fn the_peer_behind_a_command_is_notified_of_the_end() {
    let between = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = between.local_addr().unwrap().port();
    let bridge =
        format!("exec:bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}; cat <&3 & exec cat >&3'");
    let server = Node::new(config());
    server.listen(&bridge.parse().unwrap()).await.unwrap();
    let (stream, _) = soon(between.accept()).await.unwrap();
    let identity = cepa::identity::Identity::generate(cepa::identity::KeyKind::Ed25519).unwrap();
    let dialler = cepa::stack::StackConfig::new(identity, Arc::new(AcceptAny));
    let stream = cepa::transports::Stream::from_io(stream, "behind a command");
    let session = Session::handshake(stream, &[], cepa::Side::Client, &dialler);
    let session = soon(session).await.unwrap();
    crate::support::eventually(|| !server.sessions().is_empty()).await;
    soon(server.shutdown(Duration::ZERO)).await;
    let end = soon(session.closed()).await;
    assert!(shut_down(&end), "{end:?}");
}
