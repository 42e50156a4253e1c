//! `wss:` in a build without the feature `wss`: the address is understood, and refused.
use std::io;

use super::failure::Failure;
use super::stream::Below;
use crate::endpoint::WsTls;
use crate::error::TransportErrorKind as Kind;
use crate::stream::Stream;

fn refused() -> Failure {
    Failure::new(
        Kind::Unsupported,
        "this program was built without WebSockets under TLS",
        "build it with the feature `wss`",
    )
}

pub(super) enum Dialler {}

#[allow(
    clippy::unused_async,
    reason = "the same signature as with the feature"
)]
impl Dialler {
    pub(super) async fn new(_: &str, _: &WsTls) -> Result<Self, Failure> {
        Err(refused())
    }

    pub(super) async fn handshake(self, _: Stream) -> Result<impl Below, Failure> {
        Err::<Stream, _>(refused())
    }
}

pub(super) enum Acceptor {}

#[allow(
    clippy::unused_async,
    reason = "the same signature as with the feature"
)]
impl Acceptor {
    pub(super) fn new(_: &WsTls) -> Result<Self, Failure> {
        Err(refused())
    }

    pub(super) async fn handshake(&self, below: Stream) -> io::Result<impl Below> {
        Ok(below)
    }
}
