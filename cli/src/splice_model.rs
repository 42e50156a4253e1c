//! Splices over streams in memory, in virtual time: 10,000 random ones against a model, and the table of what ends are told.
//!
//! A [`Wire`] is the end of a stream that a splice holds, a [`Party`] whoever is at its other end. What differs between the kinds is
//! what Linux tells of an end that is none: of a reset TCP tells once and then shows an end, whoever asks first; a Unix socket
//! does so where something was left unread, and has no reset of its own, unless it is framed and says its ends; pipes have neither; a substream tells
//! the truth, each time. The model
//! knows nothing of the code: it looks at what each party did and has seen.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::splice::{Join, Leaves, Step};
use crate::splice_end::{Closing, Ended, Reader, Verdict, lost, verdict};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tcp,
    Unix,
    Framed,
    Exec,
    Stdio,
    Substream,
}

const KINDS: [Kind; 6] = [
    Kind::Tcp,
    Kind::Unix,
    Kind::Framed,
    Kind::Exec,
    Kind::Stdio,
    Kind::Substream,
];

/// What is on its way in one direction.
#[derive(Default)]
struct Way {
    bytes: VecDeque<u8>,
    /// Taken by the reader.
    taken: usize,
    /// Written by the writer.
    wrote: usize,
    /// The writer has ended.
    ended: bool,
    /// The reader is gone.
    gone: bool,
    wakers: Vec<Waker>,
}

/// A stream of a kind between a party and a splice.
struct State {
    kind: Kind,
    room: usize,
    /// Most bytes of one call.
    step: usize,
    /// The splice's writes wait here for a flush.
    buffer: Option<Vec<u8>>,
    to_splice: Way,
    to_party: Way,
    /// The party has cut it: by a reset, or by closing with something unread.
    cut: bool,
    /// The system has told the splice of that.
    cut_reported: bool,
    /// A TCP peer that had closed has answered a write by a reset.
    answered: bool,
    /// The splice has cut it.
    cut_by_splice: bool,
    /// It is told of a party that is gone.
    reports: bool,
}

type Shared = Arc<Mutex<State>>;

impl State {
    fn wake(&mut self) {
        for waker in self
            .to_splice
            .wakers
            .drain(..)
            .chain(self.to_party.wakers.drain(..))
        {
            waker.wake();
        }
    }

    fn system(code: rustix::io::Errno) -> io::Error {
        io::Error::from_raw_os_error(code.raw_os_error())
    }

    /// What the system tells of the cut: once.
    fn reported(&mut self) -> Option<io::Error> {
        if !self.cut {
            return None;
        }
        if self.kind == Kind::Substream {
            return Some(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "reset by the peer",
            ));
        }
        if self.kind == Kind::Framed {
            return Some(io::ErrorKind::UnexpectedEof.into());
        }
        (!std::mem::replace(&mut self.cut_reported, true))
            .then(|| Self::system(rustix::io::Errno::CONNRESET))
    }

    /// Takes what is written, as far as there is room.
    fn take(&mut self, data: &[u8], cx: &Context<'_>) -> Poll<io::Result<usize>> {
        // A framed socket's end tells who reads.
        if self.kind != Kind::Framed
            && let Some(e) = self.reported()
        {
            return Poll::Ready(Err(e));
        }
        if self.to_party.gone {
            // TCP learns it by the answer to a first write.
            if self.kind == Kind::Tcp && !self.cut && !std::mem::replace(&mut self.answered, true) {
                return Poll::Ready(Ok(data.len()));
            }
            return Poll::Ready(Err(Self::system(rustix::io::Errno::PIPE)));
        }
        let n = data
            .len()
            .min(self.step)
            .min(self.room.saturating_sub(self.to_party.bytes.len()));
        if n == 0 {
            self.to_party.wakers.push(cx.waker().clone());
            return Poll::Pending;
        }
        self.to_party.bytes.extend(&data[..n]);
        self.to_party.wrote += n;
        self.wake();
        Poll::Ready(Ok(n))
    }
}

/// The splice's end.
struct Wire(Shared);

/// As the kinds tell of it, where the case has it so: a TCP connection that was closed without a word is not missed soon, a command by its
/// exit alone.
impl crate::chunk::Pieces for Wire {}

