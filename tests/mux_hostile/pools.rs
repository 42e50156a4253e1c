//! Memory of unread data, of one session, of all sessions of one peer and of all peers: what is promised is
//! what the process holds, whatever the frames, and whoever reads goes on.

use std::time::Duration;

use cepa::Side;
use cepa::mux::{Config, GoAwayCode, Mux, ReceivePool, StreamTimeouts, Substream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::attacker::{DATA, INITIAL_WINDOW, SYN, WINDOW, header, pipe};
use crate::memory::{KIB, MIB, Since};
use crate::{Ended, in_virtual_time, start};

/// Bytes of the wire that the session reads at once.
const BLOCK: usize = 32 << 10;

/// Nothing here times out by itself.
fn patient() -> Config {
    let mut config = Config::default();
    config.stream_timeouts = StreamTimeouts::NONE;
    config
}

/// Waits until nobody has anything to do: only then does time pass.
async fn settled() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// A session under attack: streams that the application holds and does not read.
struct Scene {
    session: Mux,
    driven: Ended,
    peer: DuplexStream,
    held: Vec<Substream>,
}

impl Scene {
    async fn new(config: Config, streams: u32) -> Self {
        let (us, mut peer) = pipe();
        let (session, driven) = start(us, Side::Server, config);
        let mut held = Vec::new();
        for i in 0..streams {
            let syn = header(WINDOW, SYN, 2 * i + 1, 0);
            peer.write_all(&syn).await.unwrap();
            held.push(session.accept().await.unwrap());
        }
        Self {
            session,
            driven,
            peer,
            held,
        }
    }
}

/// Sends what makes a session hold the most for the windows of so many streams: each block that is read at once has
/// one frame that is worth keeping as it is, and the rest of it are frames that are copied.
async fn send_the_worst(peer: &mut DuplexStream, streams: u32) {
    const KEPT: u32 = 8 << 10;
    const COPIED: u32 = (BLOCK as u32 - 12 - KEPT) / 3 - 12;
    const BLOCKS: u32 = 7;
    static BODY: [u8; KEPT as usize] = [7; KEPT as usize];
    // Without memory of its own, for that would be counted.
    let mut send = async |id: u32, len: u32| {
        peer.write_all(&header(DATA, 0, id, len)).await.unwrap();
        peer.write_all(&BODY[..len as usize]).await.unwrap();
    };
    for i in 0..streams {
        let id = 2 * i + 1;
        let before = 2 * ((i + streams - 1) % streams) + 1;
        for _ in 0..BLOCKS {
            send(id, KEPT).await;
            for _ in 0..3 {
                send(before, COPIED).await;
            }
        }
        let mut left = INITIAL_WINDOW - BLOCKS * (KEPT + 3 * COPIED);
        while left > 0 {
            let len = left.min(COPIED);
            send(before, len).await;
            left -= len;
        }
    }
}

/// Before what is kept of a block was counted as the whole block, this held 137 MiB.
#[test]
fn a_session_whose_streams_nobody_reads_holds_64_mib_and_no_more() {
    in_virtual_time(async {
        let mut scene = Scene::new(patient(), 256).await;
        let since = Since::now();
        send_the_worst(&mut scene.peer, 256).await;
        settled().await;
        println!(
            "one session: {} KiB held, {} KiB at the peak, {} KiB came",
            since.held() / KIB,
            since.peak() / KIB,
            scene.session.stats().data_in / KIB as u64,
        );
        // Beside the data: its lists, and the chunks that the process keeps for the next bulk, 1 MiB.
        assert!(since.peak() <= 66 * MIB, "{} bytes", since.peak());
        drop((scene.peer, scene.held));
        scene.driven.await.unwrap().unwrap_err();
    });
}

fn config(pool: &ReceivePool) -> Config {
    let mut config = patient();
    config.receive_pool = Some(pool.clone());
    config
}

/// Sends the worst on all sessions, for as long as somebody takes it, until nothing moves any more.
async fn attack(scenes: Vec<Scene>) -> (Vec<JoinHandle<DuplexStream>>, Vec<(Mux, Vec<Substream>)>) {
    let mut attackers = Vec::new();
    let mut victims = Vec::new();
    for mut scene in scenes {
        let streams = u32::try_from(scene.held.len()).unwrap();
        attackers.push(tokio::spawn(async move {
            send_the_worst(&mut scene.peer, streams).await;
            scene.peer
        }));
        victims.push((scene.session, scene.held));
    }
    settled().await;
    (attackers, victims)
}

#[test]
fn sixteen_sessions_of_one_peer_hold_64_mib_together() {
    in_virtual_time(async {
        let process = ReceivePool::new(256 * MIB);
        let peer = process.share(64 * MIB);
        let mut scenes = Vec::new();
        for _ in 0..16 {
            scenes.push(Scene::new(config(&peer), 256).await);
        }
        let since = Since::now();
        let (attackers, victims) = attack(scenes).await;
        println!(
            "one peer: {} KiB held, {} KiB at the peak, {} KiB counted, {} wait",
            since.held() / KIB,
            since.peak() / KIB,
            peer.used() / KIB,
            peer.waiting(),
        );
        assert!(since.held() >= 60 * MIB, "{} bytes", since.held());
        assert!(since.peak() <= 68 * MIB, "{} bytes", since.peak());
        assert!(peer.used() <= 64 * MIB);
        assert_eq!(process.used(), peer.used());
        assert!(victims.iter().all(|(session, _)| session.stats().stopped));
        // A session that is over waits for nothing, and counts for as long as somebody holds what came.
        victims[0].0.go_away(GoAwayCode::InternalError).await;
        settled().await;
        assert_eq!(process.waiting(), 15);
        // Whoever drops what it holds makes room for another session, whose turn it is.
        drop(victims);
        for attacker in attackers {
            attacker.abort();
        }
        settled().await;
        assert_eq!((process.used(), process.waiting()), (0, 0));
    });
}

/// Moves so many bytes over a session of its own, and checks each of them.
async fn honest(pool: &ReceivePool, bytes: usize) {
    let (a, b) = tokio::io::duplex(64 * KIB);
    let (client, _) = start(a, Side::Client, config(pool));
    let (server, _) = start(b, Side::Server, config(pool));
    let writer = tokio::spawn(async move {
        let mut stream = client.open().await.unwrap();
        let data: Vec<u8> = (0..bytes)
            .map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8)
            .collect();
        stream.write_all(&data).await.unwrap();
        stream.shutdown().await.unwrap();
        client
    });
    let mut stream = server.accept().await.unwrap();
    let mut got = 0;
    while let Some(chunk) = stream.read_chunk().await.unwrap() {
        for byte in chunk {
            assert_eq!(byte, (got ^ (got >> 8) ^ (got >> 16)) as u8, "byte {got}");
            got += 1;
        }
    }
    assert_eq!(got, bytes);
    writer.await.unwrap();
}

