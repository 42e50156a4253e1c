//! Several identities behind one listener: whoever asks for one gets that one or nobody, over whatever
//! carries the bytes.

mod support;

use std::sync::Arc;

use cepa::Side;
use cepa::identity::{AcceptAny, Identity, KeyKind, PeerId, Refusal};
use cepa::onion::Onion;
use cepa::session::{ConnectError, Session};
use cepa::stack::StackConfig;
use cepa::tls::{KeyForm, TlsConfig, TlsError};
use cepa::transports::{Layer, Stream, dial, listen, memory};

use support::{identity, soon};

fn taking_anyone(identity: &Identity) -> StackConfig {
    StackConfig::new(identity.clone(), Arc::new(AcceptAny))
}

/// A client that asks for somebody, and a server with two identities; all three trust anyone, so that
/// only the asking decides.
struct World {
    first: Identity,
    second: Identity,
    server: StackConfig,
}

impl World {
    fn new() -> Self {
        let (first, second) = (identity(), Identity::generate(KeyKind::P256).unwrap());
        let mut server = taking_anyone(&first);
        server.more_identities = vec![second.clone()];
        Self {
            first,
            second,
            server,
        }
    }

    async fn meet(
        &self,
        (a, b): (Stream, Stream),
        layers: &[Layer],
        asked: Option<PeerId>,
    ) -> (Result<Session, ConnectError>, Result<Session, ConnectError>) {
        let mut client = taking_anyone(&identity());
        client.ask_for = asked;
        soon(async {
            tokio::join!(
                Session::handshake(a, layers, Side::Client, &client),
                Session::handshake(b, layers, Side::Server, &self.server)
            )
        })
        .await
    }
}

async fn pair_at(address: &str) -> (Stream, Stream) {
    let mut listener = listen(&address.parse().unwrap()).await.unwrap();
    let at = listener.endpoint().clone();
    let (client, server) = tokio::join!(dial(&at), listener.accept());
    (client.unwrap(), server.unwrap().unwrap())
}

/// A pseudo terminal stands for a serial line; the listener and its folder have to stay.
async fn line() -> ((Stream, Stream), impl Sized) {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("line");
    let here = format!("pty:{}", link.display()).parse().unwrap();
    let there = format!("serial:{}", link.display()).parse().unwrap();
    let mut listener = listen(&here).await.unwrap();
    let (far, near) = tokio::join!(dial(&there), listener.accept());
    ((far.unwrap(), near.unwrap().unwrap()), (listener, folder))
}

#[tokio::test]
async fn each_is_there_for_who_asks_for_it_over_every_stream() {
    let world = World::new();
    let two = [Layer::Mux, Layer::TlsRaw, Layer::Tls];
    for layers in [&[][..], &[Layer::Mux, Layer::TlsRaw], &two] {
        for (asked, got) in [
            (None, &world.first),
            (Some(world.first.peer_id()), &world.first),
            (Some(world.second.peer_id()), &world.second),
        ] {
            let (line, _held) = line().await;
            for streams in [memory::pair(), pair_at("tcp:127.0.0.1:0").await, line] {
                let (client, server) = world.meet(streams, layers, asked).await;
                let (client, server) = (client.unwrap(), server.unwrap());
                assert_eq!(client.peer().id(), got.peer_id());
                assert_eq!(server.peer().local_id(), got.peer_id());
                for layer in client.layers() {
                    assert_eq!(layer.peer().id(), got.peer_id());
                }
            }
        }
    }
}

#[tokio::test]
async fn who_is_not_here_is_not_answered_for() {
    let world = World::new();
    let stranger = identity().peer_id();
    let (client, server) = world.meet(memory::pair(), &[], Some(stranger)).await;
    match client.unwrap_err() {
        ConnectError::Tls(TlsError::NotHere { asked }) => assert_eq!(asked, stranger),
        other => panic!("{other:?}"),
    }
    match server.unwrap_err() {
        ConnectError::Tls(TlsError::UnknownName { name }) => {
            assert_eq!(name, format!("{stranger}.cepa.alt"));
        }
        other => panic!("{other:?}"),
    }
}

/// What a client with this configuration comes to, at a server with two identities.
async fn pushed(
    client: TlsConfig,
    world: &World,
) -> (Result<PeerId, TlsError>, Result<PeerId, TlsError>) {
    let server = TlsConfig::new(&world.first, Arc::new(AcceptAny)).unwrap();
    let server = server
        .to_builder()
        .more_identities(std::slice::from_ref(&world.second))
        .build()
        .unwrap();
    let (a, b) = memory::pair();
    let (mut a, mut b) = (Onion::new(a), Onion::new(b));
    let (a, b) =
        soon(async { tokio::join!(a.push(Side::Client, &client), b.push(Side::Server, &server)) })
            .await;
    (a.map(|peer| peer.id()), b.map(|peer| peer.local_id()))
}

