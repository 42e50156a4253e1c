//! Telnet as far as a serial line needs it (RFC 854, RFC 855, RFC 856): data, options, subnegotiations. No IO; bytes in, tokens out.
//!
//! ```text
//!            IAC                     IAC = data 255
//!   DATA ----------> COMMAND -------------------------> DATA
//!    ^                  | WILL WONT DO DONT --> OPTION --> DATA
//!    |    IAC SE        | SB
//!    +------------ SUB <+                     (IAC IAC = 255; any other command ends it, and nothing is made of it)
//! ```
//!
//! An option is on at an end once both have said so. Whoever is asked for what it does not have says no, once for each option: an
//! end that asks again gets no second answer, so that no two ends talk about it for ever (RFC 854, "general considerations"). Both
//! ends ask for what they have at the start, and never switch it off.
use bytes::{BufMut as _, BytesMut};

const IAC: u8 = 255;
const DONT: u8 = 254;
const DO: u8 = 253;
const WONT: u8 = 252;
const WILL: u8 = 251;
const SB: u8 = 250;
const SE: u8 = 240;

/// Eight bits as they are (RFC 856).
pub(super) const BINARY: u8 = 0;
/// No turns are taken (RFC 858); every option about bytes is asked for with it.
pub(super) const SUPPRESS_GO_AHEAD: u8 = 3;
/// Control of the serial port (RFC 2217).
pub(super) const COM_PORT: u8 = 44;

/// Bytes of a subnegotiation that are kept, its option included. A longer one is none of RFC 2217, where a name has the most, and
/// names are cut.
const SUBNEGOTIATION: usize = 256;

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Data(&'a [u8]),
    /// The other end has an option now, or does not.
    Theirs(u8, bool),
    /// The other end wants us to have an option, or not.
    Ours(u8, bool),
    /// A subnegotiation, [`Telnet::subnegotiation`] has it.
    Subnegotiation,
}

#[derive(Debug)]
enum State {
    Data,
    /// A CR, outside of binary transmission: a NUL behind it means nothing (RFC 854, "the NVT printer").
    Return,
    Command,
    Option(u8),
    Sub,
    SubCommand,
}

/// What one end has of an option.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Side {
    #[default]
    Off,
    /// Asked for, and not answered.
    Asked,
    On,
    /// Refused, by whichever end; that was said.
    Refused,
}

#[derive(Debug)]
pub(super) struct Telnet {
    state: State,
    sub: Vec<u8>,
    /// More came than is kept.
    long: bool,
    ours: [Side; 256],
    theirs: [Side; 256],
    /// To be sent.
    out: BytesMut,
    /// A command has come: the other end speaks telnet.
    spoken: bool,
}

impl Telnet {
    pub(super) fn new() -> Self {
        Self {
            state: State::Data,
            sub: Vec::new(),
            long: false,
            ours: [Side::Off; 256],
            theirs: [Side::Off; 256],
            out: BytesMut::new(),
            spoken: false,
        }
    }

    /// Offers to have an option. One that was asked for before is answered by this.
    pub(super) fn offer(&mut self, option: u8) {
        if let Some(side @ Side::Off) = self.ours.get_mut(usize::from(option)) {
            *side = Side::Asked;
            self.out.extend_from_slice(&[IAC, WILL, option]);
        }
    }

    /// Asks the other end to have an option.
    pub(super) fn ask(&mut self, option: u8) {
        if let Some(side @ Side::Off) = self.theirs.get_mut(usize::from(option)) {
            *side = Side::Asked;
            self.out.extend_from_slice(&[IAC, DO, option]);
        }
    }

    pub(super) fn ours(&self, option: u8) -> bool {
        self.ours.get(usize::from(option)) == Some(&Side::On)
    }

    pub(super) fn theirs(&self, option: u8) -> bool {
        self.theirs.get(usize::from(option)) == Some(&Side::On)
    }

    /// Whether the other end has said if we may have an option.
    pub(super) fn is_answered(&self, option: u8) -> bool {
        matches!(
            self.ours.get(usize::from(option)),
            Some(Side::On | Side::Refused)
        )
    }

    /// Whether what came ends within a command.
    pub(super) fn is_within(&self) -> bool {
        !matches!(self.state, State::Data | State::Return)
    }

    /// Whether the other end has said anything that is telnet.
    pub(super) fn spoken(&self) -> bool {
        self.spoken
    }

    /// What came last of a subnegotiation: its option, and what is behind it.
    pub(super) fn subnegotiation(&self) -> Option<(u8, &[u8])> {
        let (option, rest) = self.sub.split_first()?;
        Some((*option, rest))
    }

