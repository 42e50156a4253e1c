//! The hello: who may take a session up again, and the examples of docs/PROTOCOL.md.

use std::time::Duration;

use cepa_transports::Side;
use tokio::io::{AsyncWriteExt as _, duplex};

use crate::resume::exchange::HelloError;
use crate::resume::frame::Frame;
use crate::resume::hello::Answer;
use crate::resume::*;

const AT: At = At {
    generation: 1,
    received: 0x0123_4567,
};

fn ticket() -> Ticket {
    let mut random = [0; Ticket::RANDOM];
    for (i, byte) in (0..).zip(&mut random) {
        *byte = i;
    }
    Ticket::from_random(&random)
}

#[test]
fn a_proof_is_of_one_end_one_connection_and_its_numbers() {
    let (ticket, exporter) = (ticket(), [0x33; 32]);
    let proof = ticket.proof(Side::Client, &exporter, AT);
    assert!(ticket.proves(&proof, Side::Client, &exporter, AT));
    let others = [
        (Side::Server, exporter, AT),
        (Side::Client, [0x34; 32], AT),
        (
            Side::Client,
            exporter,
            At {
                generation: 2,
                ..AT
            },
        ),
        (Side::Client, exporter, At { received: 1, ..AT }),
    ];
    for (side, exporter, at) in others {
        assert!(!ticket.proves(&proof, side, &exporter, at));
    }
    for i in 0..Ticket::RANDOM {
        let mut random = [0; Ticket::RANDOM];
        random[i] = 1;
        let other = Ticket::from_random(&random);
        assert!(!other.proves(&proof, Side::Client, &exporter, AT));
    }
    for i in 0..proof.len() {
        let mut wrong = proof;
        wrong[i] ^= 1;
        assert!(!ticket.proves(&wrong, Side::Client, &exporter, AT));
    }
    assert!(
        !format!("{ticket:?}").contains("16"),
        "a token is for nobody to see"
    );
}

#[tokio::test]
async fn the_exchange_takes_not_a_byte_too_many() {
    let (mut near, mut far) = duplex(1 << 10);
    let (ticket, exporter) = (ticket(), [0x33; 32]);
    client_new(&mut near, &ticket, Duration::from_millis(599_001))
        .await
        .unwrap();
    near.write_all(b"x").await.unwrap();
    let Hello::New {
        ticket: theirs,
        park,
    } = read_hello(&mut far).await.unwrap()
    else {
        panic!("a new session");
    };
    assert_eq!(
        park,
        Duration::from_secs(600),
        "not less than was asked for"
    );
    assert_eq!(
        theirs.proof(Side::Client, &exporter, AT),
        ticket.proof(Side::Client, &exporter, AT)
    );
    assert_eq!(
        tokio::io::AsyncReadExt::read_u8(&mut far).await.unwrap(),
        b'x'
    );

    let answer = At { received: 9, ..AT };
    let serve = async {
        let Hello::Resume { id, at, proof } = read_hello(&mut far).await.unwrap() else {
            panic!("a session that is there");
        };
        assert_eq!((id, at), (ticket.id, AT));
        assert!(ticket.proves(&proof, Side::Client, &exporter, at));
        answer_resumed(&mut far, &ticket, &exporter, answer)
            .await
            .unwrap();
        far.write_all(b"y").await.unwrap();
    };
    let (got, ()) = tokio::join!(client_resume(&mut near, &ticket, &exporter, AT), serve);
    assert_eq!(got.unwrap(), answer);
    assert_eq!(
        tokio::io::AsyncReadExt::read_u8(&mut near).await.unwrap(),
        b'y'
    );

    // Refused, and answered by one who has seen the client's proof alone.
    answer_refused(&mut far, Refusal::Stale).await.unwrap();
    let got = client_resume(&mut near, &ticket, &exporter, AT).await;
    assert!(
        matches!(got, Err(HelloError::Refused(Refusal::Stale))),
        "{got:?}"
    );
    let proof = ticket.proof(Side::Client, &exporter, AT);
    far.write_all(&Answer::Resumed { at: AT, proof }.encode())
        .await
        .unwrap();
    let got = client_resume(&mut near, &ticket, &exporter, AT).await;
    assert!(matches!(got, Err(HelloError::Proof)), "{got:?}");
    far.write_all(&[2, 1, 0]).await.unwrap();
    let got = client_resume(&mut near, &ticket, &exporter, AT).await;
    assert!(
        matches!(got, Err(HelloError::Malformed(HelloMalformed::Version(2)))),
        "{got:?}"
    );
}

fn hex(bytes: &[u8]) -> String {
    let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(" ")
}

/// The page has each of them, byte by byte.
#[test]
fn the_documented_bytes() {
    let page = include_str!("../../../docs/PROTOCOL.md");
    let (ticket, exporter) = (ticket(), [0x33; 32]);
    let frame = |frame: Frame| {
        let mut bytes = Vec::new();
        frame.emit(&mut bytes);
        bytes
    };
    let resume = Hello::Resume {
        id: ticket.id,
        at: AT,
        proof: ticket.proof(Side::Client, &exporter, AT),
    };
    let resumed = Answer::Resumed {
        at: AT,
        proof: ticket.proof(Side::Server, &exporter, AT),
    };
    let new = Hello::New {
        ticket: ticket.clone(),
        park: Duration::from_secs(600),
    };
    let data = [frame(Frame::Data(5)), b"hello".to_vec()].concat();
    let rows = [
        ("new, 600 s", new.encode().to_vec()),
        ("resume", resume.encode().to_vec()),
        ("resumed", resumed.encode()),
        ("refused, stale", Answer::Refused(Refusal::Stale).encode()),
        ("data `hello`", data),
        ("ack", frame(Frame::Ack(0x0123_4567))),
        ("ping", frame(Frame::Ping(1))),
        ("pong", frame(Frame::Pong(1))),
        ("end", frame(Frame::End)),
        ("park, 600 s", frame(Frame::Park(600))),
        ("over, given up", frame(Frame::Over(0))),
    ];
    let missing: Vec<String> = rows
        .iter()
        .map(|(name, bytes)| format!("| {name} | `{}` |", hex(bytes)))
        .filter(|row| !page.contains(row))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/PROTOCOL.md lacks\n{}",
        missing.join("\n")
    );
}
