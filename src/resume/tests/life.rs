//! What a stream does when its path is silent, gone, or in the way; time is virtual.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use cepa_transports::{Rate, Side};
use futures::FutureExt as _;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::time::{sleep, timeout};

use super::faulty::{Fault, Faulty, path};
use crate::resume::*;

const NEVER: (u64, Fault) = (u64::MAX, Fault::Reset);

type End = (Durable<Faulty>, Handle<Faulty>);

fn pair(config: &Config, one: (u64, Fault), two: (u64, Fault)) -> (End, End) {
    let (near, far) = path(one, two, 1 << 20);
    let client = durable(near, Side::Client, config);
    let server = durable(far, Side::Server, config);
    client.1.endure();
    server.1.endure();
    (client, server)
}

/// The client dials, and nothing goes wrong.
async fn meet(client: &Handle<Faulty>, server: &Handle<Faulty>) {
    let (near, far) = path(NEVER, NEVER, 1 << 20);
    let proposal = client.propose().await.unwrap();
    let claim = server.claim(proposal.at()).await.unwrap();
    let answer = claim.at();
    claim.attach(far, None).await.unwrap();
    proposal.attach(near, answer, None).await.unwrap();
}

/// Reads and drops what comes until it ends.
fn drain(mut stream: Durable<Faulty>) -> tokio::task::JoinHandle<io::Result<u64>> {
    tokio::spawn(async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await })
}

#[tokio::test(start_paused = true)]
async fn silence_is_found_in_seconds_while_bytes_are_under_way() {
    // The first direction swallows what comes after some bytes.
    let ((client, at_client), (server, _)) =
        pair(&Config::default(), (200, Fault::Blackhole), NEVER);
    let (mut from, mut to) = tokio::io::split(client);
    let reading = tokio::spawn(async move { from.read_u8().await });
    let serving = drain(server);
    sleep(Duration::from_secs(1)).await;
    let start = tokio::time::Instant::now();
    to.write_all(&[7; 400]).await.unwrap();
    to.flush().await.unwrap();
    let lost = timeout(Duration::from_secs(100), at_client.lost()).await;
    let lost = lost.unwrap().unwrap();
    assert!(matches!(lost.why, PathLostWhy::Silent { .. }), "{lost:?}");
    let took = start.elapsed();
    assert!((2..5).contains(&took.as_secs()), "{took:?}");
    reading.abort();
    serving.abort();
}

