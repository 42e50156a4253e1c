//! One request and its answer, as RFC 9112 has them.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

/// Longest head of a request in bytes: a scraper's has some hundred.
const MOST: usize = 8 << 10;
/// Time to send it, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is read behind a request at most, so that its sender sees the answer and no reset (RFC 9112, section 9.6).
const REST: u64 = 64 << 10;
/// For how long.
const LINGER: Duration = Duration::from_secs(1);

/// The type of Prometheus's text.
const TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers what is asked at a connection, and closes it.
pub(super) async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    page: impl FnOnce() -> String,
) {
    let Ok(head) = timeout(PATIENCE, head(&mut stream)).await else {
        // Whoever is so slow waits for no answer.
        return;
    };
    let answer = match head {
        Head::Whole(head) => match asked(&head) {
            Ok(body) => {
                let page = page();
                let length = page.len();
                let shown = if body { page.as_str() } else { "" };
                response(
                    "200 OK",
                    &format!("Content-Type: {TYPE}\r\n"),
                    length,
                    shown,
                )
            }
            Err((status, more)) => error(status, more),
        },
        Head::TooLong => error("431 Request Header Fields Too Large", ""),
        Head::Cut => return,
    };
    let _ = timeout(PATIENCE, async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    })
    .await;
    let mut rest = stream.take(REST);
    let _ = timeout(LINGER, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
}

enum Head {
    Whole(Vec<u8>),
    TooLong,
    /// It ended in between.
    Cut,
}

/// Reads up to the empty line.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> Head {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let read = match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return Head::Cut,
            Ok(read) => read,
        };
        // The end may begin in the piece before.
        let from = head.len().saturating_sub(3);
        head.extend(piece.iter().take(read));
        let new = head.get(from..).unwrap_or_default();
        if let Some(at) = new.windows(4).position(|it| it == b"\r\n\r\n") {
            head.truncate(from + at);
            return if head.len() > MOST {
                Head::TooLong
            } else {
                Head::Whole(head)
            };
        }
        if head.len() > MOST {
            return Head::TooLong;
        }
    }
}

type Refused = (&'static str, &'static str);

/// Whether the page is wanted with its body; else the status of the answer, and one more field of it.
fn asked(head: &[u8]) -> Result<bool, Refused> {
    const BAD: Refused = ("400 Bad Request", "");
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| BAD)?;
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(BAD);
    };
    if !version.starts_with("HTTP/1.") {
        return Err(("505 HTTP Version Not Supported", ""));
    }
    if method.is_empty() || !target.starts_with('/') {
        return Err(BAD);
    }
    let path = target.split('?').next().unwrap_or_default();
    if path != "/metrics" {
        return Err(("404 Not Found", ""));
    }
    match method {
        "GET" => Ok(true),
        "HEAD" => Ok(false),
        _ => Err(("405 Method Not Allowed", "Allow: GET, HEAD\r\n")),
    }
}

fn error(status: &str, more: &str) -> String {
    let body = format!("{status}\nthe metrics are at /metrics\n");
    let fields = format!("{more}Content-Type: text/plain; charset=utf-8\r\n");
    response(status, &fields, body.len(), &body)
}

fn response(status: &str, fields: &str, length: usize, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\n{fields}Content-Length: {length}\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n{body}"
    )
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    /// What is answered to these pieces, which come one after the other.
    async fn answered(pieces: &[&[u8]]) -> String {
        let (mut near, far) = duplex(1 << 20);
        let serving = tokio::spawn(answer(far, || "up 1\n".to_owned()));
        for piece in pieces {
            near.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut answer = String::new();
        near.read_to_string(&mut answer).await.unwrap();
        drop(near);
        serving.await.unwrap();
        answer
    }

    #[tokio::test(start_paused = true)]
    async fn each_request_has_its_answer() {
        let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(MOST));
        for (request, status) in [
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK"),
            ("GET /metrics?x=1 HTTP/1.0\r\n\r\n", "200 OK"),
            ("GET / HTTP/1.1\r\n\r\n", "404 "),
            ("GET /metrics/ HTTP/1.1\r\n\r\n", "404 "),
            (
                "POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
                "405 ",
            ),
            ("DELETE / HTTP/1.1\r\n\r\n", "404 "),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505 "),
            ("GET http://x/metrics HTTP/1.1\r\n\r\n", "400 "),
            ("GET  /metrics HTTP/1.1\r\n\r\n", "400 "),
            ("nonsense\r\n\r\n", "400 "),
            ("\r\n\r\n", "400 "),
            (&long, "431 "),
        ] {
            let answer = answered(&[request.as_bytes()]).await;
            let begin = format!("HTTP/1.1 {status}");
            assert!(answer.starts_with(&begin), "{request:?}: {answer}");
            assert_eq!(answer.ends_with("\r\n\r\nup 1\n"), status == "200 OK");
            assert_eq!(answer.contains("Allow: GET, HEAD\r\n"), status == "405 ");
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let length = format!("Content-Length: {}\r\n", body.len());
            assert!(head.contains(&length), "{answer}");
        }
        let head = answered(&[b"HEAD /metrics HTTP/1.1\r\n\r\n"]).await;
        assert!(head.ends_with("\r\n\r\n") && head.contains("Content-Length: 5\r\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_may_come_in_pieces_and_must_come_in_time() {
        let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
        for cut in 1..request.len() {
            let (one, two) = request.split_at(cut);
            assert!(answered(&[one, two]).await.ends_with("up 1\n"), "{cut}");
        }
        let slow = answered(&[b"GET /metrics HTTP/1.1\r\n"]).await;
        assert_eq!(slow, "");
    }

    /// Whoever reads nothing is left alone after a while.
    #[tokio::test(start_paused = true)]
    async fn a_reader_that_does_not_read_holds_nothing() {
        let (mut near, far) = duplex(64);
        let serving = tokio::spawn(answer(far, || "x".repeat(10_000)));
        near.write_all(b"GET /metrics HTTP/1.1\r\n\r\n")
            .await
            .unwrap();
        // The time passes by itself where nothing else is to be done.
        serving.await.unwrap();
    }
}
