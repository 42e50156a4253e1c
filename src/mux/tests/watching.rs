//! What those who watch a session are told, and that watching costs no more than it may.

use std::time::Duration;

use cepa_transports::Side;

use super::super::code::GoAwayCode;
use super::super::config::Config;
use super::super::engine::Engine;
use super::super::error::{MuxError, StreamError, Violation};
use super::super::event::{Event, Limit};
use super::super::frame::{Flags, Frame};
use super::{CLIENT, One, Pair, SERVER};

fn watched(mut config: Config) -> Config {
    config.events = 100;
    config
}

/// What was told, a word or two each.
fn reported(engine: &mut Engine) -> Vec<String> {
    std::iter::from_fn(|| engine.take_event())
        .map(|event| match event {
            Event::Opened { id, by_peer } => format!("opened {id} by peer {by_peer}"),
            Event::Accepted { id } => format!("accepted {id}"),
            Event::Closed {
                id, failure, stats, ..
            } => {
                let how = failure.map_or("clean".to_owned(), |failure| failure.to_string());
                format!(
                    "closed {id} in {} out {} {how}",
                    stats.data_in, stats.data_out
                )
            }
            Event::Refused { id, limit } => format!("refused {id} {limit:?}"),
            Event::LimitReached { limit } => format!("limit {limit:?}"),
            Event::Ended { reason } => format!("ended: {reason}"),
            Event::Lost { count } => format!("lost {count}"),
        })
        .collect()
}

fn syn(id: u32) -> Frame {
    Frame::Window {
        id,
        flags: Flags::SYN,
        value: 0,
    }
}

#[test]
fn the_life_of_streams_is_reported_at_both_ends_with_their_last_counters() {
    let mut pair = Pair::new(watched(Config::default()), Duration::ZERO);
    let (here, there) = pair.open();
    pair.ends[CLIENT].write(here, vec![1; 1000].into());
    pair.ends[CLIENT].shutdown(here).unwrap();
    pair.settle();
    pair.read_all(SERVER, there);
    pair.ends[SERVER].write(there, vec![2; 50].into());
    pair.ends[SERVER].shutdown(there).unwrap();
    pair.settle();
    pair.read_all(CLIENT, here);
    assert_eq!(reported(&mut pair.ends[CLIENT]), ["opened 1 by peer false"]);
    pair.ends[CLIENT].release(here);
    pair.ends[SERVER].release(there);
    let (here, _there) = pair.open();
    pair.ends[CLIENT].reset(here, 3);
    pair.settle();
    pair.ends[CLIENT].release(here);
    pair.ends[CLIENT].close(GoAwayCode::Normal);
    pair.settle();
    assert_eq!(
        reported(&mut pair.ends[CLIENT]),
        [
            "closed 1 in 50 out 1000 clean",
            "opened 3 by peer false",
            "closed 3 in 0 out 0 the stream was reset at this end",
            "ended: the session was closed at this end",
        ]
    );
    assert!(pair.ends[CLIENT].is_over());
    assert_eq!(
        reported(&mut pair.ends[SERVER]),
        [
            "opened 1 by peer true",
            "accepted 1",
            "closed 1 in 1000 out 50 clean",
            "opened 3 by peer true",
            "accepted 3",
        ]
    );
}

#[test]
fn streams_that_a_dead_session_leaves_are_reported_when_they_are_dropped() {
    let mut one = One::new(Side::Server, watched(Config::default()));
    let key = one.syn(1);
    one.give(Frame::Data {
        id: 2,
        flags: Flags::NONE,
        len: 1,
    });
    let reason = MuxError::Protocol(Violation::NeverOpened(2));
    assert_eq!(
        reported(&mut one.engine),
        [
            "opened 1 by peer true".to_owned(),
            "accepted 1".to_owned(),
            format!("ended: {reason}"),
        ]
    );
    assert!(!one.engine.is_over(), "somebody holds a stream");
    one.engine.release(key);
    let failure = StreamError::Session(reason);
    assert_eq!(
        reported(&mut one.engine),
        [format!("closed 1 in 0 out 0 {failure}")]
    );
    assert!(one.engine.is_over());
}

