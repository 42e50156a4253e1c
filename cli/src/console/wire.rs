//! What a service and who opened it send each other beside bytes, on a console and for its status: the codec, without IO. docs/PROTOCOL.md has it with examples.
//!
//! ```text
//! message   kind(1) length(2) content
//! ```
//!
//! Data may be of any length and is passed on as it comes; everything else is short, and refused where
//! it claims not to be. Kinds that are not known are skipped, up to that length.

use std::fmt;
use std::time::Duration;

use cepa::session::ServiceName;
use cepa::transports::{OutLine, Terminal, WindowSize};

use crate::keep::is_console_name;

/// A service's name behind this means the service on a console.
pub(crate) const PREFIX: &str = cepa::session::reserved::CONSOLE_PREFIX;
/// A service's name behind this means the service with its standard error and its status.
pub(crate) const EXEC_PREFIX: &str = cepa::session::reserved::EXEC_PREFIX;

/// The name of a kept console, a dot and a service's name behind this mean that service on a console that is kept under that name.
pub(crate) const ATTACH_PREFIX: &str = cepa::session::reserved::ATTACH_PREFIX;

/// Longest data of one message of a console; small, so that what is typed is not behind much.
pub(crate) const DATA_MAX: usize = 4096;
/// The same of a service without a terminal.
pub(crate) const BULK_MAX: usize = 32 * 1024;
/// Longest content of what is no data, nor a line of standard error.
const CONTENT_MAX: usize = 256;
/// Longest line of standard error; a longer one is sent in pieces.
const STDERR_MAX: usize = 4096;
/// Longest name of a kind of terminal.
const KIND_MAX: usize = 64;

const DATA: u8 = 0;
const TERMINAL: u8 = 1;
const BREAK: u8 = 2;
const ENDED: u8 = 3;
const STDERR: u8 = 4;
const OUTPUT_ENDED: u8 = 5;
const KEPT: u8 = 6;
const CONSOLE: u8 = 7;
const LINE: u8 = 8;
const OPENED: u8 = 9;

/// A message that is no data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// From who opened the console: the terminal there. First of all, and again when its window changes.
    Terminal(Terminal),
    /// From who opened it: a serial line below the service is to send a break.
    Break,
    /// From who opened it: a serial line below the service is to raise one of its modem lines, or to lower it.
    Line(OutLine, bool),
    /// From the service: how it ended. Last of all.
    Ended(Status),
    /// From the service, where it has no terminal: a line that the command wrote to its standard error, without its line end.
    Stderr(String),
    /// From the service, where it has no terminal: no more data comes; how it ends comes later.
    OutputEnded,
    /// From the service, on a console that is not kept: its device is open, or its command runs. Older ones do not say so.
    Opened,
    /// From the service, on a console that is kept: first of all, what was found under its name.
    Kept {
        found: Found,
        /// How long its command has been there.
        seconds: u32,
        /// How many seconds it is kept while nobody is attached.
        keep: u32,
    },
    /// From the server, of each console that it keeps for who asks.
    Console(Listed),
}

/// A console in a list of those that are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) attached: bool,
    /// How long its command has been there.
    pub(crate) seconds: u32,
    /// How many seconds it is kept from now on, if nobody attaches or whoever is attached leaves now.
    pub(crate) left: u32,
    pub(crate) name: String,
    pub(crate) service: String,
}

/// What there was under the name of a kept console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    /// The console; what follows is what it said last.
    Itself,
    /// Nothing any more: nobody came back to the earlier one in time.
    Expired,
    /// Nothing any more: the earlier one made room for another peer.
    Displaced,
}

/// How a service ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Exited(u8),
    Killed(u8),
    /// It never began, or its end is not known.
    Failed(String),
    /// Somebody with the same key has attached to the same kept console.
    TakenOver,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "the command exited with status {code}"),
            Self::Killed(signal) => write!(f, "the command was killed by signal {signal}"),
            Self::Failed(why) => f.write_str(why),
            Self::TakenOver => f.write_str("another console with your key was attached here"),
        }
    }
}

/// Why bytes are no console's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotUnderstood;

impl From<NotUnderstood> for std::io::Error {
    fn from(_: NotUnderstood) -> Self {
        let text = "the other end does not understand the console protocol; use the same version of cepa at both ends";
        Self::new(std::io::ErrorKind::InvalidData, text)
    }
}

