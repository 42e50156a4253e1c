//! A server's end: a serial line for a client that knows nothing of cepa. No IO and no clock, as `engine`.
//!
//! Behind it is no port but a stream, so a client may set what it likes, and is answered that it is so. Data goes both ways from the
//! start, also for a client that has no control of a port at all; only what goes to it waits until it has said whether it takes eight bits
//! as they are. Where it does not, a NUL stands behind each CR (RFC 854).
use bytes::BytesMut;

use super::com_port::{self, Message, control};
use super::end::{End, Refusal};
use super::telnet::{BINARY, COM_PORT, SUPPRESS_GO_AHEAD, Telnet, Token};
use crate::endpoint::SerialSettings;
use crate::line_notices::{LineNotices, OutLine};

/// What a client sees of our RTS and of our DTR, as over a null modem: clear to send; data set ready and carrier.
const BY_RTS: u8 = 0b0001_0000;
const BY_DTR: u8 = 0b1010_0000;

/// The line's state by which a break is told.
const BREAK: u8 = 0b0001_0000;

pub(super) struct Server {
    telnet: Telnet,
    /// What the port is set to: rate, data bits, parity, stop bits, flow control.
    settings: [Message<'static>; 5],
    dtr: u8,
    rts: u8,
    breaking: u8,
    suspended: bool,
    /// The modem's state, as the client sees it.
    modem: u8,
    /// The modem's state has been told.
    told: bool,
    notices: LineNotices,
    /// The client says nothing more.
    ended: bool,
}

impl Server {
    /// With what is answered until the client has set the port up.
    pub(super) fn new(settings: &SerialSettings) -> Self {
        let mut telnet = Telnet::new();
        for option in [BINARY, SUPPRESS_GO_AHEAD] {
            telnet.offer(option);
            telnet.ask(option);
        }
        // RFC 2217, section 2: it is the client that offers. pyserial's waits for this.
        telnet.ask(COM_PORT);
        Self {
            telnet,
            settings: com_port::settings(settings),
            dtr: control::DTR_ON,
            rts: control::RTS_ON,
            breaking: control::BREAK_OFF,
            suspended: false,
            modem: BY_RTS | BY_DTR,
            told: false,
            notices: LineNotices::default(),
            ended: false,
        }
    }

    fn say(&mut self, message: &Message<'_>) {
        let body = message.body(true);
        self.telnet.put_subnegotiation(COM_PORT, &body);
    }

    fn subnegotiation(&mut self) {
        let Some((COM_PORT, body)) = self.telnet.subnegotiation() else {
            return;
        };
        let Some(message) = Message::parse(body, false) else {
            return;
        };
        let answer = match message {
            Message::Signature([]) => Message::Signature(b"cepa"),
            Message::Signature(_) | Message::LineState(_) => return,
            Message::Suspend => {
                self.suspended = true;
                return;
            }
            Message::Resume => {
                self.suspended = false;
                return;
            }
            Message::ModemState(_) => Message::ModemState(self.modem),
            Message::LineStateMask(n) => Message::LineStateMask(n),
            Message::ModemStateMask(n) => Message::ModemStateMask(n),
            Message::Purge(n) => Message::Purge(n),
            Message::Baud(n) => self.set(Message::Baud(n), n != 0),
            Message::DataSize(n) => self.set(Message::DataSize(n), (5..=8).contains(&n)),
            Message::Parity(n) => self.set(Message::Parity(n), (1..=5).contains(&n)),
            Message::StopSize(n) => self.set(Message::StopSize(n), (1..=3).contains(&n)),
            Message::Control(n) => self.control(n),
        };
        self.say(&answer);
    }

    /// A setting, if that is one and no question; gives what it is then.
    fn set(&mut self, to: Message<'static>, fits: bool) -> Message<'static> {
        let mut all = self.settings.iter_mut();
        let Some(setting) = all.find(|it| com_port::is_same(it, &to)) else {
            return to;
        };
        if fits {
            *setting = to;
        }
        *setting
    }

    /// RFC 2217, section 3, SET-CONTROL.
    fn control(&mut self, n: u8) -> Message<'static> {
        let state = match n {
            0..=3 => return self.set(Message::Control(n), n != 0),
            4 => self.breaking,
            control::BREAK_ON | control::BREAK_OFF => {
                if n == control::BREAK_ON && self.breaking != n {
                    self.notices.breaks = self.notices.breaks.saturating_add(1);
                }
                self.breaking = n;
                n
            }
            7 => self.dtr,
            control::DTR_ON | control::DTR_OFF => {
                self.dtr = n;
                n
            }
            10 => self.rts,
            control::RTS_ON | control::RTS_OFF => {
                self.rts = n;
                n
            }
            // Inbound flow control: none.
            13 => 14,
            n => n,
        };
        Message::Control(state)
    }
}

impl End for Server {
    /// Nothing that a client lacks ends its line.
    fn receive(&mut self, mut input: &[u8], data: &mut BytesMut) -> Result<(), Refusal> {
        while let Some(token) = self.telnet.next(&mut input) {
            match token {
                Token::Data(bytes) => data.extend_from_slice(bytes),
                Token::Ours(COM_PORT, true) | Token::Theirs(COM_PORT, true) if !self.told => {
                    self.told = true;
                    self.say(&Message::ModemState(self.modem));
                }
                Token::Ours(..) | Token::Theirs(..) => {}
                Token::Subnegotiation => self.subnegotiation(),
            }
        }
        Ok(())
    }

    fn is_suspended(&self) -> bool {
        !self.ended && (self.suspended || !self.telnet.is_answered(BINARY))
    }

