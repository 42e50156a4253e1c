//! The head of an HTTP/1.1 message: read to its end and no further, since what follows belongs to somebody else.
//!
//! Byte by byte, from a socket that holds it all or nearly: it happens once a connection. It has a bound, and whoever reads it has a
//! clock. What stands in it is httparse's to tell.
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Bytes of a head: what nginx and Apache take. Whoever sends more has somebody else's cookies in it.
const MOST: usize = 8192;

/// Headers of a head.
const HEADERS: usize = 64;

/// Up to the empty line, with it (RFC 9112, section 2.1). Empty if the other end closed before the first byte of a line.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let (mut head, mut passed_over) = (Vec::new(), false);
    while !ends(&head) {
        if head.len() == MOST {
            return Err(wrong("its head is longer than 8192 bytes"));
        }
        let mut byte = [0];
        match stream.read(&mut byte).await? {
            0 if head.is_empty() => return Ok(head),
            0 => return Err(wrong("its head is cut short")),
            _ => head.extend(byte),
        }
        // RFC 9112, section 2.2: an empty line before a request is passed over, and more are no HTTP.
        if head == b"\r\n" {
            if passed_over {
                return Err(wrong("it is not HTTP"));
            }
            passed_over = true;
            head.clear();
        }
        if head.len() == 8 && !head.iter().all(|c| c.is_ascii_graphic() || *c == b' ') {
            return Err(wrong("it is not HTTP"));
        }
    }
    Ok(head)
}

/// By CRLF or LF alone, both of which httparse takes for the end of a line.
fn ends(head: &[u8]) -> bool {
    head.ends_with(b"\r\n\r\n") || head.ends_with(b"\n\n") || head.ends_with(b"\n\r\n")
}

pub(crate) fn wrong(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("no HTTP message: {what}"),
    )
}

/// The status of an answer, its reason, and the value of one of its headers.
#[cfg(feature = "proxy")]
pub(crate) fn status(head: &[u8]) -> io::Result<(u16, String)> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    match answer.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        _ => return Err(wrong("its head is invalid")),
    }
    let code = answer.code.ok_or_else(|| wrong("it has no status"))?;
    Ok((code, answer.reason.unwrap_or("").to_owned()))
}

/// A request, as the types of `http` have it.
#[cfg(feature = "ws")]
pub(crate) fn request(head: &[u8]) -> io::Result<http::Request<()>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        _ => return Err(wrong("its head is invalid")),
    }
    let version = match request.version {
        Some(1) => http::Version::HTTP_11,
        _ => http::Version::HTTP_10,
    };
    let mut built = http::Request::builder()
        .method(request.method.unwrap_or_default())
        .uri(request.path.unwrap_or_default())
        .version(version);
    for header in request.headers.iter() {
        built = built.header(header.name, header.value);
    }
    built.body(()).map_err(|_| wrong("its head is invalid"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    /// CR and LF in turn.
    struct Endless(bool);

    impl AsyncRead for Endless {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            buf: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            buf.put_slice(if self.0 { b"\n" } else { b"\r" });
            self.0 = !self.0;
            std::task::Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_head_is_read_to_its_end_and_no_further() {
        for end in ["\r\n\r\n", "\n\n"] {
            let text = format!("HTTP/1.1 200 Fine{end}rest");
            let mut stream = text.as_bytes();
            let head = read(&mut stream).await.unwrap();
            assert!(head.ends_with(end.as_bytes()));
            let mut rest = String::new();
            stream.read_to_string(&mut rest).await.unwrap();
            assert_eq!(rest, "rest");
        }
        assert!(read(&mut &b""[..]).await.unwrap().is_empty());
        // Whoever sends empty lines for ever is heard no longer than that.
        let endless = tokio::io::repeat(b'\n');
        assert!(
            read(&mut { endless })
                .await
                .is_ok_and(|head| head == b"\n\n")
        );
        let mut endless = Endless(false);
        let error = read(&mut endless).await.unwrap_err().to_string();
        assert!(error.contains("not HTTP"), "{error}");
        for (bad, why) in [
            ("HTTP/1.1 200".to_owned(), "cut short"),
            ("x".repeat(MOST + 1), "longer than 8192 bytes"),
            (
                "\x16\x03\x01\x02\x00\x01\x00\x01\x00".to_owned(),
                "not HTTP",
            ),
            ("\r\n".repeat(2), "not HTTP"),
            ("\r\nHTTP/1.1 200".to_owned(), "cut short"),
        ] {
            let error = read(&mut bad.as_bytes()).await.unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn what_stands_in_a_head() {
        assert_eq!(
            status(b"HTTP/1.1 407 Who are you\r\nA: b\r\n\r\n").unwrap(),
            (407, "Who are you".to_owned())
        );
        let request = request(b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert_eq!(request.uri().path_and_query().unwrap(), "/a?b");
        assert_eq!(request.headers()["host"], "x");
        for bad in [
            "",
            "HTTP",
            "GET / HTTP/1.1\r\n",
            "GET \u{7f} HTTP/1.1\r\n\r\n",
        ] {
            assert!(super::request(bad.as_bytes()).is_err(), "{bad:?}");
            assert!(status(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_judged(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = (status(&bytes), request(&bytes));
        }
    }
}
