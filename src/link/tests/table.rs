//! Every state of an engine and what each event does to it, as a table that a change of any transition shows in:
//! `engine_table.txt`. What openings do is in `opening_table.txt` besides.
//!
//! A row has the event, what is sent at that moment, what has become of the link, and when it wakes by itself.

use std::fmt::Write as _;

use cepa_transports::endpoint::Duplex;

use super::super::codec::{Decoder, Escapes, FrameCheck, Piece, encode, unescape};
use super::super::error::LinkError;
use super::super::frame::{Ack, Frame, Handed, Hello, Place, Width};
use super::*;
use crate::table_file::matches_file;

const OURS: u64 = 1;
const PEER: u64 = 2;
const STRANGER: u64 = 3;

const STATES: [&str; 15] = [
    "opening",
    "silent until it hears an opening",
    "opening, the other end heard",
    "connected, idle",
    "connected, data under way",
    "connected, data lost",
    "connected, the other end's window full",
    "connected, bytes to read",
    "connected, something missing",
    "connected, our end under way",
    "connected, the other end has ended",
    "both have ended",
    "failed",
    "half duplex, our turn",
    "half duplex, their turn, data under way",
];

/// The world of one row: an engine, what its peer would send, and the time.
struct Row {
    engine: Engine,
    now: Instant,
    half: bool,
}

impl Row {
    fn new(side: Side, half: bool) -> Self {
        let now = Instant::now();
        let config = Config {
            window: 10,
            duplex: if half { Duplex::Half } else { Duplex::Full },
            ..known(11_520.0)
        };
        Self {
            engine: Engine::new(side, &config, OURS, now),
            now,
            half,
        }
    }

