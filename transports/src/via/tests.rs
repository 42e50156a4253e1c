//! What a proxy is sent, and what each of its answers becomes. The proxy is a script; real ones are in `tests/proxies.rs`.
use tokio::io::{AsyncReadExt as _, duplex};

use super::*;
use crate::endpoint::Endpoint;

fn proxy(text: &str) -> Proxy {
    let endpoint: Endpoint = format!("tcp:h:1,proxy={text}").parse().unwrap();
    let crate::endpoint::Target::Tcp { settings, .. } = endpoint.target() else {
        panic!("{endpoint}");
    };
    *settings.proxy.clone().unwrap()
}

/// What comes of each step, after what was sent in it; then what the target sends.
async fn asked(
    proxy: &Proxy,
    target: (&str, u16),
    script: &[(&[u8], &[u8])],
) -> Result<String, Refusal> {
    let (mut near, mut far) = duplex(1 << 16);
    let script: Vec<_> = script
        .iter()
        .map(|(a, b)| (a.to_vec(), b.to_vec()))
        .collect();
    let played = tokio::spawn(async move {
        for (asked, answer) in script {
            let mut got = vec![0; asked.len()];
            far.read_exact(&mut got).await.unwrap();
            assert_eq!(
                String::from_utf8_lossy(&got),
                String::from_utf8_lossy(&asked)
            );
            far.write_all(&answer).await.unwrap();
        }
    });
    let done = connect(proxy, &mut near, target.0, target.1).await;
    played.await.unwrap();
    done?;
    let mut rest = String::new();
    near.read_to_string(&mut rest).await.unwrap();
    Ok(rest)
}

const HELLO: (&[u8], &[u8]) = (b"\x05\x01\x00", b"\x05\x00");

#[tokio::test]
async fn socks_asks_for_a_name_or_an_address() {
    let here = proxy("socks5h://p:1");
    let name: (&[u8], &[u8]) = (
        b"\x05\x01\x00\x03\x03a.b\x1b\x58",
        b"\x05\x00\x00\x01\x7f\0\0\x01\0\x01first",
    );
    let rest = asked(&here, ("a.b", 7000), &[HELLO, name]).await;
    assert_eq!(rest.unwrap(), "first");
    let v6: (&[u8], &[u8]) = (
        b"\x05\x01\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x50",
        b"\x05\x00\x00\x03\x01a\0\x01",
    );
    assert_eq!(asked(&here, ("::1", 80), &[HELLO, v6]).await.unwrap(), "");
    let login = proxy("socks5h://us%40er:p%3Aw@p:1");
    let script: [(&[u8], &[u8]); 3] = [
        (b"\x05\x02\x00\x02", b"\x05\x02"),
        (b"\x01\x05us@er\x03p:w", b"\x01\x00"),
        (
            b"\x05\x01\x00\x01\x7f\0\0\x01\0\x50",
            b"\x05\x00\x00\x01\0\0\0\0\0\0",
        ),
    ];
    asked(&login, ("127.0.0.1", 80), &script).await.unwrap();
}

