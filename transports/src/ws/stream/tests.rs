//! What an end of a WebSocket makes of what the other one sends, and when it pings. The other one is made of frames by hand, or is
//! of the same kind; nothing here waits for a clock that is not virtual.
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

/// A server's end, and what its client's frames are written to.
async fn server(ping: Option<u16>) -> (Messages<Stream>, DuplexStream) {
    let (near, far) = duplex(1 << 20);
    (Messages::accepted(Stream::from(near), ping).await, far)
}

/// A client's frame (RFC 6455, section 5.2) under a mask of zeroes.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        n @ 0..126 => frame.push(0x80 | u8::try_from(n).unwrap()),
        n @ 126..0x1_0000 => {
            frame.push(0xfe);
            frame.extend(u16::try_from(n).unwrap().to_be_bytes());
        }
        n => {
            frame.push(0xff);
            frame.extend((n as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What is read to the end, or why not.
async fn read(frames: &[Vec<u8>]) -> (Vec<u8>, Option<io::Error>) {
    let (mut end, mut client) = server(None).await;
    client.write_all(&frames.concat()).await.unwrap();
    drop(client);
    let mut all = Vec::new();
    let error = end.read_to_end(&mut all).await.err();
    (all, error)
}

#[tokio::test]
async fn an_end_is_told_from_a_cut() {
    let data = || frame(BINARY, b"data");
    for (end, what) in [
        (frame(BINARY, b""), "an empty message"),
        (frame(CLOSE, b""), "Close without a status"),
        (frame(CLOSE, b"\x03\xe8bye"), "Close with 1000"),
    ] {
        let (all, error) = read(&[data(), end]).await;
        assert_eq!(
            (&*all, error.map(|e| e.kind())),
            (&b"data"[..], None),
            "{what}"
        );
    }
    let (all, error) = read(&[data()]).await;
    let kind = error.unwrap().kind();
    assert_eq!((&*all, kind), (&b"data"[..], io::ErrorKind::UnexpectedEof));
    // Going away: a proxy that ends what it carries.
    let (all, error) = read(&[data(), frame(CLOSE, b"\x03\xe9\x1b[2J")]).await;
    let error = error.unwrap();
    assert_eq!(all, b"data");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    let text = error.to_string();
    assert!(text.contains("status 1001 \"\\u{1b}[2J\""), "{text}");
}

#[tokio::test]
async fn what_does_not_belong_there_is_an_error() {
    for (bad, why) in [
        (frame(TEXT, b"hello"), "text"),
        (
            frame(BINARY, &vec![0; MESSAGE + 1]),
            "more than 65536 bytes",
        ),
        (frame(3, b""), "no WebSocket message"),
        (b"\x82\x01x".to_vec(), "no WebSocket message"),
        (b"\xff\x80\0\0\0\0".to_vec(), "no WebSocket message"),
    ] {
        let (all, error) = read(&[bad]).await;
        let error = error.unwrap();
        assert!(all.is_empty());
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
    // As fragments, too; each is small enough.
    let mut first = frame(BINARY, &vec![0; MESSAGE]);
    first[0] = BINARY;
    let (_, error) = read(&[first, frame(0, b"x")]).await;
    assert!(error.unwrap().to_string().contains("more than 65536"));
    // The largest there may be.
    let (all, _) = read(&[frame(BINARY, &vec![7; MESSAGE]), frame(BINARY, b"")]).await;
    assert_eq!(all.len(), MESSAGE);
}

#[tokio::test]
async fn a_length_is_no_reason_to_make_room_for_it() {
    let (mut end, mut client) = server(None).await;
    // 2^63 bytes are announced.
    client
        .write_all(b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0")
        .await
        .unwrap();
    let error = end.read_u8().await.unwrap_err();
    assert!(error.to_string().contains("more than 65536"), "{error}");
}

#[tokio::test]
async fn pings_are_answered_while_it_is_read() {
    let (mut end, mut client) = server(None).await;
    let all = [frame(PING, b"one"), frame(BINARY, b"x"), frame(BINARY, b"")].concat();
    client.write_all(&all).await.unwrap();
    let mut got = Vec::new();
    end.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"x");
    let mut answer = [0; 5];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"\x8a\x03one");
}

/// In virtual time.
#[tokio::test(start_paused = true)]
async fn a_silence_is_pinged_once_until_that_is_answered() {
    let (mut end, mut client) = server(Some(30)).await;
    let (out, mut pings) = tokio::sync::mpsc::unbounded_channel();
    let reader = tokio::spawn(async move {
        let mut all = Vec::new();
        end.read_to_end(&mut all).await.unwrap();
        (end, all)
    });
    let start = Instant::now();
    let mut ping = [0; 2];
    client.read_exact(&mut ping).await.unwrap();
    assert_eq!(&ping, b"\x89\x00");
    assert_eq!(start.elapsed().as_secs(), 30);
    // No second one before the answer.
    let more = tokio::time::timeout(Duration::from_secs(300), client.read_u8());
    assert!(more.await.is_err());
    client.write_all(&frame(PONG, b"")).await.unwrap();
    let start = Instant::now();
    client.read_exact(&mut ping).await.unwrap();
    assert_eq!(&ping, b"\x89\x00");
    assert!(start.elapsed().as_secs() <= 60, "{:?}", start.elapsed());
    client.write_all(&frame(PONG, b"")).await.unwrap();
    // Where something comes and goes there is none.
    let busy = tokio::spawn(async move {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_secs(20)).await;
            client.write_all(&frame(BINARY, b"x")).await.unwrap();
        }
        let waiting = tokio::time::timeout(Duration::from_secs(1), client.read_u8());
        out.send(waiting.await.is_ok()).unwrap();
        client.write_all(&frame(BINARY, b"")).await.unwrap();
        client
    });
    assert!(!pings.recv().await.unwrap());
    let (end, all) = reader.await.unwrap();
    assert_eq!(all.len(), 20);
    drop((busy.await, end));
}

#[tokio::test]
async fn the_second_to_end_says_close() {
    let (mut end, mut client) = server(None).await;
    client.write_all(&frame(BINARY, b"")).await.unwrap();
    assert_eq!(end.read(&mut [0; 9]).await.unwrap(), 0);
    // Written after the other end's end.
    end.write_all(b"more").await.unwrap();
    end.shutdown().await.unwrap();
    let mut all = Vec::new();
    client.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, b"\x82\x04more\x82\x00\x88\x02\x03\xe8");
    assert_eq!(
        end.write(b"x").await.unwrap_err().kind(),
        io::ErrorKind::BrokenPipe
    );
    // Whoever is closed by the other end takes that for the end of both, and closing it in turn is fine.
    let (mut end, mut client) = server(None).await;
    client.write_all(&frame(CLOSE, b"\x03\xe8")).await.unwrap();
    assert_eq!(end.read(&mut [0; 9]).await.unwrap(), 0);
    assert_eq!(
        end.write(b"x").await.unwrap_err().kind(),
        io::ErrorKind::BrokenPipe
    );
    end.shutdown().await.unwrap();
}