    /// Bytes to send.
    pub(super) fn out(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// Data, with what would be a command doubled; outside of binary transmission with a NUL behind each CR.
    pub(super) fn put_data(&mut self, data: &[u8]) {
        if self.ours(BINARY) {
            put_escaped(&mut self.out, data);
            return;
        }
        for piece in data.split_inclusive(|byte| *byte == b'\r') {
            put_escaped(&mut self.out, piece);
            if piece.ends_with(b"\r") {
                self.out.put_u8(0);
            }
        }
    }

    pub(super) fn put_subnegotiation(&mut self, option: u8, body: &[u8]) {
        self.out.extend_from_slice(&[IAC, SB, option]);
        put_escaped(&mut self.out, body);
        self.out.extend_from_slice(&[IAC, SE]);
    }

    /// The next token, and what is behind it. `None` once nothing is left.
    pub(super) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Option<Token<'a>> {
        loop {
            let (&byte, rest) = input.split_first()?;
            match self.state {
                State::Data if byte != IAC => return Some(self.data(input)),
                State::Data => self.state = State::Command,
                State::Return => {
                    self.state = State::Data;
                    if byte != 0 {
                        continue;
                    }
                }
                State::Command => {
                    self.state = State::Data;
                    if byte == IAC {
                        let token = input.get(..1).map(Token::Data);
                        *input = rest;
                        return token;
                    }
                    self.command(byte);
                }
                State::Option(verb) => {
                    *input = rest;
                    self.state = State::Data;
                    if let Some(token) = self.option(verb, byte) {
                        return Some(token);
                    }
                    continue;
                }
                State::Sub if byte == IAC => self.state = State::SubCommand,
                State::Sub => self.keep(byte),
                State::SubCommand => match byte {
                    IAC => {
                        self.state = State::Sub;
                        self.keep(IAC);
                    }
                    SE => {
                        self.state = State::Data;
                        *input = rest;
                        if !self.long {
                            return Some(Token::Subnegotiation);
                        }
                        continue;
                    }
                    other => {
                        self.state = State::Data;
                        self.command(other);
                    }
                },
            }
            *input = rest;
        }
    }

    /// Up to the next command, or to a CR that may have a NUL behind it.
    fn data<'a>(&mut self, input: &mut &'a [u8]) -> Token<'a> {
        let binary = self.theirs(BINARY);
        let ends = |byte: &u8| *byte == IAC || (!binary && *byte == b'\r');
        let mut end = input.iter().position(ends).unwrap_or(input.len());
        if input.get(end) == Some(&b'\r') {
            end += 1;
            self.state = State::Return;
        }
        let (data, rest) = input.split_at_checked(end).unwrap_or((input, &[]));
        *input = rest;
        Token::Data(data)
    }

    fn keep(&mut self, byte: u8) {
        if self.sub.len() < SUBNEGOTIATION {
            self.sub.push(byte);
        } else {
            self.long = true;
        }
    }

    fn command(&mut self, byte: u8) {
        match byte {
            WILL | WONT | DO | DONT => self.state = State::Option(byte),
            SB => {
                self.state = State::Sub;
                self.sub.clear();
                self.long = false;
            }
            // Nothing that a line has a use for.
            _ => {}
        }
    }

    fn option(&mut self, verb: u8, option: u8) -> Option<Token<'static>> {
        self.spoken = true;
        let (sides, yes, no) = match verb {
            WILL | WONT => (&mut self.theirs, DO, DONT),
            _ => (&mut self.ours, WILL, WONT),
        };
        let on = matches!(verb, WILL | DO);
        let side = sides.get_mut(usize::from(option))?;
        let before = *side;
        let known = matches!(option, BINARY | SUPPRESS_GO_AHEAD | COM_PORT);
        let answer = match (before, on) {
            (Side::Off, true) if known => {
                *side = Side::On;
                Some(yes)
            }
            (Side::Off, true) | (Side::On, false) => {
                *side = Side::Refused;
                Some(no)
            }
            (Side::Asked, true) => {
                *side = Side::On;
                None
            }
            (Side::Asked, false) => {
                *side = Side::Refused;
                None
            }
            (Side::Off, false) | (Side::On, true) | (Side::Refused, _) => None,
        };
        let changed = *side != before && known;
        if let Some(answer) = answer {
            self.out.extend_from_slice(&[IAC, answer, option]);
        }
        changed.then_some(match verb {
            WILL | WONT => Token::Theirs(option, on),
            _ => Token::Ours(option, on),
        })
    }
}

