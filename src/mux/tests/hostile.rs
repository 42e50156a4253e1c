//! Frames that no peer may send, and floods: what ends the session, when, and with which word.

use std::task::Poll;

use bytes::Bytes;
use cepa_transports::Side;

use super::super::config::Config;
use super::super::error::{MuxError, StreamError, Violation};
use super::super::frame::{Flags, Frame, INITIAL_WINDOW};
use super::super::store::Key;
use super::{One, SECOND};

/// The session ends at the first misdeed, with the code, and sends nothing after that.
#[track_caller]
fn expect(one: &mut One, violation: Violation) {
    assert_eq!(one.violation(), Some(violation));
    assert_eq!(one.take().last(), Some(&Frame::GoAway { code: 1 }));
    one.give(Frame::Ping { value: 1 });
    assert_eq!(one.take(), [], "nothing more");
}

#[test]
fn headers_that_no_peer_may_send_end_the_session() {
    let cases: [([u8; 12], Violation); 7] = [
        ([1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], Violation::Version(1)),
        (*b"HTTP/1.1 400", Violation::Version(b'H')),
        (
            [0, 9, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0],
            Violation::FrameType(9),
        ),
        ([0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 0], Violation::Flags(16)),
        ([0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0], Violation::Flags(3)),
        ([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], Violation::StreamId(0)),
        ([0, 2, 0, 1, 0, 0, 0, 5, 0, 0, 0, 0], Violation::StreamId(5)),
    ];
    for (header, violation) in cases {
        let mut one = One::server();
        one.engine
            .handle_input(one.now, Bytes::copy_from_slice(&header));
        expect(&mut one, violation);
    }
}

#[test]
fn a_stream_with_our_parity_or_opened_twice_ends_the_session() {
    let mut one = One::server();
    one.give(Frame::Window {
        id: 2,
        flags: Flags::SYN,
        value: 0,
    });
    expect(&mut one, Violation::WrongParity(2));
    let mut one = One::server();
    one.syn(1);
    one.give(Frame::Data {
        id: 1,
        flags: Flags::SYN,
        len: 0,
    });
    expect(&mut one, Violation::DuplicateStream(1));
    let mut one = One::server();
    one.give(Frame::Data {
        id: 2,
        flags: Flags::NONE,
        len: 10,
    });
    expect(&mut one, Violation::NeverOpened(2));
}

#[test]
fn more_than_the_window_ends_the_session_before_a_byte_of_it_is_read() {
    let mut one = One::server();
    let key = one.syn(1);
    one.give(Frame::Data {
        id: 1,
        flags: Flags::NONE,
        len: INITIAL_WINDOW,
    });
    one.give_body(INITIAL_WINDOW as usize);
    one.give(Frame::Data {
        id: 1,
        flags: Flags::NONE,
        len: 1,
    });
    assert_eq!(one.violation(), Some(Violation::WindowExceeded(1)));
    // What was within the window can be read, and then comes the error, not an end.
    let mut got = 0;
    let end = loop {
        match one.read(key) {
            Poll::Ready(Ok(Some(piece))) => got += piece.len(),
            other => break other,
        }
    };
    assert_eq!(got, INITIAL_WINDOW as usize);
    assert!(matches!(
        end,
        Poll::Ready(Err(StreamError::Session(MuxError::Protocol(_))))
    ));
    expect(&mut one, Violation::WindowExceeded(1));

    let mut one = One::server();
    one.give(Frame::Data {
        id: 1,
        flags: Flags::SYN,
        len: INITIAL_WINDOW + 1,
    });
    expect(&mut one, Violation::WindowExceeded(1));
}