#[tokio::test]
async fn each_refusal_of_socks_has_its_words() {
    let plain = proxy("socks5h://p:1");
    let mut all = std::collections::BTreeSet::new();
    for (reply, kind) in [
        (1, Kind::Other),
        (2, Kind::Rejected),
        (3, Kind::Other),
        (4, Kind::NotFound),
        (5, Kind::Refused),
        (6, Kind::TimedOut),
        (7, Kind::Unsupported),
        (8, Kind::Unsupported),
        (9, Kind::Invalid),
    ] {
        let answer = [5, reply, 0, 1, 0, 0, 0, 0, 0, 0];
        let script: [(&[u8], &[u8]); 2] = [HELLO, (b"\x05\x01\x00\x03\x01a\0\x50", &answer)];
        let refused = asked(&plain, ("a", 80), &script).await.unwrap_err();
        assert_eq!(refused.kind, kind, "{reply}: {refused:?}");
        all.insert(refused.reason);
    }
    let offers = b"\x05\x02\x00\x02";
    let none = asked(&plain, ("a", 80), &[(b"\x05\x01\x00", b"\x05\xff")]).await;
    let login = proxy("socks5h://u:p@p:1");
    let wrong = [
        (&offers[..], &b"\x05\x02"[..]),
        (&b"\x01\x01u\x01p"[..], &b"\x01\x01"[..]),
    ];
    let wrong = asked(&login, ("a", 80), &wrong).await;
    let http = asked(
        &plain,
        ("a", 80),
        &[(b"\x05\x01\x00", b"HTTP/1.1 400 Bad\r\n\r\n")],
    )
    .await;
    let gone = asked(&plain, ("a", 80), &[(b"\x05\x01\x00", b"")]).await;
    let empty = asked(&proxy("socks5h://u@p:1"), ("a", 80), &[]).await;
    for (refused, kind) in [
        (none, Kind::Rejected),
        (wrong, Kind::Rejected),
        (http, Kind::Invalid),
        (gone, Kind::Lost),
        (empty, Kind::Invalid),
    ] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind, kind, "{refused:?}");
        assert!(!refused.advice.is_empty());
        all.insert(refused.reason);
    }
    // Two say that it is no SOCKS.
    assert_eq!(all.len(), 9 + 5 - 1, "{all:#?}");
}

/// The name that the proxy dialled from is nobody's business, in whatever letters it is.
#[tokio::test]
async fn a_name_in_the_answer_of_socks_may_be_no_text() {
    let here = proxy("socks5h://p:1");
    for (name, ended) in [
        (&b"\xff\xfe\x80"[..], "first"),
        (b"\xc3\x28", "second"),
        (b"", "third"),
    ] {
        let length = [u8::try_from(name.len()).unwrap()];
        let reply = [
            b"\x05\x00\x00\x03",
            &length[..],
            name,
            b"\x00\x01",
            ended.as_bytes(),
        ]
        .concat();
        let script: [(&[u8], &[u8]); 2] = [HELLO, (b"\x05\x01\x00\x03\x03a.b\x1b\x58", &reply)];
        let rest = asked(&here, ("a.b", 7000), &script).await;
        assert_eq!(rest.unwrap(), ended, "not a byte of the target's is lost");
    }
    // Ours is refused before anything is said.
    let refused = asked(&here, (&"a".repeat(256), 80), &[]).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Invalid, "{refused:?}");
}

const CONNECT: &[u8] = b"CONNECT a.b:7000 HTTP/1.1\r\nHost: a.b:7000\r\n";

#[tokio::test]
async fn http_asks_by_connect() {
    let plain = proxy("http://p:1");
    let request = [CONNECT, b"\r\n"].concat();
    let answer = b"HTTP/1.0 200 Connection established\r\nVia: x\r\n\r\nfirst\r\n\r\n";
    let rest = asked(&plain, ("a.b", 7000), &[(&request, answer)]).await;
    assert_eq!(
        rest.unwrap(),
        "first\r\n\r\n",
        "what the target sends stays"
    );
    let login = proxy("http://us%40er:p%3Aw@p:1");
    let request = b"CONNECT [::1]:80 HTTP/1.1\r\nHost: [::1]:80\r\nProxy-Authorization: Basic dXNAZXI6cDp3\r\n\r\n";
    let answer = b"HTTP/1.1 204 Fine\r\n\r\n";
    asked(&login, ("::1", 80), &[(request, answer)])
        .await
        .unwrap();
}

