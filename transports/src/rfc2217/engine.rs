//! A client's end of a serial line behind a serial server: what is said and what is understood, without IO and without a clock.
//!
//! ```text
//!   OPTIONS   eight bits both ways (BINARY), control of the port (COM-PORT): asked for, and not yet agreed to
//!      | agreed
//!   SETTINGS  rate, data bits, parity, stop bits, flow control: each is answered with what the port has now
//!      | all answered
//!    OPEN     data; breaks; word of the line's and the modem's state; whether the server takes more
//! ```
//!
//! What comes before the line is open is another conversation's, or was read at another rate, and is thrown away, but for its first
//! words: servers say so why they close (`Port already in use`).
//!
//! `receive` takes what came; `out` has what is to be sent, a few bytes for some that came, and data by `send`. Nothing here grows but that.
use bytes::BytesMut;

use super::com_port::{self, Message, control};
use super::end::{End, Refusal};
use super::telnet::{BINARY, COM_PORT, SUPPRESS_GO_AHEAD, Telnet, Token};
use crate::endpoint::{FlowControl, ModemLine, SerialSettings};
use crate::line_notices::{LineNotices, ModemLines, OutLine};

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// For anything that is telnet.
    Telnet,
    /// For the options.
    Options,
    /// For the answer to a setting, in words.
    Setting(String),
}

/// What is told of a line: overruns, parity and framing errors, breaks.
const LINE_STATE: u8 = 0b0001_1110;

/// All that is told of a modem.
const MODEM_STATE: u8 = 0xff;

/// What a server may say before the line is open.
const WORDS: usize = 200;

pub(super) struct Client {
    telnet: Telnet,
    settings: SerialSettings,
    phase: Phase,
    refusal: Option<Refusal>,
    words: Vec<u8>,
    remarks: Vec<String>,
    suspended: bool,
    notices: LineNotices,
}

enum Phase {
    Options,
    /// With those that have no answer yet.
    Settings(Vec<Message<'static>>),
    Open,
}

impl Client {
    pub(super) fn new(settings: &SerialSettings) -> Self {
        let mut telnet = Telnet::new();
        for option in [BINARY, SUPPRESS_GO_AHEAD] {
            telnet.offer(option);
            telnet.ask(option);
        }
        // RFC 2217, section 2: the client offers, the server agrees.
        telnet.offer(COM_PORT);
        Self {
            telnet,
            settings: settings.clone(),
            phase: Phase::Options,
            refusal: None,
            words: Vec::new(),
            remarks: Vec::new(),
            suspended: false,
            notices: LineNotices::default(),
        }
    }

    /// Whether the line carries bytes.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    pub(super) fn waits(&self) -> Waits {
        match &self.phase {
            Phase::Settings(asked) => {
                Waits::Setting(asked.first().map(com_port::in_words).unwrap_or_default())
            }
            _ if self.telnet.spoken() => Waits::Options,
            _ => Waits::Telnet,
        }
    }

    /// The first words that came before the line was open.
    pub(super) fn words(&self) -> &[u8] {
        &self.words
    }

    /// What the port does not do as it was told; one line each.
    pub(super) fn take_remarks(&mut self) -> Vec<String> {
        std::mem::take(&mut self.remarks)
    }

    fn say(&mut self, message: &Message<'_>) {
        let body = message.body(false);
        self.telnet.put_subnegotiation(COM_PORT, &body);
    }

    /// Once all options are agreed to, the port is set up.
    fn agreed(&mut self) {
        let telnet = &self.telnet;
        let all = telnet.ours(BINARY)
            && telnet.theirs(BINARY)
            // Some servers offer it instead of agreeing to our offer.
            && (telnet.ours(COM_PORT) || telnet.theirs(COM_PORT));
        if !all || !matches!(self.phase, Phase::Options) {
            return;
        }
        let asked = com_port::settings(&self.settings);
        for message in &asked {
            self.say(message);
        }
        // No answer is waited for: many a port has no such lines, and its server says nothing then.
        for (line, state) in [
            (OutLine::Dtr, self.settings.dtr),
            (OutLine::Rts, self.settings.rts),
        ] {
            if state != ModemLine::Keep {
                self.set_line(line, state == ModemLine::On);
            }
        }
        self.say(&Message::LineStateMask(LINE_STATE));
        self.say(&Message::ModemStateMask(MODEM_STATE));
        self.phase = Phase::Settings(asked.to_vec());
    }

