//! Two ends whose paths are cut ten thousand times: in each way, in both directions, within the hello too, by one end's dialling
//! and by both at once, and replaced while they live. Time is virtual.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cepa_transports::Side;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

use super::faulty::{Fault, Faulty, path};
use crate::resume::*;

/// Random numbers that are the same in each run.
struct Random(Cell<u64>);

impl Random {
    fn below(&self, n: u64) -> u64 {
        let mut x = self.0.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.set(x);
        (x >> 16) % n
    }

    fn fault(&self) -> Fault {
        match self.below(20) {
            // Silence takes the longest to find out.
            0 => Fault::Blackhole,
            1 => Fault::HalfOpen,
            2..=9 => Fault::Ended,
            _ => Fault::Reset,
        }
    }

    /// After how many bytes a direction breaks: often within the hello, or within the first frames.
    fn life(&self) -> u64 {
        match self.below(64) {
            0..=15 => self.below(120),
            16..=31 => self.below(2_000),
            32 => 100_000 + self.below(200_000),
            _ => self.below(10_000),
        }
    }
}

/// One end as its session has it.
#[derive(Clone)]
struct End {
    handle: Handle<Faulty>,
    ticket: Ticket,
}

/// What both ends of the world know.
struct World {
    paths: AtomicU64,
    /// No path breaks any more.
    calm: AtomicBool,
    enough: u64,
}

/// Dials from `from` to `to`, on a path that breaks some time.
async fn dial(world: &World, random: &Random, from: &End, to: &End) {
    let calm = world.calm.load(Ordering::Relaxed);
    let never = (u64::MAX, Fault::Reset);
    let [one, two] = [0, 1].map(|_| {
        if calm {
            never
        } else {
            (random.life(), random.fault())
        }
    });
    if world.paths.fetch_add(1, Ordering::Relaxed) >= world.enough {
        world.calm.store(true, Ordering::Relaxed);
    }
    let buffer = 1 << (8 + random.below(9));
    let (mut near, mut far) = path(one, two, buffer);
    let mut exporter = [0; 32];
    exporter[0] = u8::try_from(random.below(256)).unwrap();
    let (mine, theirs) = (from.clone(), to.clone());
    let pauses = [0, 1].map(|_| Duration::from_millis(random.below(4)));
    tokio::spawn(timeout(Duration::from_secs(10), async move {
        let hello = read_hello(&mut far).await?;
        let Hello::Resume { id, at, proof } = hello else {
            panic!("a session that is there is taken up");
        };
        assert_eq!(id, theirs.ticket.id);
        assert!(theirs.ticket.proves(&proof, Side::Client, &exporter, at));
        match theirs.handle.claim(at).await {
            Ok(claim) => {
                sleep(pauses[1]).await;
                answer_resumed(&mut far, &theirs.ticket, &exporter, claim.at()).await?;
                // Another one may have come first.
                let _ = claim.attach(far, None).await;
            }
            Err(reason) => {
                assert!(
                    matches!(reason, Refusal::Stale | Refusal::Over),
                    "{reason:?}"
                );
                answer_refused(&mut far, reason).await?;
            }
        }
        Ok::<_, HelloError>(())
    }));
    let Ok(proposal) = mine.handle.propose().await else {
        return;
    };
    // What comes on the old path meanwhile comes again on the new one.
    sleep(pauses[0]).await;
    let resumed = client_resume(&mut near, &mine.ticket, &exporter, proposal.at());
    match timeout(Duration::from_secs(10), resumed).await {
        Ok(Ok(theirs)) => match proposal.attach(near, theirs, None).await {
            Ok(_) | Err(AttachError::Stale | AttachError::Over) => {}
            Err(error) => panic!("{error}"),
        },
        Ok(Err(HelloError::Proof | HelloError::Malformed(_))) => panic!("what nobody sent"),
        // It has all that we had to say, or nobody could take it up again.
        Ok(Err(HelloError::Refused(Refusal::Over))) => {
            from.handle.give_up(SessionLost::Refused(Refusal::Over));
        }
        Ok(Err(HelloError::Io(_) | HelloError::Refused(_))) | Err(_) => {}
    }
}

/// Dials whenever there is no path, and now and then when there is one.
async fn supervise(world: Arc<World>, seed: u64, from: End, to: End, eager: bool) {
    let random = Random(Cell::new(seed));
    loop {
        let patience = Duration::from_millis(random.below(if eager { 10 } else { 30 }));
        let migrates = !world.calm.load(Ordering::Relaxed);
        match timeout(patience, from.handle.lost()).await {
            Ok(None) => return,
            Ok(Some(_)) => sleep(Duration::from_millis(random.below(3))).await,
            Err(_) if migrates => {}
            Err(_) => continue,
        }
        dial(&world, &random, &from, &to).await;
    }
}

/// Bytes after which the data repeats itself: at no border of anything.
const PERIOD: u64 = 65_521;