#[test]
fn credit_beyond_the_protocol_ends_the_session() {
    let mut one = One::server();
    one.syn(1);
    one.give(Frame::Window {
        id: 1,
        flags: Flags::NONE,
        value: u32::MAX - INITIAL_WINDOW,
    });
    assert!(one.engine.end().is_none());
    one.give(Frame::Window {
        id: 1,
        flags: Flags::NONE,
        value: 1,
    });
    expect(&mut one, Violation::CreditOverflow(1));
    let mut one = One::server();
    one.give(Frame::Window {
        id: 1,
        flags: Flags::SYN,
        value: u32::MAX,
    });
    expect(&mut one, Violation::CreditOverflow(1));
}

#[test]
fn anything_after_a_fin_but_credit_ends_the_session() {
    let fin = |one: &mut One| {
        let key = one.syn(1);
        one.give(Frame::Window {
            id: 1,
            flags: Flags::FIN,
            value: 0,
        });
        one.give(Frame::Window {
            id: 1,
            flags: Flags::NONE,
            value: 1000,
        });
        assert!(
            one.engine.end().is_none(),
            "a half-closed peer still grants credit"
        );
        key
    };
    let mut one = One::server();
    fin(&mut one);
    one.give(Frame::Data {
        id: 1,
        flags: Flags::NONE,
        len: 5,
    });
    expect(&mut one, Violation::DataAfterFin(1));
    let mut one = One::server();
    fin(&mut one);
    one.give(Frame::Data {
        id: 1,
        flags: Flags::FIN,
        len: 0,
    });
    expect(&mut one, Violation::FinAfterFin(1));
    // FIN on a data frame takes effect behind its body, however the body is cut.
    let mut one = One::server();
    let key = one.syn(1);
    one.give(Frame::Data {
        id: 1,
        flags: Flags::FIN,
        len: 4,
    });
    one.give_body(3);
    assert!(matches!(one.read(key), Poll::Ready(Ok(Some(piece))) if piece.len() == 3));
    assert!(one.read(key).is_pending(), "not the end yet");
    one.give_body(1);
    assert!(matches!(one.read(key), Poll::Ready(Ok(Some(_)))));
    assert!(matches!(one.read(key), Poll::Ready(Ok(None))));
}

#[test]
fn data_for_streams_that_do_not_exist_is_skipped_up_to_a_bound() {
    let mut one = One::server();
    for _ in 0..16 {
        one.give(Frame::Data {
            id: 77,
            flags: Flags::NONE,
            len: 64 << 10,
        });
        one.give_body(64 << 10);
    }
    assert!(one.engine.end().is_none());
    one.give(Frame::Data {
        id: 79,
        flags: Flags::NONE,
        len: 1,
    });
    expect(&mut one, Violation::StrayData);
}

#[test]
fn what_was_on_the_way_to_streams_that_we_reset_is_no_offence() {
    let mut one = One::server();
    let keys: Vec<Key> = (0..64).map(|i| one.syn(2 * i + 1)).collect();
    for key in &keys {
        one.engine.release(*key);
    }
    let resets = one.take();
    assert_eq!(
        resets
            .iter()
            .filter(|f| matches!(
                f,
                Frame::Window {
                    flags: Flags::RST,
                    ..
                }
            ))
            .count(),
        64
    );
    for key in keys {
        one.give(Frame::Data {
            id: key.id,
            flags: Flags::NONE,
            len: INITIAL_WINDOW,
        });
        one.give_body(INITIAL_WINDOW as usize);
    }
    assert!(one.engine.end().is_none());
    assert_eq!(one.engine.stats().unread, 0);
}

#[test]
fn a_syn_flood_is_refused_and_then_ends_the_session() {
    let mut one = One::server();
    let mut refused = 0;
    for i in 0..100_000u32 {
        one.give(Frame::Window {
            id: 2 * i + 1,
            flags: Flags::SYN,
            value: 0,
        });
        if one.engine.end().is_some() {
            break;
        }
        assert!(one.engine.stats().streams <= 256);
        if i % 100 == 0 {
            refused += one.take().len();
        }
    }
    assert!((1900..=2000).contains(&refused), "{refused}");
    expect(&mut one, Violation::ResetFlood);
}

