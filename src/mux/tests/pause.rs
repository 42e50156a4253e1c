//! A peer that has said that it will be silent, in a time that is made up.

use std::time::Duration;

use super::super::config::Config;
use super::super::error::MuxError;
use super::super::frame::Frame;
use super::{One, SECOND};

const HOUR: Duration = Duration::from_secs(3600);

fn is_given_up(one: &One) -> bool {
    match one.engine.end() {
        None => false,
        Some(MuxError::KeepaliveTimeout { .. }) => true,
        Some(other) => panic!("{other}"),
    }
}

/// Lets the time pass from one deadline of the engine to the next, as its driver does.
fn run(one: &mut One, time: Duration) -> Vec<Frame> {
    let until = one.now + time;
    let mut frames = one.take();
    while let Some(at) = one.engine.poll_timeout().filter(|at| *at <= until) {
        one.now = at.max(one.now);
        one.engine.handle_timeout(one.now);
        frames.extend(one.take());
    }
    one.now = until;
    frames
}

fn word(one: &mut One) {
    one.give(Frame::Pong { value: 0 });
}

#[test]
fn a_peer_that_pauses_is_not_asked_and_not_missed_until_its_time_is_over() {
    for (wanted, granted) in [
        (600 * SECOND, 600 * SECOND),
        (HOUR, HOUR),
        (9 * HOUR, HOUR),
        (Duration::MAX, HOUR),
    ] {
        for asked_before in [false, true] {
            let mut one = One::server();
            if asked_before {
                assert!(matches!(
                    run(&mut one, 20 * SECOND)[..],
                    [Frame::Ping { .. }]
                ));
            }
            let now = one.now;
            assert_eq!(one.engine.peer_pauses(now, wanted).1, granted);
            assert!(one.engine.stats().peer_pauses);
            assert_eq!(run(&mut one, granted.saturating_sub(SECOND)), []);
            assert!(!is_given_up(&one));
            // Then it is asked, and has as long for its answer as ever.
            assert!(matches!(run(&mut one, SECOND)[..], [Frame::Ping { .. }]));
            assert!(!one.engine.stats().peer_pauses);
            assert_eq!(run(&mut one, 14 * SECOND), []);
            assert!(!is_given_up(&one));
            run(&mut one, SECOND);
            assert!(is_given_up(&one), "{wanted:?}");
        }
    }
}

#[test]
fn behind_a_pause_silence_counts_as_before() {
    let mut one = One::server();
    let now = one.now;
    let (number, _) = one.engine.peer_pauses(now, HOUR);
    assert_eq!(run(&mut one, 1000 * SECOND), []);
    word(&mut one);
    one.engine.peer_resumes(number);
    assert!(
        one.engine.wants_transmit(),
        "the driver has to set its timer anew"
    );
    assert_eq!(run(&mut one, 14 * SECOND), []);
    assert!(matches!(run(&mut one, SECOND)[..], [Frame::Ping { .. }]));
    run(&mut one, 14 * SECOND);
    assert!(!is_given_up(&one));
    run(&mut one, SECOND);
    assert!(is_given_up(&one));
    // A pause that is shorter than the silence that is borne anyway changes nothing.
    let mut one = One::server();
    let now = one.now;
    one.engine.peer_pauses(now, 5 * SECOND);
    assert_eq!(run(&mut one, 14 * SECOND), []);
    assert!(matches!(run(&mut one, SECOND)[..], [Frame::Ping { .. }]));
    run(&mut one, 15 * SECOND);
    assert!(is_given_up(&one));
}

/// Its end comes from the session above, which may have no word of the peer to go by.
#[test]
fn a_pause_that_is_taken_back_without_a_word_asks_before_it_gives_up() {
    let mut one = One::server();
    let now = one.now;
    let (number, _) = one.engine.peer_pauses(now, HOUR);
    run(&mut one, 1000 * SECOND);
    one.engine.peer_resumes(number);
    assert!(matches!(run(&mut one, SECOND)[..], [Frame::Ping { .. }]));
    run(&mut one, 13 * SECOND);
    assert!(!is_given_up(&one));
    run(&mut one, SECOND);
    assert!(is_given_up(&one));
}

#[test]
fn the_end_of_a_pause_does_not_end_the_one_behind_it() {
    let mut one = One::server();
    let now = one.now;
    let (first, _) = one.engine.peer_pauses(now, HOUR);
    let (second, _) = one.engine.peer_pauses(now, HOUR);
    one.engine.peer_resumes(first);
    run(&mut one, 3599 * SECOND);
    assert!(!is_given_up(&one));
    one.engine.peer_resumes(second);
    run(&mut one, 15 * SECOND);
    assert!(is_given_up(&one));
}

/// It has to speak to ask, and its silence behind its last word is never longer than the limit and a question.
#[test]
fn a_peer_that_asks_for_ever_gets_the_limit_behind_its_last_word() {
    let mut one = One::server();
    for _ in 0..10_000 {
        word(&mut one);
        let now = one.now;
        assert_eq!(one.engine.peer_pauses(now, Duration::MAX).1, HOUR);
        run(&mut one, SECOND / 10);
    }
    run(&mut one, HOUR + 149 * SECOND / 10);
    assert!(is_given_up(&one));
}

#[test]
fn an_end_may_grant_less_or_nothing() {
    for limit in [60 * SECOND, Duration::ZERO] {
        let config = Config::default().with_pause_limit(limit);
        let mut one = One::new(cepa_transports::Side::Server, config);
        let now = one.now;
        assert_eq!(one.engine.peer_pauses(now, HOUR).1, limit);
        run(&mut one, limit.max(15 * SECOND) + 14 * SECOND);
        assert!(!is_given_up(&one), "{limit:?}");
        run(&mut one, SECOND);
        assert!(is_given_up(&one), "{limit:?}");
    }
}

/// It may grant a pause that is longer than this end sleeps itself.
#[test]
fn an_end_that_slept_through_the_pause_of_its_peer_asks_once_more() {
    let mut one = One::server();
    let now = one.now;
    one.engine.peer_pauses(now, 600 * SECOND);
    one.now += 10 * HOUR;
    let now = one.now;
    one.engine.handle_timeout(now);
    assert!(matches!(one.take()[..], [Frame::Ping { .. }]));
    run(&mut one, 14 * SECOND);
    assert!(!is_given_up(&one));
    run(&mut one, SECOND);
    assert!(is_given_up(&one));
}
