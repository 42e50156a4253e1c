//! A session that one program lends to others: ends stay ends, resets stay resets, refusals have the peer's words, and how the lender's
//! session ends is how the borrower's does. Everything in memory.

use std::sync::Arc;
use std::time::Duration;

use cepa::identity::{AcceptAny, Identity, KeyKind, Pinned, UnixTime};
use cepa::mux::{GoAwayCode, StreamError};
use cepa::protocols::sharing::{self, BorrowError};
use cepa::session::{Incoming, OpenError, Session, SessionEnd};
use cepa::stack::StackConfig;
use cepa::{PeerId, Side};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::task::JoinHandle;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

fn identity() -> Identity {
    Identity::generate(KeyKind::Ed25519).unwrap()
}

/// A peer that serves, the lender's session with it, and who the lender is.
struct World {
    peer: Session,
    peer_id: PeerId,
    lender: Session,
    own: Identity,
    serving: JoinHandle<()>,
    /// Cuts the lender's connection.
    cut: tokio::sync::oneshot::Sender<()>,
}

async fn world() -> World {
    let (own, far) = (identity(), identity());
    // By a copy in between, which can be cut.
    let (here, mut one) = duplex(64 << 10);
    let (mut two, there) = duplex(64 << 10);
    let (cut, is_cut) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut one, &mut two) => {}
            _ = is_cut => {}
        }
    });
    let mine = StackConfig::new(own.clone(), Arc::new(Pinned::one(far.peer_id())));
    let theirs = StackConfig::new(far.clone(), Arc::new(AcceptAny));
    let (lender, peer) = tokio::join!(
        Session::handshake(here, &[], Side::Client, &mine),
        Session::handshake(there, &[], Side::Server, &theirs),
    );
    let (lender, peer) = (lender.unwrap(), peer.unwrap());
    let serving = peer.clone();
    World {
        peer_id: far.peer_id(),
        serving: tokio::spawn(async move {
            while let Ok(incoming) = serving.accept().await {
                tokio::spawn(serve(incoming));
            }
        }),
        peer,
        lender,
        own,
        cut,
    }
}

async fn serve(incoming: Incoming) {
    let service = incoming.service().to_owned();
    if service == "none" {
        incoming.refuse("not for you").await.unwrap();
        return;
    }
    let mut stream = incoming.accept().await.unwrap();
    match service.as_str() {
        // Answers behind the end of what came.
        "turn" => {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            all.reverse();
            stream.write_all(&all).await.unwrap();
            stream.shutdown().await.unwrap();
        }
        "reset" => {
            stream.write_all(b"before").await.unwrap();
            stream.wire_mut().drained(None).await.unwrap();
            stream.reset(77);
        }
        // Tells how it was ended.
        "open" => {
            stream.write_all(b"x").await.unwrap();
            stream.flush().await.unwrap();
            let mut all = Vec::new();
            let _ = stream.read_to_end(&mut all).await;
        }
        other => panic!("{other}"),
    }
}

impl World {
    /// Somebody who borrows, with this identity.
    async fn borrower(
        &self,
        identity: &Identity,
    ) -> (Result<Session, BorrowError>, JoinHandle<bool>) {
        let (near, far) = duplex(64 << 10);
        let (lender, own) = (self.lender.clone(), self.own.clone());
        let lending = tokio::spawn(async move { sharing::lend(&lender, far, &own).await.is_ok() });
        (sharing::borrow(near, identity).await, lending)
    }

    async fn borrowed(&self) -> (Session, JoinHandle<bool>) {
        let (session, lending) = self.borrower(&self.own).await;
        (session.unwrap(), lending)
    }
}

fn code(error: &std::io::Error) -> Option<u32> {
    match error.get_ref()?.downcast_ref()? {
        StreamError::ResetByPeer { code } => Some(*code),
        _ => None,
    }
}