/// Writes what can be told by its place until it is told to stop, and reads the other's. Gives the digests of both.
async fn work(
    stream: Durable<Faulty>,
    world: Arc<World>,
    salt: [u8; 2],
    held: impl Fn() -> u64,
    most: u64,
) -> [(u64, [u8; 32]); 2] {
    let [ours, theirs] = salt.map(|salt| {
        let random = Random(Cell::new(salt.into()));
        let once: Vec<u8> = (0..PERIOD)
            .map(|_| random.below(256).to_le_bytes()[0])
            .collect();
        [&once[..], &once[..]].concat()
    });
    let bytes = |of: &Vec<u8>, at: u64, n: usize| {
        let from = usize::try_from(at % PERIOD).unwrap();
        of[from..from + n].to_vec()
    };
    let (mut from, mut to) = tokio::io::split(stream);
    let write = async {
        let (mut sent, mut digest) = (0, Sha256::new());
        let random = Random(Cell::new(u64::from(salt[0]) + 77));
        while !world.calm.load(Ordering::Relaxed) {
            let n = 1 + random.below(if random.below(3) == 0 { 30_000 } else { 300 });
            let bytes = bytes(&ours, sent, usize::try_from(n).unwrap());
            to.write_all(&bytes).await.unwrap();
            if random.below(2) == 0 {
                to.flush().await.unwrap();
            }
            digest.update(&bytes);
            sent += n;
            assert!(held() <= most, "more is held than may be");
            if random.below(4) == 0 {
                sleep(Duration::from_millis(random.below(4))).await;
            }
        }
        to.shutdown().await.unwrap();
        (sent, digest.finalize().into())
    };
    let read = async {
        let (mut got, mut digest) = (0, Sha256::new());
        let mut room = vec![0; 20_000];
        loop {
            let n = from.read(&mut room).await.unwrap();
            if n == 0 {
                break (got, digest.finalize().into());
            }
            assert!(
                room[..n] == bytes(&theirs, got, n),
                "within {n} bytes at {got}"
            );
            digest.update(&room[..n]);
            got += n as u64;
        }
    };
    let (sent, got) = tokio::join!(write, read);
    // As the mux does when it closes: what is on its way may have to be sent again.
    assert_eq!(from.read(&mut [0]).await.unwrap(), 0);
    [sent, got]
}

async fn cut(seed: u64, cuts: u64, replay: usize) {
    let hour = Duration::from_secs(3600);
    let config = Config::default().with_replay(replay).with_park(24 * hour);
    let never = (u64::MAX, Fault::Reset);
    let (near, far) = path(never, never, 4096);
    let (client, at_client) = durable(near, Side::Client, &config);
    let (server, at_server) = durable(far, Side::Server, &config);
    let ticket = Ticket::from_random(&[9; Ticket::RANDOM]);
    at_client.endure();
    at_server.endure();
    let world = Arc::new(World {
        paths: AtomicU64::new(0),
        calm: AtomicBool::new(false),
        enough: cuts,
    });
    let ends = [&at_client, &at_server].map(|handle| End {
        handle: handle.clone(),
        ticket: ticket.clone(),
    });
    let [one, two] = ends.clone();
    // Both dial at once at times, which is what is hard; the server less often.
    let local = tokio::task::LocalSet::new();
    local.spawn_local(supervise(
        Arc::clone(&world),
        seed,
        one.clone(),
        two.clone(),
        true,
    ));
    local.spawn_local(supervise(Arc::clone(&world), seed + 1, two, one, false));
    let held = |handle: &Handle<Faulty>| {
        let handle = handle.clone();
        move || handle.stats().held
    };
    let most = replay as u64;
    let both = async {
        tokio::join!(
            work(client, Arc::clone(&world), [1, 2], held(&at_client), most),
            work(server, Arc::clone(&world), [2, 1], held(&at_server), most),
        )
    };
    let (client, server) = local.run_until(timeout(1000 * hour, both)).await.unwrap();
    assert_eq!(
        [client[0], client[1]],
        [server[1], server[0]],
        "what was sent arrived"
    );
    assert!(at_client.over().await.is_ok(), "ended in order");
    assert!(at_server.over().await.is_ok(), "ended in order");
    let stats = [at_client.stats(), at_server.stats()];
    eprintln!(
        "{} MB and {} MB; {stats:?}",
        client[0].0 >> 20,
        client[1].0 >> 20
    );
    assert!(
        stats
            .iter()
            .all(|stats| stats.paths > cuts / 4 && stats.replayed > 0),
        "{stats:?}"
    );
    assert!(stats.iter().any(|stats| stats.doubled > 0), "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_cuts_lose_nothing() {
    cut(1, 8_000, 64 << 10).await;
}

#[tokio::test(start_paused = true)]
async fn nor_do_they_with_a_replay_that_is_never_full_or_always() {
    cut(20, 1_000, 4 << 20).await;
    cut(30, 1_000, 16 << 10).await;
}