    fn after(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    fn place() -> Place {
        Place {
            receive_next: 0,
            receive_width: Width::of_window(10),
            send_base: 0,
            send_width: Width::of_window(10),
        }
    }

    fn hears(&mut self, frame: &Frame<'_>, seal: &FrameCheck) {
        let (mut body, mut wire) = (Vec::new(), Vec::new());
        frame.emit(Self::place(), &mut body);
        encode(&body, seal, Escapes::Control, true, &mut wire);
        self.engine.handle_input(self.now, &wire);
    }

    fn peer(&mut self, frame: &Frame<'_>) {
        self.hears(frame, &FrameCheck::epoch(PEER, OURS));
    }

    fn open(&mut self, nonce: u64, echo: u64, unsure: bool) {
        let open = Hello {
            busy: false,
            unsure,
            half: self.half,
            escapes: 0,
            window: 10,
            payload: 1024,
            nonce,
            echo,
            mtu: 0,
        };
        self.hears(&Frame::Hello(open), &FrameCheck::opening());
    }

    fn data(&mut self, offset: u64, payload: &[u8], fin: bool) {
        self.peer(&Frame::Data {
            offset,
            payload,
            fin,
            ack: None,
        });
    }

    fn ack(&mut self, next: u64, held: u64, range: Option<(u64, u64)>) {
        let ranges = range.into_iter().map(|(from, to)| from..to).collect();
        self.peer(&Frame::Ack(Ack { next, held, ranges }));
    }

    fn turn(&mut self, answer: u8, next: u64) {
        self.peer(&Frame::Turn(Handed {
            number: 1,
            answer,
            more: false,
            ack: Ack {
                next,
                ..Ack::default()
            },
        }));
    }

    /// What is sent now, in words.
    fn sent(&mut self) -> String {
        let (mut wire, mut words) = (Vec::new(), Vec::new());
        self.engine.handle_timeout(self.now);
        while self.engine.poll_transmit(self.now, &mut wire) {}
        let mut decoder = Decoder::default();
        // The first flag may have been left out.
        wire.insert(0, FLAG);
        let mut rest = &wire[..];
        while let Some(Piece::Candidate { raw, .. }) = decoder.next(&mut rest) {
            let body = unescape(&raw, Escapes::Least).unwrap();
            let seals = [FrameCheck::opening(), FrameCheck::epoch(OURS, PEER)];
            let body = seals.iter().find_map(|seal| seal.check(&body)).unwrap();
            words.push(match Frame::parse(body, Self::place()).unwrap() {
                Frame::Hello(open) => format!(
                    "OPEN{}{} to {}",
                    if open.busy { " busy" } else { "" },
                    if open.unsure { " unsure" } else { "" },
                    ["nobody", "itself", "peer", "stranger"][open.echo as usize]
                ),
                Frame::Data {
                    offset,
                    payload,
                    fin,
                    ack,
                } => format!(
                    "DATA {offset}+{}{}{}",
                    payload.len(),
                    if fin { " end" } else { "" },
                    ack.map_or(String::new(), |ack| shown(&ack))
                ),
                Frame::Ack(ack) => format!("ACK{}", shown(&ack)),
                Frame::Ping(id) => format!("PING {id}"),
                Frame::Pong(id, ack) => format!("PONG {id}{}", shown(&ack)),
                Frame::Reset => "RESET".to_owned(),
                Frame::Turn(turn) => format!(
                    "TURN {} answers {}{}{}",
                    turn.number,
                    turn.answer,
                    if turn.more { ", more" } else { "" },
                    shown(&turn.ack)
                ),
            });
        }
        if words.is_empty() {
            "-".to_owned()
        } else {
            words.join(", ")
        }
    }

    /// What has become of it.
    fn shown(&mut self) -> String {
        let sent = self.sent();
        let engine = &mut self.engine;
        let mut text = sent;
        match engine.end() {
            Some(End::Closed) => text += "; closed",
            Some(End::Failed(error)) => write!(text, "; failed: {}", name(error)).unwrap(),
            None => {}
        }
        let chatter = engine.take_chatter().len();
        let readable = engine.read(usize::MAX, |_| {});
        if readable > 0 {
            write!(text, "; reads {readable}").unwrap();
        }
        if engine.is_read_out() {
            text += "; read out";
        }
        if engine.is_finished() {
            text += "; finished";
        }
        if chatter > 0 {
            write!(text, "; {chatter} of chatter").unwrap();
        }
        if engine.stats().lost > 0 {
            write!(text, "; {} lost", engine.stats().lost).unwrap();
        }
        if let Some(at) = engine.poll_timeout(self.now, Waits::default(), false) {
            let ms = at.saturating_duration_since(self.now).as_millis();
            write!(text, "; wakes in {ms} ms").unwrap();
        }
        text
    }
}

fn shown(ack: &Ack) -> String {
    let mut text = format!(" ={}", ack.next);
    if ack.held > 0 {
        write!(text, " held {}", ack.held).unwrap();
    }
    for range in &ack.ranges {
        write!(text, " {range:?}").unwrap();
    }
    text
}

fn name(error: &LinkError) -> &'static str {
    match error {
        LinkError::Restarted => "restarted",
        LinkError::Reset => "reset",
        LinkError::Silent { .. } => "silent",
        LinkError::Version { .. } => "version",
        LinkError::Truncated => "truncated",
        LinkError::Io(_) => "io",
        LinkError::DriverGone => "driver gone",
    }
}

/// The engine in this state, all that was to be sent before having gone.
fn state(name: &str) -> Row {
    let half = name.starts_with("half");
    if name.starts_with("silent") {
        return Row::new(Side::Server, false);
    }
    let mut row = Row::new(Side::Client, half);
    row.sent();
    row.after(10);
    match name {
        "opening" => return row,
        "opening, the other end heard" => {
            row.open(PEER, 0, true);
            row.sent();
            row.after(10);
            return row;
        }
        _ => row.open(PEER, OURS, true),
    }
    if name != "half duplex, our turn" {
        row.sent();
        row.after(10);
    }
    match name {
        "connected, data under way" => {
            row.engine.write(row.now, b"hello");
        }
        "connected, data lost" => {
            for word in [b"one..", b"two.."] {
                row.engine.write(row.now, word);
                row.sent();
                row.after(10);
            }
            row.ack(0, 0, Some((5, 10)));
            return row;
        }
        "connected, the other end's window full" => {
            for _ in 0..3 {
                row.engine.write(row.now, &[7; 500]);
                row.sent();
                row.after(100);
            }
            row.ack(1024, 1024, None);
        }
        "connected, bytes to read" => row.data(0, &[7; 600], false),
        "connected, something missing" => row.data(5, b"later", false),
        "connected, our end under way" => {
            row.engine.write(row.now, b"hello");
            row.engine.finish();
        }
        "connected, the other end has ended" => row.data(0, b"bye", true),
        "both have ended" => {
            row.engine.finish();
            row.sent();
            row.data(0, b"bye", true);
            row.ack(1, 0, None);
        }
        "failed" => row.peer(&Frame::Reset),
        "half duplex, their turn, data under way" => {
            row.engine.write(row.now, b"hello");
            // The first turn was held with nothing to say until now.
            row.sent();
            row.after(20);
        }
        _ => {}
    }
    if name != "half duplex, our turn" {
        row.sent();
        row.after(10);
    }
    row
}