#[tokio::test]
async fn what_passes_is_what_passes_without_a_lender() {
    let world = world().await;
    let (session, lending) = world.borrowed().await;
    assert!(session.is_borrowed() && !world.lender.is_borrowed());
    assert_eq!(session.peer().id(), world.peer_id);
    let now = UnixTime::now();
    let judged = |id| session.peer().judged_by(&Pinned::one(id), now);
    assert_eq!(judged(world.peer_id).ok(), Some(true));
    assert!(judged(world.own.peer_id()).is_err());
    session.ping().await.unwrap();

    // More than all windows on the way, and the answer comes behind the end of the question.
    let mut stream = session.open("turn").await.unwrap();
    let question: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (mut answer, mut read) = (Vec::new(), stream.into_split());
    let (asked, heard) = tokio::join!(
        async {
            read.1.write_all(&question).await?;
            read.1.shutdown().await
        },
        read.0.read_to_end(&mut answer)
    );
    asked.unwrap();
    heard.unwrap();
    answer.reverse();
    assert!(answer == question);

    // What was said before a reset, and its code.
    stream = session.open("reset").await.unwrap();
    let mut said = Vec::new();
    let error = stream.read_to_end(&mut said).await.unwrap_err();
    assert_eq!((said.as_slice(), code(&error)), (&b"before"[..], Some(77)));

    match session.open("none").await.unwrap_err() {
        OpenError::Refused { service, reason } => {
            assert_eq!((service.as_str(), reason.as_str()), ("none", "not for you"));
        }
        other => panic!("{other}"),
    }
    session.close().await;
    assert!(timeout(PATIENCE, lending).await.unwrap().unwrap());
    assert!(world.lender.ping().await.is_ok());
    // A second one, after the first.
    let (session, _) = world.borrowed().await;
    assert!(session.ping().await.is_ok());
}

#[tokio::test]
async fn a_reset_of_the_borrower_reaches_the_peer_and_so_does_its_death() {
    let world = world().await;
    world.serving.abort();
    let (session, _) = world.borrowed().await;
    let (near, far) = tokio::join!(session.open("a"), async {
        world.peer.accept().await.unwrap().accept().await
    });
    let (mut near, mut far) = (near.unwrap(), far.unwrap());
    near.reset(9);
    let heard = timeout(PATIENCE, far.read_u8()).await.unwrap();
    assert_eq!(code(&heard.unwrap_err()), Some(9));

    let (session, lending) = world.borrowed().await;
    let (near, far) = tokio::join!(session.open("b"), async {
        world.peer.accept().await.unwrap().accept().await
    });
    // Dropped: the borrower's process is gone.
    drop((near.unwrap(), session));
    let mut far = far.unwrap();
    let heard = timeout(PATIENCE, far.read_u8()).await.unwrap();
    assert!(code(&heard.unwrap_err()).is_some());
    assert!(timeout(PATIENCE, lending).await.unwrap().unwrap());
}

#[tokio::test]
async fn how_the_session_ends_the_borrower_reads_and_nothing_is_reset_before() {
    for how in ["lost", "closed", "shutting down"] {
        let world = world().await;
        let (session, lending) = world.borrowed().await;
        let mut stream = session.open("open").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
        match how {
            "lost" => drop(world.cut),
            "closed" => world.peer.close().await,
            _ => world.peer.close_with(GoAwayCode::ShuttingDown).await,
        }
        let error = timeout(PATIENCE, stream.read_u8())
            .await
            .unwrap()
            .unwrap_err();
        let end = timeout(PATIENCE, session.closed()).await.unwrap();
        // A reset would say that it was the service that failed.
        assert_eq!(code(&error), None, "{how}: {error}");
        match how {
            "lost" => {
                assert!(matches!(end, SessionEnd::LenderGone), "{end}");
                assert!(!end.is_clean() && end.is_transient());
            }
            "closed" => assert!(matches!(end, SessionEnd::ClosedByPeer), "{end}"),
            _ => assert!(
                matches!(
                    end,
                    SessionEnd::GoneAway {
                        code: GoAwayCode::ShuttingDown
                    }
                ),
                "{end}"
            ),
        }
        assert!(timeout(PATIENCE, lending).await.unwrap().unwrap());
    }
}

#[tokio::test]
async fn nobody_borrows_with_another_identity_or_where_there_are_too_many() {
    let world = world().await;
    let (session, lending) = world.borrower(&identity()).await;
    assert!(matches!(session.unwrap_err(), BorrowError::Connect(_)));
    assert!(!timeout(PATIENCE, lending).await.unwrap().unwrap());
    // The lender's session is none the worse.
    assert!(world.borrowed().await.0.ping().await.is_ok());

    let (near, far) = duplex(100);
    let (refused, ()) = tokio::join!(sharing::borrow(near, &world.own), sharing::refuse(far));
    assert!(matches!(refused.unwrap_err(), BorrowError::Full));
    let (near, far) = duplex(100);
    drop(far);
    let gone = sharing::borrow(near, &world.own).await.unwrap_err();
    assert!(matches!(gone, BorrowError::Gone(_)));
}

#[tokio::test]
async fn a_lender_that_is_dropped_cuts_off_who_borrows() {
    let world = world().await;
    let (session, lending) = world.borrowed().await;
    lending.abort();
    let end = timeout(PATIENCE, session.closed()).await.unwrap();
    assert!(matches!(end, SessionEnd::LenderGone), "{end}");
    assert!(world.lender.ping().await.is_ok());
}