impl Leaves for Wire {
    fn poll_left(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<io::Error> {
        let mut state = self.0.lock().unwrap();
        let gone = match state.kind {
            _ if !state.reports => None,
            Kind::Exec => None,
            Kind::Stdio => state
                .to_party
                .gone
                .then(|| State::system(rustix::io::Errno::PIPE)),
            _ if reading => None,
            _ if state.cut => Some(io::ErrorKind::ConnectionReset.into()),
            Kind::Unix if state.to_party.gone => Some(io::ErrorKind::BrokenPipe.into()),
            _ => None,
        };
        let Some(gone) = gone else {
            state.to_party.wakers.push(cx.waker().clone());
            return Poll::Pending;
        };
        Poll::Ready(gone)
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.0.lock().unwrap();
        let n = state
            .to_splice
            .bytes
            .len()
            .min(state.step)
            .min(buf.remaining());
        if n > 0 {
            let bytes: Vec<u8> = state.to_splice.bytes.drain(..n).collect();
            buf.put_slice(&bytes);
            state.to_splice.taken += n;
            state.wake();
            return Poll::Ready(Ok(()));
        }
        // Behind its end, a substream's reset says only that it takes no more; so does what a framed socket does.
        let says_ends = matches!(state.kind, Kind::Framed | Kind::Substream);
        if !(says_ends && state.to_splice.ended)
            && let Some(e) = state.reported()
        {
            return Poll::Ready(Err(e));
        }
        if state.to_splice.ended || state.cut {
            return Poll::Ready(Ok(()));
        }
        state.to_splice.wakers.push(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock().unwrap();
        match &mut state.buffer {
            Some(buffer) if buffer.len() < 100 => {
                let n = data.len().min(100 - buffer.len());
                buffer.extend(&data[..n]);
                Poll::Ready(Ok(n))
            }
            Some(_) => {
                std::task::ready!(flush(&mut state, cx))?;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            None => state.take(data, cx),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        flush(&mut self.0.lock().unwrap(), cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock().unwrap();
        std::task::ready!(flush(&mut state, cx))?;
        if state.cut && state.kind == Kind::Substream {
            return Poll::Ready(Err(state.reported().unwrap()));
        }
        state.to_party.ended = true;
        state.wake();
        Poll::Ready(Ok(()))
    }
}

fn flush(state: &mut State, cx: &Context<'_>) -> Poll<io::Result<()>> {
    while let Some(buffer) = state.buffer.clone().filter(|b| !b.is_empty()) {
        let n = std::task::ready!(state.take(&buffer, cx))?;
        state.buffer = Some(buffer[n..].to_vec());
    }
    Poll::Ready(Ok(()))
}

impl Drop for Wire {
    fn drop(&mut self) {
        let mut state = self.0.lock().unwrap();
        let unread = !state.to_splice.bytes.is_empty();
        state.to_splice.gone = true;
        match state.kind {
            Kind::Tcp => state.cut_by_splice |= unread,
            Kind::Framed | Kind::Substream => state.cut_by_splice |= !state.to_party.ended,
            _ => {}
        }
        state.to_party.ended = true;
        state.wake();
    }
}

/// What a party reads at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Saw {
    End,
    Cut,
    /// It closed before.
    Nothing,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Write(usize),
    Pause(u64),
    End,
    /// Closes both directions, whatever is unread.
    Close,
    Cut,
}

/// Whoever is at the other end of a stream.
#[derive(Clone)]
struct Party(Shared);

impl Party {
    /// Writes, as far as it can: false when nobody reads any more.
    async fn write(&self, count: usize) -> bool {
        for _ in 0..count {
            let written = poll_fn(|cx| {
                let mut state = self.0.lock().unwrap();
                if state.to_splice.gone || state.to_splice.ended || state.cut {
                    return Poll::Ready(false);
                }
                if state.to_splice.bytes.len() >= state.room {
                    state.to_splice.wakers.push(cx.waker().clone());
                    return Poll::Pending;
                }
                let next = pattern(state.to_splice.wrote);
                state.to_splice.bytes.push_back(next);
                state.to_splice.wrote += 1;
                state.wake();
                Poll::Ready(true)
            });
            if !written.await {
                return false;
            }
        }
        true
    }

    fn end(&self) {
        let mut state = self.0.lock().unwrap();
        state.to_splice.ended = true;
        state.wake();
    }

    fn close(&self) {
        let mut state = self.0.lock().unwrap();
        let unread = !state.to_party.bytes.is_empty();
        match state.kind {
            Kind::Tcp | Kind::Unix => state.cut |= unread,
            Kind::Framed => state.cut |= !state.to_splice.ended,
            Kind::Substream => state.cut |= !state.to_splice.ended || unread,
            Kind::Exec | Kind::Stdio => {}
        }
        if !state.cut {
            state.to_splice.ended = true;
        }
        state.to_party.gone = true;
        state.wake();
    }

    fn cut(&self) {
        let mut state = self.0.lock().unwrap();
        match state.kind {
            Kind::Tcp | Kind::Substream => {
                state.cut = true;
                state.to_party.gone = true;
                state.wake();
            }
            _ => {
                drop(state);
                self.close();
            }
        }
    }

    async fn act(&self, acts: &[Act]) {
        for act in acts {
            match *act {
                Act::Write(n) => {
                    self.write(n).await;
                }
                Act::Pause(ms) => sleep(Duration::from_millis(ms)).await,
                Act::End => self.end(),
                Act::Close => return self.close(),
                Act::Cut => return self.cut(),
            }
        }
        self.end();
    }

    /// Reads to the end, with pauses; says what came, and what the end was.
    async fn read(&self, pause: u64, some: usize) -> (Vec<u8>, Saw) {
        let mut got = Vec::new();
        loop {
            let read = poll_fn(|cx| {
                let mut state = self.0.lock().unwrap();
                if state.to_party.gone {
                    return Poll::Ready(Err(Saw::Nothing));
                }
                // A kill comes before what waits in a pipe.
                if state.cut_by_splice && state.kind == Kind::Exec {
                    return Poll::Ready(Err(Saw::Cut));
                }
                let n = state.to_party.bytes.len().min(some);
                if n > 0 {
                    let bytes: Vec<u8> = state.to_party.bytes.drain(..n).collect();
                    state.to_party.taken += n;
                    state.wake();
                    return Poll::Ready(Ok(bytes));
                }
                // These know one end only.
                let shows = !matches!(state.kind, Kind::Unix | Kind::Stdio);
                match (state.to_party.ended, state.cut_by_splice && shows) {
                    (true, true) => Poll::Ready(Err(Saw::Cut)),
                    (true, false) => Poll::Ready(Err(Saw::End)),
                    _ => {
                        state.to_party.wakers.push(cx.waker().clone());
                        Poll::Pending
                    }
                }
            });
            match read.await {
                Ok(bytes) => got.extend(bytes),
                Err(saw) => return (got, saw),
            }
            if pause > 0 {
                sleep(Duration::from_millis(pause)).await;
            }
        }
    }
}

fn pattern(at: usize) -> u8 {
    u8::try_from(at % 251).unwrap()
}

fn stream(kind: Kind, room: usize, step: usize, buffered: bool) -> (Wire, Party) {
    let state = Arc::new(Mutex::new(State {
        kind,
        room,
        step,
        buffer: buffered.then(Vec::new),
        to_splice: Way::default(),
        to_party: Way::default(),
        cut: false,
        cut_reported: false,
        answered: false,
        cut_by_splice: false,
        reports: false,
    }));
    (Wire(Arc::clone(&state)), Party(state))
}

/// Does to a stream what its end is told, as the owners of splices do.
fn notify(wire: Wire, reported: Closing) {
    {
        let mut state = wire.0.lock().unwrap();
        let ended = state.to_party.ended;
        let says_ends = matches!(state.kind, Kind::Framed | Kind::Substream);
        state.cut_by_splice |= match reported {
            Closing::End => false,
            // Its end is before it.
            Closing::Unwanted => says_ends && !ended,
            Closing::Cut => !says_ends || !ended,
        };
    }
    drop(wire);
}

/// Whose splice it is: what it wants of its ends.
#[derive(Clone, Copy, Debug)]
enum Owner {
    /// Both ways, each to its end.
    Pipe,
    /// Nothing without the near end: `forward`.
    Forward,
    /// The near end is standard input and output: `connect`. `with_far`: the far end ends everything.
    Connect { with_far: bool },
}

/// A random splice.
#[derive(Clone, Copy, Debug)]
struct Splice {
    owner: Owner,
    /// How long an end is held back, of the near stream and of the far one.
    held: [Option<Duration>; 2],
}

const PIPE: Splice = Splice {
    owner: Owner::Pipe,
    held: [None, None],
};

impl Splice {
    async fn run(self, near: &mut Wire, far: &mut Wire) -> Ended {
        let mut join = Join::new(near, far);
        join = match self.owner {
            Owner::Pipe => join,
            Owner::Forward => join.end_with_near(),
            Owner::Connect { with_far } => join
                .end_with_near()
                .end_with_reader()
                .end_with_far(with_far),
        };
        if self.held[0].is_some() {
            join = join.hold_near_end();
        }
        if self.held[1].is_some() {
            join = join.hold_far_end();
        }
        let mut until = [None; 2];
        loop {
            let next = until.iter().flatten().min().copied();
            tokio::select! {
                step = join.step() => match step {
                    Step::NearEnded => until[0] = self.held[0].map(|held| Instant::now() + held),
                    Step::FarEnded => until[1] = self.held[1].map(|held| Instant::now() + held),
                    Step::Over(ended) => return ended,
                },
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    if until[0] == next {
                        until[0] = None;
                        join.pass_end_on();
                    } else {
                        until[1] = None;
                        join.pass_far_end_on();
                    }
                }
            }
        }
    }
}

/// One side of a random splice.
#[derive(Clone, Debug)]
struct Side {
    reports: bool,
    kind: Kind,
    room: usize,
    step: usize,
    buffered: bool,
    acts: Vec<Act>,
    pause: u64,
    some: usize,
}

/// What came of one side.
#[derive(Debug)]
struct Outcome {
    kind: Kind,
    got: Vec<u8>,
    saw: Saw,
    reported: Closing,
    wrote: usize,
    taken: usize,
    /// It has said that it has ended, and not by a cut.
    ended: bool,
    /// It was cut from its side, or has closed.
    left: bool,
    cut: bool,
    /// It takes longer to read than what is left of a cut stream is waited for.
    slow: bool,
}

async fn run(splice: Splice, near: &Side, far: &Side) -> (Ended, [Outcome; 2]) {
    let open = |side: &Side| {
        let (wire, party) = stream(side.kind, side.room, side.step, side.buffered);
        wire.0.lock().unwrap().reports = side.reports;
        (wire, party)
    };
    let ((mut n, near_party), (mut f, far_party)) = (open(near), open(far));
    let states = [Arc::clone(&n.0), Arc::clone(&f.0)];
    let splice = async {
        let ended = splice.run(&mut n, &mut f).await;
        let Verdict { near, far } = verdict(&ended);
        notify(n, near);
        notify(f, far);
        (ended, [near, far])
    };
    let live = async |party: &Party, side: &Side| {
        tokio::join!(party.act(&side.acts), party.read(side.pause, side.some)).1
    };
    let ((ended, reported), a, b) =
        tokio::join!(splice, live(&near_party, near), live(&far_party, far));
    let outcome = |at: usize, (got, saw): (Vec<u8>, Saw), side: &Side| {
        let state = states[at].lock().unwrap();
        Outcome {
            kind: side.kind,
            got,
            saw,
            reported: reported[at],
            wrote: state.to_splice.wrote,
            taken: state.to_splice.taken,
            ended: state.to_splice.ended,
            left: state.cut || state.to_party.gone,
            cut: state.cut,
            slow: side.pause >= SLOW,
        }
    };
    let outcomes = [outcome(0, a, near), outcome(1, b, far)];
    (ended, outcomes)
}

/// What must hold of what one party said and the other one has got.
///
/// `all_wanted`: neither end may end everything before it has taken all of the other.
fn check(from: &Outcome, to: &Outcome, all_wanted: bool) -> Result<(), TestCaseError> {
    let sent: Vec<u8> = (0..from.wrote).map(pattern).collect();
    prop_assert!(sent.starts_with(&to.got), "what comes is what was said");
    let clean = to.saw == Saw::End && to.reported != Closing::Cut;
    if clean {
        prop_assert!(from.ended, "a clean end where there was none");
        prop_assert_eq!(to.got.len(), from.wrote, "a clean end before all had come");
    }
    if !all_wanted || from.cut && to.slow {
        return Ok(());
    }
    // Who listens to the end gets what was taken for it, unless it is killed over it.
    let killed = to.kind == Kind::Exec && to.saw == Saw::Cut;
    if !to.left && !killed {
        prop_assert_eq!(to.got.len(), from.taken, "what was taken is lost");
    }
    // And if nothing went wrong anywhere, all is well.
    if from.ended && !from.left && !to.left {
        prop_assert_eq!(to.saw, Saw::End);
    }
    Ok(())
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..600_usize).prop_map(Act::Write),
        3 => (0..50_u64).prop_map(Act::Pause),
        1 => Just(Act::End),
        1 => Just(Act::Close),
        1 => Just(Act::Cut),
    ]
}

fn side() -> impl Strategy<Value = Side> {
    (
        prop::sample::select(KINDS.to_vec()),
        1..300_usize,
        1..200_usize,
        any::<(bool, bool)>(),
        prop::collection::vec(act(), 0..7),
        prop_oneof![7 => 0..30_u64, 1 => Just(SLOW)],
        1..200_usize,
    )
        .prop_map(
            |(kind, room, step, (buffered, reports), acts, pause, some)| Side {
                reports,
                kind,
                room,
                step,
                buffered,
                acts,
                pause,
                some,
            },
        )
}

fn splice() -> impl Strategy<Value = Splice> {
    let owner = prop_oneof![
        2 => Just(Owner::Pipe),
        1 => Just(Owner::Forward),
        2 => any::<bool>().prop_map(|with_far| Owner::Connect { with_far }),
    ];
    let held = || prop::option::of((0..2000_u64).prop_map(Duration::from_millis));
    (owner, held(), held()).prop_map(|(owner, near, far)| Splice {
        owner,
        held: [near, far],
    })
}

/// A pause of a slow reader, ms: longer than any limit of a join.
const SLOW: u64 = 60_000;

/// More virtual time than any script takes.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

fn in_virtual_time<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_taken_is_lost_and_no_end_is_made_up(splice in splice(), mut near in side(), mut far in side()) {
        if let Owner::Connect { .. } = splice.owner {
            (near.kind, far.kind) = (Kind::Stdio, Kind::Substream);
        }
        let over = in_virtual_time(async { timeout(FOR_EVER, run(splice, &near, &far)).await });
        let Ok((ended, [one, two])) = over else {
            return Err(TestCaseError::fail("it does not end"));
        };
        // Of a near end that has left, or where the far one ends everything, the rest is not wanted.
        let all = match splice.owner {
            Owner::Pipe => true,
            Owner::Connect { with_far: true } => false,
            Owner::Forward | Owner::Connect { .. } => !one.left,
        };
        check(&one, &two, all).and_then(|()| check(&two, &one, true)).map_err(|e| TestCaseError::fail(format!("{e}: {ended:?}\n{one:?}\n{two:?}")))?;
    }
}

