//! The messages of COM port control (RFC 2217, section 3): typed, parsed and written from the same types. A server's codes are a
//! client's and 100 more.
use crate::endpoint::{DataBits, FlowControl, Parity, SerialSettings, StopBits};

/// What is above a client's code in a server's.
const OF_SERVER: u8 = 100;

/// One message. Numbers are as RFC 2217 has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// Text that names the end that sends it; empty, it asks for the other end's.
    Signature(&'a [u8]),
    /// Bits a second; 0 asks.
    Baud(u32),
    /// Bits a character; 0 asks.
    DataSize(u8),
    /// 1 none, 2 odd, 3 even, 4 mark, 5 space; 0 asks.
    Parity(u8),
    /// 1, 2, or 3 for one and a half; 0 asks.
    StopSize(u8),
    /// See [`control`].
    Control(u8),
    /// What has happened on the line ([`line_state`]).
    LineState(u8),
    /// The modem lines ([`modem_state`]).
    ModemState(u8),
    /// Send no more.
    Suspend,
    /// Send on.
    Resume,
    /// Which bits of a line's state are told.
    LineStateMask(u8),
    /// Which bits of a modem's state are told.
    ModemStateMask(u8),
    /// 1 what was received, 2 what waits to be sent, 3 both.
    Purge(u8),
}

/// Values of [`Message::Control`].
pub(super) mod control {
    pub(in super::super) const NO_FLOW: u8 = 1;
    pub(in super::super) const XON_XOFF: u8 = 2;
    pub(in super::super) const HARDWARE: u8 = 3;
    pub(in super::super) const BREAK_ON: u8 = 5;
    pub(in super::super) const BREAK_OFF: u8 = 6;
    pub(in super::super) const DTR_ON: u8 = 8;
    pub(in super::super) const DTR_OFF: u8 = 9;
    pub(in super::super) const RTS_ON: u8 = 11;
    pub(in super::super) const RTS_OFF: u8 = 12;
}

impl<'a> Message<'a> {
    /// The bytes behind the option's number; `None` where they are none of these.
    pub(super) fn parse(body: &'a [u8], of_server: bool) -> Option<Self> {
        let (code, value) = body.split_first()?;
        let code = if of_server {
            code.checked_sub(OF_SERVER)?
        } else {
            *code
        };
        Some(match (code, value) {
            (0, text) => Self::Signature(text),
            (1, [a, b, c, d]) => Self::Baud(u32::from_be_bytes([*a, *b, *c, *d])),
            (2, [n]) => Self::DataSize(*n),
            (3, [n]) => Self::Parity(*n),
            (4, [n]) => Self::StopSize(*n),
            (5, [n]) => Self::Control(*n),
            (6, [n]) => Self::LineState(*n),
            (7, [n]) => Self::ModemState(*n),
            (8, []) => Self::Suspend,
            (9, []) => Self::Resume,
            (10, [n]) => Self::LineStateMask(*n),
            (11, [n]) => Self::ModemStateMask(*n),
            (12, [n]) => Self::Purge(*n),
            _ => return None,
        })
    }

    /// As [`parse`](Self::parse) reads it.
    pub(super) fn body(&self, of_server: bool) -> Vec<u8> {
        let of_baud;
        let (code, value): (u8, &[u8]) = match self {
            Self::Signature(text) => (0, text),
            Self::Baud(baud) => {
                of_baud = baud.to_be_bytes();
                (1, &of_baud)
            }
            Self::DataSize(n) => (2, std::slice::from_ref(n)),
            Self::Parity(n) => (3, std::slice::from_ref(n)),
            Self::StopSize(n) => (4, std::slice::from_ref(n)),
            Self::Control(n) => (5, std::slice::from_ref(n)),
            Self::LineState(n) => (6, std::slice::from_ref(n)),
            Self::ModemState(n) => (7, std::slice::from_ref(n)),
            Self::Suspend => (8, &[]),
            Self::Resume => (9, &[]),
            Self::LineStateMask(n) => (10, std::slice::from_ref(n)),
            Self::ModemStateMask(n) => (11, std::slice::from_ref(n)),
            Self::Purge(n) => (12, std::slice::from_ref(n)),
        };
        let code = if of_server { code + OF_SERVER } else { code };
        [&[code], value].concat()
    }
}

/// What a line is set to, in the order in which it is said.
pub(super) fn settings(s: &SerialSettings) -> [Message<'static>; 5] {
    [
        Message::Baud(s.baud),
        Message::DataSize(match s.data {
            DataBits::Five => 5,
            DataBits::Six => 6,
            DataBits::Seven => 7,
            DataBits::Eight => 8,
        }),
        Message::Parity(match s.parity {
            Parity::None => 1,
            Parity::Odd => 2,
            Parity::Even => 3,
        }),
        Message::StopSize(match s.stop {
            StopBits::One => 1,
            StopBits::Two => 2,
        }),
        Message::Control(match s.flow {
            FlowControl::None => control::NO_FLOW,
            FlowControl::Software => control::XON_XOFF,
            FlowControl::Hardware => control::HARDWARE,
        }),
    ]
}

/// Whether an answer is about the same setting. A control's number says what it controls.
pub(super) fn is_answer(asked: &Message<'_>, answer: &Message<'_>) -> bool {
    match (asked, answer) {
        (Message::Control(_), Message::Control(n)) => (1..=3).contains(n) || *n == 17,
        (asked, answer) => is_same(asked, answer),
    }
}

/// Whether two messages are of one kind, whatever they say.
pub(super) fn is_same(one: &Message<'_>, other: &Message<'_>) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}

/// A setting in words: `9600 baud`.
pub(super) fn in_words(message: &Message<'_>) -> String {
    match message {
        Message::Baud(n) => format!("{n} baud"),
        Message::DataSize(n) => format!("{n} data bits"),
        Message::Parity(n) => match n {
            1 => "no parity".to_owned(),
            2 => "odd parity".to_owned(),
            3 => "even parity".to_owned(),
            4 => "mark parity".to_owned(),
            5 => "space parity".to_owned(),
            n => format!("a parity of number {n}"),
        },
        Message::StopSize(1) => "1 stop bit".to_owned(),
        Message::StopSize(3) => "1.5 stop bits".to_owned(),
        Message::StopSize(n) => format!("{n} stop bits"),
        Message::Control(control::NO_FLOW) => "no flow control".to_owned(),
        Message::Control(control::XON_XOFF) => "flow control by XON and XOFF".to_owned(),
        Message::Control(control::HARDWARE) => "flow control by hardware".to_owned(),
        Message::Control(n) => format!("a flow control of number {n}"),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_reads_as_it_was_written() {
        for of_server in [false, true] {
            for message in [
                Message::Signature(b""),
                Message::Signature(b"ser2net"),
                Message::Baud(0x00ff_25ff),
                Message::DataSize(8),
                Message::Parity(5),
                Message::StopSize(3),
                Message::Control(12),
                Message::LineState(0xff),
                Message::ModemState(0xb0),
                Message::Suspend,
                Message::Resume,
                Message::LineStateMask(1),
                Message::ModemStateMask(2),
                Message::Purge(3),
            ] {
                let body = message.body(of_server);
                assert_eq!(Message::parse(&body, of_server), Some(message));
                assert_eq!(body[0] >= 100, of_server);
            }
            for wrong in [&[][..], &[99], &[113, 0], &[1, 2, 3], &[105], &[108, 1]] {
                assert_eq!(Message::parse(wrong, of_server), None, "{wrong:?}");
            }
        }
    }
}
