//! Dialling through a proxy: SOCKS 5 (RFC 1928, with the login of RFC 1929) by tokio-socks, and CONNECT of HTTP (RFC 9110, section 9.3.6).
//!
//! The connection with the proxy is there already; afterwards it is one with the target, and not a byte of what the target sends
//! has been read. Each refusal has words of its own, in which the proxy is named: who reads them should know whether to look there or
//! at the target.
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use data_encoding::BASE64;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_socks::tcp::Socks5Stream;
use tokio_socks::{Error as Socks, IntoTargetAddr as _, TargetAddr};

use crate::endpoint::{Proxy, ProxyKind};
use crate::error::{TransportErrorKind as Kind, describe, kind_of};
use crate::http_head;
use crate::text::clean;

/// Why there is no way through.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) kind: Kind,
    pub(crate) reason: String,
    pub(crate) advice: &'static str,
}

fn refusal(kind: Kind, reason: impl Into<String>, advice: &'static str) -> Refusal {
    Refusal {
        kind,
        reason: reason.into(),
        advice,
    }
}

/// How long a proxy may take to answer: it dials in its turn, and has as long for that as we have, and as long again.
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers before the one that counts that a proxy may give. One is usual; none has a body.
const INTERIM: usize = 8;

const LOGIN: &str = "give the proxy a user and a password: proxy=…://USER:PASSWORD@HOST:PORT";
const WRONG_LOGIN: &str = "check the user and the password of proxy=";
const NOT_THIS: &str = "check the kind and the port of the proxy (socks5h:// or http://)";
const RULES: &str = "the proxy's rules say where it connects; ask who runs it";
const TARGET: &str = "check the host and the port: the proxy itself answered";

/// Asks for a connection with the target. Cancel safe in that nothing is left behind: the stream is to be dropped.
pub(crate) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    proxy: &Proxy,
    stream: &mut S,
    host: &str,
    port: u16,
) -> Result<(), Refusal> {
    let asked = async {
        match proxy.kind {
            ProxyKind::Socks5 | ProxyKind::Socks5h => socks(proxy, stream, host, port).await,
            ProxyKind::Http => http(proxy, stream, host, port).await,
        }
    };
    timeout(PATIENCE, asked).await.unwrap_or_else(|_| {
        Err(refusal(
            Kind::TimedOut,
            "no answer within 20 s",
            "check the kind, the host and the port of proxy=",
        ))
    })
}

async fn socks<S: AsyncRead + AsyncWrite + Unpin>(
    proxy: &Proxy,
    stream: &mut S,
    host: &str,
    port: u16,
) -> Result<(), Refusal> {
    let target: TargetAddr<'_> = (host, port).into_target_addr().map_err(of_socks)?;
    let done = match &proxy.login {
        None => Socks5Stream::connect_with_socket(stream, target).await,
        Some(login) => {
            let (user, password) = (&login.user, login.password.reveal());
            Socks5Stream::connect_with_password_and_socket(stream, target, user, password).await
        }
    };
    match done {
        // Ours was looked at above, so this is the name in the answer: where the proxy dialled from, which nobody needs and which may be
        // in any letters. The answer was read to its end, and says that there is a connection.
        Err(Socks::InvalidTargetAddress(_)) => Ok(()),
        done => done.map(drop).map_err(of_socks),
    }
}