/// How a party ends, in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Ends,
    Leaves,
    Cut,
}

/// What is on its way then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flight {
    Nothing,
    ToIt,
    FromIt,
}

fn manners(kind: Kind) -> &'static [(Manner, &'static str)] {
    match kind {
        Kind::Tcp => &[
            (Manner::Ends, "ends"),
            (Manner::Leaves, "closes"),
            (Manner::Cut, "is reset"),
        ],
        Kind::Unix | Kind::Framed | Kind::Stdio => {
            &[(Manner::Ends, "ends"), (Manner::Leaves, "closes")]
        }
        Kind::Exec => &[
            (Manner::Ends, "ends"),
            (Manner::Leaves, "exits with 0"),
            (Manner::Cut, "exits with 3"),
        ],
        Kind::Substream => &[(Manner::Ends, "ends"), (Manner::Cut, "is reset")],
    }
}

/// What a party of this kind is told when the first one ends so, and the exit status of `cepa pipe`.
fn cell(kind: Kind, manner: Manner, flight: Flight, to: Kind) -> (&'static str, String) {
    const LONG: u64 = 1_000_000;
    let said = if flight == Flight::FromIt { 10_000 } else { 20 };
    let mut acts = vec![Act::Write(said)];
    if flight != Flight::FromIt {
        acts.push(Act::Pause(1000));
    }
    acts.push(match manner {
        Manner::Ends => Act::End,
        Manner::Leaves => Act::Close,
        Manner::Cut => Act::Cut,
    });
    let one = Side {
        reports: false,
        kind,
        room: 300,
        step: 100,
        buffered: false,
        acts,
        pause: if manner == Manner::Ends { 0 } else { LONG },
        some: 1,
    };
    let other = Side {
        kind: to,
        acts: vec![match flight {
            Flight::ToIt => Act::Write(10_000),
            _ => Act::Pause(LONG),
        }],
        pause: u64::from(flight == Flight::FromIt),
        some: 100,
        ..one.clone()
    };
    // A command that has failed cuts both ends, whatever its pipes looked like (`pipe.rs`, `upstream.rs`).
    let failed = kind == Kind::Exec && manner == Manner::Cut;
    let (ended, [_, saw]) = in_virtual_time(run(PIPE, &one, &other));
    let reported = if failed { Closing::Cut } else { saw.reported };
    let word = match (reported, saw.saw, to) {
        (Closing::Cut, _, Kind::Unix | Kind::Stdio) => "(end)",
        (Closing::Cut, ..) => "cut",
        (Closing::Unwanted, ..) => "left",
        (Closing::End, Saw::End, _) => "end",
        (Closing::End, ..) => "?",
    };
    let reader = |kind| match kind {
        Kind::Exec => Reader::Command,
        Kind::Stdio => Reader::Output,
        _ => Reader::Other,
    };
    let exit = match lost(&ended, reader(kind), reader(to)) {
        _ if failed => 3,
        Some(_) => crate::exit::Code::Lost as u8,
        None => 0,
    };
    (word, exit.to_string())
}

