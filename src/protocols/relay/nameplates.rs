//! Nameplates: the small numbers under which two peers meet at a relay, for a short code (`../code/`).
//!
//! A nameplate belongs to the substream that asked for it, until that ends, its time is over, or somebody comes with it: who comes uses it
//! up. Then four messages pass, one after the other, each in time and none longer than a message is; what they are, the relay does
//! not look at. The places are given out as circuits are (`../pool.rs`).
//!
//! Whoever asks for a nameplate that there is not has so many tries a minute, by host as far as one is known, or somebody could use up
//! everybody's codes by counting. Numbers that are gone are remembered for a while: to say why, and so that
//! another code does not get the same number at once.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::mux::Substream;
use crate::onion::Onion;
use crate::protocols::code::{Ask, CodeRefusal, Passed, Wanted};
use crate::protocols::pool::{Held, Holder, Pool, Rules, Who};
use crate::wire::{fault, linger_close, receive, send};

/// Nameplates in all: two digits.
const ALL: usize = 99;

/// Of one peer.
const PEER: usize = 4;

/// Of the strangers of one host.
const HOST: usize = 24;

/// Longest time that one lasts.
const LIFETIME: Duration = Duration::from_secs(15 * 60);

/// Younger ones are not taken back for a peer that has none.
const MIN_LIFE: Duration = Duration::from_secs(60);

/// For an end to say what is next.
const PATIENCE: Duration = Duration::from_secs(10);

/// Tries of one host, or one peer, at what there is not, each `TRIES_IN`.
const TRIES: u32 = 10;
const TRIES_IN: Duration = Duration::from_secs(60);

/// Hosts and peers whose tries are counted. With more the longest ago is forgotten.
const MOST_COUNTED: usize = 1024;

/// Numbers that are gone and remembered, while they are not given out again.
const MOST_GONE: usize = 256;

/// Somebody who came with a nameplate: the substream, and the first message on it.
struct Guest {
    stream: Onion<Substream>,
    body: Vec<u8>,
    /// Dropped when all has passed.
    _done: oneshot::Sender<()>,
}

/// A place among the nameplates.
#[derive(Clone, Debug)]
struct Taken(CancellationToken);

impl Held for Taken {
    fn used(&self, now: Duration) -> Duration {
        now
    }
}

#[derive(Debug)]
struct Tries {
    since: Duration,
    count: u32,
}

pub(super) struct Nameplates(Mutex<State>);

struct State {
    places: Pool<Taken>,
    /// What waits for somebody.
    open: BTreeMap<u32, oneshot::Sender<Guest>>,
    gone: VecDeque<(u32, CodeRefusal)>,
    tries: HashMap<Who, Tries>,
}

impl Nameplates {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State {
            places: Pool::new(Rules {
                all: ALL,
                peer: PEER,
                host: HOST,
                silent: LIFETIME,
                min_life: MIN_LIFE,
                takes_last: true,
            }),
            open: BTreeMap::new(),
            gone: VecDeque::new(),
            tries: HashMap::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is whole before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody has something to give: waits for who comes, and passes what the two say. An error has been said to the peer.
    pub(super) async fn offer(
        &self,
        mut stream: Onion<Substream>,
        holder: &Holder,
        now: Duration,
    ) -> Result<(), CodeRefusal> {
        let served = self.offered(&mut stream, holder, now).await;
        ended(&mut stream, &served).await;
        served
    }