fn put_escaped(out: &mut BytesMut, bytes: &[u8]) {
    out.reserve(bytes.len());
    for byte in bytes {
        if *byte == IAC {
            out.put_u8(IAC);
        }
        out.put_u8(*byte);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Everything that comes of these pieces, as text.
    fn tokens(telnet: &mut Telnet, pieces: &[&[u8]]) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        let mut data = Vec::new();
        for piece in pieces {
            let mut input = *piece;
            while let Some(token) = telnet.next(&mut input) {
                if let Token::Data(bytes) = token {
                    data.extend_from_slice(bytes);
                    continue;
                }
                let text = match token {
                    Token::Subnegotiation => format!("{:?}", telnet.subnegotiation().unwrap()),
                    other => format!("{other:?}"),
                };
                if !data.is_empty() {
                    all.push(format!("{data:?}"));
                    data.clear();
                }
                all.push(text);
            }
        }
        if !data.is_empty() {
            all.push(format!("{data:?}"));
        }
        all
    }

    #[test]
    fn data_commands_and_subnegotiations_are_told_apart() {
        let mut telnet = Telnet::new();
        let bytes = [
            1, 255, 255, 2, 255, 241, 3, 255, 250, 44, 9, 255, 255, 255, 240, 4, 255, 253, 44,
        ];
        let found = ["[1, 255, 2, 3]", "(44, [9, 255])", "[4]", "Ours(44, true)"];
        assert_eq!(tokens(&mut telnet, &[&bytes]), found);
        assert_eq!(&telnet.out()[..], [255, 251, 44]);
        // In whatever pieces they come.
        let one_by_one: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(tokens(&mut Telnet::new(), &one_by_one), found);
    }

    #[test]
    fn a_nul_behind_a_cr_is_data_only_in_binary() {
        let mut telnet = Telnet::new();
        assert_eq!(
            tokens(&mut telnet, &[b"a\r", b"\0b\r\nc\r\r\0\0"]),
            ["[97, 13, 98, 13, 10, 99, 13, 13, 0]"]
        );
        telnet.ask(BINARY);
        let then = tokens(&mut telnet, &[&[255, 251, 0], b"\r\0"]);
        assert_eq!(then, ["Theirs(0, true)", "[13, 0]"]);
    }

    #[test]
    fn a_subnegotiation_is_bounded_and_one_that_breaks_off_is_none() {
        let mut telnet = Telnet::new();
        let mut long = vec![255, 250, 44];
        long.resize(100_000, 7);
        long.extend([255, 240, 1]);
        assert_eq!(tokens(&mut telnet, &[&long]), ["[1]"]);
        assert!(telnet.sub.capacity() <= 2 * SUBNEGOTIATION);
        let broken = [255, 250, 44, 7, 255, 251, 3, 2];
        assert_eq!(tokens(&mut telnet, &[&broken]), ["Theirs(3, true)", "[2]"]);
    }

    #[test]
    fn an_answer_is_given_once() {
        let mut telnet = Telnet::new();
        telnet.offer(BINARY);
        telnet.ask(BINARY);
        telnet.out().clear();
        // Both agree; an echo is wished for and an unknown option offered.
        let asked = [255, 253, 0, 255, 251, 0, 255, 253, 1, 255, 251, 99];
        assert_eq!(
            tokens(&mut telnet, &[&asked]),
            ["Ours(0, true)", "Theirs(0, true)"]
        );
        assert_eq!(&telnet.out()[..], [255, 252, 1, 255, 254, 99]);
        telnet.out().clear();
        for _ in 0..1000 {
            assert!(tokens(&mut telnet, &[&asked]).is_empty());
        }
        assert!(telnet.out().is_empty());
        // Switched off, once and for all.
        for verb in [252, 254] {
            for _ in 0..1000 {
                tokens(&mut telnet, &[&[255, verb, 0, 255, verb - 1, 0]]);
            }
        }
        assert_eq!(&telnet.out()[..], [255, 254, 0, 255, 252, 0]);
        assert!(!telnet.ours(BINARY) && !telnet.theirs(BINARY));
    }

    proptest! {
        #[test]
        fn data_arrives_as_it_was_sent(
            data in prop::collection::vec(prop_oneof![Just(255u8), Just(13), Just(0), any::<u8>()], 0..300),
            binary in any::<bool>(),
            cuts in prop::collection::vec(1..20usize, 1..50),
        ) {
            let (mut sender, mut receiver) = (Telnet::new(), Telnet::new());
            if binary {
                sender.ours[usize::from(BINARY)] = Side::On;
                receiver.theirs[usize::from(BINARY)] = Side::On;
            }
            sender.put_data(&data);
            let mut rest = &sender.out()[..];
            let mut got = Vec::new();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (piece, behind) = rest.split_at((*cut).min(rest.len()));
                rest = behind;
                let mut input = piece;
                while let Some(token) = receiver.next(&mut input) {
                    let Token::Data(bytes) = token else { panic!("{token:?}") };
                    got.extend_from_slice(bytes);
                }
            }
            prop_assert_eq!(got, data);
        }
    }
}