type Event = fn(&mut Row);

const EVENTS: [(&str, Event); 34] = [
    ("OPEN of the peer, unsure", |row| row.open(PEER, OURS, true)),
    ("OPEN of the peer", |row| row.open(PEER, OURS, false)),
    ("OPEN of a stranger, unsure", |row| {
        row.open(STRANGER, 0, true);
    }),
    ("OPEN of a stranger that echoes us", |row| {
        row.open(STRANGER, OURS, true);
    }),
    ("OPEN of ours, reflected", |row| row.open(OURS, PEER, true)),
    ("DATA, the next", |row| row.data(0, b"01234", false)),
    ("DATA, the next and the end", |row| {
        row.data(0, b"01234", true);
    }),
    ("DATA, further on", |row| row.data(20, b"01234", false)),
    ("DATA, what was missing", |row| row.data(0, b"abcde", false)),
    ("DATA beyond the window", |row| {
        row.data(2000, b"01234", false);
    }),
    ("DATA, the end alone", |row| row.data(0, b"", true)),
    ("ACK of nothing", |row| row.ack(0, 0, None)),
    ("ACK of 5", |row| row.ack(5, 0, None)),
    ("ACK of 6", |row| row.ack(6, 0, None)),
    ("ACK of 3 to 5", |row| row.ack(0, 0, Some((3, 5)))),
    ("ACK of 1024, all read", |row| row.ack(1024, 0, None)),
    ("ACK of what was never sent", |row| row.ack(9000, 0, None)),
    ("PING", |row| row.peer(&Frame::Ping(9))),
    ("PONG of nothing to the first ping", |row| {
        row.peer(&Frame::Pong(0, Ack::default()));
    }),
    ("PONG to none", |row| {
        row.peer(&Frame::Pong(77, Ack::default()));
    }),
    ("RESET", |row| row.peer(&Frame::Reset)),
    ("TURN that answers none", |row| row.turn(0, 0)),
    ("TURN that answers the first", |row| row.turn(1, 0)),
    ("a frame of another epoch", |row| {
        row.hears(&Frame::Reset, &FrameCheck::epoch(STRANGER, OURS));
    }),
    ("a frame of ours, reflected", |row| {
        row.hears(&Frame::Reset, &FrameCheck::epoch(OURS, PEER));
    }),
    ("a line of text", |row| {
        row.engine.handle_input(row.now, b"login: ");
        row.after(260);
    }),
    ("write", |row| {
        row.engine.write(row.now, b"words");
    }),
    ("finish", |row| row.engine.finish()),
    ("abandon", |row| {
        let now = row.now;
        row.engine.abandon(now);
    }),
    ("half a second of silence", |row| row.after(500)),
    ("two seconds of silence", |row| row.after(2000)),
    ("a minute of silence", |row| row.after(61_000)),
    ("the line ends", |row| row.engine.handle_eof()),
    ("the line fails", |row| {
        let error = std::io::Error::from(std::io::ErrorKind::Other);
        row.engine.handle_failure(LinkError::Io(error.into()));
    }),
];

#[test]
fn what_every_event_does_in_every_state_is_what_the_table_says() {
    let mut table = String::new();
    for name in STATES {
        let mut row = state(name);
        writeln!(table, "{name}: {}", row.shown()).unwrap();
        for (event, does) in EVENTS {
            let mut row = state(name);
            does(&mut row);
            writeln!(table, "    {event}: {}", row.shown()).unwrap();
        }
    }
    matches_file(
        "link/engine_table.txt",
        "link::tests::table",
        &table,
        include_str!("../engine_table.txt"),
    );
}