    async fn offered(
        &self,
        stream: &mut Onion<Substream>,
        holder: &Holder,
        now: Duration,
    ) -> Result<(), CodeRefusal> {
        let Some(wanted) = in_time(receive::<Wanted>(stream)).await? else {
            return Ok(());
        };
        let lifetime = Duration::from_secs(wanted.lifetime.into());
        let lifetime = lifetime.clamp(Duration::from_secs(1), LIFETIME);
        let (mut plate, guest) = self.open(holder, now)?;
        let given = Passed::given(plate.nameplate, lifetime);
        if in_time(send(stream, &given)).await?.is_none() {
            return Ok(());
        }
        // The peer has nothing to say now but that it leaves.
        let mut scratch = [0];
        let guest = tokio::select! {
            Ok(guest) = guest => guest,
            () = sleep(lifetime) => return Err(plate.gone(CodeRefusal::Expired)),
            () = plate.taken_back.cancelled() => return Err(plate.gone(CodeRefusal::Full)),
            _ = stream.read(&mut scratch) => {
                plate.gone(CodeRefusal::Gone);
                return Ok(());
            }
        };
        plate.gone(CodeRefusal::Used);
        let Guest {
            stream: mut theirs,
            body,
            _done,
        } = guest;
        let passed = pass(stream, &mut theirs, body).await;
        let other = passed.map_err(|_| CodeRefusal::Silent);
        ended(&mut theirs, &other).await;
        passed
    }

    /// Somebody comes with a nameplate. An error has been said to the peer.
    pub(super) async fn come(
        &self,
        mut stream: Onion<Substream>,
        holder: &Holder,
        now: Duration,
    ) -> Result<(), CodeRefusal> {
        let asked = match in_time(receive::<Ask>(&mut stream)).await {
            Ok(Some(asked)) => asked,
            Ok(None) => return Ok(()),
            Err(why) => {
                ended(&mut stream, &Err(why)).await;
                return Err(why);
            }
        };
        let (sender, done) = oneshot::channel();
        let guest = Guest {
            stream,
            body: asked.body.into(),
            _done: sender,
        };
        let (mut stream, why) = match self.find(asked.nameplate, holder, now) {
            Ok(host) => match host.send(guest) {
                Ok(()) => {
                    // Until its messages have passed; whoever passes them ends its substream.
                    let _ = done.await;
                    return Ok(());
                }
                Err(guest) => (guest.stream, CodeRefusal::Gone),
            },
            Err(why) => (guest.stream, why),
        };
        ended(&mut stream, &Err(why)).await;
        Err(why)
    }

    fn open(
        &self,
        holder: &Holder,
        now: Duration,
    ) -> Result<(Plate<'_>, oneshot::Receiver<Guest>), CodeRefusal> {
        let mut state = self.state();
        let taken_back = CancellationToken::new();
        let made = Taken(taken_back.clone());
        let taken = state.places.take(holder.clone(), now, |_| made);
        let (place, lost) = taken.map_err(|_| CodeRefusal::Full)?;
        if let Some(Taken(lost)) = lost {
            lost.cancel();
        }
        let (sender, guest) = oneshot::channel();
        let nameplate = state.free();
        state.open.insert(nameplate, sender);
        let plate = Plate {
            of: self,
            nameplate,
            place,
            taken_back,
            why: CodeRefusal::Gone,
        };
        Ok((plate, guest))
    }

    fn find(
        &self,
        nameplate: u32,
        holder: &Holder,
        now: Duration,
    ) -> Result<oneshot::Sender<Guest>, CodeRefusal> {
        let mut state = self.state();
        let who = Who::of(holder);
        state.may_try(who, now)?;
        if let Some(host) = state.open.remove(&nameplate) {
            return Ok(host);
        }
        state.count(who, now);
        let gone = state.gone.iter().rfind(|(gone, _)| *gone == nameplate);
        Err(gone.map_or(CodeRefusal::Unknown, |(_, why)| *why))
    }
}

impl State {
    /// The lowest number that is not in use, nor was lately.
    fn free(&self) -> u32 {
        let used = |number: &u32| self.open.contains_key(number);
        let lately = |number: &u32| self.gone.iter().any(|(gone, _)| gone == number);
        // Fewer are open and remembered than there are numbers here.
        let all = 1..=u32::try_from(ALL + MOST_GONE).unwrap_or(u32::MAX);
        let mut fresh = all.filter(|number| !used(number) && !lately(number));
        fresh.next().unwrap_or(u32::MAX)
    }

