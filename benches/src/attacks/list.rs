//! The attacks. Each one is run against a fresh victim, and is the same for all of them.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use super::attacker::{Attacker, Heard, Went};
use super::victim::{Mode, StreamEnd, TOO_LARGE, Victim};
use super::wire::{DATA, FIN, GO_AWAY, INITIAL_WINDOW, PING, RST, SYN, WINDOW, data, header};
use crate::Outcome;

/// How long a victim may take to look at all that it was sent.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a victim has to close a connection on which a rule was broken.
const TO_CLOSE: Duration = Duration::from_secs(5);

/// In so long a stream was accepted.
const ACCEPTED: Duration = Duration::from_millis(300);

/// How long it floods, where the attack would go on for ever.
const FLOOD: Duration = Duration::from_secs(10);

const MIB: u64 = 1 << 20;

/// An attack on memory, slots or time.
pub(super) struct Flood {
    pub(super) name: &'static str,
    mode: Mode,
    /// Whether the attacker reads what comes back while it attacks.
    listens: bool,
    run: fn(&mut Attacker) -> Went,
}

pub(super) const FLOODS: &[Flood] = &[
    Flood {
        name: "1-byte frames into 64 windows that nobody reads",
        mode: Mode::Hold,
        listens: true,
        run: tiny_frames,
    },
    Flood {
        name: "pings for 10 s, answers never read",
        mode: Mode::Discard,
        listens: false,
        run: pings,
    },
    Flood {
        name: "100,000 openings, streams kept",
        mode: Mode::Hold,
        listens: true,
        run: openings,
    },
    Flood {
        name: "1,000,000 openings and resets, streams kept",
        mode: Mode::Hold,
        listens: true,
        run: resets,
    },
    Flood {
        name: "64 MiB for streams that do not exist",
        mode: Mode::Hold,
        listens: true,
        run: strays,
    },
];

fn tiny_frames(attacker: &mut Attacker) -> Went {
    const WINDOWS: u32 = 64;
    for i in 0..WINDOWS {
        attacker.send(&header(WINDOW, SYN, 2 * i + 1, 0));
    }
    attacker.flood(|i, wire| {
        // In turn: consecutive frames of one stream would be the easier case.
        wire.extend_from_slice(&header(DATA, 0, 2 * (i % WINDOWS) + 1, 1));
        wire.push(0);
        i + 1 < WINDOWS * INITIAL_WINDOW
    })
}

fn pings(attacker: &mut Attacker) -> Went {
    let begun = Instant::now();
    attacker.flood(|i, wire| {
        wire.extend_from_slice(&header(PING, SYN, 0, i));
        begun.elapsed() < FLOOD
    })
}

fn openings(attacker: &mut Attacker) -> Went {
    attacker.flood(|i, wire| {
        wire.extend_from_slice(&header(WINDOW, SYN, 2 * i + 1, 0));
        i + 1 < 100_000
    })
}

fn resets(attacker: &mut Attacker) -> Went {
    attacker.flood(|i, wire| {
        wire.extend_from_slice(&header(WINDOW, SYN, 2 * i + 1, 0));
        wire.extend_from_slice(&header(WINDOW, RST, 2 * i + 1, 0));
        i + 1 < 1_000_000
    })
}

fn strays(attacker: &mut Attacker) -> Went {
    let body = [0; 16 << 10];
    attacker.flood(|i, wire| {
        wire.extend_from_slice(&data(0, 2 * i + 1, &body));
        i + 1 < 4096
    })
}

impl Flood {
    /// Runs it, and says what it came to in a few words.
    pub(super) fn against(&self, command: &[String]) -> Outcome<String> {
        let victim = Victim::start(command, self.mode)?;
        let mut attacker = Attacker::connect(victim.port, &victim.progress)?;
        let begun = Instant::now();
        if self.listens {
            attacker.listen()?;
        }
        let went = (self.run)(&mut attacker);
        let mut reported = String::new();
        match went {
            Went::Through if !attacker.settle(PATIENCE)? && !attacker.heard().closed => {
                reported.push_str("takes all and answers nothing any more");
            }
            Went::Through if !attacker.heard().closed => reported.push_str("goes on"),
            Went::Stopped => {
                write!(reported, "stopped at {} MiB", TOO_LARGE / MIB)?;
            }
            Went::Stalled => reported.push_str("stands still"),
            Went::Through | Went::Closed => {
                attacker.listen()?;
                attacker.wait(TO_CLOSE, |heard| heard.go_away.is_some());
                // What it says of it comes by another way.
                thread::sleep(ACCEPTED);
                match victim.progress.ended.get() {
                    Some((at, sent)) => {
                        let seconds = at.saturating_duration_since(begun).as_secs_f64();
                        write!(reported, "closed after {}, {seconds:.1} s", size(*sent))?;
                    }
                    None => reported.push_str("closed"),
                }
                reported.push_str(&code(&attacker.heard()));
            }
        }
        let grown = victim.grown()?;
        let resets = attacker.heard().resets;
        if resets > 0 {
            write!(reported, "; {resets} resets heard")?;
        }
        if victim.logged() > 0 {
            write!(reported, "; {} log lines", victim.logged())?;
        }
        Ok(format!("**{}**: {reported}", size(grown)))
    }
}

