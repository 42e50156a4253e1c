//! The examples of docs/PROTOCOL.md: every row there is made here, and read back from there.

use std::fmt::Write as _;

use super::super::codec::{Decoder, Escapes, FLAG, FrameCheck, Piece, encode, unescape};
use super::super::frame::{Ack, Frame, Handed, Hello, Place, Width};

const CLIENT: u64 = 0x0102_0304_0506_0708;
const SERVER: u64 = 0x1112_1314_1516_1718;
const PAGE: &str = include_str!("../../../docs/PROTOCOL.md");

/// Nothing was sent or has come yet.
fn place() -> Place {
    Place {
        receive_next: 0,
        receive_width: Width::of_window(15),
        send_base: 0,
        send_width: Width::of_window(15),
    }
}

fn open(nonce: u64, echo: u64) -> Frame<'static> {
    Frame::Hello(opening(nonce, echo))
}

fn opening(nonce: u64, echo: u64) -> Hello {
    Hello {
        busy: false,
        unsure: true,
        half: false,
        escapes: 0,
        window: 15,
        payload: 1024,
        nonce,
        echo,
        mtu: 0,
    }
}

/// What each row says, who sends it, and the frame.
fn rows() -> Vec<(&'static str, u64, Frame<'static>)> {
    let ack = Ack {
        next: 5,
        ..Ack::default()
    };
    let gaps = Ack {
        next: 5,
        held: 200,
        ranges: vec![9..13, 20..300],
    };
    vec![
        ("OPEN of the client, unsure", CLIENT, open(CLIENT, 0)),
        (
            "OPEN of the server, unsure, echoing it",
            SERVER,
            open(SERVER, CLIENT),
        ),
        (
            "ACK of the client: nothing has come yet",
            CLIENT,
            Frame::Ack(Ack::default()),
        ),
        (
            "DATA of the client: `hello` at 0",
            CLIENT,
            Frame::Data {
                offset: 0,
                payload: b"hello",
                fin: false,
                ack: None,
            },
        ),
        (
            "DATA of the server: `~}` at 0, the end, all up to 5 acknowledged",
            SERVER,
            Frame::Data {
                offset: 0,
                payload: b"~}",
                fin: true,
                ack: Some(ack.clone()),
            },
        ),
        (
            "ACK of the server: all up to 5, of which 200 are not read; 9 to 13 and 20 to 300 as well",
            SERVER,
            Frame::Ack(gaps),
        ),
        ("PING of the client, number 7", CLIENT, Frame::Ping(7)),
        (
            "PONG of the server to it, all up to 5",
            SERVER,
            Frame::Pong(7, ack),
        ),
        ("RESET of the client", CLIENT, Frame::Reset),
        (
            "TURN of the client, number 3, answering number 2, with more to say, all up to 5",
            CLIENT,
            Frame::Turn(Handed {
                number: 3,
                answer: 2,
                more: true,
                ack: Ack {
                    next: 5,
                    ..Ack::default()
                },
            }),
        ),
        (
            "OPEN of the client, unsure, half duplex, frames of at most 240 bytes",
            CLIENT,
            Frame::Hello(Hello {
                half: true,
                mtu: 240,
                ..opening(CLIENT, 0)
            }),
        ),
    ]
}

fn seal(frame: &Frame<'_>, sender: u64) -> (FrameCheck, Escapes) {
    match frame {
        Frame::Hello(_) => (FrameCheck::opening(), Escapes::Control),
        _ => (
            FrameCheck::epoch(sender, CLIENT ^ SERVER ^ sender),
            Escapes::Least,
        ),
    }
}

#[test]
fn the_page_has_every_frame_and_its_bytes() {
    let mut table = String::new();
    for (what, sender, frame) in rows() {
        let (mut body, mut wire) = (Vec::new(), Vec::new());
        frame.emit(place(), &mut body);
        let (seal, escapes) = seal(&frame, sender);
        encode(&body, &seal, escapes, true, &mut wire);
        let hex: Vec<String> = wire.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(table, "| {what} | `{}` |", hex.join(" ")).unwrap();
    }
    assert!(PAGE.contains(&table), "docs/PROTOCOL.md lacks\n{table}");
}

#[test]
fn what_the_page_has_is_read_as_what_it_says() {
    let mut decoder = Decoder::default();
    for (what, sender, frame) in rows() {
        let row = PAGE
            .lines()
            .find_map(|line| line.strip_prefix(&format!("| {what} | `")))
            .unwrap_or_else(|| panic!("no row {what}"));
        let hex = row.strip_suffix("` |").unwrap();
        let wire: Vec<u8> = hex
            .split(' ')
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect();
        assert_eq!((wire.first(), wire.last()), (Some(&FLAG), Some(&FLAG)));
        let Some(Piece::Candidate { raw, .. }) = decoder.next(&mut &wire[..]) else {
            panic!("{what}: no frame");
        };
        let (seal, escapes) = seal(&frame, sender);
        let body = unescape(&raw, escapes).unwrap();
        let body = seal
            .check(&body)
            .unwrap_or_else(|| panic!("{what}: its checksum"));
        assert_eq!(Frame::parse(body, place()), Some(frame), "{what}");
    }
}
