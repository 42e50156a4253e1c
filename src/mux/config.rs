//! Every limit of the mux, with its default, the reason for it, and the attack it stops. `docs/HOSTILE.md` has them
//! as one table, beside the attacks; a test below holds it to the defaults here.

use std::time::Duration;

use cepa_transports::Rate;

use super::pool::ReceivePool;

/// The limits of one session. Start from [`Config::default`] and change fields.
///
/// Memory that a peer can make this end hold is bounded by `receive_budget` (data that the
/// application does not read), `max_inbound_streams` (bookkeeping), and 32 KiB to 64 KiB of
/// buffers; what this end queues itself by `send_queue` a stream.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Streams of the peer that are accepted and open at once; default 256. Each one is granted 256 KiB
    /// unasked by the protocol (or [`first_window`](Self::first_window)), so this times 256 KiB is what a conformant peer may have unread. A stream counts
    /// until it is closed on the wire *and* dropped by the application; else a peer that opens and
    /// resets makes the application hold any number of dead handles. More wait unanswered in the
    /// [backlog](Self::accept_backlog), which holds back whoever opens. Where there is no memory for unread data, up to
    /// so many of those are handed out all the same: they may have used it up, and nobody else could go on.
    pub max_inbound_streams: usize,
    /// Streams that this end may have open at once; default 1,024. [`Mux::open`](super::Mux::open)
    /// waits for a free one. Stops a runaway caller.
    pub max_outbound_streams: usize,
    /// Streams that wait for [`Mux::accept`](super::Mux::accept) or for room among those that are open; default 256,
    /// because clients written after the spec assume as much, and openings of ours that may be unanswered at the
    /// same time, for the same reason: so a peer with equal limits never has one too many. More are refused with RST.
    pub accept_backlog: usize,
    /// The window that both ends take for granted on each stream, each way, in bytes; default 256 KiB, which the spec of yamux
    /// fixes. It is not on the wire, so both ends must have agreed on it: a [session](crate::session::Session) has 64 KiB
    /// where both ends know how to say so ([`ALPN_SMALL`](crate::stack::ALPN_SMALL)), whatever stands here. Less is less memory for who does not read: a stream
    /// gets 256 KiB when it has carried so much, and more where the path needs it.
    pub first_window: u32,
    /// Receive window of a stream at its beginning, in bytes; default 64 KiB, and [`first_window`](Self::first_window) where that
    /// is more. What is above that is announced with the stream's SYN or ACK, as far as `receive_budget` has room.
    pub receive_window: u32,
    /// A window grows up to this many bytes where the path needs it; default 16 MiB (2.5 Gbit/s at
    /// 50 ms). It grows only by round-trip times that this end measured itself, with ping values
    /// that a peer can not answer in advance.
    pub max_receive_window: u32,
    /// Bytes that unread data of all streams of the session takes in memory; default 64 MiB, which is 256 streams
    /// times 256 KiB, so that no conformant peer is punished. Windows grow only inside it. What is counted is what is
    /// allocated. Beyond it, and a first window for each stream that this end opened, the session does not read from its peer until somebody reads a stream. Stops a
    /// peer from filling memory through streams that nobody reads.
    pub receive_budget: usize,
    /// Where the memory for unread data comes from, beside `receive_budget`: a pool that other sessions use too, for
    /// instance all those of one peer; default none. With a hundred sessions each budget is true, and their sum
    /// is not to be had. A session without room in it stops to read from its peer until there is some.
    pub receive_pool: Option<ReceivePool>,
    /// Bytes that one stream holds for sending before writes wait; default eight full TLS records (almost
    /// 128 KiB): two batches, so that a writer refills while the other half is sent, and no crumbs
    /// behind them. A stream that has sent less than 256 KiB holds no more than
    /// [`first_window`](Self::first_window), where that is less.
    pub send_queue: usize,
    /// Whether what is in flight is bounded by what the path delivers, so that small messages do not
    /// wait in the path's buffers behind bulk; default on. It costs a ping every few records while bulk is
    /// sent, and a round trip or two until the path is known. Peers that do not answer pings get no
    /// bound, and neither do paths that are so near and fast that their queues are shorter than a
    /// timer's tick. Switch it off where the layer below keeps its own queue short and tells so by
    /// taking no more.
    pub pacing: bool,
    /// The rate of a layer below whose flush waits until its queue is short; default none. Then that is
    /// the pacing: bulk goes in records of what the path takes 5 ms for, within 900 B (on slow lines half a second, 450 B at least) and 16 KiB, each when the
    /// one before was flushed, and no ping is spent on it. A [link](crate::link) that knows its line is such a layer.
    pub line_rate: Option<Rate>,
    /// Openings for nothing that the peer may cause (streams that it resets before they were accepted, and openings
    /// that had to be refused): so many at once, default 1,000 … What was accepted is not counted: to leave early is ordinary use.
    pub reset_burst: u32,
    /// … and so many more a second, default 33. Beyond, streams are accepted late, and at twice the burst the session
    /// ends ("rapid reset"). This end keeps to three quarters of the burst when it takes back openings that were not
    /// answered; who opens has to wait then.
    pub reset_rate: u32,
    /// Pings of the peer that wait for their answer; default 32. Answers jump the queue, so more
    /// can wait only where the peer pings and does not read, which must not grow us. What is above
    /// is not answered, and counts against a budget like that of the resets.
    pub queued_pongs: usize,
    /// Bytes for streams that do not exist before the session ends; default 1 MiB, for a whole
    /// session. Not counted is what a stream might still send when this end reset it: that can have
    /// been on the way. Stops a peer from keeping us busy with data that is for nobody.
    pub stray_bytes: u64,
    /// Events that are kept for [`Mux::events`](super::Mux::events) until somebody takes them; default 0: none
    /// is recorded. About 100 B each. What does not fit is counted, so that a peer that makes much
    /// happen can not fill memory through a slow watcher; 1,024 is plenty.
    pub events: usize,
    /// A ping is sent when nothing has come for so long; default 15 s. `None`: never, and no end of
    /// the session for silence either.
    pub keepalive_interval: Option<Duration>,
    /// The session is over when nothing has come for so long; default 30 s.
    pub keepalive_timeout: Duration,
    /// How long a peer that has said so may be silent at most ([`Session::pause`](crate::session::Session::pause)); default
    /// 1 h, zero grants nothing. It is not asked meanwhile, and what its session holds is held for so much longer; a peer that
    /// never comes back, or says so again and again, gets no more than this behind its last word.
    pub pause_limit: Duration,
    /// Time limits that new streams start with.
    pub stream_timeouts: StreamTimeouts,
    /// How long [`Mux::close`](super::Mux::close) takes at most, whatever the peer does; default 2 s. Three quarters of it are for
    /// what streams have queued that were shut down; what a peer does not take by then is lost, and its reader sees that. With a
    /// [`line_rate`](Self::line_rate) it is twice what the line needs for that, where that is more. The rest is for the peer's own end of
    /// the byte stream: closing a TCP socket with unread data destroys what the
    /// peer has not read yet, so the driver reads until the peer is done, but not for ever. With nothing left to say a
    /// close waits for nothing else.
    pub close_timeout: Duration,
}

