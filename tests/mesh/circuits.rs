//! What a relay hands on from one end of a circuit to the other, seen from both ends without anything between: the
//! messages are written from docs/PROTOCOL.md, and there is no session inside.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cepa::identity::PeerId;
use cepa::mux::{StreamTimeouts, Substream};
use cepa::node::{AttemptError, DialError, PeerAddr, ReachError};

use cepa::onion::Onion;
use cepa::protocols::relay::{InMemory, Registration, RelayError, Status};
use cepa::session::Session;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    MeshNode, ask, by_hand, eventually, listening, node, offer_echo, relay, reset_code, soon,
    through,
};

type Stream = Onion<Substream>;

/// Both ends of one circuit, and the sessions with the relay.
pub(crate) struct Circuit {
    pub(crate) near: Stream,
    pub(crate) far: Stream,
    dialler: Session,
    pub(crate) registered: Session,
    _registration: Registration,
}

async fn message(stream: &mut Stream) -> Vec<u8> {
    let length = soon(stream.read_u16()).await.unwrap();
    let mut body = vec![0; length.into()];
    soon(stream.read_exact(&mut body)).await.unwrap();
    body
}

/// A circuit at a relay, which the two ends may reach at different addresses.
async fn circuit(registers_at: &PeerAddr, dials_at: &PeerAddr) -> Circuit {
    circuit_when(registers_at, dials_at, async {}).await
}

/// The same, of two relays that know of each other's peers once this is over.
pub(crate) async fn circuit_when(
    registers_at: &PeerAddr,
    dials_at: &PeerAddr,
    known: impl Future<Output = ()>,
) -> Circuit {
    let (registered, target) = by_hand(registers_at).await;
    let hour = Duration::from_secs(3600);
    let registration = Registration::at(&registered, hour).await.unwrap();
    known.await;
    let (dialler, from) = by_hand(dials_at).await;
    let request = |peer: PeerId| {
        let begin = [0xa2, 0, 1, 1, 0x58, 0x20];
        [&begin[..], peer.as_bytes()].concat()
    };
    let mut near = dialler.open("cepa.relay.dial").await.unwrap();
    near.write_u16(38).await.unwrap();
    near.write_all(&request(target)).await.unwrap();
    near.flush().await.unwrap();
    let incoming = soon(registered.accept()).await.unwrap();
    assert_eq!(incoming.service(), "cepa.relay.circuit");
    let mut far = incoming.accept().await.unwrap();
    assert_eq!(message(&mut far).await, request(from), "who dials");
    far.write_all(&[0, 7, 0xa3, 0, 1, 1, 0, 2, 0x60])
        .await
        .unwrap();
    far.flush().await.unwrap();
    assert_eq!(message(&mut near).await[1..5], [0, 1, 1, 0]);
    for stream in [&mut near, &mut far] {
        stream.wire_mut().set_timeouts(StreamTimeouts::NONE);
    }
    Circuit {
        near,
        far,
        dialler,
        registered,
        _registration: registration,
    }
}

fn circuits(relay: &MeshNode) -> usize {
    relay.relay_stats().unwrap().circuits
}

/// The code of the reset that a stream ends with.
pub(crate) async fn code(stream: &mut Stream) -> u32 {
    reset_code(&soon(stream.read_u8()).await.unwrap_err())
}

#[tokio::test]
async fn each_way_ends_for_itself() {
    let relay = relay(|_| {});
    let (_, at) = listening(&relay).await;
    for first_is_near in [true, false] {
        let mut circuit = circuit(&at, &at).await;
        let (one, two) = if first_is_near {
            (&mut circuit.near, &mut circuit.far)
        } else {
            (&mut circuit.far, &mut circuit.near)
        };
        one.write_all(b"all I have to say").await.unwrap();
        one.shutdown().await.unwrap();
        let mut all = String::new();
        soon(two.read_to_string(&mut all)).await.unwrap();
        assert_eq!(all, "all I have to say");
        // The other way goes on.
        assert_eq!(circuits(&relay), 1);
        two.write_all(b"and the answer").await.unwrap();
        two.shutdown().await.unwrap();
        let mut all = String::new();
        soon(one.read_to_string(&mut all)).await.unwrap();
        assert_eq!(all, "and the answer");
        eventually(|| circuits(&relay) == 0).await;
    }
}

#[tokio::test]
async fn a_reset_comes_out_with_its_code() {
    let relay = relay(|_| {});
    let (_, at) = listening(&relay).await;
    let mut there = circuit(&at, &at).await;
    there.near.wire_mut().reset(4711);
    assert_eq!(code(&mut there.far).await, 4711);
    let mut back = circuit(&at, &at).await;
    back.far.wire_mut().reset(815);
    assert_eq!(code(&mut back.near).await, 815);
    eventually(|| circuits(&relay) == 0).await;
    // The sessions have nothing to do with that.
    for session in [&there.dialler, &there.registered] {
        session.ping().await.unwrap();
    }
}