    fn subnegotiation(&mut self) {
        let Some((COM_PORT, body)) = self.telnet.subnegotiation() else {
            return;
        };
        match Message::parse(body, true) {
            Some(Message::Signature([])) => self.say(&Message::Signature(b"cepa")),
            Some(Message::Suspend) => self.suspended = true,
            Some(Message::Resume) => self.suspended = false,
            Some(Message::ModemState(state)) => self.notices.modem = Some(modem_lines(state)),
            Some(Message::LineState(state)) => {
                let it = &mut self.notices;
                for (bit, count) in [
                    (0x02, &mut it.overruns),
                    (0x04, &mut it.parity_errors),
                    (0x08, &mut it.framing_errors),
                    (0x10, &mut it.breaks),
                ] {
                    *count = count.saturating_add(u64::from(state & bit != 0));
                }
            }
            Some(answer) => {
                let Phase::Settings(asked) = &mut self.phase else {
                    return;
                };
                let of = asked.iter().position(|it| com_port::is_answer(it, &answer));
                let Some(asked_for) = of.map(|at| asked.remove(at)) else {
                    return;
                };
                let done = asked.is_empty();
                if asked_for != answer {
                    let (has, wanted) =
                        (com_port::in_words(&answer), com_port::in_words(&asked_for));
                    self.remarks.push(format!(
                        "the serial server keeps {has} where {wanted} was asked for"
                    ));
                }
                if done {
                    self.phase = Phase::Open;
                }
            }
            None => {}
        }
    }
}

impl End for Client {
    fn receive(&mut self, mut input: &[u8], data: &mut BytesMut) -> Result<(), Refusal> {
        while let Some(token) = self.telnet.next(&mut input) {
            match token {
                Token::Data(bytes) if self.is_open() => data.extend_from_slice(bytes),
                Token::Data(bytes) => {
                    let room = WORDS - self.words.len();
                    let first = bytes.get(..room).unwrap_or(bytes);
                    self.words.extend_from_slice(first);
                }
                Token::Ours(BINARY, false) | Token::Theirs(BINARY, false) => {
                    self.refusal = self.refusal.or(Some(Refusal::Binary));
                }
                Token::Ours(COM_PORT, false) | Token::Theirs(COM_PORT, false) => {
                    self.refusal = self.refusal.or(Some(Refusal::ComPort));
                }
                Token::Ours(..) | Token::Theirs(..) => self.agreed(),
                Token::Subnegotiation => self.subnegotiation(),
            }
        }
        self.refusal.map_or(Ok(()), Err)
    }

    fn is_suspended(&self) -> bool {
        self.suspended
    }

    fn notices(&self) -> LineNotices {
        self.notices
    }

    fn out(&mut self) -> &mut BytesMut {
        self.telnet.out()
    }

    fn send(&mut self, data: &[u8]) {
        self.telnet.put_data(data);
    }

    fn set_break(&mut self, on: bool) {
        self.say(&Message::Control(if on {
            control::BREAK_ON
        } else {
            control::BREAK_OFF
        }));
    }

    fn set_line(&mut self, line: OutLine, on: bool) {
        let n = match (line, on) {
            (OutLine::Dtr, true) => control::DTR_ON,
            (OutLine::Dtr, false) => control::DTR_OFF,
            // The server's port has it for itself.
            (OutLine::Rts, _) if self.settings.flow == FlowControl::Hardware => return,
            (OutLine::Rts, true) => control::RTS_ON,
            (OutLine::Rts, false) => control::RTS_OFF,
        };
        self.say(&Message::Control(n));
    }

    fn ended(&mut self) -> bool {
        !self.telnet.is_within()
    }

    fn closes(&self) -> bool {
        false
    }
}

fn modem_lines(state: u8) -> ModemLines {
    ModemLines {
        cts: state & 0x10 != 0,
        dsr: state & 0x20 != 0,
        ring: state & 0x40 != 0,
        carrier: state & 0x80 != 0,
    }
}