#[test]
fn each_limit_has_its_name() {
    let refusal = |config: Config, streams: u32, before: fn(&mut One)| {
        let mut one = One::new(Side::Server, watched(config));
        before(&mut one);
        for i in 0..=streams {
            one.give(syn(2 * i + 1));
        }
        let reported = reported(&mut one.engine);
        reported.last().unwrap().clone()
    };
    let few = |inbound, backlog| Config {
        max_inbound_streams: inbound,
        accept_backlog: backlog,
        ..Config::default()
    };
    let no_more = |limit: Limit, id| format!("refused {id} {limit:?}");
    let waits = refusal(few(2, 9), 2, |one| {
        for id in [101, 103] {
            one.syn(id);
        }
        reported(&mut one.engine);
    });
    assert_eq!(waits, "opened 5 by peer true");
    let refused = refusal(few(0, 2), 2, |_| {});
    assert_eq!(refused, no_more(Limit::InboundStreams, 5));
    let refused = refusal(few(9, 2), 2, |_| {});
    assert_eq!(refused, no_more(Limit::Backlog, 5));
    let refused = refusal(Config::default(), 0, |one| {
        one.engine.go_away(GoAwayCode::Normal);
    });
    assert_eq!(refused, no_more(Limit::Closing, 1));

    let mut one = One::new(Side::Server, watched(few(9, 2)));
    for value in 0..33 {
        one.give(Frame::Ping { value });
    }
    for _ in 0..3 {
        let _ = one.engine.open(one.now).unwrap();
    }
    one.engine.handle_eof();
    assert_eq!(
        reported(&mut one.engine),
        [
            "limit QueuedPongs",
            "opened 2 by peer false",
            "opened 4 by peer false",
            "limit Unanswered",
            "ended: the connection ended without a go-away, so it was cut",
        ]
    );
    let config = Config {
        max_outbound_streams: 0,
        ..Config::default()
    };
    let mut one = One::new(Side::Client, watched(config));
    assert!(one.engine.open(one.now).unwrap().is_none());
    assert_eq!(reported(&mut one.engine), ["limit OutboundStreams"]);
}

#[test]
fn a_peer_that_makes_much_happen_is_counted_and_fills_nothing() {
    let mut one = One::new(Side::Server, watched(Config::default()));
    for i in 0..100_000 {
        one.give(syn(2 * i + 1));
    }
    let reported = reported(&mut one.engine);
    // 256 opened, 1,000 refused, the one that was too much, and word of it.
    assert_eq!(reported.len(), 102);
    assert_eq!(reported[100], "lost 1158");
    assert!(reported[101].starts_with("ended: "), "{}", reported[101]);

    // Nobody watches: nothing is kept.
    let mut one = One::server();
    one.syn(1);
    one.engine.handle_eof();
    assert!(one.engine.take_event().is_none());
}

#[test]
fn the_streams_of_a_session_are_listed_oldest_first_with_what_they_are_for() {
    let mut pair = Pair::new(Config::default(), Duration::ZERO);
    let (first, there) = pair.open();
    pair.ends[CLIENT].set_label(first, "up");
    pair.ends[SERVER].set_label(there, "up");
    let (second, _) = pair.open();
    pair.ends[CLIENT].set_label(second, "db");
    pair.ends[CLIENT].set_label(second, "up");
    pair.ends[CLIENT].write(first, vec![1; 1000].into());
    pair.settle();
    let shown = |end: &Engine, most| -> Vec<_> {
        let all = end.streams(pair.now, most).into_iter();
        all.map(|it| {
            let label = it.label.as_deref().unwrap_or("-").to_owned();
            (
                it.id,
                it.by_peer,
                label,
                it.stats.data_out,
                it.stats.data_in,
            )
        })
        .collect()
    };
    let up = || "up".to_owned();
    let client = &pair.ends[CLIENT];
    let all = [(1, false, up(), 1000, 0), (3, false, up(), 0, 0)];
    assert_eq!(shown(client, 10), all);
    assert_eq!(shown(client, 1), all[..1]);
    assert_eq!(shown(client, 0), []);
    let server = &pair.ends[SERVER];
    let all = [(1, true, up(), 0, 1000), (3, true, "-".to_owned(), 0, 0)];
    assert_eq!(shown(server, 2), all);
    for n in 0..100 {
        pair.ends[CLIENT].set_label(second, &n.to_string());
    }
    let last = pair.ends[CLIENT].streams(pair.now, 9).pop().unwrap();
    assert_eq!(last.label.as_deref(), Some("99"));
}
