//! Lines behind a server that is a pipe's other end, some of it in virtual time.
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::time::Instant;

use super::*;
use crate::endpoint::SerialSettings;
use crate::line_notices::LineNotices;
use crate::rfc2217::end::End as _;

fn endpoint() -> Endpoint {
    "rfc2217:h:1".parse().unwrap()
}

/// A line that is not open, and what its server holds.
fn pair(room: usize) -> (Line<Client>, DuplexStream) {
    let (near, far) = duplex(room);
    let client = Client::new(&SerialSettings::default());
    (Line::new(near.into(), client), far)
}

/// All that a server has to say for the line to be open.
fn answers() -> Vec<u8> {
    let mut all = vec![255, 253, 0, 255, 251, 0, 255, 253, 44];
    for body in [
        &[101, 0, 1, 0xc2, 0][..],
        &[102, 8],
        &[103, 1],
        &[104, 1],
        &[105, 1],
    ] {
        all.extend([255, 250, 44]);
        all.extend(body);
        all.extend([255, 240]);
    }
    all
}

/// Open, and all that was said so far is gone.
async fn open(room: usize) -> (Line<Client>, DuplexStream) {
    let (mut line, mut far) = pair(room);
    // Up to the mask of the modem's state, which comes last.
    let answering = async {
        far.write_all(&answers()).await.unwrap();
        let mut last = [0; 7];
        while last != [250, 44, 11, 255, 255, 255, 240] {
            last.rotate_left(1);
            last[6] = far.read_u8().await.unwrap();
        }
    };
    let at = endpoint();
    let (opened, ()) = tokio::join!(opened(&at, &mut line), answering);
    opened.unwrap();
    (line, far)
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stalls_is_given_up() {
    let silent: &[u8] = b"";
    let setting: &[u8] = &[255, 253, 0, 255, 251, 0, 255, 253, 44];
    for (says, kind, words) in [
        (silent, Kind::TimedOut, "no telnet server answered"),
        (b"SSH-2.0-x\r\n", Kind::Invalid, "is no telnet server"),
        (&[255, 251, 1], Kind::TimedOut, "did not agree to control"),
        (setting, Kind::TimedOut, "did not confirm 115200 baud"),
    ] {
        let (mut line, mut far) = pair(1 << 16);
        far.write_all(says).await.unwrap();
        let start = Instant::now();
        let error = opened(&endpoint(), &mut line).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(start.elapsed(), OPENING);
    }
}

#[tokio::test]
async fn a_server_that_closes_or_refuses_is_told_from_others() {
    for (says, kind, words) in [
        (&b""[..], Kind::Lost, "closed before the line was open"),
        (b" \r\n", Kind::Lost, "closed before the line was open"),
        (
            b"In use by \x1b[2J\"Ann\"\r\n",
            Kind::Rejected,
            r#"said "In use by \u{1b}[2J\"Ann\"""#,
        ),
        (&[255, 254, 44], Kind::Invalid, "(RFC 2217)"),
        (&[255, 252, 0], Kind::Invalid, "(RFC 856)"),
    ] {
        let (mut line, mut far) = pair(1 << 16);
        far.write_all(says).await.unwrap();
        drop(far);
        let error = opened(&endpoint(), &mut line).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn the_end_of_the_connection_is_a_hang_up() {
    let (mut line, mut far) = open(1 << 16).await;
    line.shutdown().await.unwrap();
    assert!(line.write(b"x").await.is_err());
    far.write_all(b"still\xff\xff").await.unwrap();
    drop(far);
    let mut all = Vec::new();
    let error = line.read_to_end(&mut all).await.unwrap_err();
    assert_eq!(
        (all, error.kind()),
        (b"still\xff".to_vec(), std::io::ErrorKind::ConnectionReset)
    );
    assert!(line.read(&mut [0]).await.is_err(), "and it stays one");
}

#[tokio::test]
async fn a_server_that_takes_no_data_is_waited_for() {
    let (mut line, mut far) = open(1 << 16).await;
    let control = Control::of_line(line.door());
    assert_eq!(control.line_notices(), Some(LineNotices::default()));
    far.write_all(&[255, 250, 44, 106, 0x18, 255, 240])
        .await
        .unwrap();
    far.write_all(&[b'a', 255, 250, 44, 108, 255, 240])
        .await
        .unwrap();
    assert_eq!(line.read_u8().await.unwrap(), b'a');
    let notices = control.line_notices().unwrap();
    assert_eq!((notices.framing_errors, notices.breaks), (1, 1));
    let (mut reads, mut writes) = tokio::io::split(line);
    let writer = tokio::spawn(async move {
        writes.write_all(b"held").await.unwrap();
        writes.flush().await.unwrap();
    });
    let reader = tokio::spawn(async move { reads.read_u8().await });
    // A round trip through the reader, at whose end the writer still waits.
    far.write_all(&[255, 250, 44, 100, 255, 240]).await.unwrap();
    let mut answer = [0; 10];
    far.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"\xff\xfa\x2c\0cepa\xff\xf0");
    assert!(!writer.is_finished());
    far.write_all(&[255, 250, 44, 109, 255, 240, b'z'])
        .await
        .unwrap();
    writer.await.unwrap();
    let mut held = [0; 4];
    far.read_exact(&mut held).await.unwrap();
    assert_eq!(&held, b"held");
    assert_eq!(reader.await.unwrap().unwrap(), b'z');
}

/// In virtual time.
#[tokio::test(start_paused = true)]
async fn a_break_lasts_a_quarter_of_a_second() {
    let (mut line, mut far) = open(1 << 16).await;
    let control = Control::of_line(line.door());
    let reader = tokio::spawn(async move { line.read_u8().await });
    tokio::task::yield_now().await;
    control.send_break();
    let mut said = [0; 7];
    far.read_exact(&mut said).await.unwrap();
    assert_eq!(said, [255, 250, 44, 5, 5, 255, 240]);
    let start = Instant::now();
    far.read_exact(&mut said).await.unwrap();
    assert_eq!(said, [255, 250, 44, 5, 6, 255, 240]);
    assert_eq!(start.elapsed().as_millis(), 250);
    far.write_all(b"x").await.unwrap();
    assert_eq!(reader.await.unwrap().unwrap(), b'x');
}

/// It asks for its client's name without end, and takes no answer: what we would say to it is bounded.
#[tokio::test]
async fn a_server_that_only_asks_is_read_no_more() {
    let (mut line, mut far) = open(64).await;
    let asks = [255, 250, 44, 100, 255, 240].repeat(1000);
    let asking = tokio::spawn(async move {
        loop {
            if far.write_all(&asks).await.is_err() {
                return;
            }
        }
    });
    let mut most = 0;
    for _ in 0..100_000 {
        let read = line.read_u8();
        tokio::pin!(read);
        assert!(futures::poll!(read).is_pending());
        most = most.max(line.engine().out().len());
        tokio::task::yield_now().await;
    }
    assert!((1..128 << 10).contains(&most), "{most}");
    asking.abort();
}

/// Ends of a pipe that keeps little, so that all waits for each other at times.
#[tokio::test]
async fn much_goes_both_ways_at_once() {
    let (line, far) = open(100).await;
    let data: Vec<u8> = [255, 0, 13, 7, 255, 255, 1].repeat(200_000 / 7);
    let (mut reads, mut writes) = tokio::io::split(line);
    let (mut far_reads, mut far_writes) = tokio::io::split(far);
    let escaped: Vec<u8> = data
        .iter()
        .flat_map(|b| vec![*b; 1 + usize::from(*b == 255)])
        .collect();
    let (there, wire) = (data.clone(), escaped.clone());
    let up = tokio::spawn(async move {
        writes.write_all(&there).await.unwrap();
        writes.flush().await.unwrap();
        writes
    });
    let down = tokio::spawn(async move {
        far_writes.write_all(&wire).await.unwrap();
        far_writes
    });
    let back = tokio::spawn(async move {
        let mut got = vec![0; 200_000 / 7 * 7];
        reads.read_exact(&mut got).await.unwrap();
        got
    });
    let mut got = vec![0; escaped.len()];
    far_reads.read_exact(&mut got).await.unwrap();
    assert!(got == escaped);
    assert!(back.await.unwrap() == data);
    drop((up.await.unwrap(), down.await.unwrap()));
}

fn served() -> (Line<Server>, DuplexStream) {
    let (near, far) = duplex(1 << 16);
    let at: Endpoint = "rfc2217:h:1".parse().unwrap();
    let server = Server::new(at.line_settings().unwrap());
    (Line::new(Stream::from(near), server), far)
}

/// It can't answer any more, so it gets what any terminal would: a NUL behind each CR.
#[tokio::test]
async fn a_client_that_ends_without_an_answer_is_not_held() {
    // Without a word, and suspended.
    for said in [&b"x"[..], &[255, 253, 0, b'x', 255, 250, 44, 8, 255, 240]] {
        let (mut line, mut far) = served();
        far.write_all(said).await.unwrap();
        far.shutdown().await.unwrap();
        let mut got = Vec::new();
        let (mut reads, mut writes) = tokio::io::split(&mut line);
        let (read, written) = tokio::join!(reads.read_to_end(&mut got), async {
            writes.write_all(b"a\rb").await?;
            writes.shutdown().await
        });
        assert_eq!((read.unwrap(), written.unwrap()), (1, ()));
        assert_eq!(got, b"x");
        drop(line);
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        let data: &[u8] = if said.len() > 1 { b"a\rb" } else { b"a\r\0b" };
        assert!(all.ends_with(data), "{all:?}");
    }
}

#[tokio::test]
async fn an_end_within_a_command_is_a_cut() {
    for (said, clean) in [
        (&b"data"[..], true),
        (b"data\r", true),
        (b"data\xff\xff", true),
        (b"data\xff", false),
        (b"data\xff\xfd", false),
        (b"data\xff\xfa\x2c", false),
        (b"data\xff\xfa\x2c\x01\xff", false),
    ] {
        let (mut line, mut far) = served();
        far.write_all(said).await.unwrap();
        far.shutdown().await.unwrap();
        let mut got = Vec::new();
        let read = line.read_to_end(&mut got).await;
        assert!(got.starts_with(b"data"), "{got:?}");
        assert_eq!(read.is_ok(), clean, "{said:?}");
        if let Err(error) = read {
            assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
            assert!(line.read(&mut [0; 9]).await.is_err(), "and again");
        }
    }
}
