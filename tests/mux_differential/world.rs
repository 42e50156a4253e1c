//! One script, run over four pairs of ends: our mux and the `yamux` crate in either role, our mux with
//! itself, the crate with itself. What the users of the two ends see has to be the same everywhere.
//!
//! A script opens streams, writes, reads, shuts down and drops them, at both ends, while the wire between
//! them hands on as many bytes at a time as the script says. Nothing runs by itself: there is no task and
//! no waker, every future is polled by hand, so that a script is one exact course of events. When it is
//! over, everybody writes, reads and ends what the script asked for, until nothing moves. Then:
//!
//! - what was read is what was written, byte by byte, and on streams that nobody dropped all of it;
//! - an end of stream is read where the other end shut down, and nowhere else;
//! - at our end, a stream that the other end dropped unfinished reads as an error. (The crate reads an
//!   end of stream there, which is why cepa has a mux of its own.)
//!
//! Used by the test beside this file and by the fuzz target `mux_differential`.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use cepa::Side;
use cepa::mux::{Config, Driver, Mux, Substream, mux};
use futures::{AsyncRead as _, AsyncWrite as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};
use yamux::{Connection, Mode};

/// Streams that one end opens at most.
const STREAMS: usize = 6;

/// Bytes that one end writes at most, on all its streams: enough to fill a window and go on.
const WRITTEN_MAX: u64 = 500_000;

/// Rounds without any movement after which nothing will move any more.
const QUIET: u32 = 3;

/// Runs a script over all four pairs.
pub(crate) fn run(script: &[u8]) {
    let Some((mode, script)) = script.split_first() else {
        return;
    };
    thread_local! {
        /// Timers have to belong to somebody. Nobody drives this runtime, so none of them fires.
        static TIMERS: RefCell<tokio::runtime::Runtime> = RefCell::new(
            tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .expect("a runtime"),
        );
    }
    TIMERS.with_borrow(|timers| {
        let _inside = timers.enter();
        for kinds in [
            [Kind::Ours, Kind::Theirs],
            [Kind::Theirs, Kind::Ours],
            [Kind::Ours, Kind::Ours],
            [Kind::Theirs, Kind::Theirs],
        ] {
            World::new(kinds, *mode).run(script);
        }
    });
}

// ---- the wire ---------------------------------------------------------------------------------------

/// One direction.
#[derive(Default)]
struct Way {
    bytes: VecDeque<u8>,
    /// How many of them have arrived.
    arrived: usize,
    /// How many more may be written.
    room: usize,
}

/// One end of the wire.
struct Wire {
    from: Arc<Mutex<Way>>,
    to: Arc<Mutex<Way>>,
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut way = self.from.lock().unwrap();
        let n = way.arrived.min(buf.remaining());
        if n == 0 {
            return Poll::Pending;
        }
        way.arrived -= n;
        let (front, back) = way.bytes.as_slices();
        let first = n.min(front.len());
        buf.put_slice(&front[..first]);
        buf.put_slice(&back[..n - first]);
        way.bytes.drain(..n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut way = self.to.lock().unwrap();
        let n = way.room.min(buf.len());
        if n == 0 {
            return Poll::Pending;
        }
        way.room -= n;
        way.bytes.extend(&buf[..n]);
        Poll::Ready(Ok(n))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

// ---- the ends ---------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ours,
    Theirs,
}

enum Session {
    Ours(Mux, Driver),
    Theirs(Box<Connection<Compat<Wire>>>),
}

enum Stream {
    Ours(Substream),
    Theirs(yamux::Stream),
}

fn now<T>(future: impl Future<Output = T>) -> Poll<T> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

impl Session {
    fn new(kind: Kind, side: Side, wire: Wire, mode: u8) -> Self {
        match kind {
            Kind::Ours => {
                let mut config = Config::default();
                // Timers do not fire here, and what is held back waits for them.
                config.pacing = false;
                if mode & 1 != 0 {
                    config.send_queue = 3000;
                }
                if mode & 2 != 0 {
                    config.receive_window = 1 << 20;
                }
                let (session, driver) = mux(wire, side, config);
                Self::Ours(session, driver)
            }
            Kind::Theirs => {
                let mode = match side {
                    Side::Client => Mode::Client,
                    Side::Server => Mode::Server,
                };
                Self::Theirs(Box::new(Connection::new(
                    wire.compat(),
                    yamux::Config::default(),
                    mode,
                )))
            }
        }
    }

