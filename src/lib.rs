//! cepa (*Allium cepa*, the onion) makes one authenticated, encrypted, multiplexed session of anything that
//! carries bytes: a TCP connection, a Unix socket, the stdio of a command, a serial line, a stream of your own.
//! Peers are known by their keys, and every part of it (TLS, the mux, a substream) is a byte stream again, so
//! that each works without the others.
//!
//! # Two peers in one process
//!
//! ```
//! use std::sync::Arc;
//!
//! use cepa::{Identity, KeyKind, Pinned, Session, Side, StackConfig};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, duplex};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // A peer is its key. Each end has one, and trusts the other's alone.
//!     let (one, other) = (Identity::generate(KeyKind::Ed25519)?, Identity::generate(KeyKind::Ed25519)?);
//!     let client = StackConfig::new(one.clone(), Arc::new(Pinned::one(other.peer_id())));
//!     let server = StackConfig::new(other, Arc::new(Pinned::one(one.peer_id())));
//!
//!     // TLS on a stream, and the mux in it. Any stream will do; this is one inside the process.
//!     let (near, far) = duplex(1 << 16);
//!     let (client, server) = tokio::try_join!(
//!         Session::handshake(near, &[], Side::Client, &client),
//!         Session::handshake(far, &[], Side::Server, &server),
//!     )?;
//!     assert_eq!(server.peer().id(), one.peer_id());
//!
//!     // The server takes one substream, and sends back what comes.
//!     let echo = tokio::spawn(async move {
//!         let (mut from, mut to) = server.accept().await?.accept().await?.into_split();
//!         copy(&mut from, &mut to).await?;
//!         to.shutdown().await
//!     });
//!     let mut stream = client.open("echo").await?;
//!     stream.write_all(b"hello").await?;
//!     stream.shutdown().await?; // ends this direction; the answer still comes
//!     let mut answer = String::new();
//!     stream.read_to_string(&mut answer).await?;
//!     assert_eq!(answer, "hello");
//!     client.close().await;
//!     Ok(echo.await??)
//! }
//! ```
//!
//! [`Session::dial`] does the client's part at an [address](Endpoint) such as `tcp:host:7000`,
//! [`Session::accept_on`] the server's part for a stream of a [`Listener`](transports::Listener). A
//! [`Node`] has many peers: it listens, serves by name, keeps one session with each peer, and bounds what each
//! may hold. The repository's `examples/` has small programs for all of these.
//!
//! # The layers
//!
//! ```text
//!   ServiceStream  ServiceStream  ServiceStream    AsyncRead + AsyncWrite, by the name of a service
//!         │              │  (TLS of its own)  │    session: who is there, what for, how it ended
//!   ┌─────┴──────────────┴────────────────────┴─┐
//!   │                    Mux                    │  mux:  many streams in one, the yamux wire
//!   ├───────────────────────────────────────────┤
//!   │            Onion: TLS, and TLS in it …    │  onion, tls: put on and taken off a live stream
//!   ├───────────────────────────────────────────┤
//!   │           Link, on a noisy line           │  link: repeats what a line has damaged
//!   ├───────────────────────────────────────────┤
//!   │  Stream: tcp, unix, exec, serial, pty, …  │  transports: addresses, dial, listen
//!   └───────────────────────────────────────────┘
//!     mux  +  tls  +  link  +  serial:/dev/ttyUSB0   an address names its layers, topmost first
//! ```
//!
//! # Where things are
//!
//! | module | what you find there |
//! |---|---|
//! | [`session`] | [`Session`], what most programs start with: dial or accept, open and serve substreams by name; [`Reconnecting`](session::Reconnecting), which comes back by itself |
//! | [`node`] | [`Node`]: listeners, services, who may open what, many peers, `cepa://` addresses |
//! | [`protocols`] | what nodes do for each other: pairing, forwarders, and by feature relays, introductions, tickets, membranes, sealed messages |
//! | [`identity`] | [`Identity`], [`PeerId`], whom to trust: [`Pinned`], the known-peers file, certificate authorities; invitations, replacing a key |
//! | [`stack`] | [`StackConfig`]: what all layers of a session are made with |
//! | [`tls`] | [`TlsConfig`]: what one TLS layer shows and demands |
//! | [`onion`] | [`Onion`]: TLS layers on a live stream, without the rest |
//! | [`mux`] | [`Mux`]: yamux on any stream, without the rest |
//! | [`link`] | a reliable stream over a line that loses and damages bytes |
//! | [`network`] | changes of this machine's network, for connections that come back sooner |
//! | [`gate`] | how many strangers may be in a handshake at once, for acceptors of your own |
//! | [`transports`] | [`Endpoint`], [`dial`](transports::dial), [`listen`](transports::listen), [`Stream`](transports::Stream): the byte streams below all that |
//!
//! # Features
//!
//! | feature | on by default | adds |
//! |---|---|---|
//! | `aws-lc-rs` | yes | this backend of rustls, with post-quantum key exchange |
//! | `ring` | | this backend of rustls. One of the two is needed; with both, `aws-lc-rs` is used |
//! | `passphrase` | yes | private keys under a passphrase: `Identity::load_encrypted` and its like |
//! | `tls12` | yes | `tls::Version::Tls12`: TLS 1.2, for layers that ask for it |
//! | `serial` | yes | serial ports (`serial:`) |
//! | `mesh` | | `protocols::relay`, `introduction`, `ticket` and `membrane` |
//! | `nat` | | `protocols::direct`: paths without the relay, through NATs |
//! | `sealed` | | `protocols::sealed`: messages that a third peer carries and can't read |
//! | `ca` | | `identity::PlatformRoots`: the platform's certificate authorities as a trust policy |
//! | `ws`, `wss` | | `ws:`: WebSockets, as through the reverse proxies of the web; `wss:`: those under the way's own TLS |
//! | `quic` | | `quic:`: one stream of a QUIC connection, for ways where only UDP leads |
//! | `rfc2217` | | `rfc2217:`: serial lines behind serial servers |
//! | `proxy` | | `proxy=` and [`transports::Proxies`]: dialling through SOCKS 5 and HTTP proxies |
//! | `mdns` | | `node::Mdns`: peers on the local network, by multicast DNS |
//! | `tracing` | | spans and events of dials, sessions and substreams, for a subscriber of `tracing`; never payload or secrets |
//! | `metrics` | | counters, gauges and histograms for a recorder of `metrics`: `describe_metrics`. The repository's `docs/WATCHING.md` names them |
//! | `futures-io` | | the `AsyncRead` and `AsyncWrite` of futures on [`ServiceStream`], [`Onion`] and [`Substream`], beside tokio's |
//! | `tower` | | `Node::connector`: a peer's service for the HTTP clients of hyper and tonic |
//!
//! # Errors
//!
//! Each part has errors of its own, and the text of each is one line that says what to do.
//!
//! | what failed | error |
//! |---|---|
//! | to make an identity, or to read it | [`IdentityError`](identity::IdentityError) |
//! | to dial or to accept a session | [`ConnectError`](session::ConnectError), [`DialError`](node::DialError) of a node |
//! | to open or to accept a service | [`OpenError`](session::OpenError), [`AcceptError`](session::AcceptError), [`ReachError`](node::ReachError) of a node |
//! | the session | [`SessionEnd`](session::SessionEnd) |
//! | to read or to write a stream | [`std::io::Error`], with a [`StreamError`](mux::StreamError) or a [`TlsError`](tls::TlsError) inside |
//! | to configure TLS | [`TlsConfigError`](tls::TlsConfigError) |
//!
//! Those of sessions and nodes turn into [`std::io::Error`] by `?`. A stream that ends by anything but the peer's `shutdown`
//! reads as an error, never as an end.
//!
//! # Limits
//!
//! All that a peer can make grow has a bound, and each bound is a field with its default and its reason:
//! [`mux::Config`] for one session, [`StackConfig`] for the time that handshakes and openings may take,
//! [`ShareLimits`](node::ShareLimits) for all that one peer holds of a node, [`gate::Config`] for strangers. The
//! repository's `docs/HOSTILE.md` tells what an attacker gains and what it costs.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

#[macro_use]
mod setters;
mod backend;
#[cfg(test)]
mod table_file;
mod windowed;

mod observe;

pub mod gate;
pub mod identity;
pub mod link;
pub mod mux;
pub mod network;
pub mod node;
pub mod onion;
pub mod protocols;
pub mod resume;
pub mod session;
pub mod stack;
pub mod tls;
mod wire;

pub use cepa_transports as transports;
pub use cepa_transports::{ByteStream, Endpoint, Layer, Side};

pub use identity::{AcceptAny, Identity, KeyKind, PeerId, Pinned, TrustPolicy};
pub use mux::{Mux, Substream};
pub use node::{Access, Call, Node, NodeConfig, PeerAddr};
#[cfg(feature = "metrics")]
pub use observe::describe_metrics;
pub use onion::Onion;
pub use session::{Incoming, OpenOptions, ServiceName, ServiceStream, Session};
pub use stack::StackConfig;
pub use tls::TlsConfig;
