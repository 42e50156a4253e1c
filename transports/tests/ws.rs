//! WebSockets that are not opened say why in one line, at both ends; and what a listener says to a browser.
#![cfg(feature = "ws")]
use cepa_transports::{Endpoint, Remote, TransportErrorKind as Kind, dial, listen};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

fn endpoint(text: &str) -> Endpoint {
    text.parse().unwrap_or_else(|e| panic!("{e}"))
}

/// Dials somebody who answers with this and closes.
async fn answered(answer: &'static [u8]) -> (Kind, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("ws:{}/cepa", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(answer).await.unwrap();
        String::from_utf8(head).unwrap()
    });
    let error = dial(&endpoint(&at)).await.unwrap_err();
    let head = server.await.unwrap();
    assert!(head.starts_with("GET /cepa HTTP/1.1\r\n"), "{head}");
    let line = error.to_string();
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(
        line.starts_with(&format!("cannot dial \"{at}\": ")),
        "{line}"
    );
    (error.kind(), line)
}

#[tokio::test]
async fn each_refusal_of_a_front_end_has_its_words() {
    for (answer, kind, words) in [
        (&b"HTTP/1.1 404 Not Found\r\n\r\n"[..], Kind::NotFound, "check the path"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", Kind::Rejected, "header=NAME:VALUE"),
        (b"HTTP/1.1 401 Unauthorized\r\n\r\n", Kind::Rejected, "not allowed"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", Kind::Refused, "is the listener running"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", Kind::Refused, "does not reach"),
        (b"HTTP/1.1 504 Gateway Timeout\r\n\r\n", Kind::TimedOut, "in time"),
        (
            b"HTTP/1.1 301 Moved\r\nLocation: https://elsewhere/\r\n\r\n",
            Kind::Invalid,
            "at \"https://elsewhere/\"",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", Kind::Invalid, "no WebSocket there"),
        // The key is not answered.
        (
            b"HTTP/1.1 101 Fine\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
            Kind::Invalid,
            "no WebSocket answers there",
        ),
        (b"SSH-2.0-OpenSSH\r\n\r\n", Kind::Invalid, "is it a web server"),
        (b"", Kind::Lost, "closed without an answer"),
    ] {
        let (found, line) = answered(answer).await;
        assert_eq!(found, kind, "{line}");
        assert!(line.contains(words), "{line}");
    }
}

#[tokio::test]
async fn a_dialler_asks_for_what_its_address_says() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let text =
        format!("ws:{at}/a%3Fb=c,host=front.example,header=X-Key:secret value,header=Cookie:a=b");
    let dialled = tokio::spawn(async move { dial(&endpoint(&text)).await });
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    for line in [
        "GET /a?b=c HTTP/1.1",
        "Host: front.example",
        "X-Key: secret value",
        "Cookie: a=b",
        "Sec-WebSocket-Version: 13",
    ] {
        let found = head.lines().any(|it| it.eq_ignore_ascii_case(line));
        assert!(found, "{line} in {head}");
    }
    drop(stream);
    let error = dialled.await.unwrap().unwrap_err().to_string();
    assert!(
        !error.contains("secret") && error.contains("X-Key:***"),
        "{error}"
    );
}

#[tokio::test]
async fn whoever_comes_with_something_else_ends_and_holds_up_nobody() {
    let mut listener = listen(&endpoint("ws:127.0.0.1:0/cepa")).await.unwrap();
    let at = listener.endpoint().to_string();
    let place = at
        .trim_start_matches("ws:")
        .trim_end_matches("/cepa")
        .to_owned();
    // Says nothing.
    let mut silent = TcpStream::connect(&place).await.unwrap();
    let mut waiting = listener.accept().await.unwrap().unwrap();
    assert_eq!(waiting.remote(), &Remote::Tcp(silent.local_addr().unwrap()));
    assert_eq!(
        waiting.label(),
        format!("ws {}", silent.local_addr().unwrap())
    );
    // A browser.
    let mut browser = TcpStream::connect(&place).await.unwrap();
    browser
        .write_all(b"GET /cepa HTTP/1.1\r\nHost: h\r\n\r\n")
        .await
        .unwrap();
    let mut accepted = listener.accept().await.unwrap().unwrap();
    let mut page = String::new();
    browser.read_to_string(&mut page).await.unwrap();
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    let error = accepted.read(&mut [0; 9]).await.unwrap_err();
    assert!(error.to_string().contains("(answered 200 OK)"), "{error}");
    assert!(accepted.write(b"x").await.is_err());
    // Somebody who speaks no HTTP.
    let mut other = TcpStream::connect(&place).await.unwrap();
    other
        .write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc")
        .await
        .unwrap();
    let mut accepted = listener.accept().await.unwrap().unwrap();
    let error = accepted.read(&mut [0; 9]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    assert!(accepted.read(&mut [0; 9]).await.is_err(), "and again");
    // Another path.
    let wrong = endpoint(&at.replace("/cepa", "/other"));
    let (dialled, accepted) = tokio::join!(dial(&wrong), listener.accept());
    assert_eq!(dialled.unwrap_err().kind(), Kind::NotFound);
    let read = accepted.unwrap().unwrap().read(&mut [0; 9]).await;
    let error = read.unwrap_err().to_string();
    assert!(error.contains("(answered 404 Not Found)"), "{error}");
    // And, all the while, one that is right.
    let at = listener.endpoint().clone();
    let (dialled, accepted) = tokio::join!(dial(&at), listener.accept());
    let (mut dialled, mut accepted) = (dialled.unwrap(), accepted.unwrap().unwrap());
    dialled.write_all(b"hello").await.unwrap();
    accepted.read_exact(&mut [0; 5]).await.unwrap();
    drop(silent.shutdown().await);
    // It asked for no WebSocket, so this is no end of one.
    let error = waiting.read(&mut [0; 9]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{error}");
    for some in ["\r\n", "GET"] {
        let mut other = TcpStream::connect(&place).await.unwrap();
        other.write_all(some.as_bytes()).await.unwrap();
        drop(other);
        let mut accepted = listener.accept().await.unwrap().unwrap();
        assert!(accepted.read(&mut [0; 9]).await.is_err(), "{some:?}");
    }
}

#[tokio::test]
async fn a_listener_has_no_use_for_a_diallers_options() {
    for options in ["host=a", "header=A:b", "proxy=http://127.0.0.1:1"] {
        let error = listen(&endpoint(&format!("ws:127.0.0.1:0/,{options}")))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains("for dialling"), "{error}");
    }
    let error = listen(&endpoint("tcp:127.0.0.1:0,proxy=http://127.0.0.1:1"))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("proxy= is for dialling"),
        "{error}"
    );
}

/// RFC 6455, section 4.1: what was not asked for fails the connection.
#[tokio::test]
async fn an_answer_with_extensions_that_nobody_asked_for_is_no_websocket() {
    async fn head(stream: &mut TcpStream) -> Vec<u8> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        head
    }
    let mut behind = listen(&endpoint("ws:127.0.0.1:0/")).await.unwrap();
    let place = behind.endpoint().to_string();
    let place = place
        .trim_start_matches("ws:")
        .trim_end_matches('/')
        .to_owned();
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = endpoint(&format!("ws:{}/", front.local_addr().unwrap()));
    for (more, opens) in [
        ("", true),
        ("Sec-WebSocket-Extensions: permessage-deflate\r\n", false),
    ] {
        // Adds a line to the answer.
        let between = async {
            let (mut client, _) = front.accept().await.unwrap();
            let mut server = TcpStream::connect(&place).await.unwrap();
            server.write_all(&head(&mut client).await).await.unwrap();
            let answer = String::from_utf8(head(&mut server).await).unwrap();
            let answer = answer.replacen("\r\n", &format!("\r\n{more}"), 1);
            client.write_all(answer.as_bytes()).await.unwrap();
            (client, server)
        };
        // A handshake goes on while its stream is there.
        let (dialled, _between, _accepted) = tokio::join!(dial(&at), between, behind.accept());
        assert_eq!(dialled.is_ok(), opens, "{more}");
        if let Err(error) = dialled {
            assert_eq!(error.kind(), Kind::Invalid, "{error}");
            assert!(error.to_string().contains("extensions"), "{error}");
        }
    }
}