/// A time as it is sent.
pub(crate) fn in_seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

/// Appends a message.
pub(crate) fn put(message: &Message, out: &mut Vec<u8>) {
    let mut content = Vec::new();
    let kind = match message {
        Message::Terminal(terminal) => {
            content.extend(terminal.size.rows.to_be_bytes());
            content.extend(terminal.size.columns.to_be_bytes());
            let kind = terminal.kind.as_deref().unwrap_or_default();
            content.extend(kind.bytes().take(KIND_MAX));
            TERMINAL
        }
        Message::Break => BREAK,
        Message::Line(line, on) => {
            content.push(match line {
                OutLine::Dtr => 0,
                OutLine::Rts => 1,
            });
            content.push((*on).into());
            LINE
        }
        Message::OutputEnded => OUTPUT_ENDED,
        Message::Opened => OPENED,
        Message::Ended(status) => {
            match status {
                Status::Exited(code) => content.extend([0, *code]),
                Status::Killed(signal) => content.extend([1, *signal]),
                Status::Failed(why) => {
                    content.push(2);
                    content.extend(why.bytes().take(CONTENT_MAX - 1));
                }
                Status::TakenOver => content.push(3),
            }
            ENDED
        }
        Message::Kept {
            found,
            seconds,
            keep,
        } => {
            content.push(match found {
                Found::Nothing => 0,
                Found::Itself => 1,
                Found::Expired => 2,
                Found::Displaced => 3,
            });
            content.extend(seconds.to_be_bytes());
            content.extend(keep.to_be_bytes());
            KEPT
        }
        Message::Console(it) => {
            content.push(it.attached.into());
            content.extend(it.seconds.to_be_bytes());
            content.extend(it.left.to_be_bytes());
            content.push(u8::try_from(it.name.len()).unwrap_or(u8::MAX));
            content.extend(it.name.bytes());
            content.extend(it.service.bytes());
            CONSOLE
        }
        Message::Stderr(line) => {
            content.extend(line.bytes().take(STDERR_MAX));
            STDERR
        }
    };
    head(kind, content.len(), out);
    out.extend(content);
}

/// Appends the head of a message of this length.
fn head(kind: u8, length: usize, out: &mut Vec<u8>) {
    out.push(kind);
    // Nothing longer is sent.
    out.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
}

/// Appends as much of `bytes` as goes into one message of at most `most`, and says how much that is.
pub(crate) fn put_data(bytes: &[u8], most: usize, out: &mut Vec<u8>) -> usize {
    let some = bytes.get(..most).unwrap_or(bytes);
    if !some.is_empty() {
        head(DATA, some.len(), out);
        out.extend(some);
    }
    some.len()
}

/// Takes a stream of messages apart.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    head: Vec<u8>,
    content: Vec<u8>,
    /// Content of the present message that is still to come.
    left: usize,
    /// It was said how it ended: that is last of all, and nothing behind it counts.
    over: bool,
    kept: Kept,
}

/// What becomes of `kept`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kept {
    /// The console is none that is kept: it is skipped.
    #[default]
    Skipped,
    /// It comes first, unless there is no console at all.
    Awaited,
    /// It came, and comes once.
    Heard,
}

impl Decoder {
    /// For a console that is to be kept.
    pub(crate) fn of_kept() -> Self {
        Self {
            kept: Kept::Awaited,
            ..Self::default()
        }
    }

    /// Whether a message of this kind may come now. Without `kept` nobody would know whether the command runs on.
    fn may_come(&self, kind: u8) -> Result<(), NotUnderstood> {
        match (self.kept, kind) {
            (Kept::Awaited, DATA | TERMINAL | BREAK | STDERR | OUTPUT_ENDED)
            | (Kept::Heard, KEPT) => Err(NotUnderstood),
            _ => Ok(()),
        }
    }

    /// Whether the stream may end here.
    pub(crate) fn is_between(&self) -> bool {
        self.head.is_empty()
    }

