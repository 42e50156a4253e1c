//! Every state of an engine and what each event does to it, as a table that a change of any transition shows in:
//! `engine_table.txt`.
//!
//! A row has the event and what came of it; what is written then; what is kept for sending again (`acked..given`) and how much was
//! received; over which generation of path, if any; and when it wakes by itself.

use std::fmt::Write as _;
use std::io::IoSlice;
use std::time::{Duration, Instant};

use cepa_transports::Side;

use crate::resume::engine::{Data, Engine, Over, SLICES};
use crate::resume::error::{AttachError, Refusal, SessionLost};
use crate::resume::frame::{Frame, Input};
use crate::resume::{At, Config};
use crate::table_file::matches_file;

const STATES: [&str; 15] = [
    "a path, idle",
    "a path, bytes of ours not acknowledged",
    "a path, bytes of the peer not acknowledged",
    "a path, dialling another",
    "a path, our end not acknowledged",
    "a path, the peer has ended",
    "a path, both have ended",
    "a path, the peer asked whether it is there",
    "a path, in doubt",
    "a path, nobody reads",
    "no path, bytes of ours not acknowledged",
    "no path, dialling",
    "claimed by the peer, not yet attached",
    "over, in order",
    "over, given up",
];

/// The world of one row.
struct Row {
    engine: Engine,
    now: Instant,
    /// What came of the event.
    came: String,
}

impl Row {
    fn new() -> Self {
        let now = Instant::now();
        let mut row = Self {
            engine: Engine::new(Side::Client, &Config::default(), now),
            now,
            came: String::new(),
        };
        row.sent();
        row.after(10);
        row.hears(Frame::Pong(1));
        row.after(10);
        row
    }

    fn after(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    fn hears(&mut self, frame: Frame) {
        if !self.engine.has_path() {
            self.came = "nothing comes without a path".to_owned();
            return;
        }
        self.engine.handle_heard(self.now);
        if let Err(violation) = self.engine.handle_frame(self.now, frame) {
            self.came = format!("refused: {violation}");
            self.engine.violated(violation);
        }
    }

    fn data(&mut self, n: usize) {
        if !self.engine.has_path() {
            self.came = "nothing comes without a path".to_owned();
            return;
        }
        let mut wire = Vec::new();
        Frame::Data(u32::try_from(n).unwrap()).emit(&mut wire);
        if let Some(input) = self.engine.input() {
            input.take(&wire).unwrap();
        }
        self.engine.handle_heard(self.now);
        match self.engine.data_next() {
            Ok(data) => {
                self.came = match data {
                    Data::Fresh(n) => format!("{n} to read"),
                    Data::Double(n) => format!("{n} known"),
                };
                self.engine.handle_data(self.now, data, n);
            }
            Err(violation) => {
                self.came = format!("refused: {violation}");
                self.engine.violated(violation);
            }
        }
    }

    fn write(&mut self) {
        let taken = self.engine.write(&[IoSlice::new(b"hello")]);
        self.came = format!("{taken} taken");
    }

    fn propose(&mut self) {
        let at = self.engine.propose(7);
        self.came = at.map_or("none".to_owned(), reported);
    }

    fn claim(&mut self, generation: u32, received: u64) {
        let at = At {
            generation,
            received,
        };
        self.came = match self.engine.claim(self.now, at) {
            Ok(ours) => format!("answers {}", reported(ours)),
            Err(why) => refusal(why).to_owned(),
        };
    }

    fn attached(&mut self, attached: Result<u64, AttachError>) {
        self.came = match attached {
            Ok(_) => "attached".to_owned(),
            Err(error) => format!("not attached: {error}"),
        };
    }

    fn answered(&mut self, received: u64) {
        let at = At {
            generation: 1,
            received,
        };
        let attached = self.engine.attach_proposed(self.now, 7, at, None);
        self.attached(attached);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        if let Some(why) = self.engine.handle_timeout(self.now) {
            self.came = format!("path lost: {why}");
            self.engine.handle_path_lost(self.now);
        }
    }

    /// What is written now, in words.
    fn sent(&mut self) -> String {
        let (mut wire, mut words) = (Vec::new(), Vec::new());
        while self.engine.stage(|| self.now) {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let used = self.engine.output(&mut slices);
            let before = wire.len();
            for slice in &slices[..used] {
                wire.extend_from_slice(slice);
            }
            self.engine.wrote(wire.len() - before);
        }
        let (mut input, mut rest) = (Input::default(), &wire[..]);
        while !rest.is_empty() {
            let (mut n, frame) = input.take(rest).unwrap();
            words.extend(frame.map(|frame| format!("{frame:?}")));
            if let Some(Frame::Data(length)) = frame {
                input.data_filled(length as usize);
                n += length as usize;
            }
            rest = &rest[n..];
        }
        if words.is_empty() {
            "-".to_owned()
        } else {
            words.join(" ")
        }
    }

    fn shown(&mut self) -> String {
        let mut text = std::mem::take(&mut self.came);
        if !text.is_empty() {
            text += "; ";
        }
        text += &self.sent();
        self.engine.assert_invariants();
        let engine = &self.engine;
        let end = engine.given() - u64::from(engine.has_ended());
        let kept = end - (engine.held() as u64);
        let path = if engine.has_path() { "on" } else { "no path," };
        write!(
            text,
            "; {path} {}; kept {kept}..{end}{}, received {}",
            engine.generation(),
            match (engine.has_ended(), engine.all_arrived()) {
                (false, _) => "",
                (true, false) => " and our end",
                (true, true) => ", our end arrived",
            },
            engine.received()
        )
        .unwrap();
        if engine.peer_ended() {
            text += " with the end";
        }
        match engine.over() {
            Some(Over::InOrder) => text += "; over in order",
            Some(Over::Lost(why)) => write!(text, "; over: {why}").unwrap(),
            None => {}
        }
        if let Some(at) = engine.poll_timeout() {
            let ms = at.saturating_duration_since(self.now).as_millis();
            write!(text, "; wakes in {ms} ms").unwrap();
        }
        text
    }
}

fn reported(at: At) -> String {
    format!("generation {}, received {}", at.generation, at.received)
}

fn refusal(why: Refusal) -> &'static str {
    match why {
        Refusal::Stale => "refused: stale",
        Refusal::Over => "refused: over",
        Refusal::Unknown => "refused: unknown",
        _ => "refused otherwise",
    }
}