    fn open(&mut self) -> Stream {
        match self {
            Self::Ours(session, _) => match now(session.open()) {
                Poll::Ready(stream) => Stream::Ours(stream.expect("the session is up")),
                Poll::Pending => panic!("few streams are open"),
            },
            Self::Theirs(connection) => {
                match connection.poll_new_outbound(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(stream) => Stream::Theirs(stream.expect("the session is up")),
                    Poll::Pending => panic!("few streams are open"),
                }
            }
        }
    }

    /// Lets it work, and returns a stream that the other end opened.
    fn poll(&mut self) -> Option<Stream> {
        let cx = &mut Context::from_waker(Waker::noop());
        match self {
            Self::Ours(session, driver) => {
                if let Poll::Ready(end) = Pin::new(driver).poll(cx) {
                    panic!("our session ended: {end:?}");
                }
                match now(session.accept()) {
                    Poll::Ready(stream) => Some(Stream::Ours(stream.expect("the session is up"))),
                    Poll::Pending => None,
                }
            }
            Self::Theirs(connection) => match connection.poll_next_inbound(cx) {
                Poll::Ready(Some(Ok(stream))) => Some(Stream::Theirs(stream)),
                Poll::Ready(end) => panic!("its session ended: {end:?}"),
                Poll::Pending => None,
            },
        }
    }
}

impl Stream {
    fn id(&self) -> u32 {
        match self {
            Self::Ours(stream) => stream.id(),
            Self::Theirs(stream) => stream.id().to_string().parse().expect("a number"),
        }
    }

    fn write(&mut self, data: &[u8]) -> Poll<io::Result<usize>> {
        let cx = &mut Context::from_waker(Waker::noop());
        match self {
            Self::Ours(stream) => AsyncWrite::poll_write(Pin::new(stream), cx, data),
            Self::Theirs(stream) => Pin::new(stream).poll_write(cx, data),
        }
    }

    fn read(&mut self, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let cx = &mut Context::from_waker(Waker::noop());
        match self {
            Self::Ours(stream) => {
                let mut buf = ReadBuf::new(into);
                AsyncRead::poll_read(Pin::new(stream), cx, &mut buf).map_ok(|()| buf.filled().len())
            }
            Self::Theirs(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }

    fn shutdown(&mut self) -> Poll<io::Result<()>> {
        let cx = &mut Context::from_waker(Waker::noop());
        match self {
            Self::Ours(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Theirs(stream) => Pin::new(stream).poll_close(cx),
        }
    }
}

/// What a reader has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    Open,
    End,
    Error,
}

/// One end of one stream, and its user.
struct Used {
    /// `None`: dropped.
    stream: Option<Stream>,
    /// Bytes that the user wants written, and those of them that the stream took.
    wanted: u64,
    written: u64,
    /// The user wants to end its direction; the stream has been told so.
    end_wanted: bool,
    ended: bool,
    /// Writing failed: the other end does not take it any more.
    broken: bool,
    got: u64,
    read: Read,
}

/// The byte at `at` of a stream's direction.
fn byte(id: u32, end: usize, at: u64) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16)) as u8 ^ (id as u8).wrapping_mul(17) ^ ((end as u8) << 7)
}

impl Used {
    fn new(stream: Stream) -> Self {
        Self {
            stream: Some(stream),
            wanted: 0,
            written: 0,
            end_wanted: false,
            ended: false,
            broken: false,
            got: 0,
            read: Read::Open,
        }
    }

