//! What a listener answers to a request: 101 where it asks for a WebSocket at the path, else a page of a few words.
//!
//! A request with an `Origin` is refused: only browsers send one, for a script of some page (RFC 6455, section 10.2), and such a
//! script has no business with what listens on its visitor's machine.
use std::fmt::Write as _;
use std::io;

use http::{Method, Request, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::server::create_response;

use crate::http_head;

/// What a browser shows.
const PAGE: &str = "This is cepa, a secure channel between peers. It answers other cepas here, by WebSocket, and has nothing for a browser.\n";

/// What came of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A WebSocket begins.
    WebSocket,
    /// Somebody wanted something else, and got a page of this status.
    Page(StatusCode),
    /// It was closed before a request.
    Nothing,
}

/// Reads one request and answers it.
///
/// # Errors
/// What is no HTTP, and what breaks on the way; also a handshake that is wrong, which has been answered.
pub(super) async fn answer<S>(stream: &mut S, path: &str) -> io::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let head = http_head::read(stream).await?;
    if head.is_empty() {
        return Ok(Answer::Nothing);
    }
    let verdict = match http_head::request(&head) {
        Ok(request) => judge(&request, path),
        Err(error) => {
            send(stream, StatusCode::BAD_REQUEST, true, "").await?;
            return Err(error);
        }
    };
    match verdict {
        Verdict::WebSocket(response) => {
            stream.write_all(response.as_bytes()).await?;
            stream.flush().await?;
            Ok(Answer::WebSocket)
        }
        Verdict::Page(status, body) => {
            send(stream, status, body, "").await?;
            Ok(Answer::Page(status))
        }
        Verdict::Wrong(error) => {
            let version = match error {
                // RFC 6455, section 4.4.
                ProtocolError::MissingSecWebSocketVersionHeader => "Sec-WebSocket-Version: 13\r\n",
                _ => "",
            };
            send(stream, StatusCode::BAD_REQUEST, true, version).await?;
            Err(http_head::wrong(&error.to_string()))
        }
    }
}

enum Verdict {
    /// With the answer.
    WebSocket(String),
    /// Whether with words.
    Page(StatusCode, bool),
    Wrong(ProtocolError),
}

fn judge(request: &Request<()>, path: &str) -> Verdict {
    let words = request.method() != Method::HEAD;
    let asked = request.uri().path_and_query().map_or("/", |it| it.as_str());
    if asked != path {
        return Verdict::Page(StatusCode::NOT_FOUND, words);
    }
    if !request.headers().contains_key("upgrade") {
        return match *request.method() {
            Method::GET | Method::HEAD => Verdict::Page(StatusCode::OK, words),
            _ => Verdict::Page(StatusCode::METHOD_NOT_ALLOWED, words),
        };
    }
    if request.headers().contains_key("origin") {
        return Verdict::Page(StatusCode::FORBIDDEN, words);
    }
    let response = match create_response(request) {
        Ok(response) => response,
        Err(WsError::Protocol(error)) => return Verdict::Wrong(error),
        Err(_) => return Verdict::Wrong(ProtocolError::InvalidSecWebSocketKey),
    };
    let mut text = "HTTP/1.1 101 Switching Protocols\r\n".to_owned();
    for (name, value) in response.headers() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{name}: {}\r\n", value.to_str().unwrap_or_default());
    }
    text.push_str("\r\n");
    Verdict::WebSocket(text)
}

async fn send(
    stream: &mut (impl AsyncWrite + Unpin),
    status: StatusCode,
    words: bool,
    more: &str,
) -> io::Result<()> {
    let body = match status {
        StatusCode::OK => PAGE.to_owned(),
        _ => format!("{status}\n"),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n{more}Connection: close\r\n\r\n",
        body.len()
    );
    let text = if words { head + &body } else { head };
    stream.write_all(text.as_bytes()).await?;
    stream.flush().await?;
    stream.shutdown().await
}

/// For fuzz targets: any bytes as a request.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(head: &[u8]) {
    if let Ok(request) = http_head::request(head) {
        let _ = judge(&request, "/cepa");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, duplex};

    use super::*;

    /// What is answered, and what becomes of the stream.
    async fn asked(request: &str) -> (String, io::Result<Answer>) {
        let (mut near, mut far) = duplex(1 << 16);
        near.write_all(request.as_bytes()).await.unwrap();
        near.shutdown().await.unwrap();
        let outcome = answer(&mut far, "/cepa?a=b").await;
        drop(far);
        let mut text = String::new();
        near.read_to_string(&mut text).await.unwrap();
        (text, outcome)
    }

    fn upgrade(path: &str, more: &str) -> String {
        format!(
            "GET {path} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
        )
    }

    #[tokio::test]
    async fn a_websocket_is_opened_at_its_path_alone() {
        let version = "Sec-WebSocket-Version: 13\r\n";
        let (text, outcome) = asked(&upgrade("/cepa?a=b", version)).await;
        assert_eq!(outcome.unwrap(), Answer::WebSocket);
        assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
        // The example of RFC 6455, section 1.3.
        assert!(text.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{text}");
        for path in ["/", "/cepa", "/cepa?a=c", "/cepa?a=b/"] {
            let (text, outcome) = asked(&upgrade(path, version)).await;
            assert_eq!(outcome.unwrap(), Answer::Page(StatusCode::NOT_FOUND));
            assert!(text.starts_with("HTTP/1.1 404 Not Found\r\n"), "{text}");
        }
        let (text, outcome) = asked(&upgrade("/cepa?a=b", "")).await;
        assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
        assert!(text.contains("Sec-WebSocket-Version: 13\r\n"), "{text}");
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::InvalidData);
        // A script of some page.
        let origin = format!("{version}Origin: http://example.com\r\n");
        let (text, outcome) = asked(&upgrade("/cepa?a=b", &origin)).await;
        assert!(text.starts_with("HTTP/1.1 403 "), "{text}");
        assert_eq!(outcome.unwrap(), Answer::Page(StatusCode::FORBIDDEN));
    }

    #[tokio::test]
    async fn a_browser_gets_a_page() {
        let (text, outcome) = asked("GET /cepa?a=b HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert_eq!(outcome.unwrap(), Answer::Page(StatusCode::OK));
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(text.contains("This is cepa"), "{text}");
        let (text, _) = asked("HEAD /cepa?a=b HTTP/1.0\r\n\r\n").await;
        assert!(text.ends_with("\r\n\r\n"), "{text}");
        let (text, _) = asked("GET /favicon.ico HTTP/1.1\r\n\r\n").await;
        assert!(text.starts_with("HTTP/1.1 404 "), "{text}");
        let (text, _) = asked("POST /cepa?a=b HTTP/1.1\r\n\r\n").await;
        assert!(text.starts_with("HTTP/1.1 405 "), "{text}");
    }

    #[tokio::test]
    async fn what_is_no_request_is_an_error() {
        let (text, outcome) = asked("hello there\r\n\r\n").await;
        assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::InvalidData);
        // A TLS client at `ws:`.
        let (text, outcome) = asked("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{3}").await;
        assert!(text.is_empty(), "{text}");
        assert!(outcome.unwrap_err().to_string().contains("not HTTP"));
        // Somebody who only looked whether the port is open.
        assert_eq!(asked("").await.1.unwrap(), Answer::Nothing);
    }
}
