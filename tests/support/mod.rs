//! What several integration tests share: identities, and a pipe that cuts bytes at random.
#![allow(dead_code, unreachable_pub)]

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use cepa::Side;
use cepa::identity::{AcceptAny, Identity, KeyKind, Pinned};
use cepa::onion::Onion;
use cepa::stack::{ALPN_MUX, Binding, StackConfig};
use cepa::tls::TlsConfig;
use cepa::transports::Stream;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};

/// A test that hangs fails with a word instead of standing there.
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(120), future)
        .await
        .expect("it hung")
}

/// A new one.
pub fn identity() -> Identity {
    Identity::generate(KeyKind::Ed25519).unwrap()
}

/// Two identities and a configuration of each side that pins the other.
pub struct Pair {
    pub left: Identity,
    pub right: Identity,
    pub left_tls: TlsConfig,
    pub right_tls: TlsConfig,
}

impl Pair {
    pub fn new() -> Self {
        let left = Identity::generate(KeyKind::Ed25519).unwrap();
        let right = Identity::generate(KeyKind::Ed25519).unwrap();
        let left_tls = TlsConfig::new(&left, Arc::new(Pinned::one(right.peer_id()))).unwrap();
        let right_tls = TlsConfig::new(&right, Arc::new(Pinned::one(left.peer_id()))).unwrap();
        Self {
            left,
            right,
            left_tls,
            right_tls,
        }
    }
}

/// A configuration that takes anybody.
pub fn anyone(identity: &Identity) -> TlsConfig {
    TlsConfig::new(identity, Arc::new(AcceptAny)).unwrap()
}

/// Makes the layers by hand, without a session on top.
pub async fn layers_by_hand(stream: Stream, side: Side, config: &StackConfig) -> Onion<Stream> {
    let tls = TlsConfig::new(&config.identity, Arc::clone(&config.trust)).unwrap();
    let mut onion = Onion::new(stream);
    onion
        .push(side, &tls.to_builder().alpn(&[ALPN_MUX]).build().unwrap())
        .await
        .unwrap();
    onion
}

/// Makes layers and binding by hand; the mux comes next.
pub async fn by_hand(stream: Stream, side: Side, config: &StackConfig) -> Onion<Stream> {
    let mut onion = layers_by_hand(stream, side, config).await;
    let binding = Binding::of(&onion, side).unwrap();
    onion.write_all(binding.ours()).await.unwrap();
    onion.flush().await.unwrap();
    let mut said = [0; Binding::LENGTH];
    onion.read_exact(&mut said).await.unwrap();
    binding.check(&said).unwrap();
    onion
}

/// A small generator of numbers, so that a failing run can be repeated from its seed.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..4 {
            random.next();
        }
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() >> 11).unwrap() % n.max(1)
    }

    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next().to_be_bytes()[2]).collect()
    }
}

/// How a [`Cut`] stream cuts what passes.
#[derive(Clone, Copy, Debug)]
pub enum Cuts {
    /// As it comes.
    None,
    /// One byte a read.
    Single,
    /// At random places, with a spurious `Pending` now and then.
    Random(u64),
}

/// A stream that cuts reads and writes.
pub struct Cut {
    inner: DuplexStream,
    cuts: Cuts,
    random: Random,
    made: usize,
}

impl Cut {
    /// How often a read or a write was cut short.
    pub fn cuts(&self) -> usize {
        self.made
    }

    fn limit(&mut self) -> Option<usize> {
        match self.cuts {
            Cuts::None => Some(usize::MAX),
            Cuts::Single => Some(1),
            Cuts::Random(_) => match self.random.below(20) {
                0 => None,
                1..=6 => Some(1 + self.random.below(4)),
                7..=14 => Some(1 + self.random.below(100)),
                _ => Some(1 + self.random.below(40_000)),
            },
        }
    }
}

impl AsyncRead for Cut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let Some(limit) = self.limit() else {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        let n = out.remaining().min(limit);
        self.made += usize::from(n < out.remaining());
        let mut part = vec![0; n];
        let mut buf = ReadBuf::new(&mut part);
        std::task::ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buf))?;
        out.put_slice(buf.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Cut {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let Some(limit) = self.limit() else {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        let n = bytes.len().min(limit);
        self.made += usize::from(n < bytes.len());
        Pin::new(&mut self.inner).poll_write(cx, &bytes[..n])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Two joined streams; each direction holds `buffer` bytes.
pub fn wires(buffer: usize, cuts: Cuts) -> (Cut, Cut) {
    let (left, right) = tokio::io::duplex(buffer);
    let seed = match cuts {
        Cuts::Random(seed) => seed,
        Cuts::None | Cuts::Single => 0,
    };
    let cut = |inner, seed| Cut {
        inner,
        cuts,
        random: Random::new(seed),
        made: 0,
    };
    (cut(left, seed ^ 0x5555), cut(right, seed ^ 0xAAAA))
}

/// Two joined onions without layers.
pub fn onions(buffer: usize, cuts: Cuts) -> (Onion<Cut>, Onion<Cut>) {
    let (left, right) = wires(buffer, cuts);
    (Onion::new(left), Onion::new(right))
}

/// For a client of rustls as it comes: any server will do that holds its key.
#[derive(Debug)]
pub struct TakesAnyone(pub Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for TakesAnyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