#[tokio::test(start_paused = true)]
async fn an_idle_path_that_dies_is_found_by_asking() {
    // Swallows all behind the first ping and its answer.
    let ((client, at_client), (server, at_server)) = pair(
        &Config::default(),
        (24, Fault::Blackhole),
        (24, Fault::Blackhole),
    );
    let both = [drain(client), drain(server)];
    let start = tokio::time::Instant::now();
    let lost = timeout(Duration::from_secs(100), at_client.lost())
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(lost.why, PathLostWhy::Silent { .. }), "{lost:?}");
    let took = start.elapsed();
    assert!((29..=31).contains(&took.as_secs()), "{took:?}");
    at_server.lost().await.unwrap();
    meet(&at_client, &at_server).await;
    assert!(at_client.found(&lost).await);
    // An idle path that lives is never lost.
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(at_client.stats().paths, 2);
    assert!(
        timeout(Duration::from_secs(1), at_client.lost())
            .await
            .is_err()
    );
    both.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_can_take_nothing_keeps_its_path() {
    let ((client, at_client), (mut server, at_server)) = pair(&Config::default(), NEVER, NEVER);
    let (mut from, mut to) = tokio::io::split(client);
    tokio::spawn(async move { from.read_u8().await });
    let serving = tokio::spawn(async move {
        // As the mux does while its streams are not read.
        let housekeeping = poll_fn(|cx| {
            let _ = Pin::new(&mut server).poll_read(cx, &mut ReadBuf::new(&mut []));
            Poll::<()>::Pending
        });
        let _ = timeout(Duration::from_secs(120), housekeeping).await;
        let mut got = vec![0; 50_000];
        server.read_exact(&mut got).await.unwrap();
        (got, server)
    });
    sleep(Duration::from_millis(100)).await;
    to.write_all(&vec![7; 50_000]).await.unwrap();
    to.flush().await.unwrap();
    let (got, _server) = serving.await.unwrap();
    assert_eq!(got, vec![7; 50_000]);
    assert_eq!((at_client.stats().paths, at_server.stats().paths), (1, 1));
    assert!(timeout(Duration::ZERO, at_client.lost()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn without_a_path_a_writer_waits_when_all_is_full() {
    let config = Config::default().with_replay(64 << 10);
    let ((client, at_client), (server, at_server)) = pair(&config, (0, Fault::Reset), NEVER);
    let (mut from, mut to) = tokio::io::split(client);
    tokio::spawn(async move { from.read_u8().await });
    let served = drain(server);
    let writing = tokio::spawn(async move {
        to.write_all(&vec![7; 300_000]).await?;
        to.shutdown().await
    });
    at_client.lost().await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert!(!writing.is_finished(), "it holds what it may, and no more");
    assert_eq!(at_client.stats().held, 64 << 10);
    meet(&at_client, &at_server).await;
    writing.await.unwrap().unwrap();
    assert_eq!(served.await.unwrap().unwrap(), 300_000);
    assert!(at_client.stats().pathless >= Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn an_end_survives_the_loss_of_its_path() {
    // The client's direction breaks in the data, and what the server says then is lost too.
    let ((mut client, at_client), (mut server, at_server)) =
        pair(&Config::default(), (5_000, Fault::Blackhole), NEVER);
    let closing = tokio::spawn(async move {
        client.write_all(&[7; 4_000]).await.unwrap();
        client.flush().await.unwrap();
        sleep(Duration::from_millis(300)).await;
        client.write_all(&[8; 4_000]).await.unwrap();
        client.shutdown().await.unwrap();
        // As the mux does: until the peer has closed too.
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.map(|_| rest)
    });
    let serving = tokio::spawn(async move {
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.unwrap();
        server.write_all(b"bye").await.unwrap();
        server.shutdown().await.unwrap();
        let more = server.read(&mut [0; 1]).await.unwrap();
        (got, more)
    });
    at_client.lost().await.unwrap();
    meet(&at_client, &at_server).await;
    let (got, more) = serving.await.unwrap();
    assert_eq!((got, more), ([[7; 4_000], [8; 4_000]].concat(), 0));
    assert_eq!(closing.await.unwrap().unwrap(), b"bye");
    assert!(at_client.over().await.is_ok() && at_server.over().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_session_without_a_path_is_given_up_when_the_shorter_time_is_over() {
    let long = Config::default();
    let short = Config::default().with_park(Duration::from_secs(100));
    let (near, far) = path((2_000, Fault::Reset), (2_000, Fault::Reset), 1 << 20);
    let (client, at_client) = durable(near, Side::Client, &long);
    let (server, at_server) = durable(far, Side::Server, &short);
    at_client.endure();
    at_server.endure();
    let served = drain(server);
    let (mut from, mut to) = tokio::io::split(client);
    let reading = tokio::spawn(async move { from.read_u8().await });
    sleep(Duration::from_millis(10)).await;
    to.write_all(&[7; 9_000]).await.unwrap();
    let flushed = tokio::spawn(async move { to.flush().await });
    let lost = at_client.lost().await.unwrap();
    let error = served.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let read = reading.await.unwrap().unwrap_err();
    assert!(read.to_string().contains("within 100 s"), "{read}");
    assert!(flushed.await.unwrap().is_err());
    let after = tokio::time::Instant::now().into_std() - lost.at;
    assert!((100..102).contains(&after.as_secs()), "{after:?}");
    for handle in [at_client, at_server] {
        assert!(matches!(
            handle.over().await,
            Err(SessionLost::Expired { .. })
        ));
        assert!(handle.propose().await.is_err());
        let at = At {
            generation: 9,
            received: 0,
        };
        assert_eq!(handle.claim(at).await.err(), Some(Refusal::Unknown));
    }
}

/// Both have ended, and the path dies before the peer has said that our end arrived.
#[tokio::test(start_paused = true)]
async fn who_did_not_hear_that_its_end_arrived_does_not_know_it() {
    for reported in [
        None,
        Some(Refusal::Unknown),
        Some(Refusal::NotYours),
        Some(Refusal::Over),
    ] {
        let ((mut client, at_client), (mut server, _at_server)) =
            pair(&Config::default(), NEVER, NEVER);
        server.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        client.shutdown().await.unwrap();
        // Nobody reads at the server, so nothing is acknowledged.
        if let Some(refusal) = reported {
            at_client.give_up(SessionLost::Refused(refusal));
            let _ = client.read(&mut [0]).await;
        }
        drop(client);
        let knows = reported == Some(Refusal::Over);
        assert_eq!(at_client.over().await.is_ok(), knows, "{reported:?}");
        assert_eq!(at_client.is_heard(), knows, "{reported:?}");
    }
}

/// Whoever waits for another path hears of one that is lost again before it has looked.
#[tokio::test(start_paused = true)]
async fn a_path_that_came_and_is_lost_again_was_found() {
    let ((client, at_client), (server, at_server)) =
        pair(&Config::default(), (200, Fault::Reset), NEVER);
    let (mut from, mut to) = tokio::io::split(client);
    let reading = tokio::spawn(async move { from.read_u8().await });
    let serving = drain(server);
    let writing = tokio::spawn(async move {
        to.write_all(&[7; 400]).await.unwrap();
        to.flush().await
    });
    let lost = at_client.lost().await.unwrap();
    assert_eq!(lost.number, 1);
    let waiting = timeout(Duration::from_secs(60), at_client.found(&lost));
    let mut waiting = std::pin::pin!(waiting);
    assert!(waiting.as_mut().now_or_never().is_none());

    let (near, far) = path((0, Fault::Reset), NEVER, 1 << 20);
    let proposal = at_client.propose().await.unwrap();
    let claim = at_server.claim(proposal.at()).await.unwrap();
    let answer = claim.at();
    claim.attach(far, None).await.unwrap();
    assert_eq!(proposal.attach(near, answer, None).await.unwrap(), 2);
    let again = async {
        while at_client.pathless_since().is_none() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(60), again).await.unwrap();
    assert!(waiting.await.unwrap());
    assert_eq!(at_client.lost().await.unwrap().number, 2);
    for task in [
        reading.abort_handle(),
        writing.abort_handle(),
        serving.abort_handle(),
    ] {
        task.abort();
    }
}

/// What a peer is told that asks for a session which is over here.
#[tokio::test(start_paused = true)]
async fn only_who_had_all_of_it_says_that_it_is_over() {
    let at = At {
        generation: 1,
        received: 0,
    };
    let ((client, at_client), (server, at_server)) = pair(&Config::default(), NEVER, NEVER);
    let both = [client, server].map(|mut end| {
        tokio::spawn(async move {
            end.shutdown().await.unwrap();
            let ended = end.read(&mut [0]).await.unwrap();
            (ended, end)
        })
    });
    let [client, server] = both;
    let (_still_there, gone) = (client.await.unwrap(), server.await.unwrap());
    drop(gone);
    let asked = tokio::spawn(async move { at_server.claim(at).await.err() });
    assert_eq!(asked.await.unwrap(), Some(Refusal::Over));
    assert!(at_client.is_complete());

    let ((mut client, at_client), (server, at_server)) = pair(&Config::default(), NEVER, NEVER);
    client.shutdown().await.unwrap();
    drop(client);
    assert_eq!(at_client.claim(at).await.err(), Some(Refusal::Unknown));
    drop(server);
    assert_eq!(at_server.claim(at).await.err(), Some(Refusal::Unknown));

    let (_, (server, at_server)) = pair(&Config::default(), NEVER, NEVER);
    at_server.give_up(SessionLost::NoRoom);
    drain(server).await.unwrap().unwrap_err();
    assert_eq!(at_server.claim(at).await.err(), Some(Refusal::NoRoom));
}

/// From a fast path to a line: what is kept, and how long a frame is, is what the line carries in a moment.
#[tokio::test(start_paused = true)]
async fn limits_follow_the_rate_of_each_path() {
    let ((mut client, at_client), (server, at_server)) = pair(&Config::default(), NEVER, NEVER);
    let serving = drain(server);
    let rates = [Some(Rate::bytes_per_second(960.0)), None];
    for (rate, most) in rates.into_iter().zip([16 << 10, 4 << 20]) {
        // Blocked for what is written, once it runs there.
        let (near, far) = path((200, Fault::Blackhole), NEVER, 1 << 20);
        let dialling = async {
            let proposal = at_client.propose().await.unwrap();
            let claim = at_server.claim(proposal.at()).await.unwrap();
            let answer = claim.at();
            claim.attach(far, rate).await.unwrap();
            proposal.attach(near, answer, rate).await.unwrap();
        };
        tokio::select! {
            () = dialling => {}
            read = client.read_u8() => panic!("{read:?}"),
        }
        let data = vec![7; 8 << 20];
        let mut written = 0;
        while let Ok(n) = timeout(Duration::from_millis(10), client.write(&data)).await {
            written += n.unwrap();
        }
        assert_eq!(written, most, "{rate:?}");
        // The next path takes it all.
        let meeting = meet(&at_client, &at_server);
        tokio::select! {
            () = meeting => {}
            read = client.read_u8() => panic!("{read:?}"),
        }
        let emptied = async {
            while at_client.stats().held > 0 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = emptied => {}
            read = client.read_u8() => panic!("{read:?}"),
        }
    }
    serving.abort();
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_says_so() {
    // Asked to, and dropped.
    for dropped in [false, true] {
        let ((client, at_client), (server, at_server)) = pair(&Config::default(), NEVER, NEVER);
        let served = drain(server);
        if dropped {
            drop(client);
        } else {
            let ended = drain(client);
            at_client.give_up(SessionLost::GivenUp);
            assert!(ended.await.unwrap().is_err());
        }
        assert!(served.await.unwrap().is_err());
        let over = at_server.over().await;
        assert!(
            matches!(
                over,
                Err(SessionLost::GivenUpByPeer {
                    reason: OverReason::GivenUp
                })
            ),
            "{over:?}"
        );
        assert!(at_client.is_over());
    }
}

#[tokio::test(start_paused = true)]
async fn before_it_endures_a_path_is_as_if_nothing_were_above_it() {
    for (fault, want) in [
        (Fault::Ended, None),
        (Fault::Reset, Some(io::ErrorKind::ConnectionReset)),
    ] {
        let (near, far) = path((16, fault), NEVER, 1 << 20);
        let (mut client, _at_client) = durable(near, Side::Client, &Config::default());
        let (mut server, at_server) = durable(far, Side::Server, &Config::default());
        let writing = tokio::spawn(async move {
            let _ = client.write_all(&[7; 100]).await;
            let _ = client.flush().await;
            let _ = client.write_all(&[7; 100]).await;
            let _ = client.flush().await;
            sleep(Duration::from_secs(5)).await;
        });
        let mut got = Vec::new();
        let read = timeout(Duration::from_secs(4), server.read_to_end(&mut got))
            .await
            .unwrap();
        assert_eq!(read.err().map(|error| error.kind()), want);
        assert!(!at_server.is_over());
        writing.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_take_a_hundredth_of_a_line() {
    let config = Config::default().with_line_rate(Some(Rate::bytes_per_second(11_520.0)));
    let (near, far) = path(NEVER, NEVER, 64);
    let (mut client, at_client) = durable(near, Side::Client, &config);
    let (server, at_server) = durable(far, Side::Server, &config);
    let served = drain(server);
    let (mut from, mut to) = tokio::io::split(&mut client);
    let reading = async { from.read_u8().await };
    let writing = async {
        // As fast as the line for ten minutes.
        for _ in 0..6_000 {
            to.write_all(&[7; 1_152]).await.unwrap();
            to.flush().await.unwrap();
            sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        _ = reading => panic!("nothing is to be read"),
        () = writing => {}
    }
    let sent = 6_000 * 1_152;
    assert_eq!(at_server.received(), sent);
    // An acknowledgement is 12 bytes, and what is around it may be as much as 64.
    let acks = at_client.stats().acks;
    assert!(acks > 100 && acks * 64 <= sent / 100, "{acks}");
    served.abort();
}