#[test]
fn sixteen_greedy_peers_hold_256_mib_together_and_an_honest_one_finds_room() {
    in_virtual_time(async {
        let process = ReceivePool::new(256 * MIB);
        let peers: Vec<ReceivePool> = (0..16).map(|_| process.share(64 * MIB)).collect();
        let mut scenes = Vec::new();
        for peer in &peers {
            for _ in 0..16 {
                // Far more than there is room for: 64 MiB of windows each.
                scenes.push(Scene::new(config(peer), 64).await);
            }
        }
        let since = Since::now();
        let (attackers, victims) = attack(scenes).await;
        println!(
            "16 peers: {} KiB held, {} KiB at the peak, {} KiB counted, of one {} KiB",
            since.held() / KIB,
            since.peak() / KIB,
            process.used() / KIB,
            peers[0].used() / KIB,
        );
        assert!(since.held() >= 200 * MIB, "{} bytes", since.held());
        assert!(since.peak() <= 256 * MIB, "{} bytes", since.peak());
        for peer in &peers {
            assert!(peer.used() >= 8 * MIB, "each has its part: {}", peer.used());
        }
        honest(&process.share(64 * MIB), 10 * MIB).await;
        honest(&process, 10 * MIB).await;
        assert!(since.peak() <= 256 * MIB, "{} bytes", since.peak());
        drop(victims);
        for attacker in attackers {
            attacker.abort();
        }
        settled().await;
        assert_eq!((process.used(), process.waiting()), (0, 0));
    });
}

/// Two ends of a session, with so many streams that are written to and that nobody reads yet.
struct Transfer {
    client: Mux,
    server: Mux,
    streams: Vec<Substream>,
    writers: JoinSet<()>,
}

fn byte(stream: usize, at: usize) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16)) as u8 ^ stream as u8
}