/// A way to a relay that can be cut; its address, and what cuts it when it is aborted.
async fn cable(at: &PeerAddr) -> (PeerAddr, tokio::task::JoinHandle<()>) {
    let place = at.hints()[0].to_string().replace("tcp:", "");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = format!("tcp:{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = tokio::net::TcpStream::connect(place).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    });
    let cabled = PeerAddr::new(at.peer()).with_hint(here.parse().unwrap());
    (cabled.unwrap(), task)
}

/// An end that is gone has not ended in order, whichever it was.
#[tokio::test]
async fn a_session_that_is_lost_resets_the_other_end() {
    let relay = relay(|_| {});
    let (_, at) = listening(&relay).await;
    let (cabled, cut) = cable(&at).await;
    let mut one = circuit(&at, &cabled).await;
    cut.abort();
    assert_eq!(code(&mut one.far).await, 7);
    let (cabled, cut) = cable(&at).await;
    let mut other = circuit(&cabled, &at).await;
    cut.abort();
    assert_eq!(code(&mut other.near).await, 7);
    // One that is closed is no less lost to the other end, whose own session with the relay goes on.
    let mut closed = circuit(&at, &at).await;
    closed.dialler.close().await;
    assert_eq!(code(&mut closed.far).await, 7);
    eventually(|| circuits(&relay) == 0).await;
}

/// However much one end has to say: the relay holds no more than its windows while the other does not read.
#[tokio::test]
async fn who_does_not_read_holds_the_other_end_back() {
    const ALL: usize = 64 << 20;
    let relay = relay(|config| config.rate = 1 << 40);
    let (_, at) = listening(&relay).await;
    let Circuit {
        mut near,
        mut far,
        dialler: _dialler,
        registered: _registered,
        _registration,
    } = circuit(&at, &at).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let sending = tokio::spawn(async move {
        let chunk = vec![3; 64 << 10];
        while count.load(Ordering::Relaxed) < ALL {
            near.write_all(&chunk).await?;
            count.fetch_add(chunk.len(), Ordering::Relaxed);
        }
        near.shutdown().await?;
        io::Result::Ok(near)
    });
    // Until nothing has moved for a while.
    let mut before = usize::MAX;
    soon(async {
        while before != sent.load(Ordering::Relaxed) {
            before = sent.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    })
    .await;
    assert!(before < 4 << 20, "{before} bytes are on their way");
    assert!(relay.relay_stats().unwrap().bytes < 4 << 20);
    // Held back, and not lost.
    let all = soon(tokio::io::copy(&mut far, &mut tokio::io::sink())).await;
    assert_eq!(usize::try_from(all.unwrap()).unwrap(), ALL);
    drop(soon(sending).await.unwrap().unwrap());
}

/// Relays of a fleet know of each other's peers, and say whom to ask.
#[tokio::test]
async fn a_fleet_that_shares_its_presence_names_the_right_relay() {
    let presence = Arc::new(InMemory::default());
    let [here, there] = [(); 2].map(|()| relay(|config| config.presence = presence.clone()));
    let ((_, at_here), (_, at_there)) = (listening(&here).await, listening(&there).await);
    let (hidden, client) = (node(), node());
    offer_echo(&hidden);
    hidden.register(&at_there).await.unwrap();
    let error = client.open(&through(hidden.id(), &at_here, "echo")).await;
    let Err(ReachError::Dial(DialError::Failed { attempts, .. })) = error else {
        panic!("{error:?}");
    };
    let AttemptError::Relay(error) = &attempts[0].1 else {
        panic!("{:?}", attempts[0].1);
    };
    let Some(RelayError::Refused { status, reason, .. }) = error.downcast_ref() else {
        panic!("{error:?}");
    };
    assert_eq!(*status, Status::NotRegistered);
    assert_eq!(
        *reason,
        format!("it is registered at the relay {}", there.id())
    );
    let stream = client.open(&through(hidden.id(), &at_there, "echo")).await;
    soon(ask(stream.unwrap(), b"there")).await.unwrap();
    // When it is gone nobody says so any more.
    hidden.shutdown(Duration::ZERO).await;
    let stranger = node();
    soon(async {
        loop {
            let opened = stranger.open(&through(hidden.id(), &at_here, "echo")).await;
            if !opened
                .unwrap_err()
                .to_string()
                .contains("it is registered at")
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