    fn may_try(&self, who: Who, now: Duration) -> Result<(), CodeRefusal> {
        match self.tries.get(&who) {
            Some(tries) if tries.count >= TRIES && now < tries.since + TRIES_IN => {
                let wait = (tries.since + TRIES_IN).saturating_sub(now);
                let wait = Duration::from_secs(wait.as_secs() + 1);
                Err(CodeRefusal::TooMany { wait })
            }
            _ => Ok(()),
        }
    }

    fn count(&mut self, who: Who, now: Duration) {
        if self.tries.len() >= MOST_COUNTED && !self.tries.contains_key(&who) {
            self.tries.retain(|_, tries| now < tries.since + TRIES_IN);
            let oldest = self.tries.iter().min_by_key(|(_, tries)| tries.since);
            if let (true, Some(oldest)) = (
                self.tries.len() >= MOST_COUNTED,
                oldest.map(|(who, _)| *who),
            ) {
                self.tries.remove(&oldest);
            }
        }
        let fresh = Tries {
            since: now,
            count: 0,
        };
        let tries = self.tries.entry(who).or_insert(fresh);
        if now >= tries.since + TRIES_IN {
            tries.since = now;
            tries.count = 0;
        }
        tries.count += 1;
    }
}

/// A nameplate, given back when dropped.
struct Plate<'a> {
    of: &'a Nameplates,
    nameplate: u32,
    place: u64,
    taken_back: CancellationToken,
    why: CodeRefusal,
}

impl Plate<'_> {
    /// What whoever comes later is to read.
    fn gone(&mut self, why: CodeRefusal) -> CodeRefusal {
        self.why = why;
        why
    }
}

impl Drop for Plate<'_> {
    fn drop(&mut self) {
        let mut state = self.of.state();
        state.places.give_back(self.place);
        state.open.remove(&self.nameplate);
        state.gone.push_back((self.nameplate, self.why));
        if state.gone.len() > MOST_GONE {
            state.gone.pop_front();
        }
    }
}

/// Four messages, of which the first is here: who fetches speaks first. The error is for who offers.
async fn pass(
    host: &mut Onion<Substream>,
    guest: &mut Onion<Substream>,
    first: Vec<u8>,
) -> Result<(), CodeRefusal> {
    let silent = CodeRefusal::Silent;
    let first = Passed::body(first);
    in_time(send(host, &first)).await?.ok_or(silent)?;
    hand_on(host, guest).await?;
    hand_on(guest, host).await?;
    hand_on(host, guest).await
}

async fn hand_on(
    from: &mut Onion<Substream>,
    to: &mut Onion<Substream>,
) -> Result<(), CodeRefusal> {
    let silent = CodeRefusal::Silent;
    let message = in_time(receive::<Passed>(from)).await?.ok_or(silent)?;
    in_time(send(to, &message)).await?.ok_or(silent)
}

/// What a peer says, or takes; none where it does not in time, or is gone.
async fn in_time<T>(
    step: impl Future<Output = std::io::Result<T>>,
) -> Result<Option<T>, CodeRefusal> {
    match timeout(PATIENCE, step).await {
        Ok(Ok(done)) => Ok(Some(done)),
        Ok(Err(error)) if fault(&error).is_some() => Err(CodeRefusal::Malformed),
        Ok(Err(_)) | Err(_) => Ok(None),
    }
}

/// Says why not, and leaves it to the peer to end the substream: a reset could overtake what was said last.
async fn ended(stream: &mut Onion<Substream>, served: &Result<(), CodeRefusal>) {
    if let Err(why) = served {
        let _ = timeout(PATIENCE, send(stream, &Passed::refused(*why))).await;
    }
    linger_close(stream, PATIENCE).await;
}