setters!(Config {
    with_max_inbound_streams => max_inbound_streams: usize,
    with_max_outbound_streams => max_outbound_streams: usize,
    with_accept_backlog => accept_backlog: usize,
    with_first_window => first_window: u32,
    with_receive_window => receive_window: u32,
    with_max_receive_window => max_receive_window: u32,
    with_receive_budget => receive_budget: usize,
    with_receive_pool => receive_pool: Option<ReceivePool>,
    with_send_queue => send_queue: usize,
    with_pacing => pacing: bool,
    with_line_rate => line_rate: Option<Rate>,
    with_reset_burst => reset_burst: u32,
    with_reset_rate => reset_rate: u32,
    with_queued_pongs => queued_pongs: usize,
    with_stray_bytes => stray_bytes: u64,
    with_events => events: usize,
    with_keepalive_interval => keepalive_interval: Option<Duration>,
    with_keepalive_timeout => keepalive_timeout: Duration,
    with_pause_limit => pause_limit: Duration,
    with_stream_timeouts => stream_timeouts: StreamTimeouts,
    with_close_timeout => close_timeout: Duration,
});

impl Default for Config {
    fn default() -> Self {
        Self {
            max_inbound_streams: 256,
            max_outbound_streams: 1024,
            accept_backlog: 256,
            first_window: super::frame::INITIAL_WINDOW,
            receive_window: super::frame::SMALL_WINDOW,
            max_receive_window: 16 << 20,
            receive_budget: 64 << 20,
            receive_pool: None,
            send_queue: 8 * (super::batch::TLS_RECORD - super::frame::HEADER_LEN),
            pacing: true,
            line_rate: None,
            reset_burst: 1000,
            reset_rate: 33,
            queued_pongs: 32,
            stray_bytes: 1 << 20,
            events: 0,
            keepalive_interval: Some(Duration::from_secs(15)),
            keepalive_timeout: Duration::from_secs(30),
            pause_limit: Duration::from_secs(60 * 60),
            stream_timeouts: StreamTimeouts::default(),
            close_timeout: Duration::from_secs(2),
        }
    }
}