/// The replies of RFC 1928, section 6, among others.
fn of_socks(error: Socks) -> Refusal {
    match error {
        Socks::Io(error) => of_io(&error),
        Socks::NoAcceptableAuthMethods | Socks::AuthorizationRequired => refusal(
            Kind::Rejected,
            "it takes none of the logins that were offered",
            LOGIN,
        ),
        Socks::PasswordAuthFailure(_) => refusal(
            Kind::Rejected,
            "it refuses the user or the password",
            WRONG_LOGIN,
        ),
        Socks::InvalidAuthValues(_) => refusal(
            Kind::Invalid,
            "SOCKS needs a user and a password that are not empty",
            WRONG_LOGIN,
        ),
        Socks::ConnectionNotAllowedByRuleset => {
            refusal(Kind::Rejected, "its rules forbid this connection", RULES)
        }
        Socks::GeneralSocksServerFailure => refusal(
            Kind::Other,
            "it failed without saying why",
            "check the host and the port; the proxy's log may say more",
        ),
        Socks::NetworkUnreachable => refusal(Kind::Other, "it has no way to that network", TARGET),
        Socks::HostUnreachable => refusal(
            Kind::NotFound,
            "it does not reach that host, or knows no such name",
            TARGET,
        ),
        Socks::ConnectionRefused => refusal(
            Kind::Refused,
            "the target refused its connection",
            "is anything listening there? check the host and the port",
        ),
        Socks::TtlExpired => refusal(Kind::TimedOut, "the way to that host is too long", TARGET),
        Socks::CommandNotSupported => refusal(
            Kind::Unsupported,
            "it makes no TCP connections (CONNECT)",
            "use another proxy",
        ),
        Socks::AddressTypeNotSupported => refusal(
            Kind::Unsupported,
            "it does not know this kind of address",
            "try socks5:// instead of socks5h://, or an IPv4 address",
        ),
        Socks::InvalidTargetAddress(_) => refusal(
            Kind::Invalid,
            "SOCKS knows no host name of more than 255 bytes",
            "use a shorter one",
        ),
        Socks::InvalidResponseVersion
        | Socks::InvalidReservedByte
        | Socks::UnknownAddressType
        | Socks::UnknownAuthMethod => refusal(
            Kind::Invalid,
            "it does not answer as SOCKS 5 does",
            NOT_THIS,
        ),
        other => refusal(Kind::Other, describe(&io::Error::other(other)), NOT_THIS),
    }
}

fn of_io(error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::WriteZero => refusal(
            Kind::Lost,
            "it closed the connection without an answer",
            NOT_THIS,
        ),
        io::ErrorKind::InvalidData => refusal(Kind::Invalid, describe(error), NOT_THIS),
        _ => refusal(kind_of(error), describe(error), "try again"),
    }
}

async fn http<S: AsyncRead + AsyncWrite + Unpin>(
    proxy: &Proxy,
    stream: &mut S,
    host: &str,
    port: u16,
) -> Result<(), Refusal> {
    let place = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    let mut request = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n");
    if let Some(login) = &proxy.login {
        let pair = format!("{}:{}", login.user, login.password.reveal());
        // Writing to a String cannot fail.
        let _ = write!(
            request,
            "Proxy-Authorization: Basic {}\r\n",
            BASE64.encode(pair.as_bytes())
        );
    }
    request.push_str("\r\n");
    let answer = async {
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        for _ in 0..INTERIM {
            let head = http_head::read(stream).await?;
            if head.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // RFC 9110, section 15.2: another answer follows these, and this alone switches to something else.
            let (status, reason) = http_head::status(&head)?;
            if status == 101 || !(100..200).contains(&status) {
                return Ok((status, reason));
            }
        }
        Err(http_head::wrong("it goes on and on before its answer"))
    };
    let (status, reason) = answer.await.map_err(|e| of_io(&e))?;
    match status {
        200..=299 => Ok(()),
        status => Err(of_status(status, &reason, proxy.login.is_some())),
    }
}

fn of_status(status: u16, reason: &str, login: bool) -> Refusal {
    let words = format!("{status} {}", clean(reason, 100));
    let said = |what: &str| format!("{what} ({})", words.trim());
    match status {
        407 if login => refusal(
            Kind::Rejected,
            said("it refuses the user or the password"),
            WRONG_LOGIN,
        ),
        407 => refusal(Kind::Rejected, said("it asks for a login"), LOGIN),
        401 | 403 => refusal(
            Kind::Rejected,
            said("its rules forbid this connection"),
            RULES,
        ),
        404 => refusal(Kind::NotFound, said("it knows no such host"), TARGET),
        400 | 405 | 501 => refusal(
            Kind::Unsupported,
            said("it makes no connections for others (CONNECT)"),
            NOT_THIS,
        ),
        500 | 502 | 503 => refusal(Kind::Refused, said("it does not reach the target"), TARGET),
        504 => refusal(
            Kind::TimedOut,
            said("the target did not answer it in time"),
            TARGET,
        ),
        _ => refusal(
            Kind::Other,
            said("it refuses"),
            "the proxy's log may say more",
        ),
    }
}

#[cfg(test)]
mod tests;
