//! One request: the status line goes to standard error, the page to standard output.

use std::sync::Arc;

use cepa::Side;
use cepa::identity::{AcceptAny, Identity, KeyKind, KnownPeersFile, TrustKnown, TrustPolicy};
use cepa::onion::Onion;
use cepa::tls::{TlsConfig, Version};
use cepa::transports::text::clean;
use cepa::transports::{Endpoint, dial};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{MAX_URL, Outcome};

/// Pages are read into memory, so they have an end.
const MAX_PAGE: u64 = 16 << 20;

/// `--identity FILE` and `--known FILE`, in any order.
pub(crate) fn options<'a>(words: &[&'a str]) -> Outcome<(Option<&'a str>, Option<&'a str>)> {
    let (mut identity, mut known) = (None, None);
    for pair in words.chunks(2) {
        match pair {
            ["--identity", file] => identity = Some(*file),
            ["--known", file] => known = Some(*file),
            _ => return Err("options are --identity FILE and --known FILE".into()),
        }
    }
    Ok((identity, known))
}

pub(crate) async fn run(url: &str, identity: Option<&str>, known: Option<&str>) -> Outcome<()> {
    let (host, port) = place(url)?;
    let trust: Arc<dyn TrustPolicy> = match known {
        Some(file) => Arc::new(
            TrustKnown::at(KnownPeersFile::new(file), format!("gemini:{host}:{port}"))
                .trusting_new()
                .observed_by(|learned| eprintln!("gemini: {learned}")),
        ),
        // Nothing to remember it in, so nobody is known.
        None => Arc::new(AcceptAny),
    };
    // Most servers speak both; a name picks one of several hosts behind an address.
    let versions = [Version::Tls12, Version::Tls13];
    let config = match identity {
        Some(file) => TlsConfig::builder(&Identity::load(file)?, trust),
        None => TlsConfig::builder(&Identity::generate(KeyKind::Ed25519)?, trust)
            .without_client_certificate(),
    };
    let config = config.versions(&versions).server_name(&host).build()?;

    let mut stream = Onion::new(dial(&format!("tcp:{host}:{port}").parse::<Endpoint>()?).await?);
    stream.push(Side::Client, &config).await?;
    stream.write_all(format!("{url}\r\n").as_bytes()).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    // Ends with close_notify; a page that was cut off is an error here, and not a short page.
    (&mut stream)
        .take(MAX_PAGE)
        .read_to_end(&mut answer)
        .await?;
    let end = answer.windows(2).position(|window| window == b"\r\n");
    let end = end.ok_or("the answer has no status line")?;
    let (status, page) = (&answer[..end], &answer[end + 2..]);
    // What a server says does not move our cursor.
    let status = clean(&String::from_utf8_lossy(status), MAX_URL).into_owned();
    eprintln!("{status}");
    if status.starts_with('2') {
        tokio::io::stdout().write_all(page).await?;
        tokio::io::stdout().flush().await?;
        return Ok(());
    }
    Err(match status.get(..2) {
        Some("10" | "11") => "it asks for input: put `?` and your words behind the URL".into(),
        Some("60") => "it asks for a certificate: name one with --identity".into(),
        Some("61") => "this certificate may not see that: register it, or use another one".into(),
        Some("62") => "this certificate is not valid: renew it".into(),
        _ => format!("no page, but status {status}").into(),
    })
}

/// Host and port of a `gemini:` URL.
fn place(url: &str) -> Outcome<(String, u16)> {
    if url.len() > MAX_URL || url.contains(|c: char| c.is_control() || c == ' ') {
        return Err("a URL has up to 1024 bytes, without spaces".into());
    }
    let rest = url
        .strip_prefix("gemini://")
        .ok_or("the URL begins with gemini://")?;
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse()?),
        None => (authority, 1965),
    };
    if host.is_empty() || host.contains('@') {
        return Err("the URL names no host, or a user, which Gemini has not".into());
    }
    Ok((host.to_owned(), port))
}