/// Time limits of one stream. A stream that reaches one is reset, and its reads and writes say why.
///
/// By default a stream that the application holds has only that on its opening: a reader that pauses and an answer that takes its
/// time are no faults, and windows bound what they cost. Who wants other limits sets them for the session or with
/// [`Substream::set_timeouts`](super::Substream::set_timeouts). A stream that nobody holds any more, because its handle was dropped
/// after `shutdown`, is reset after 60 s without progress in any case: nobody could end it otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamTimeouts {
    /// The peer has not answered the opening; default 30 s.
    pub open: Option<Duration>,
    /// One direction is closed, nothing waits to be read here, and no frame has come or gone;
    /// default none.
    pub half_closed: Option<Duration>,
    /// Data waits, and the peer has granted no credit; default none.
    pub write_stalled: Option<Duration>,
}

impl StreamTimeouts {
    /// No limits.
    pub const NONE: Self = Self {
        open: None,
        half_closed: None,
        write_stalled: None,
    };
}

impl Default for StreamTimeouts {
    fn default() -> Self {
        Self {
            open: Some(Duration::from_secs(30)),
            half_closed: None,
            write_stalled: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(n: u64) -> String {
        if n >= 1 << 20 {
            format!("{} MiB", n >> 20)
        } else {
            format!("{} KiB", n >> 10)
        }
    }

    fn time(time: impl Into<Option<Duration>>) -> String {
        time.into()
            .map_or("none".into(), |time| format!("{} s", time.as_secs()))
    }

    /// Each field is taken by name, so that a new one is missed here before it is missed there.
    #[test]
    fn the_page_about_hostile_peers_has_every_limit_and_its_default() {
        let Config {
            max_inbound_streams,
            max_outbound_streams,
            accept_backlog,
            first_window,
            receive_window,
            max_receive_window,
            receive_budget,
            receive_pool,
            send_queue,
            pacing,
            line_rate,
            reset_burst,
            reset_rate,
            queued_pongs,
            stray_bytes,
            events,
            keepalive_interval,
            keepalive_timeout,
            pause_limit,
            stream_timeouts:
                StreamTimeouts {
                    open,
                    half_closed,
                    write_stalled,
                },
            close_timeout,
        } = Config::default();
        let page = include_str!("../../docs/HOSTILE.md");
        for (name, value) in [
            ("max_inbound_streams", max_inbound_streams.to_string()),
            ("max_outbound_streams", max_outbound_streams.to_string()),
            ("accept_backlog", accept_backlog.to_string()),
            ("first_window", bytes(first_window.into())),
            ("receive_window", bytes(receive_window.into())),
            ("max_receive_window", bytes(max_receive_window.into())),
            ("receive_budget", bytes(receive_budget as u64)),
            (
                "receive_pool",
                receive_pool.map_or("none".into(), |pool| bytes(pool.limit() as u64)),
            ),
            ("send_queue", bytes(send_queue as u64)),
            ("pacing", pacing.to_string()),
            (
                "line_rate",
                line_rate.map_or("none".into(), |rate| rate.to_string()),
            ),
            ("reset_burst", reset_burst.to_string()),
            ("reset_rate", reset_rate.to_string()),
            ("queued_pongs", queued_pongs.to_string()),
            ("stray_bytes", bytes(stray_bytes)),
            ("events", events.to_string()),
            ("keepalive_interval", time(keepalive_interval)),
            ("keepalive_timeout", time(keepalive_timeout)),
            ("pause_limit", time(pause_limit)),
            ("stream_timeouts.open", time(open)),
            ("stream_timeouts.half_closed", time(half_closed)),
            ("stream_timeouts.write_stalled", time(write_stalled)),
            ("close_timeout", time(close_timeout)),
        ] {
            let row = format!("| `{name}` | {value} |");
            assert!(page.contains(&row), "docs/HOSTILE.md lacks {row}");
        }
    }
}