/// The engine in this state, all that was to be written before having gone.
fn state(name: &str) -> Row {
    let mut row = Row::new();
    let of_ours = name.contains("bytes of ours") || name.starts_with("claimed");
    if of_ours {
        row.write();
        row.sent();
        row.after(10);
    }
    match name {
        "a path, bytes of the peer not acknowledged" => row.data(5),
        "a path, dialling another" => row.propose(),
        "a path, our end not acknowledged" => row.engine.end(row.now),
        "a path, the peer has ended" => row.hears(Frame::End),
        "a path, both have ended" => {
            row.engine.end(row.now);
            row.sent();
            row.hears(Frame::End);
        }
        "a path, the peer asked whether it is there" => row.pass(Duration::from_secs(15)),
        "a path, in doubt" => row.engine.probe(row.now),
        "a path, nobody reads" => row.engine.handle_stopped(row.now),
        "no path, bytes of ours not acknowledged" => row.engine.handle_path_lost(row.now),
        "no path, dialling" => {
            row.engine.handle_path_lost(row.now);
            row.propose();
        }
        "claimed by the peer, not yet attached" => row.claim(1, 3),
        "over, in order" => {
            row.engine.end(row.now);
            row.sent();
            row.hears(Frame::End);
            row.hears(Frame::Ack(1));
            row.engine.finish_in_order();
        }
        "over, given up" => row.engine.give_up(SessionLost::GivenUp),
        _ => {}
    }
    row.sent();
    row.came.clear();
    row.after(10);
    row
}

type Event = fn(&mut Row);

const EVENTS: [(&str, Event); 38] = [
    ("write 5", Row::write),
    ("end", |row| row.engine.end(row.now)),
    ("Data of 5", |row| row.data(5)),
    ("End", |row| row.hears(Frame::End)),
    ("Ack of nothing", |row| row.hears(Frame::Ack(0))),
    ("Ack of 5", |row| row.hears(Frame::Ack(5))),
    ("Ack of what was never written", |row| {
        row.hears(Frame::Ack(99));
    }),
    ("Ping", |row| row.hears(Frame::Ping(9))),
    ("Pong to the first ping", |row| row.hears(Frame::Pong(1))),
    ("Pong to the second ping", |row| row.hears(Frame::Pong(2))),
    ("Park, a minute", |row| row.hears(Frame::Park(60))),
    ("Over", |row| row.hears(Frame::Over(0))),
    ("the path is lost", |row| {
        row.engine.handle_path_lost(row.now);
    }),
    ("the path takes nothing", |row| {
        row.engine.handle_broken(row.now);
    }),
    ("the path is in doubt", |row| row.engine.probe(row.now)),
    ("nobody reads", |row| row.engine.handle_stopped(row.now)),
    ("somebody reads", |row| {
        let now = row.now;
        row.engine.handle_reading(|| now);
    }),
    ("this end dials", Row::propose),
    ("what was dialled fails", |row| row.engine.withdraw(7)),
    ("the peer has taken it up, received 0", |row| {
        row.answered(0);
    }),
    ("the peer has taken it up, received 5", |row| {
        row.answered(5);
    }),
    ("the peer has taken it up, received 99", |row| {
        row.answered(99);
    }),
    ("the peer claims generation 0", |row| row.claim(0, 0)),
    ("the peer claims generation 1, received 0", |row| {
        row.claim(1, 0);
    }),
    ("the peer claims generation 1, received 5", |row| {
        row.claim(1, 5);
    }),
    ("the peer claims generation 1, received 99", |row| {
        row.claim(1, 99);
    }),
    ("the peer claims generation 2, received 0", |row| {
        row.claim(2, 0);
    }),
    ("what was claimed is attached", |row| {
        let [theirs, ours] = [3, 0].map(|received| At {
            generation: 1,
            received,
        });
        let attached = row.engine.attach_claimed(row.now, theirs, ours, None);
        row.attached(attached);
    }),
    ("keep it for a minute", |row| {
        row.engine.set_park(Duration::from_secs(60));
    }),
    ("give up", |row| row.engine.give_up(SessionLost::GivenUp)),
    ("the peer refuses it: over", |row| {
        row.engine.give_up(SessionLost::Refused(Refusal::Over));
    }),
    ("200 ms", |row| row.pass(Duration::from_millis(200))),
    ("a second", |row| row.pass(Duration::from_secs(1))),
    ("two seconds", |row| row.pass(Duration::from_secs(2))),
    ("15 seconds", |row| row.pass(Duration::from_secs(15))),
    ("30 seconds", |row| row.pass(Duration::from_secs(30))),
    ("ten minutes", |row| row.pass(Duration::from_secs(600))),
    ("a month", |row| row.pass(Duration::from_secs(30 * 86_400))),
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
        "resume/engine_table.txt",
        "resume::tests",
        &table,
        include_str!("../engine_table.txt"),
    );
}