/// Any bytes as a server's, in pieces of any lengths. What comes out is bounded by what goes in.
#[cfg(any(feature = "fuzzing", test))]
pub(crate) fn fuzz(bytes: &[u8]) {
    let mut client = Client::new(&SerialSettings::default());
    let mut offers = client.out().split().len();
    let mut data = BytesMut::new();
    let (pieces, mut rest) = bytes.split_at(bytes.len() / 8);
    for n in pieces.iter().cycle().take(bytes.len()).chain([&255]) {
        let (piece, behind) = rest.split_at(rest.len().min(usize::from(*n)));
        rest = behind;
        let _ = client.receive(piece, &mut data);
    }
    let _ = client.receive(rest, &mut data);
    // What is said once the options are agreed to.
    offers += 10 * 12;
    assert!(data.len() <= bytes.len());
    // An answer to each two or three bytes at most, and a name for six.
    assert!(client.out().len() <= offers + 3 * bytes.len());
    assert!(client.words().len() <= WORDS);
    let _ = (client.waits(), client.take_remarks(), client.notices());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a server sends, and what of it is data.
    fn receive(client: &mut Client, bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut data = BytesMut::new();
        client.receive(bytes, &mut data)?;
        Ok(data.to_vec())
    }

    fn says(client: &mut Client) -> Vec<u8> {
        client.out().split().to_vec()
    }

    fn sub(body: &[u8]) -> Vec<u8> {
        let mut all = vec![255, 250, 44];
        for byte in body {
            all.push(*byte);
            if *byte == 255 {
                all.push(255);
            }
        }
        all.extend([255, 240]);
        all
    }

    /// What ser2net 4.3 says first, and to our offers.
    const HELLO: &[u8] = &[
        255, 251, 3, 255, 253, 3, 255, 251, 1, 255, 254, 1, 255, 253, 0, 255, 251, 0, 255, 253, 44,
    ];

    /// Agreed, and the settings are said.
    fn agreed(settings: &str) -> Client {
        let settings: crate::Endpoint = format!("rfc2217:h:1,{settings}").parse().unwrap();
        let mut client = Client::new(settings.line_settings().unwrap());
        let offers = [
            255, 251, 0, 255, 253, 0, 255, 251, 3, 255, 253, 3, 255, 251, 44,
        ];
        assert_eq!(says(&mut client), offers);
        assert_eq!(client.waits(), Waits::Telnet);
        assert_eq!(receive(&mut client, HELLO), Ok(vec![]));
        client
    }

    /// As well as it can.
    fn answers() -> Vec<u8> {
        [
            sub(&[101, 0, 0, 0x25, 0x80]),
            sub(&[102, 8]),
            sub(&[103, 1]),
            sub(&[104, 1]),
            sub(&[105, 1]),
        ]
        .concat()
    }

    #[test]
    fn a_line_is_set_up_and_carries_bytes() {
        let mut client = agreed("baud=9600,dtr=off,rts=on");
        let said = [
            // No echo.
            vec![255, 254, 1],
            sub(&[1, 0, 0, 0x25, 0x80]),
            sub(&[2, 8]),
            sub(&[3, 1]),
            sub(&[4, 1]),
            sub(&[5, 1]),
            sub(&[5, 9]),
            sub(&[5, 11]),
            sub(&[10, 0x1e]),
            sub(&[11, 255]),
        ];
        assert_eq!(says(&mut client), said.concat());
        assert_eq!(client.waits(), Waits::Setting("9600 baud".to_owned()));
        // What was there before is dropped; answers may come in any order, and others between them.
        let before = [b"old".to_vec(), sub(&[107, 0x30]), sub(&[105, 8])].concat();
        assert_eq!(receive(&mut client, &before), Ok(vec![]));
        assert!(!client.is_open());
        let then = [answers(), b"new\xff\xff".to_vec()].concat();
        assert_eq!(receive(&mut client, &then), Ok(b"new\xff".to_vec()));
        assert!(client.is_open() && client.take_remarks().is_empty());
        assert_eq!(client.notices().modem, Some(modem_lines(0x30)));
        client.send(b"a\xffb\r\0");
        assert_eq!(says(&mut client), b"a\xff\xffb\r\0");
        client.set_break(true);
        client.set_break(false);
        client.set_line(OutLine::Dtr, false);
        client.set_line(OutLine::Rts, true);
        let said = [[5, 5], [5, 6], [5, 9], [5, 11]].map(|body| sub(&body));
        assert_eq!(says(&mut client), said.concat());
        let mut client = agreed("flow=hw");
        says(&mut client);
        client.set_line(OutLine::Rts, true);
        assert!(says(&mut client).is_empty());
    }

    #[test]
    fn every_setting_has_its_number() {
        let mut client = agreed("baud=16777215,data=7,parity=even,stop=2,flow=hw");
        let said = [
            vec![255, 254, 1],
            sub(&[1, 0, 255, 255, 255]),
            sub(&[2, 7]),
            sub(&[3, 3]),
            sub(&[4, 2]),
            sub(&[5, 3]),
        ]
        .concat();
        assert!(says(&mut client).starts_with(&said));
        for (setting, body) in [
            ("parity=odd", [3, 2]),
            ("flow=sw", [5, 2]),
            ("data=5", [2, 5]),
        ] {
            let said = says(&mut agreed(setting));
            let one = sub(&body);
            assert!(said.windows(one.len()).any(|it| it == one), "{setting}");
        }
    }

    #[test]
    fn a_port_that_does_otherwise_is_remarked_upon() {
        let mut client = agreed("baud=9600,flow=hw");
        assert_eq!(receive(&mut client, &answers()), Ok(vec![]));
        assert!(client.is_open());
        assert_eq!(
            client.take_remarks(),
            [
                "the serial server keeps no flow control where flow control by hardware was asked for"
            ]
        );
    }

    #[test]
    fn a_server_that_has_not_what_a_line_needs_is_refused() {
        for (answer, refusal) in [
            ([255, 254, 44], Refusal::ComPort),
            ([255, 254, 0], Refusal::Binary),
            ([255, 252, 0], Refusal::Binary),
        ] {
            let settings = SerialSettings::default();
            let mut client = Client::new(&settings);
            assert_eq!(receive(&mut client, &answer), Err(refusal));
            assert_eq!(receive(&mut client, b"x"), Err(refusal));
            // Later, too.
            let mut client = agreed("baud=9600");
            receive(&mut client, &answers()).unwrap();
            let mut data = BytesMut::new();
            let bytes = [b"x", &answer[..]].concat();
            assert_eq!(client.receive(&bytes, &mut data), Err(refusal));
            assert_eq!(data, b"x"[..]);
        }
        let mut client = Client::new(&SerialSettings::default());
        let words = b"Port already in use\r\n".repeat(1000);
        assert_eq!(receive(&mut client, &words), Ok(vec![]));
        assert!(client.words().starts_with(b"Port already in use"));
        assert_eq!(client.words().len(), WORDS);
        assert_eq!(client.waits(), Waits::Telnet);
    }

    #[test]
    fn a_server_tells_of_the_line_and_holds_us_back() {
        let mut client = agreed("baud=9600");
        receive(&mut client, &answers()).unwrap();
        says(&mut client);
        for (body, suspended) in [(108, true), (109, false)] {
            receive(&mut client, &sub(&[body])).unwrap();
            assert_eq!(client.is_suspended(), suspended);
        }
        for state in [0x02, 0x18, 0x10, 0x61] {
            receive(&mut client, &sub(&[106, state])).unwrap();
        }
        receive(&mut client, &sub(&[107, 0x93])).unwrap();
        let notices = LineNotices {
            modem: Some(ModemLines {
                cts: true,
                carrier: true,
                ..ModemLines::default()
            }),
            overruns: 1,
            parity_errors: 0,
            framing_errors: 1,
            breaks: 2,
        };
        assert_eq!(client.notices(), notices);
        // It is told who we are, if it asks.
        receive(&mut client, &sub(&[100])).unwrap();
        assert_eq!(says(&mut client), sub(b"\0cepa"));
        // Nonsense is nothing.
        for nonsense in [&[][..], &[99], &[255, 255], &[101, 1], &[0, 1], &[112, 1]] {
            assert_eq!(receive(&mut client, &sub(nonsense)), Ok(vec![]));
        }
        assert!(says(&mut client).is_empty() && client.is_open());
    }
    proptest! {
        /// What the fuzz target does, on what is nearer to telnet than any bytes are.
        #[test]
        fn whatever_comes_is_bounded(
            bytes in prop::collection::vec(
                prop_oneof![
                    Just(vec![255]), Just(vec![255, 250, 44]), Just(vec![255, 240]), Just(vec![255, 250, 44, 100, 255, 240]),
                    Just(answers()), Just(HELLO.to_vec()),
                    (251..=254u8, any::<u8>()).prop_map(|(verb, option)| vec![255, verb, option]),
                    prop::collection::vec(any::<u8>(), 0..20),
                ],
                0..50,
            ),
        ) {
            fuzz(&bytes.concat());
        }
    }
}