    /// Writes what is wanted as far as it goes. `end` is the number of this end.
    fn pump(&mut self, id: u32, end: usize) -> bool {
        let Some(stream) = &mut self.stream else {
            return false;
        };
        let mut moved = false;
        let mut block = [0; 4096];
        while self.written < self.wanted && !self.broken {
            let n = (self.wanted - self.written).min(block.len() as u64) as usize;
            for (i, place) in block[..n].iter_mut().enumerate() {
                *place = byte(id, end, self.written + i as u64);
            }
            match stream.write(&block[..n]) {
                Poll::Ready(Ok(n)) => self.written += n as u64,
                Poll::Ready(Err(_)) => self.broken = true,
                Poll::Pending => return moved,
            }
            moved = true;
        }
        if self.end_wanted && !self.ended && !self.broken {
            match stream.shutdown() {
                Poll::Ready(Ok(())) => self.ended = true,
                Poll::Ready(Err(_)) => self.broken = true,
                Poll::Pending => return moved,
            }
            moved = true;
        }
        moved
    }

    /// Reads up to `most` bytes. `other` is the number of the end that wrote them.
    fn read(&mut self, id: u32, other: usize, most: usize) -> bool {
        let Some(stream) = &mut self.stream else {
            return false;
        };
        if self.read != Read::Open {
            return false;
        }
        let mut block = [0; 4096];
        let most = most.clamp(1, block.len());
        match stream.read(&mut block[..most]) {
            Poll::Ready(Ok(0)) => self.read = Read::End,
            Poll::Ready(Ok(n)) => {
                for (i, found) in block[..n].iter().enumerate() {
                    let at = self.got + i as u64;
                    assert_eq!(*found, byte(id, other, at), "stream {id}: byte {at}");
                }
                self.got += n as u64;
            }
            Poll::Ready(Err(_)) => self.read = Read::Error,
            Poll::Pending => return false,
        }
        true
    }
}

// ---- the whole --------------------------------------------------------------------------------------

struct End {
    kind: Kind,
    session: Session,
    used: HashMap<u32, Used>,
    /// Numbers of the streams, in the order in which they came.
    order: Vec<u32>,
    opened: usize,
    may_write: u64,
}

impl End {
    fn add(&mut self, stream: Stream) -> u32 {
        let id = stream.id();
        let before = self.used.insert(id, Used::new(stream));
        assert!(before.is_none(), "stream {id} came twice");
        self.order.push(id);
        id
    }

    fn work(&mut self) -> bool {
        let mut moved = false;
        while let Some(stream) = self.session.poll() {
            self.add(stream);
            moved = true;
        }
        moved
    }
}

struct World {
    ends: [End; 2],
    /// What end 0 sends, and end 1.
    ways: [Arc<Mutex<Way>>; 2],
    /// When the script is over, both ends write until the windows are full, before they read.
    write_first: bool,
}

impl World {
    fn new(kinds: [Kind; 2], mode: u8) -> Self {
        let ways: [Arc<Mutex<Way>>; 2] = Default::default();
        let mut side = Side::Server;
        let ends = [0, 1].map(|end| {
            side = match side {
                Side::Client => Side::Server,
                Side::Server => Side::Client,
            };
            let wire = Wire {
                from: Arc::clone(&ways[1 - end]),
                to: Arc::clone(&ways[end]),
            };
            let kind = kinds[end];
            End {
                kind,
                session: Session::new(kind, side, wire, mode),
                used: HashMap::new(),
                order: Vec::new(),
                opened: 0,
                may_write: WRITTEN_MAX,
            }
        });
        Self {
            ends,
            ways,
            write_first: mode & 4 != 0,
        }
    }

    /// Lets `n` more bytes of what `from` sends be written and arrive. Says whether any arrived.
    fn hand_on(&mut self, from: usize, n: usize) -> bool {
        let mut way = self.ways[from].lock().unwrap();
        way.room = way.room.max(n);
        way.arrived = (way.arrived + n).min(way.bytes.len());
        way.arrived > 0
    }

