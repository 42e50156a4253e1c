//! Floor 0 of cepa: byte streams, and the addresses that name them.
//!
//! An [`Endpoint`] is parsed from an address (`tcp:host:7000`, `exec:ssh host cepa serve stdio:`);
//! [`dial`] opens it and [`listen`] waits at it. Both give a [`Stream`], the one stream type of this
//! crate, whatever carries the bytes. What improves a stream ([`meter`], [`throttle`]) takes any
//! [`ByteStream`] and is one.
//!
//! Unix only: descriptors, ptys and sockets with paths are what this crate is made of.
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

mod child;
mod descriptor;
mod dial;
pub mod endpoint;
mod error;
mod exec;
mod fd;
mod framed;
mod group;
mod hang_up;
#[cfg(any(feature = "proxy", feature = "ws"))]
mod http_head;
#[doc(hidden)]
pub mod joint_waker;
mod limits;
mod line_notices;
mod listen;
pub mod memory;
pub mod meter;
mod network;
#[cfg(any(feature = "quic", feature = "ws"))]
mod opening;
mod ports;
mod proxies;
mod proxy;
mod pty;
#[cfg(feature = "quic")]
mod quic;
#[cfg(not(feature = "quic"))]
#[path = "quic_off.rs"]
mod quic;
mod rate;
mod remote;
#[cfg(feature = "rfc2217")]
mod rfc2217;
#[cfg(not(feature = "rfc2217"))]
#[path = "rfc2217_off.rs"]
mod rfc2217;
#[cfg(feature = "serial")]
mod rs485;
#[cfg(feature = "serial")]
mod serial;
#[cfg(not(feature = "serial"))]
#[path = "serial_off.rs"]
mod serial;
mod shared_error;
#[cfg(feature = "nat")]
mod shared_port;
mod side;
mod ssh;
mod stdio;
mod stream;
mod tcp;
mod tcp_way;
mod terminal;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod text;
pub mod throttle;
mod unix;
mod unsent;
#[cfg(feature = "serial")]
mod uucp;
#[cfg(feature = "proxy")]
mod via;
#[cfg(not(feature = "proxy"))]
#[path = "via_off.rs"]
mod via;
mod watch;
mod watched;
#[cfg(any(feature = "quic", feature = "wss"))]
mod way_tls;
#[cfg(feature = "ws")]
mod ws;
#[cfg(not(feature = "ws"))]
#[path = "ws_off.rs"]
mod ws;

/// Any bytes as what strangers and proxies send, for fuzz targets.
#[cfg(all(feature = "fuzzing", feature = "ws", feature = "proxy"))]
#[doc(hidden)]
pub fn fuzz_http(bytes: &[u8]) {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    let mut rest = bytes;
    let mut reading = pin!(http_head::read(&mut rest));
    // Bytes in memory are always there.
    if let Poll::Ready(Ok(head)) = reading
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        assert!(head.len() <= bytes.len(), "no byte is made up");
        ws::fuzz(&head);
        let _ = http_head::status(&head);
    }
}

/// Any bytes as what a serial server sends, for fuzz targets.
#[cfg(all(feature = "fuzzing", feature = "rfc2217"))]
#[doc(hidden)]
pub fn fuzz_rfc2217(bytes: &[u8]) {
    rfc2217::fuzz(bytes);
}

pub use child::{Child, Killer, Stderr};
pub use dial::{dial, dial_for, dial_for_peer};
pub use endpoint::{Endpoint, Layer, ParseError, SerialSettings, Target};
pub use error::{Action, TransportError, TransportErrorKind};
pub use fd::is_inherited_listener;
pub use limits::{descriptor_limit, hang_up_is_ignored, raise_descriptor_limit};
pub use line_notices::{LineNotices, ModemLines, OutLine};
pub use listen::{Listener, listen};
pub use network::Network;
pub use ports::{Port, ports};
pub use proxies::Proxies;
pub use quic::settled;
#[cfg(all(feature = "nat", feature = "quic"))]
pub use quic::{KNOCK, QuicArriving, QuicPort};
pub use rate::Rate;
pub use remote::Remote;
pub use shared_error::SharedError;
#[cfg(feature = "nat")]
pub use shared_port::{PortListener, SharedPort, dial_from_shared_port};
pub use side::Side;
pub use stream::{ByteStream, Stream};
pub use terminal::{Control, Terminal, WindowSize};