#[tokio::test]
async fn names_that_are_nobody_s_are_refused() {
    let world = World::new();
    let client = || TlsConfig::new(&identity(), Arc::new(AcceptAny)).unwrap();
    for name in [
        "example.org",
        "localhost",
        "x.cepa.alt",
        &format!("x{}.cepa.alt", world.second.peer_id()),
        &format!("{}.example.org", world.second.peer_id()),
        &format!("{}.x.cepa.alt", world.second.peer_id()),
    ] {
        let client = client().to_builder().server_name(name).build().unwrap();
        let (of_client, of_server) = pushed(client, &world).await;
        // unrecognized_name, RFC 6066 section 3.
        assert!(
            matches!(of_client, Err(TlsError::RefusedByPeer { alert: 112 })),
            "{name}: {of_client:?}"
        );
        assert!(matches!(of_server, Err(TlsError::UnknownName { .. })));
    }
    // Nobody in particular.
    for name in ["cepa.alt", "192.0.2.1"] {
        let client = client().to_builder().server_name(name).build().unwrap();
        assert_eq!(
            pushed(client, &world).await.0.unwrap(),
            world.first.peer_id()
        );
    }
    // A host name has no case.
    let name = format!("{}.CEPA.alt", world.second.peer_id()).to_uppercase();
    let client = client()
        .to_builder()
        .server_name(&name.to_lowercase())
        .build()
        .unwrap();
    assert_eq!(
        pushed(client, &world).await.0.unwrap(),
        world.second.peer_id()
    );
}

#[tokio::test]
async fn a_server_that_answers_as_somebody_else_is_refused_whatever_the_policy() {
    let (asked, other) = (identity(), identity());
    for form in [KeyForm::Certificate, KeyForm::RawPublicKey] {
        let client = TlsConfig::new(&identity(), Arc::new(AcceptAny)).unwrap();
        let client = client
            .to_builder()
            .server_peer(asked.peer_id())
            .build()
            .unwrap();
        let client = client.to_builder().key_form(form).build().unwrap();
        // With one identity, it shows that one to everybody.
        let server = TlsConfig::new(&other, Arc::new(AcceptAny)).unwrap();
        let (a, b) = memory::pair();
        let (mut a, mut b) = (Onion::new(a), Onion::new(b));
        let (of_client, of_server) = soon(async {
            tokio::join!(a.push(Side::Client, &client), b.push(Side::Server, &server))
        })
        .await;
        match of_client.unwrap_err() {
            TlsError::Refused(Refusal::WrongPeer {
                expected,
                presented,
            }) => {
                assert_eq!(expected, [asked.peer_id()]);
                assert_eq!(presented, other.peer_id());
            }
            error => panic!("{error:?}"),
        }
        assert!(of_server.is_err());
    }
}

/// What a private key leaves behind in this process, looked for in its own memory.
#[cfg(target_os = "linux")]
mod at_rest {
    use std::fs::{self, File};
    use std::io::{Read as _, Seek as _, SeekFrom};

    use super::*;

    /// Something that is looked for, kept so that it is not found where it is kept.
    struct Masked(Vec<u8>);

    const MASK: u8 = 0x55;

    impl Masked {
        fn new(secret: &[u8]) -> Self {
            Self(secret.iter().map(|byte| byte ^ MASK).collect())
        }

        fn is_at(&self, memory: &[u8]) -> bool {
            self.0.iter().zip(memory).all(|(a, b)| *a == b ^ MASK)
        }

        /// How often it is in memory that can be written to.
        fn found(&self) -> usize {
            let mut found = 0;
            let mut memory = File::open("/proc/self/mem").unwrap();
            let mut window = vec![0; 1 << 20];
            for line in fs::read_to_string("/proc/self/maps").unwrap().lines() {
                let mut words = line.split(' ');
                let (range, mode) = (words.next().unwrap(), words.next().unwrap());
                if !mode.starts_with("rw") {
                    continue;
                }
                let (from, to) = range.split_once('-').unwrap();
                let address = |hex| u64::from_str_radix(hex, 16).unwrap();
                let (mut at, to) = (address(from), address(to));
                while at < to {
                    let n = window.len().min(usize::try_from(to - at).unwrap());
                    let part = &mut window[..n];
                    // What another thread has unmapped meanwhile holds nothing any more.
                    if memory.seek(SeekFrom::Start(at)).is_err() || memory.read_exact(part).is_err()
                    {
                        break;
                    }
                    let starts = memchr(part, self.0[0] ^ MASK);
                    found += starts.filter(|start| self.fits(&part[*start..])).count();
                    // Windows overlap, so that nothing is missed where they meet.
                    at += (n - self.0.len()).max(1) as u64;
                    if n < (1 << 20) {
                        break;
                    }
                }
            }
            window.fill(0);
            found
        }

        fn fits(&self, memory: &[u8]) -> bool {
            memory.len() >= self.0.len() && self.is_at(memory)
        }
    }

    fn memchr(part: &[u8], byte: u8) -> impl Iterator<Item = usize> + '_ {
        part.iter()
            .enumerate()
            .filter_map(move |(at, b)| (*b == byte).then_some(at))
    }

    /// The base64 of a key's section, and the 32 bytes in it.
    fn secrets_of(pem: &str) -> [Masked; 2] {
        let line = pem.lines().nth(1).unwrap();
        let mut der = data_encoding::BASE64.decode(line.as_bytes()).unwrap();
        let secrets = [
            Masked::new(&line.as_bytes()[20..]),
            Masked::new(&der[der.len() - 32..]),
        ];
        der.fill(0);
        std::hint::black_box(&der);
        secrets
    }

    #[test]
    fn nothing_of_a_private_key_stays_in_memory_when_its_last_clone_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("id");
        let made = Identity::generate(KeyKind::Ed25519).unwrap();
        made.save(&file).unwrap();
        let secrets = secrets_of(&made.to_pem());
        assert!(secrets[1].found() > 0, "the search finds what is there");
        drop(made);
        let loaded = Identity::load(&file).unwrap();
        let clone = loaded.clone();
        drop(loaded);
        assert!(secrets[1].found() > 0, "a clone still has it");
        drop(clone);
        let left: Vec<usize> = secrets.iter().map(Masked::found).collect();
        assert_eq!(left, [0, 0], "copies of the base64, and of the key");
    }
}