    /// Takes bytes, of which data goes to `data` and all else is returned.
    pub(crate) fn take(
        &mut self,
        mut bytes: &[u8],
        data: &mut Vec<u8>,
    ) -> Result<Vec<Message>, NotUnderstood> {
        let mut messages = Vec::new();
        while let Some((first, rest)) = bytes.split_first() {
            if self.over {
                break;
            }
            if self.head.len() < 3 {
                self.head.push(*first);
                bytes = rest;
                if let [kind, high, low] = self.head[..] {
                    self.left = usize::from(u16::from_be_bytes([high, low]));
                    let most = match kind {
                        DATA => usize::MAX,
                        STDERR => STDERR_MAX,
                        _ => CONTENT_MAX,
                    };
                    if self.left > most {
                        return Err(NotUnderstood);
                    }
                    self.may_come(kind)?;
                    self.finish(&mut messages)?;
                }
                continue;
            }
            let (here, rest) = bytes.split_at_checked(self.left).unwrap_or((bytes, &[]));
            bytes = rest;
            self.left -= here.len();
            match self.head.first() {
                Some(&DATA) => data.extend(here),
                _ => self.content.extend(here),
            }
            self.finish(&mut messages)?;
        }
        Ok(messages)
    }

    /// Reads the present message, where it is complete.
    fn finish(&mut self, messages: &mut Vec<Message>) -> Result<(), NotUnderstood> {
        if self.left > 0 {
            return Ok(());
        }
        match self.head.first() {
            Some(&TERMINAL) => messages.push(Message::Terminal(terminal(&self.content)?)),
            Some(&BREAK) => messages.push(Message::Break),
            Some(&LINE) => messages.extend(line(&self.content)?),
            Some(&OUTPUT_ENDED) => messages.push(Message::OutputEnded),
            Some(&OPENED) => messages.push(Message::Opened),
            Some(&ENDED) => {
                messages.push(Message::Ended(status(&self.content)?));
                self.over = true;
            }
            Some(&KEPT) if self.kept == Kept::Awaited => {
                messages.push(kept(&self.content)?);
                self.kept = Kept::Heard;
            }
            Some(&CONSOLE) => messages.push(Message::Console(listed(&self.content)?)),
            Some(&STDERR) => messages.push(Message::Stderr(
                String::from_utf8_lossy(&self.content).into_owned(),
            )),
            _ => {}
        }
        self.head.clear();
        self.content.clear();
        Ok(())
    }
}

/// None for a line of a later release.
fn line(content: &[u8]) -> Result<Option<Message>, NotUnderstood> {
    let (which, on) = match content {
        [which, 0] => (which, false),
        [which, 1] => (which, true),
        _ => return Err(NotUnderstood),
    };
    let which = match which {
        0 => OutLine::Dtr,
        1 => OutLine::Rts,
        _ => return Ok(None),
    };
    Ok(Some(Message::Line(which, on)))
}

fn terminal(content: &[u8]) -> Result<Terminal, NotUnderstood> {
    let [r, o, c, l, kind @ ..] = content else {
        return Err(NotUnderstood);
    };
    Ok(Terminal {
        kind: kind_of_terminal(kind),
        size: WindowSize {
            rows: u16::from_be_bytes([*r, *o]),
            columns: u16::from_be_bytes([*c, *l]),
        },
    })
}

/// A name that may go into a command's environment: of the characters that terminals are named with.
fn kind_of_terminal(name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    let named = (1..=KIND_MAX).contains(&name.len()) && name.chars().all(fine);
    named.then(|| name.to_owned())
}

fn kept(content: &[u8]) -> Result<Message, NotUnderstood> {
    let Some((found, times)) = content.split_first() else {
        return Err(NotUnderstood);
    };
    let Some((seconds, keep)) = times.split_first_chunk() else {
        return Err(NotUnderstood);
    };
    let Ok(keep) = <[u8; 4]>::try_from(keep) else {
        return Err(NotUnderstood);
    };
    Ok(Message::Kept {
        found: match *found {
            0 => Found::Nothing,
            1 => Found::Itself,
            2 => Found::Expired,
            3 => Found::Displaced,
            _ => return Err(NotUnderstood),
        },
        seconds: u32::from_be_bytes(*seconds),
        keep: u32::from_be_bytes(keep),
    })
}