/// A single frame, or a few, that no peer may send.
pub(super) struct Fault {
    pub(super) name: &'static str,
    /// What follows `SYN 1` with three bytes.
    wire: fn() -> Vec<u8>,
}

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "300,000 bytes more than the window, then FIN",
        wire: || {
            let window = INITIAL_WINDOW as usize - 3;
            [
                data(0, 1, &vec![1; window]),
                data(0, 1, &vec![2; 300_000]),
                data(FIN, 1, b""),
            ]
            .concat()
        },
    },
    Fault {
        name: "a frame that promises 4 GiB",
        wire: || header(DATA, 0, 1, u32::MAX).to_vec(),
    },
    Fault {
        name: "an opening with more than the window",
        wire: || data(SYN, 3, &vec![3; INITIAL_WINDOW as usize + 1]),
    },
    Fault {
        name: "credit beyond 4 GiB",
        wire: || {
            [
                header(WINDOW, 0, 1, u32::MAX),
                header(WINDOW, 0, 1, u32::MAX),
            ]
            .concat()
        },
    },
    Fault {
        name: "a wrong version",
        wire: || {
            let mut frame = header(DATA, 0, 1, 0).to_vec();
            if let Some(version) = frame.first_mut() {
                *version = 1;
            }
            frame
        },
    },
    Fault {
        name: "an opening with the victim's parity",
        wire: || header(WINDOW, SYN, 2, 0).to_vec(),
    },
    Fault {
        name: "data after FIN",
        wire: || [data(FIN, 1, b""), data(0, 1, b"xyz")].concat(),
    },
];

impl Fault {
    pub(super) fn against(&self, command: &[String]) -> Outcome<String> {
        let victim = Victim::start(command, Mode::Hold)?;
        let mut attacker = Attacker::connect(victim.port, &victim.progress)?;
        attacker.send(&data(SYN, 1, b"abc"));
        attacker.settle(TO_CLOSE)?;
        attacker.send(&(self.wire)());
        attacker.wait(TO_CLOSE, |heard| heard.go_away.is_some());
        let heard = attacker.heard();
        let mut reported = if heard.closed || heard.go_away.is_some() {
            format!("closed{}", code(&heard))
        } else if heard.resets > 0 {
            "stream reset".to_owned()
        } else {
            "goes on".to_owned()
        };
        attacker.shut();
        match victim.ends(1, TO_CLOSE).first() {
            Some(StreamEnd { total, clean: true }) => {
                write!(reported, "; {total} bytes and a clean end are read")?;
            }
            Some(StreamEnd { total, .. }) => {
                write!(reported, "; {total} bytes and an error are read")?;
            }
            None => reported.push_str("; the reader waits for ever"),
        }
        Ok(reported)
    }
}

/// A stream that ends without its FIN.
pub(super) struct Ending {
    pub(super) name: &'static str,
    how: How,
}

enum How {
    /// These bytes, and nothing more.
    Send(&'static [u8]),
    /// These bytes, and the end of the connection.
    Shut(&'static [u8]),
    /// A TCP reset.
    Abort,
}

pub(super) const ENDINGS: &[Ending] = &[
    Ending {
        name: "the stream is reset",
        how: How::Send(&header(WINDOW, RST, 1, 0)),
    },
    Ending {
        name: "go-away 1 (protocol error)",
        how: How::Shut(&header(GO_AWAY, 0, 0, 1)),
    },
    Ending {
        name: "go-away 2 (internal error)",
        how: How::Shut(&header(GO_AWAY, 0, 0, 2)),
    },
    Ending {
        name: "go-away 0, and the connection ends with the stream open",
        how: How::Shut(&header(GO_AWAY, 0, 0, 0)),
    },
    Ending {
        name: "the connection ends between two frames",
        how: How::Shut(&[]),
    },
    Ending {
        name: "the connection ends inside of a frame",
        how: How::Shut(&[0, DATA, 0, 0, 0, 0]),
    },
    Ending {
        name: "the connection is reset",
        how: How::Abort,
    },
];

impl Ending {
    pub(super) fn against(&self, command: &[String]) -> Outcome<String> {
        let victim = Victim::start(command, Mode::Discard)?;
        let mut attacker = Attacker::connect(victim.port, &victim.progress)?;
        attacker.send(&data(SYN, 1, b"abc"));
        // So that it is accepted: what was reset before need not be.
        thread::sleep(ACCEPTED);
        let kept = match self.how {
            How::Send(bytes) => {
                attacker.send(bytes);
                Some(attacker)
            }
            How::Shut(bytes) => {
                attacker.send(bytes);
                attacker.shut();
                Some(attacker)
            }
            How::Abort => {
                attacker.abort();
                None
            }
        };
        let reported = match victim.ends(1, TO_CLOSE).first() {
            Some(StreamEnd { clean: true, .. }) => "a clean end",
            Some(StreamEnd { .. }) => "an error",
            None => "nothing, for ever",
        };
        drop(kept);
        Ok(reported.to_owned())
    }
}

fn code(heard: &Heard) -> String {
    match heard.go_away {
        Some(code) => format!(" with code {code}"),
        None => " without a code".to_owned(),
    }
}

/// Bytes, as one reads them.
fn size(bytes: u64) -> String {
    if bytes >= 10 * MIB {
        format!("{} MiB", bytes / MIB)
    } else {
        let tenths = bytes * 10 / MIB;
        format!("{}.{} MiB", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::super::victim::stream_end;
    use super::*;

    #[test]
    fn sizes_and_ends_are_read_and_written() {
        assert_eq!(size(0), "0.0 MiB");
        assert_eq!(size(1_700_000), "1.6 MiB");
        assert_eq!(size(1_027 * MIB), "1027 MiB");
        let end = |total, clean| Some(StreamEnd { total, clean });
        assert_eq!(stream_end("stream total 17 end=clean EOF"), end(17, true));
        assert_eq!(stream_end("stream total 0 end=ERR no"), end(0, false));
        assert_eq!(stream_end("session end=clean"), None);
    }
}