/// RFC 9110, section 15.2: what comes before the answer is none.
#[tokio::test]
async fn http_may_say_that_it_goes_on_before_it_answers() {
    let request = [CONNECT, b"\r\n"].concat();
    let plain = proxy("http://p:1");
    let go_on = "HTTP/1.1 100 Continue\r\n\r\n";
    let early = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
    let answer = format!("{go_on}{early}HTTP/1.1 200 OK\r\n\r\nfirst");
    let script: [(&[u8], &[u8]); 1] = [(&request, answer.as_bytes())];
    let rest = asked(&plain, ("a.b", 7000), &script).await;
    assert_eq!(rest.unwrap(), "first");
    for (answer, kind, words) in [
        (
            format!("{go_on}HTTP/1.1 403 No\r\n\r\n"),
            Kind::Rejected,
            "rules forbid",
        ),
        (go_on.to_owned(), Kind::Lost, "without an answer"),
        (go_on.repeat(9), Kind::Invalid, "goes on and on"),
        (
            format!("HTTP/1.1 101 Switching\r\n\r\n{go_on}"),
            Kind::Other,
            "refuses (101 Switching)",
        ),
    ] {
        let script: [(&[u8], &[u8]); 1] = [(&request, answer.as_bytes())];
        let refused = asked(&plain, ("a.b", 7000), &script).await.unwrap_err();
        assert_eq!(refused.kind, kind, "{answer}: {refused:?}");
        assert!(refused.reason.contains(words), "{refused:?}");
    }
}

#[tokio::test]
async fn each_refusal_of_http_has_its_words() {
    let request = [CONNECT, b"\r\n"].concat();
    let plain = proxy("http://p:1");
    for (answer, kind, words) in [
        (
            "HTTP/1.1 407 Who are you\r\n\r\n",
            Kind::Rejected,
            "asks for a login (407 Who are you)",
        ),
        (
            "HTTP/1.1 403 Filtered\r\n\r\n",
            Kind::Rejected,
            "rules forbid",
        ),
        ("HTTP/1.1 404 No\r\n\r\n", Kind::NotFound, "no such host"),
        (
            "HTTP/1.1 405 No\r\n\r\n",
            Kind::Unsupported,
            "makes no connections",
        ),
        ("HTTP/1.1 502 No\r\n\r\n", Kind::Refused, "does not reach"),
        ("HTTP/1.1 504 No\r\n\r\n", Kind::TimedOut, "in time"),
        (
            "HTTP/1.1 418 \u{1b}[2J\r\n\r\n",
            Kind::Invalid,
            "head is invalid",
        ),
        (
            "HTTP/1.1 301 Away\r\n\r\n",
            Kind::Other,
            "refuses (301 Away)",
        ),
        ("HTTP/1.1", Kind::Invalid, "cut short"),
        ("", Kind::Lost, "without an answer"),
        (
            "\x05\x00\x01\x02\x03\x04\x05\x06\x07",
            Kind::Invalid,
            "not HTTP",
        ),
    ] {
        let script: [(&[u8], &[u8]); 1] = [(&request, answer.as_bytes())];
        let refused = asked(&plain, ("a.b", 7000), &script).await.unwrap_err();
        assert_eq!(refused.kind, kind, "{answer}: {refused:?}");
        assert!(refused.reason.contains(words), "{refused:?}");
    }
    let login = proxy("http://u:sesame@p:1");
    let request = [CONNECT, b"Proxy-Authorization: Basic dTpzZXNhbWU=\r\n\r\n"].concat();
    let script: [(&[u8], &[u8]); 1] = [(&request, b"HTTP/1.1 407 No\r\n\r\n")];
    let refused = asked(&login, ("a.b", 7000), &script).await.unwrap_err();
    assert!(
        refused.reason.contains("the user or the password"),
        "{refused:?}"
    );
    assert!(!format!("{refused:?}").contains("sesame"));
}

/// In virtual time.
#[tokio::test(start_paused = true)]
async fn a_proxy_that_stalls_is_given_up() {
    for (kind, some) in [
        ("socks5h", &b""[..]),
        ("socks5h", b"\x05"),
        ("socks5h", b"\x05\x00\x05\x00\x00"),
        ("http", b""),
        ("http", b"HTTP/1.1 200 OK\r\n"),
    ] {
        let (mut near, mut far) = duplex(1 << 16);
        far.write_all(some).await.unwrap();
        let start = tokio::time::Instant::now();
        let proxy = proxy(&format!("{kind}://p:1"));
        let refused = connect(&proxy, &mut near, "a", 80).await.unwrap_err();
        assert_eq!(refused.kind, Kind::TimedOut, "{refused:?}");
        assert_eq!(start.elapsed().as_secs(), 20);
    }
}