fn listed(content: &[u8]) -> Result<Listed, NotUnderstood> {
    let [attached @ (0 | 1), rest @ ..] = content else {
        return Err(NotUnderstood);
    };
    let times = rest.split_first_chunk::<4>();
    let times = times.and_then(|(seconds, rest)| Some((seconds, rest.split_first_chunk::<4>()?)));
    let (seconds, (left, rest)) = times.ok_or(NotUnderstood)?;
    let (length, names) = rest.split_first().ok_or(NotUnderstood)?;
    let names = std::str::from_utf8(names).ok();
    let names = names.and_then(|names| names.split_at_checked((*length).into()));
    let fine = |(name, service): &(&str, &str)| {
        is_console_name(name) && ServiceName::check(service).is_ok()
    };
    let (name, service) = names.filter(fine).ok_or(NotUnderstood)?;
    Ok(Listed {
        attached: *attached == 1,
        seconds: u32::from_be_bytes(*seconds),
        left: u32::from_be_bytes(*left),
        name: name.to_owned(),
        service: service.to_owned(),
    })
}

fn status(content: &[u8]) -> Result<Status, NotUnderstood> {
    match content {
        [0, code] => Ok(Status::Exited(*code)),
        [1, signal] => Ok(Status::Killed(*signal)),
        [2, why @ ..] => Ok(Status::Failed(String::from_utf8_lossy(why).into_owned())),
        [3] => Ok(Status::TakenOver),
        _ => Err(NotUnderstood),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text
            .chars()
            .filter_map(|c| c.to_digit(16))
            .map(|d| u8::try_from(d).unwrap())
            .collect();
        digits.chunks(2).map(|d| d[0] << 4 | d[1]).collect()
    }

    fn size(rows: u16, columns: u16, kind: Option<&str>) -> Message {
        Message::Terminal(Terminal {
            kind: kind.map(str::to_owned),
            size: WindowSize { rows, columns },
        })
    }

    #[test]
    fn nothing_counts_behind_how_it_ended() {
        let mut out = Vec::new();
        put_data(b"before", DATA_MAX, &mut out);
        put(&Message::Ended(Status::Exited(3)), &mut out);
        put_data(b"behind", DATA_MAX, &mut out);
        put(&Message::Ended(Status::Exited(0)), &mut out);
        put(&Message::Stderr("cepa: lost".to_owned()), &mut out);
        for piece in [1, out.len()] {
            let (mut decoder, mut data) = (Decoder::default(), Vec::new());
            let read = out
                .chunks(piece)
                .flat_map(|bytes| decoder.take(bytes, &mut data).unwrap());
            assert_eq!(
                read.collect::<Vec<_>>(),
                [Message::Ended(Status::Exited(3))]
            );
            assert_eq!(data, b"before");
            assert!(decoder.is_between());
        }
    }

    #[test]
    fn the_documented_examples_are_what_is_sent_and_read() {
        let text = include_str!("../../../docs/PROTOCOL.md");
        let messages = [
            size(24, 80, Some("xterm")),
            Message::Break,
            Message::Line(OutLine::Dtr, false),
            Message::Line(OutLine::Rts, true),
            Message::Ended(Status::Exited(3)),
            Message::Ended(Status::Killed(9)),
            Message::Ended(Status::Failed("no".to_owned())),
            Message::Stderr("oh".to_owned()),
            Message::OutputEnded,
            Message::Opened,
            Message::Ended(Status::TakenOver),
            Message::Kept {
                found: Found::Itself,
                seconds: 60,
                keep: 600,
            },
            Message::Console(Listed {
                attached: true,
                seconds: 60,
                left: 600,
                name: "work".to_owned(),
                service: "sh".to_owned(),
            }),
        ];
        let (_, section) = text.split_once("## Consoles").unwrap();
        let (_, examples) = section.split_once("```text\nexample").unwrap();
        let (examples, _) = examples.split_once("```").unwrap();
        let lines: Vec<&str> = examples.lines().skip(1).collect();
        assert_eq!(lines.len(), messages.len() + 1);
        for (line, message) in lines.iter().zip(&messages) {
            let (_, bytes) = line.rsplit_once("  ").unwrap();
            let mut out = Vec::new();
            put(message, &mut out);
            assert_eq!(out, hex(bytes), "{line}");
            let (mut decoder, mut data) = (Decoder::default(), Vec::new());
            if matches!(message, Message::Kept { .. }) {
                assert_eq!(decoder.take(&out, &mut data), Ok(vec![]), "it is skipped");
                decoder = Decoder::of_kept();
            }
            let read = decoder.take(&out, &mut data).unwrap();
            assert_eq!(read, std::slice::from_ref(message));
        }
        let mut out = Vec::new();
        assert_eq!(put_data(b"ls\r", DATA_MAX, &mut out), 3);
        assert_eq!(out, hex(lines[messages.len()].rsplit_once("  ").unwrap().1));
    }

    #[test]
    fn however_the_bytes_come_the_messages_are_the_same() {
        let mut out = Vec::new();
        put(&size(1, 2, None), &mut out);
        let long: Vec<u8> = (0..10_000u32).map(|i| (i % 251) as u8).collect();
        let mut rest = &long[..];
        while !rest.is_empty() {
            let n = put_data(rest, DATA_MAX, &mut out);
            rest = &rest[n..];
        }
        put(&Message::Break, &mut out);
        for piece in [1, 2, 3, 5, 4096, out.len()] {
            let (mut decoder, mut data, mut messages) =
                (Decoder::default(), Vec::new(), Vec::new());
            for bytes in out.chunks(piece) {
                messages.extend(decoder.take(bytes, &mut data).unwrap());
            }
            assert!(decoder.is_between());
            assert_eq!(messages, [size(1, 2, None), Message::Break]);
            assert_eq!(data, long);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_what_is_unknown_is_skipped() {
        for wrong in [
            "01 0003 000000",
            "03 0000",
            "03 0002 0700",
            "02 0101",
            "0a ffff",
            "04 1001",
            "08 0001 00",
            "08 0002 00 02",
            "03 0002 0300",
            // A list with what is no name, and one that is cut off.
            "07 000d 01 0000003c 00000258 04 776f72",
            "07 000d 02 0000003c 00000258 01 61 7368",
            "07 000d 01 0000003c 00000258 01 2e 7368",
            "07 000d 01 0000003c 00000258 01 61 1b68",
            "07 000b 01 0000003c 00000258 01 61",
        ] {
            let read = Decoder::default().take(&hex(wrong), &mut Vec::new());
            assert_eq!(read, Err(NotUnderstood), "{wrong}");
        }
        for wrong in [
            "06 0001 01",
            "06 0005 02 00000000",
            "06 0009 09 00000000 00000000",
        ] {
            let read = Decoder::of_kept().take(&hex(wrong), &mut Vec::new());
            assert_eq!(read, Err(NotUnderstood), "{wrong}");
        }
        let read = Decoder::default().take(&hex("0a 0002 abcd 02 0000"), &mut Vec::new());
        assert_eq!(read, Ok(vec![Message::Break]));
    }

    /// Somebody who asked for a console that is kept has one, or knows that they have none.
    #[test]
    fn a_kept_console_begins_with_that_and_says_it_once() {
        let kept = "06 0009 00 00000000 00000258";
        let take = |bytes: &str| {
            let mut decoder = Decoder::of_kept();
            let bytes = hex(bytes);
            // In one piece or in many.
            let whole = Decoder::of_kept().take(&bytes, &mut Vec::new());
            let pieces: Result<Vec<_>, _> = bytes
                .chunks(1)
                .map(|byte| decoder.take(byte, &mut Vec::new()))
                .collect();
            assert_eq!(whole, pieces.map(|all| all.concat()));
            whole.map(|all| all.len())
        };
        for (bytes, messages) in [
            (kept.to_owned(), Ok(1)),
            (format!("{kept} 00 0001 78 04 0001 78"), Ok(2)),
            // A kind that is not known is nobody's business, and an end says that there is none.
            (format!("0a 0001 00 {kept}"), Ok(1)),
            ("03 0001 02".to_owned(), Ok(1)),
            (format!("{kept} 03 0001 03"), Ok(2)),
            ("00 0001 78".to_owned(), Err(NotUnderstood)),
            ("04 0001 78".to_owned(), Err(NotUnderstood)),
            ("05 0000".to_owned(), Err(NotUnderstood)),
            (format!("{kept} {kept}"), Err(NotUnderstood)),
            (format!("00 0001 78 {kept}"), Err(NotUnderstood)),
        ] {
            assert_eq!(take(&bytes), messages, "{bytes}");
        }
    }

    #[test]
    fn a_kind_of_terminal_is_a_plain_word() {
        assert_eq!(
            kind_of_terminal(b"xterm-256color").as_deref(),
            Some("xterm-256color")
        );
        for wrong in [&b""[..], b"a b", b"x\0", b"x=y", b"../x\n", &[b'x'; 65]] {
            assert_eq!(kind_of_terminal(wrong), None);
        }
    }
}