impl Transfer {
    async fn new(pool: &ReceivePool, streams: usize, bytes: usize) -> Self {
        let (a, b) = tokio::io::duplex(64 * KIB);
        let (client, _) = start(a, Side::Client, patient());
        let (server, _) = start(b, Side::Server, config(pool));
        let mut writers = JoinSet::new();
        let mut opened = Vec::new();
        let mut held = Vec::new();
        for _ in 0..streams {
            opened.push(client.open().await.unwrap());
            held.push(server.accept().await.unwrap());
        }
        for (i, mut stream) in opened.into_iter().enumerate() {
            writers.spawn(async move {
                let data: Vec<u8> = (0..bytes).map(|at| byte(i, at)).collect();
                stream.write_all(&data).await.unwrap();
                stream.shutdown().await.unwrap();
                while stream.read_chunk().await.unwrap().is_some() {}
            });
        }
        Self {
            client,
            server,
            streams: held,
            writers,
        }
    }
}

async fn read_whole(mut stream: Substream, number: usize, bytes: usize) {
    let mut got = 0;
    let mut buf = [0; 3000];
    loop {
        let n = stream.read(&mut buf).await.unwrap();
        if n == 0 {
            break;
        }
        for found in &buf[..n] {
            assert_eq!(*found, byte(number, got), "stream {number}: byte {got}");
            got += 1;
        }
        if got % 7 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(got, bytes);
    stream.shutdown().await.unwrap();
}

/// Reading makes room, and each session that waits gets its turn: all of it arrives, whoever is read first.
#[test]
fn what_is_read_goes_on_and_everybody_who_waits_gets_a_turn() {
    const EACH: usize = 700_000;
    in_virtual_time(async {
        for together in [false, true] {
            let pool = ReceivePool::new(16 * MIB);
            let share = pool.share(MIB);
            let mut transfers = Vec::new();
            for _ in 0..4 {
                transfers.push(Transfer::new(&share, 6, EACH).await);
            }
            settled().await;
            for transfer in &transfers {
                assert!(transfer.server.stats().stopped, "there is far too much");
            }
            assert_eq!(pool.waiting(), 4);
            let mut sessions = Vec::new();
            let mut reading = JoinSet::new();
            for transfer in transfers {
                for (number, stream) in transfer.streams.into_iter().enumerate() {
                    reading.spawn(read_whole(stream, number, EACH));
                }
                sessions.push((transfer.client, transfer.server, transfer.writers));
                if !together {
                    // The others have all of the room but what is free in each session.
                    while let Some(done) = reading.join_next().await {
                        done.unwrap();
                    }
                }
            }
            while let Some(done) = reading.join_next().await {
                done.unwrap();
            }
            for (_, _, mut writers) in sessions {
                while let Some(done) = writers.join_next().await {
                    done.unwrap();
                }
            }
            settled().await;
            assert_eq!((pool.used(), pool.waiting()), (0, 0), "together {together}");
        }
    });
}

/// While an end does not read for want of room, neither end takes the other for dead, and neither is busy: else
/// virtual time would stand still here. Nothing is lost meanwhile.
#[test]
fn a_session_that_waits_for_room_lives_for_as_long_as_that_takes() {
    const EACH: usize = 700_000;
    in_virtual_time(async {
        let share = ReceivePool::new(MIB).share(MIB / 4);
        let mut transfer = Transfer::new(&share, 6, EACH).await;
        settled().await;
        assert!(transfer.server.stats().stopped);
        let before = transfer.server.stats();
        let asked = tokio::spawn({
            let client = transfer.client.clone();
            async move { client.ping().await.unwrap() }
        });
        tokio::time::sleep(Duration::from_secs(1000)).await;
        let after = transfer.server.stats();
        assert_eq!(after.bytes_in, before.bytes_in, "nothing was read");
        let said = after.bytes_out - before.bytes_out;
        assert!(
            (60 * 12..100 * 12).contains(&said),
            "{said} bytes: a ping in 15 s"
        );
        let mut reading = JoinSet::new();
        for (number, stream) in transfer.streams.drain(..).enumerate() {
            reading.spawn(read_whole(stream, number, EACH));
        }
        while let Some(done) = reading.join_next().await {
            done.unwrap();
        }
        asked.await.unwrap();
        let learnt = transfer.server.stats().round_trip;
        assert!(
            learnt.is_none_or(|known| known < Duration::from_secs(1)),
            "{learnt:?}"
        );
        // And silence is silence again.
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert!(transfer.client.ping().await.unwrap() < Duration::from_secs(1));
        while let Some(done) = transfer.writers.join_next().await {
            done.unwrap();
        }
    });
}

/// A peer that dies while it is not read from is noticed when it is, as any other.
#[test]
fn a_peer_that_is_silent_after_the_wait_is_dead() {
    in_virtual_time(async {
        let share = ReceivePool::new(MIB).share(MIB / 4);
        let mut scene = Scene::new(config(&share), 6).await;
        let session = scene.session.clone();
        let attacker = tokio::spawn(async move {
            send_the_worst(&mut scene.peer, 6).await;
            scene.peer
        });
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!(session.stats().stopped);
        let begun = tokio::time::Instant::now();
        drop(scene.held);
        let end = session.closed().await;
        assert!(
            matches!(&end, cepa::mux::MuxError::KeepaliveTimeout { silent } if silent.as_secs() == 30),
            "{end}"
        );
        let waited = begun.elapsed().as_secs();
        assert!(
            (30..=32).contains(&waited),
            "{waited} s from when it was read again"
        );
        drop(attacker.await.unwrap());
    });
}

/// With no room at all, pings, openings, answers and what is read at once still pass: each session has so much free.
#[test]
fn small_things_pass_where_there_is_no_room() {
    in_virtual_time(async {
        let share = ReceivePool::new(MIB).share(MIB / 4);
        let scene = Scene::new(config(&share), 6).await;
        let (attackers, victims) = attack(vec![scene]).await;
        let room = share.limit() - share.used();
        assert!(room < 32 * KIB, "{room}: there is none");
        let Transfer {
            client,
            server,
            streams,
            ..
        } = Transfer::new(&share, 1, 0).await;
        client.ping().await.unwrap();
        server.ping().await.unwrap();
        drop(streams);
        // More than there is room for, in all, and read as it comes.
        let reading = tokio::spawn(async move {
            let mut stream = server.accept().await.unwrap();
            let mut got = 0;
            while let Some(chunk) = stream.read_chunk().await.unwrap() {
                got += chunk.len() as u64;
            }
            stream.write_u64(got).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        let mut stream = client.open().await.unwrap();
        stream.write_all(&vec![7; 2 * MIB]).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read_u64().await.unwrap(), 2 * MIB as u64);
        reading.await.unwrap();
        drop((attackers, victims));
    });
}

/// Who reads only when it can write, and whose memory is used up by others: credit would come behind what is not read.
#[test]
fn a_standstill_for_want_of_memory_costs_a_stream_and_not_the_session() {
    in_virtual_time(async {
        let share = ReceivePool::new(MIB).share(MIB / 4);
        let scene = Scene::new(config(&share), 6).await;
        let (attackers, victims) = attack(vec![scene]).await;
        let Transfer {
            client,
            server,
            streams,
            ..
        } = Transfer::new(&share, 1, 0).await;
        drop(streams);
        let echo = tokio::spawn({
            let server = server.clone();
            async move {
                let mut stream = server.accept().await.unwrap();
                loop {
                    let chunk = stream.read_chunk().await?.unwrap();
                    stream.write_chunk(chunk).await?;
                }
                #[expect(unreachable_code)]
                std::io::Result::Ok(())
            }
        });
        let begun = tokio::time::Instant::now();
        let (mut read, mut write) = tokio::io::split(client.open().await.unwrap());
        let writer = tokio::spawn(async move { while write.write_all(&[7; KIB]).await.is_ok() {} });
        let error = read.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the peer reset the stream (code 0x63657029, it was not read there while memory was short)"
        );
        let waited = begun.elapsed().as_secs();
        assert!((60..70).contains(&waited), "{waited} s");
        let error = echo.await.unwrap().unwrap_err();
        assert_eq!(
            error.to_string(),
            "the stream timed out: it was not read for too long while memory was short"
        );
        writer.await.unwrap();
        client.ping().await.unwrap();
        server.ping().await.unwrap();
        // Where nobody waits for anything, nothing is given up.
        tokio::time::sleep(Duration::from_secs(1000)).await;
        for (session, held) in &victims {
            assert_eq!(session.stats().streams, held.len());
        }
        drop((attackers, victims));
    });
}
