//! Whatever comes over a line that is looked at: noise, and another end that means harm. Neither end of a probe
//! may panic, keep more than a few kilobytes, or print nonsense.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::engine::{Answerer, Asker, BLOCKS_MAX};
use super::report;
use super::wire::{self, Line};

/// Bytes that an end may hold: two alphabets and a line are on their way at most, and the longest item that may
/// still become one is kept.
const HELD: usize = 2 * (256 * 8 + 64) + 1024;

/// Words of questions and answers, and others.
fn word() -> impl Strategy<Value = String> {
    let known = [
        "hello", "ping", "arm", "row", "count", "alphabet", "blocks", "a", "q", "",
    ];
    prop_oneof![
        prop::sample::select(known.to_vec()).prop_map(str::to_owned),
        (0..16u8).prop_map(|n| format!("{n:x}")),
        any::<u64>().prop_map(|n| format!("{n:x}")),
        "[.x7!?]{0,20}",
        "[ -~]{0,30}",
        any::<String>(),
    ]
}

fn line() -> impl Strategy<Value = Vec<u8>> {
    let id = prop_oneof![4 => Just(7u16), 1 => any::<u16>()];
    let words = prop::collection::vec(word(), 0..6);
    (id, any::<bool>(), words).prop_map(|(id, is_answer, words)| {
        Line {
            id,
            is_answer,
            words,
        }
        .encode()
    })
}

/// What an honest end says at a step, so that the steps behind it are reached too.
fn honest() -> impl Strategy<Value = Vec<u8>> {
    let said = |words: String, is_answer| {
        let words = words.split(' ').map(str::to_owned).collect();
        Line {
            id: 7,
            is_answer,
            words,
        }
        .encode()
    };
    let fates = "[.x7!?]{16}";
    let words = prop_oneof![
        Just("hello 1".to_owned()),
        (0..10u8).prop_map(|n| format!("ping {n:x}")),
        Just("arm".to_owned()),
        (0..16u8, fates).prop_map(|(row, fates)| format!("row {row:x} {fates}")),
        any::<[u64; 3]>().prop_map(|[a, b, c]| format!("count {a:x} {b:x} {c:x}")),
        Just("alphabet".to_owned()),
        any::<u16>().prop_map(|n| format!("blocks {n:x}")),
    ];
    (words, any::<bool>()).prop_map(move |(words, is_answer)| said(words, is_answer))
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    let whole = prop_oneof![
        line(),
        honest(),
        Just(wire::alphabet()),
        any::<u16>().prop_map(wire::block),
        prop::collection::vec(any::<u8>(), 0..200),
        // What begins every kind of item, again and again.
        prop::collection::vec(prop::sample::select(b"#<@\n cp1:>0f".to_vec()), 0..300),
        Just(b"#cp1 ".repeat(200)),
    ];
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (whole, damage, any::<bool>()).prop_map(|(mut bytes, damage, cut)| {
        for (at, byte) in damage {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] ^= byte;
                if cut {
                    bytes.truncate(at);
                }
            }
        }
        bytes
    })
}

/// Bytes, milliseconds that pass behind them, and how many pieces the line takes then.
fn steps() -> impl Strategy<Value = Vec<(Vec<u8>, u64, usize)>> {
    let time = prop_oneof![0..50u64, Just(0), any::<u32>().prop_map(u64::from)];
    prop::collection::vec((piece(), time, 0..20usize), 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn an_answerer_holds_little_whatever_comes(steps in steps()) {
        let mut now = Instant::now();
        let mut answerer = Answerer::default();
        for (bytes, pause, takes) in steps {
            answerer.handle_input(now, &bytes);
            prop_assert!(answerer.held() <= HELD, "{}", answerer.held());
            now += Duration::from_millis(pause);
            for _ in 0..takes {
                let Some(out) = answerer.poll_transmit() else {
                    break;
                };
                prop_assert!(!out.is_empty() && out.len() <= HELD);
            }
        }
        // It comes to an end with what it was asked for, and then answers again.
        let most = usize::from(BLOCKS_MAX) + 8;
        prop_assert!((0..most).any(|_| answerer.poll_transmit().is_none()));
        let hello = Line { id: 9, is_answer: false, words: vec!["hello".into(), "1".into()] };
        // Asked again, as an asker does: the first time may be taken for the rest of a block, or find the
        // answerer at work for a question that came out from behind one.
        let answered = (0..3).any(|_| {
            answerer.handle_input(now, &hello.encode());
            let said: Vec<u8> = std::iter::from_fn(|| answerer.poll_transmit()).flatten().collect();
            said.windows(15).any(|piece| piece == b"a 0009 hello 1 ")
        });
        prop_assert!(answered);
    }

    #[test]
    fn an_asker_holds_little_and_what_it_finds_can_be_shown(
        steps in steps(),
        blocks in any::<u16>(),
        in_order in any::<bool>(),
    ) {
        let mut now = Instant::now();
        let mut asker = Asker::new(7, blocks, 11_520.0, now);
        let mut all: Vec<_> = steps;
        if in_order {
            // Somebody who answers each question as soon as it could be asked, whatever it is.
            let said = |words: &str| Line {
                id: 7,
                is_answer: true,
                words: words.split(' ').map(str::to_owned).collect(),
            };
            let mut words = vec!["hello 1".to_owned()];
            words.extend((0..10).map(|n| format!("ping {n:x}")));
            words.push("arm".to_owned());
            words.extend((0..16).map(|n| format!("row {n:x} .x7!?............")));
            words.push("count ffffffffffffffff ffffffffffffffff ffffffffffffffff".to_owned());
            words.extend(["alphabet".to_owned(), "blocks 0".to_owned()]);
            let answers = words.iter().map(|words| (said(words).encode(), 1, 3));
            all.splice(0..0, answers);
        }
        for (bytes, pause, takes) in all {
            asker.handle_input(now, &bytes);
            prop_assert!(asker.held() <= HELD, "{}", asker.held());
            now += Duration::from_millis(pause);
            for _ in 0..takes {
                let _ = asker.poll_transmit();
            }
            asker.handle_timeout(now);
        }
        if in_order {
            prop_assert!(asker.findings().is_some());
        }
        if let Some(findings) = asker.findings() {
            let table = report::table(findings, None);
            prop_assert!(!table.contains("NaN") && !table.contains("inf"), "{}", table);
            prop_assert!(table.chars().all(|c| c == '\n' || !c.is_control()));
            let json = report::json(findings, None);
            for way in ["there", "back"] {
                let frame = json[way]["best_frame"].as_u64();
                prop_assert!(frame.is_some_and(|n| (24..=1024).contains(&n)), "{}", json);
                for rate in ["bit_error_rate", "lost_bytes_rate"] {
                    let rate = json[way][rate].as_f64();
                    prop_assert!(rate.is_some_and(|n| (0.0..=1.0).contains(&n)), "{}", json);
                }
            }
        }
    }
}
