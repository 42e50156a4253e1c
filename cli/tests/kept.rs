//! How many consoles a server keeps, and for whom: strangers from many hosts, which a balancer names, beside peers that are allowed
//! by name.
#![cfg(target_os = "linux")]

mod common;

use std::net::Ipv4Addr;
use std::sync::Arc;

use cepa::Side;
use cepa::identity::{Identity, KeyKind, Pinned};
use cepa::session::Session;
use cepa::stack::StackConfig;
use cepa::transports::{Endpoint, Stream};
use common::{PATIENCE, Place, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A terminal of 24 by 80.
const TERMINAL: [u8; 7] = [1, 0, 4, 0, 24, 0, 80];

/// `kept`, the length of the rest.
const KEPT: [u8; 3] = [6, 0, 9];

fn serve(place: &Place, named: &[Identity]) -> Server {
    let named: Vec<String> = named.iter().map(|it| it.peer_id().to_string()).collect();
    let words = ["tcp:127.0.0.1:0,proxy-protocol=yes", "--allow", "any"];
    let service = ["--service", "sh=exec:cat,pty=yes"];
    let allow = named.iter().flat_map(|id| ["--allow", id.as_str()]);
    let words: Vec<&str> = words.into_iter().chain(service).chain(allow).collect();
    place.serve(&words)
}

fn identity() -> Identity {
    Identity::generate(KeyKind::Ed25519).unwrap()
}

/// A host of strangers.
fn host(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, n)
}

/// A session as a balancer brings it from a host.
async fn dial(server: &Server, from: Ipv4Addr, who: &Identity) -> Session {
    let at: Endpoint = server.address().parse().unwrap();
    let port = server.address();
    let port = port.trim_start_matches("tcp:").split(',').next().unwrap();
    let mut stream = TcpStream::connect(port).await.unwrap();
    let header = format!("PROXY TCP4 {from} 192.0.2.254 40000 7000\r\n");
    stream.write_all(header.as_bytes()).await.unwrap();
    let expected = Arc::new(Pinned::one(server.id().parse().unwrap()));
    let config = StackConfig::new(who.clone(), expected);
    let stream = Stream::from_io(stream, "a balancer");
    let session = Session::handshake(stream, at.layers(), Side::Client, &config);
    timeout(PATIENCE, session).await.unwrap().unwrap()
}

/// Attaches to a console and stays; what was found there, or why it was refused.
async fn attach(session: &Session, name: &str) -> Result<(u8, impl Send + use<>), String> {
    let service = format!("cepa.attach.{name}.sh");
    let opened = timeout(PATIENCE, session.open(&service)).await.unwrap();
    let mut far = opened.map_err(|e| e.to_string())?;
    far.write_all(&TERMINAL).await.unwrap();
    far.flush().await.unwrap();
    let mut said = [0; 12];
    let read = timeout(PATIENCE, far.read_exact(&mut said)).await.unwrap();
    read.map_err(|e| e.to_string())?;
    assert_eq!(said[..3], KEPT);
    Ok((said[3], far))
}

/// Comes, attaches and leaves.
async fn leave_one(
    server: &Server,
    from: Ipv4Addr,
    who: &Identity,
    name: &str,
) -> Result<u8, String> {
    let session = dial(server, from, who).await;
    let attached = attach(&session, name).await.map(|(found, _)| found);
    session.close().await;
    attached
}

/// The gate has few places for those that it does not know, so one after the other.
#[tokio::test]
async fn a_full_server_ends_the_console_of_a_stranger_who_is_away_for_a_peer_that_is_named() {
    let place = Place::new();
    let friends: Vec<Identity> = (0..5).map(|_| identity()).collect();
    let mut server = serve(&place, &friends);
    let strangers: Vec<Identity> = (0..48).map(|_| identity()).collect();
    // One of them stays.
    let session = dial(&server, host(1), &strangers[0]).await;
    let (found, _sits) = attach(&session, "work").await.unwrap();
    assert_eq!(found, 0);
    for (n, stranger) in (1..).zip(&strangers[1..16]) {
        let found = leave_one(&server, host(1), stranger, "work").await;
        assert_eq!(found, Ok(0), "{n}");
    }
    let refused = leave_one(&server, host(1), &identity(), "work").await;
    let said = refused.unwrap_err();
    assert!(
        said.contains("too many kept consoles from one host (at most 16)"),
        "{said}"
    );
    for (n, stranger) in (16..).zip(&strangers[16..]) {
        let found = leave_one(&server, host(n), stranger, "work").await;
        assert_eq!(found, Ok(0), "{n}");
    }
    let refused = leave_one(&server, host(200), &identity(), "work").await;
    let said = refused.unwrap_err();
    assert!(
        said.contains("too many kept consoles in all (at most 64)"),
        "{said}"
    );
    // What is left is for those who are named, and behind that what strangers have left alone.
    for friend in &friends {
        for name in ["one", "two", "three", "four"] {
            let found = leave_one(&server, host(100), friend, name).await;
            assert_eq!(found, Ok(0), "{name}");
        }
    }
    let mut displaced = Vec::new();
    while displaced.len() < 4 {
        let line = server.wait_for("it made room for a peer that is allowed by name");
        // Of the host that has most.
        let short = line.split("of ").nth(1).unwrap().split('…').next().unwrap();
        let of_one = strangers[1..16].iter();
        let mut of_one = of_one.map(|it| it.peer_id().short());
        assert!(of_one.any(|id| id == short), "{line}");
        displaced.push(short.to_owned());
    }
    let refused = leave_one(&server, host(100), &friends[0], "five").await;
    let said = refused.unwrap_err();
    assert!(
        said.contains("4 consoles of one peer are kept already"),
        "{said}"
    );
    let back = dial(&server, host(100), &friends[0]).await;
    let (found, far) = attach(&back, "one").await.unwrap();
    assert_eq!(found, 1, "those of friends are there");
    drop(far);
    // One of those who had to go comes back, once there is room, and reads why its console is a new one.
    let of_one = strangers[1..16].iter();
    let mut gone = of_one.filter(|it| displaced.contains(&it.peer_id().short()));
    let gone = gone.next().unwrap();
    let refused = leave_one(&server, host(1), gone, "work").await;
    let said = refused.unwrap_err();
    assert!(said.contains("in all (at most 64)"), "{said}");
    let mut ends = back.open("cepa.hangup.two.sh").await.unwrap();
    let mut said = Vec::new();
    let ended = timeout(PATIENCE, ends.read_to_end(&mut said)).await;
    ended.unwrap().unwrap();
    assert_eq!(said, [3, 0, 2, 0, 0]);
    assert_eq!(leave_one(&server, host(1), gone, "work").await, Ok(3));
    let found = attach(&session, "work").await.unwrap().0;
    assert_eq!(found, 1, "and that of who stayed");
}