    fn run(mut self, script: &[u8]) {
        for op in script.chunks_exact(3) {
            let [what, which, value] = *op else { break };
            let this = usize::from(what >> 7);
            let amount = usize::from(value) << (which & 7);
            let end = &mut self.ends[this];
            let id = end
                .order
                .get(usize::from(which) % end.order.len().max(1))
                .copied();
            let used = id.and_then(|id| Some((id, end.used.get_mut(&id)?)));
            match (what % 10, used) {
                (0, _) if end.opened < STREAMS => {
                    end.opened += 1;
                    let stream = end.session.open();
                    let id = end.add(stream);
                    // The crate says nothing of a stream that nothing was written to.
                    if let Some(used) = end.used.get_mut(&id) {
                        used.wanted = 1;
                    }
                }
                (1 | 2, Some((id, used))) if !used.end_wanted => {
                    // A message, or a good part of a window and more.
                    let times = if what % 10 == 1 { 1 } else { 16 };
                    let more = (times * amount as u64).min(end.may_write);
                    end.may_write -= more;
                    used.wanted += more;
                    used.pump(id, this);
                }
                (3, Some((id, used))) => {
                    used.read(id, 1 - this, amount);
                }
                (4, Some((id, used))) => {
                    used.end_wanted = true;
                    used.pump(id, this);
                }
                (5, Some((_, used))) if value < 60 => used.stream = None,
                (6, Some((id, used))) => {
                    used.pump(id, this);
                }
                _ => {
                    self.hand_on(1 - this, amount);
                    self.ends[this].work();
                }
            }
        }
        if self.write_first {
            self.settle(false);
        }
        self.settle(true);
        self.judge();
    }

    /// Everybody does what is wanted, until nothing moves; reads only where `reading`.
    fn settle(&mut self, reading: bool) {
        let mut quiet = 0;
        while quiet < QUIET {
            let mut moved = false;
            for this in [0, 1] {
                moved |= self.hand_on(1 - this, 1 << 20);
                let end = &mut self.ends[this];
                moved |= end.work();
                for (id, used) in &mut end.used {
                    moved |= used.pump(*id, this);
                    while reading && used.read(*id, 1 - this, usize::MAX) {
                        moved = true;
                    }
                }
            }
            quiet = if moved { 0 } else { quiet + 1 };
        }
    }

    fn judge(&self) {
        let kinds = [self.ends[0].kind, self.ends[1].kind];
        for this in [0, 1] {
            let other = 1 - this;
            for (id, reader) in &self.ends[this].used {
                let Some(writer) = self.ends[other].used.get(id) else {
                    // Dropped before its opening left, so the other end never heard of it.
                    let gone = reader.stream.is_none();
                    assert!(gone, "{kinds:?}, stream {id} never arrived");
                    continue;
                };
                let what = || {
                    format!(
                        "{kinds:?}, stream {id}, end {this} read {} bytes of {} written and {} wanted, then {:?}",
                        reader.got, writer.written, writer.wanted, reader.read
                    )
                };
                assert!(reader.got <= writer.written, "{}", what());
                let (here, there) = (reader.stream.is_some(), writer.stream.is_some());
                if here && there {
                    assert_eq!(reader.got, writer.wanted, "{}", what());
                    let want = if writer.end_wanted {
                        Read::End
                    } else {
                        Read::Open
                    };
                    assert_eq!(reader.read, want, "{}", what());
                } else if here && kinds[this] == Kind::Ours {
                    // The crate, dropped behind our end, ends its direction as if it were complete.
                    let as_if = kinds[other] == Kind::Theirs && reader.ended;
                    match reader.read {
                        Read::End => {
                            assert!(writer.ended || as_if, "{}: no end was sent", what());
                            assert_eq!(reader.got, writer.written, "{}", what());
                        }
                        Read::Error => assert!(!writer.ended, "{}: an end was sent", what()),
                        Read::Open => panic!("{}: dropped, and nobody was told", what()),
                    }
                }
            }
        }
    }
}
