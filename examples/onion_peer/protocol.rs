//! What both ends of OLP/1 share: profiles, lines, and the stack of layers.

use std::path::Path;
use std::sync::Arc;

use cepa::Side;
use cepa::identity::{Identity, PeerId, Pinned};
use cepa::onion::Onion;
use cepa::tls::{TlsConfig, Version};
use cepa::transports::Stream;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

/// No line of the protocol is longer, its LF not counted.
const MAX_LINE: usize = 8192;
/// No bulk is larger: the responder holds all of it.
const MAX_BULK: usize = 64 << 20;

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Outcome<T> = Result<T, Failure>;

/// One profile: its letter, TLS version and cipher suite (IANA codes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) letter: char,
    pub(crate) version: Version,
    pub(crate) suite: u16,
}

const PROFILES: [Profile; 4] = [
    Profile {
        letter: 'A',
        version: Version::Tls13,
        suite: 0x1301,
    },
    Profile {
        letter: 'B',
        version: Version::Tls12,
        suite: 0xcca8,
    },
    Profile {
        letter: 'C',
        version: Version::Tls13,
        suite: 0x1303,
    },
    Profile {
        letter: 'O',
        version: Version::Tls13,
        suite: 0x1302,
    },
];

impl Profile {
    pub(crate) fn named(name: &str) -> Option<Self> {
        PROFILES
            .into_iter()
            .find(|profile| name.chars().eq([profile.letter]))
    }
}

/// Certificates and configurations of one side.
pub(crate) struct Credentials {
    profiles: Vec<(Profile, TlsConfig, [u8; 32])>,
}

impl Credentials {
    /// Loads `{me}-{profile}` with its key, and pins `{other}-{profile}`.
    pub(crate) fn load(folder: &Path, me: &str, other: &str, strict: bool) -> Outcome<Self> {
        let read = |name: String| {
            let path = folder.join(name);
            std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))
        };
        let mut profiles = Vec::new();
        for profile in PROFILES {
            let letter = profile.letter;
            let certificate = read(format!("{me}-{letter}.crt.pem"))?;
            let key = read(format!("{me}-{letter}.key.pem"))?;
            let identity = Identity::from_pem_pair(&certificate, &key)?;
            let theirs = certificate_of(&read(format!("{other}-{letter}.crt.pem"))?)?;
            let trust = Arc::new(Pinned::one(theirs));
            // An end that can't choose its TLS 1.3 suite offers all, and ours is taken first.
            let mut suites = vec![profile.suite];
            if !strict && profile.version == Version::Tls13 {
                suites.extend(
                    [0x1301, 0x1302, 0x1303]
                        .iter()
                        .filter(|s| **s != profile.suite),
                );
            }
            let config = TlsConfig::builder(&identity, trust)
                .versions(&[profile.version])
                .suites(&suites)
                .build()?;
            profiles.push((profile, config, identity.certificate_sha256()));
        }
        Ok(Self { profiles })
    }

    pub(crate) fn config(&self, profile: Profile) -> Outcome<&TlsConfig> {
        let found = self.profiles.iter().find(|(p, ..)| *p == profile);
        Ok(&found.ok_or("no such profile")?.1)
    }

    /// The fingerprint of the certificate that we show in a profile.
    pub(crate) fn fingerprint(&self, profile: Profile) -> String {
        let found = self.profiles.iter().find(|(p, ..)| *p == profile);
        found.map_or_else(String::new, |(.., sha)| hex(sha))
    }
}

fn certificate_of(pem: &str) -> Outcome<PeerId> {
    use rustls_pki_types::{CertificateDer, pem::PemObject};
    Ok(PeerId::from_certificate(&CertificateDer::from_pem_slice(
        pem.as_bytes(),
    )?)?)
}

/// What came where a line was due.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Text(String),
    /// The other end closed the innermost layer.
    Popped,
    /// The connection has ended.
    End,
}

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) pushes: usize,
    pub(crate) pops: usize,
    /// As driver, answers that were right; as responder, commands answered.
    pub(crate) lines: usize,
    pub(crate) bulk: usize,
}

/// One end: the stream with its layers, and what has happened so far.
pub(crate) struct End {
    pub(crate) onion: Onion<Stream>,
    pub(crate) credentials: Credentials,
    pub(crate) counts: Counts,
    /// The profiles of the layers, the outermost first.
    pub(crate) layers: Vec<Profile>,
    /// Layers that were there from the first byte and can't be popped.
    pub(crate) base: usize,
}

impl End {
    pub(crate) async fn push(&mut self, profile: Profile, side: Side) -> Outcome<()> {
        let config = self.credentials.config(profile)?.clone();
        self.onion.push(side, &config).await?;
        self.layers.push(profile);
        Ok(())
    }

    /// Takes the innermost layer off; whoever closed it first.
    pub(crate) async fn pop(&mut self) -> Outcome<()> {
        self.onion.pop().await?;
        self.layers.pop();
        self.counts.pops += 1;
        Ok(())
    }

    pub(crate) async fn send(&mut self, text: &str) -> Outcome<()> {
        self.send_bytes(text.as_bytes()).await
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.onion.write_all(bytes).await?;
        self.onion.flush().await?;
        Ok(())
    }

    /// Writes a line that leaves together with what comes next.
    pub(crate) async fn send_with_next(&mut self, line: &str) -> Outcome<()> {
        self.onion.cork();
        self.onion.write_all(line.as_bytes()).await?;
        Ok(())
    }

    pub(crate) async fn line(&mut self) -> Outcome<Line> {
        let mut line = Vec::new();
        loop {
            let bytes = self.onion.fill_buf().await?;
            if bytes.is_empty() {
                return match line.is_empty() {
                    true if self.layers.len() > self.base => Ok(Line::Popped),
                    true => Ok(Line::End),
                    false => Err("the stream ended in the middle of a line".into()),
                };
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let n = end.unwrap_or(bytes.len());
            line.extend_from_slice(&bytes[..n]);
            self.onion.consume(n + usize::from(end.is_some()));
            if line.len() > MAX_LINE {
                return Err("a line is longer than 8192 bytes".into());
            }
            if end.is_some() {
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(Line::Text(String::from_utf8(line)?));
            }
        }
    }

    pub(crate) async fn exactly(&mut self, n: usize) -> Outcome<Vec<u8>> {
        if n > MAX_BULK {
            return Err(format!("a bulk of {n} bytes is more than this program takes").into());
        }
        // Grown as bytes come, not by the announced number.
        let mut bytes = Vec::new();
        let got = (&mut self.onion)
            .take(n as u64)
            .read_to_end(&mut bytes)
            .await?;
        if got < n {
            return Err(format!("the stream ended after {got} of {n} bytes").into());
        }
        Ok(bytes)
    }

    /// The layers as WHO tells them, with a fingerprint for each.
    pub(crate) fn view(&self, fingerprint: impl Fn(usize) -> String) -> String {
        if self.layers.is_empty() {
            return "0 -".into();
        }
        let mut view = self.layers.len().to_string();
        for (index, (profile, layer)) in self.layers.iter().zip(self.onion.layers()).enumerate() {
            let peer = layer.peer();
            let (version, suite) = (peer.version().code(), peer.suite());
            let fingerprint = fingerprint(index);
            let letter = profile.letter;
            let shown = format!(" {letter}/{version:04x}/{suite:04x}/{fingerprint}");
            view.push_str(&shown);
        }
        view
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