    fn out(&mut self) -> &mut BytesMut {
        self.telnet.out()
    }

    fn send(&mut self, data: &[u8]) {
        self.telnet.put_data(data);
    }

    fn set_break(&mut self, on: bool) {
        if on {
            self.say(&Message::LineState(BREAK));
        }
    }

    fn set_line(&mut self, line: OutLine, on: bool) {
        let bits = match line {
            OutLine::Dtr => BY_DTR,
            OutLine::Rts => BY_RTS,
        };
        self.modem = if on {
            self.modem | bits
        } else {
            self.modem & !bits
        };
        if self.told {
            self.say(&Message::ModemState(self.modem));
        }
    }

    fn notices(&self) -> LineNotices {
        self.notices
    }

    /// One that has not said how it takes bytes gets them as any terminal would.
    fn ended(&mut self) -> bool {
        self.ended = true;
        !self.telnet.is_within()
    }

    /// The client has closed its port.
    fn closes(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rfc2217::engine::Client;

    fn open(settings: &str) -> Server {
        let at: crate::Endpoint = format!("rfc2217:h:1,{settings}").parse().unwrap();
        Server::new(at.line_settings().unwrap())
    }

    fn says(server: &mut Server, bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut data = BytesMut::new();
        server.receive(bytes, &mut data).unwrap();
        (data.to_vec(), server.out().split().to_vec())
    }

    /// What is answered to one message.
    fn answer(server: &mut Server, body: &[u8]) -> Vec<u8> {
        let asked = [&[255, 250, 44], body, &[255, 240]].concat();
        let (data, said) = says(server, &asked);
        assert!(data.is_empty());
        match said.as_slice() {
            [255, 250, 44, body @ .., 255, 240] => body.to_vec(),
            other => other.to_vec(),
        }
    }

    #[test]
    fn a_port_is_what_its_client_has_set() {
        let mut server = open("baud=9600,parity=even");
        server.out().clear();
        for (asked, answered) in [
            (&[1, 0, 0, 0, 0][..], &[101, 0, 0, 0x25, 0x80][..]),
            (&[1, 0, 0, 1, 0x2c], &[101, 0, 0, 1, 0x2c]),
            (&[1, 0, 0, 0, 0], &[101, 0, 0, 1, 0x2c]),
            (&[2, 9], &[102, 8]),
            (&[2, 7], &[102, 7]),
            (&[3, 0], &[103, 3]),
            (&[3, 5], &[103, 5]),
            (&[4, 3], &[104, 3]),
            (&[5, 0], &[105, 1]),
            (&[5, 3], &[105, 3]),
            (&[5, 4], &[105, 6]),
            (&[5, 5], &[105, 5]),
            (&[5, 4], &[105, 5]),
            (&[5, 6], &[105, 6]),
            (&[5, 9], &[105, 9]),
            (&[5, 7], &[105, 9]),
            (&[5, 10], &[105, 11]),
            (&[5, 13], &[105, 14]),
            (&[7, 0], &[107, 0xb0]),
            (&[10, 3], &[110, 3]),
            (&[12, 1], &[112, 1]),
            (&[0], b"\x64cepa"),
            (b"\0pyserial", b""),
            (&[6, 1], b""),
            (&[99], b""),
        ] {
            assert_eq!(answer(&mut server, asked), answered, "{asked:?}");
        }
        assert_eq!(server.notices().breaks, 1);
        server.set_break(true);
        server.set_break(false);
        assert_eq!(
            server.out().split()[..],
            [255, 250, 44, 106, 0x10, 255, 240]
        );
    }

    #[test]
    fn what_goes_to_a_client_waits_for_its_word_about_eight_bits() {
        for (word, sent) in [
            ([255, 253, 0], &b"\r\n\xff\xff"[..]),
            ([255, 254, 0], b"\r\0\n\xff\xff"),
        ] {
            let mut server = open("baud=9600");
            let (data, _) = says(&mut server, b"login\r\0");
            assert_eq!(data, b"login\r");
            assert!(server.is_suspended());
            says(&mut server, &word);
            assert!(!server.is_suspended());
            server.send(b"\r\n\xff");
            assert_eq!(server.out().split()[..], *sent);
        }
        let mut server = open("baud=9600");
        says(&mut server, &[255, 253, 0]);
        for (body, suspended) in [(8, true), (9, false)] {
            answer(&mut server, &[body]);
            assert_eq!(server.is_suspended(), suspended);
        }
    }

    /// Two ends of ours agree, and then have no more to say.
    #[test]
    fn a_client_of_ours_finds_its_line() {
        let mut server = open("baud=9600");
        let at: crate::Endpoint = "rfc2217:h:1,baud=300,parity=odd,flow=hw".parse().unwrap();
        let mut client = Client::new(at.line_settings().unwrap());
        let mut data = BytesMut::new();
        for _ in 0..4 {
            let there = client.out().split();
            server.receive(&there, &mut data).unwrap();
            let back = server.out().split();
            client.receive(&back, &mut data).unwrap();
        }
        assert!(client.is_open() && client.take_remarks().is_empty());
        assert!(!server.is_suspended() && data.is_empty());
        assert!(client.notices().modem.unwrap().carrier);
        assert!(client.out().is_empty() && server.out().is_empty());
        server.set_line(OutLine::Dtr, false);
        let back = server.out().split();
        client.receive(&back, &mut data).unwrap();
        let modem = client.notices().modem.unwrap();
        assert!(modem.cts && !modem.dsr && !modem.carrier);
    }
}