#[test]
fn what_is_reported_is_the_documented_table() {
    let expected = include_str!("splice_table.txt");
    let mut found: String = expected.split_inclusive("\n\n").next().unwrap().to_owned();
    let line = |cells: &[&str]| {
        let mut line = format!("{:<10} {:<13} {:<8}", cells[0], cells[1], cells[2]);
        for cell in &cells[3..] {
            write!(line, " {cell:<9}").unwrap();
        }
        line.trim_end().to_owned() + "\n"
    };
    let name = |kind: Kind| format!("{kind:?}").to_lowercase();
    found += &line(&[
        "who",
        "how",
        "inflight",
        "tcp",
        "unix",
        "framed",
        "exec",
        "stdio",
        "substream",
        "pipe exits",
    ]);
    for kind in KINDS {
        for (manner, how) in manners(kind) {
            for (flight, word) in [
                (Flight::Nothing, "nothing"),
                (Flight::ToIt, "to it"),
                (Flight::FromIt, "from it"),
            ] {
                let reported: Vec<_> = KINDS
                    .iter()
                    .map(|to| cell(kind, *manner, flight, *to))
                    .collect();
                let exits: Vec<&str> = reported
                    .iter()
                    .take(5)
                    .map(|(_, exit)| exit.as_str())
                    .collect();
                assert!(
                    exits.windows(2).all(|two| two[0] == two[1]),
                    "{kind:?} {how} {word}: {exits:?}"
                );
                let exit = if kind == Kind::Substream {
                    "-"
                } else {
                    exits[0]
                };
                let mut cells = vec![name(kind), (*how).to_owned(), word.to_owned()];
                cells.extend(reported.iter().map(|(word, _)| (*word).to_owned()));
                cells.push(exit.to_owned());
                let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
                found += &line(&cells);
            }
        }
    }
    assert!(
        found == expected,
        "src/splice_table.txt is not what splice.rs decides; if the change is meant, replace the file by:\n{found}"
    );
}