#[test]
fn rapid_reset_ends_the_session_and_kept_handles_keep_slots() {
    let mut one = One::server();
    let mut kept = Vec::new();
    for i in 0..1_000_000u32 {
        let id = 2 * i + 1;
        one.give(Frame::Window {
            id,
            flags: Flags::SYN,
            value: 0,
        });
        kept.extend(one.engine.accept());
        one.give(Frame::Window {
            id,
            flags: Flags::RST,
            value: 0,
        });
        if one.engine.end().is_some() {
            break;
        }
        assert!(one.engine.stats().streams <= 256);
    }
    assert_eq!(one.violation(), Some(Violation::ResetFlood));
    assert_eq!(kept.len(), 256, "then no slot was free");
    // At a slower pace it goes on for ever.
    let mut one = One::server();
    for i in 0..20_000u32 {
        let id = 2 * i + 1;
        let key = one.syn(id);
        one.give(Frame::Window {
            id,
            flags: Flags::RST,
            value: 0,
        });
        one.engine.release(key);
        one.pass(SECOND / 30);
    }
    assert!(one.engine.end().is_none());
}

#[test]
fn pings_are_answered_first_and_a_flood_of_them_ends_the_session() {
    let mut one = One::server();
    for value in 0..32 {
        one.give(Frame::Ping { value });
    }
    let answers: Vec<Frame> = (0..32).map(|value| Frame::Pong { value }).collect();
    assert_eq!(one.take(), answers);
    let mut given = 0;
    while one.engine.end().is_none() {
        one.give(Frame::Ping { value: given });
        given += 1;
        assert!(given < 2000);
    }
    assert_eq!(given, 32 + 1000 + 1);
    expect(&mut one, Violation::PingFlood);
}

#[test]
fn answers_to_nothing_are_ignored() {
    let mut one = One::server();
    one.give(Frame::Pong { value: 3 });
    one.give(Frame::Window {
        id: 99,
        flags: Flags::NONE,
        value: 5,
    });
    one.give(Frame::Window {
        id: 99,
        flags: Flags::RST,
        value: 5,
    });
    one.give(Frame::Data {
        id: 99,
        flags: Flags::FIN,
        len: 0,
    });
    assert!(one.engine.end().is_none());
    assert_eq!(one.take(), []);
}

/// Opens streams at a pace that is allowed for ever, where every one has to be refused.
fn refused_for(seconds: u32, read: bool) -> One {
    let mut one = One::new(
        Side::Server,
        Config {
            max_inbound_streams: 0,
            ..Config::default()
        },
    );
    for i in 0..seconds * 30 {
        one.give(Frame::Window {
            id: 2 * i + 1,
            flags: Flags::SYN,
            value: 0,
        });
        if one.engine.end().is_some() {
            break;
        }
        if read {
            one.take();
        }
        one.pass(SECOND / 30);
    }
    one
}

#[test]
fn refusals_that_are_not_read_do_not_pile_up() {
    assert!(refused_for(600, true).engine.end().is_none());
    assert_eq!(
        refused_for(600, false).violation(),
        Some(Violation::ResetFlood)
    );
}

#[test]
fn resets_of_ours_do_not_add_up_to_a_right_to_send_nonsense() {
    let give = |one: &mut One, id, len: u32| {
        one.give(Frame::Data {
            id,
            flags: Flags::NONE,
            len,
        });
        one.give_body(len as usize);
    };
    let mut one = One::server();
    for i in 0..10_000 {
        let key = one.syn(2 * i + 1);
        one.engine.release(key);
        one.take();
    }
    // What a stream may still send when it is reset is its own.
    give(&mut one, 19_999, INITIAL_WINDOW);
    assert!(one.engine.end().is_none());
    give(&mut one, 19_999, 1 << 20);
    assert!(
        one.engine.end().is_none(),
        "and then what is allowed to all"
    );
    one.give(Frame::Data {
        id: 50_001,
        flags: Flags::NONE,
        len: 1,
    });
    expect(&mut one, Violation::StrayData);
}
