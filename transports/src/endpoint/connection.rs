//! The typed form of connections: how TCP is kept, what proxy it goes by, what a WebSocket is made of, what is served behind ssh. As in `types`,
//! nothing here knows its text.
use std::net::IpAddr;
use std::path::PathBuf;

use super::secret::Secret;
use crate::network::Network;

/// How a TCP connection is kept, and what a listener believes of where one comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TcpSettings {
    /// Seconds of silence after which the other end is asked whether it is there (RFC 9293, section 3.8.4), 1 to 32,767; then
    /// every quarter of that, and after four questions without an answer the connection is over. Default 60; `None`: never.
    pub keepalive: Option<u16>,
    /// Seconds that what was written may stay unacknowledged before the connection is over (`TCP_USER_TIMEOUT`, RFC 5482; Linux),
    /// 1 to 86,400. Default none: the system's own patience, about 15 minutes.
    pub user_timeout: Option<u32>,
    /// Each write goes out at once (`TCP_NODELAY`). Default yes: without it the last segment of every message waits for an
    /// acknowledgement (Nagle).
    pub nodelay: bool,
    /// The way out of this machine. Default the system's choice. Boxed: few addresses say it.
    pub way: Option<Box<TcpWay>>,
    /// For listeners: each connection begins with a header of the PROXY protocol, from one of these sources, and others are
    /// refused. Default none: no header.
    pub proxy_from: Option<Box<[Network]>>,
    /// For diallers: the proxy that connects in our place. Default none. Boxed: few addresses have one.
    pub proxy: Option<Box<Proxy>>,
}

impl TcpSettings {
    /// Seconds of [`TcpSettings::keepalive`] where nothing else is said.
    pub const KEEPALIVE: u16 = 60;
}

impl Default for TcpSettings {
    fn default() -> Self {
        Self {
            keepalive: Some(Self::KEEPALIVE),
            user_timeout: None,
            nodelay: true,
            way: None,
            proxy_from: None,
            proxy: None,
        }
    }
}

/// Which way out of this machine a connection takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpWay {
    /// For diallers: this machine's own address to connect from; only addresses of its family are tried. Default any.
    pub bind: Option<IpAddr>,
    /// The network interface to use, whatever the routes say (`SO_BINDTODEVICE`; Linux). Default any.
    pub interface: Option<String>,
    /// The mark of its packets, for rules of the firewall and of routing (`SO_MARK`; Linux, with the capability `NET_ADMIN`).
    /// Default none.
    pub mark: Option<u32>,
    /// For diallers: other sockets of this user may use the connection's own port, too (`SO_REUSEPORT`). No address says this: it is for
    /// `dial_from_shared_port` alone to set, and `false` in each address.
    pub(crate) shared_port: bool,
}

/// How a QUIC connection is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QuicSettings {
    /// Seconds of silence after which the other end is asked whether it is there (RFC 9000, section 10.1.2), 1 to 21,845; after three
    /// times that without an answer the connection is over. Default 10: routers that translate addresses forget a UDP flow after
    /// 30 s, some of them.
    pub keepalive: u16,
    /// The way out of this machine. Default the system's choice. Boxed: few addresses say it.
    pub way: Option<Box<TcpWay>>,
    /// A proxy, which no QUIC connection goes by: with one it is neither dialled nor listened for, so that none is passed by unasked.
    pub proxy: Option<Box<Proxy>>,
}

impl QuicSettings {
    /// Seconds of [`QuicSettings::keepalive`] where nothing else is said.
    pub const KEEPALIVE: u16 = 10;
}

impl Default for QuicSettings {
    fn default() -> Self {
        Self {
            keepalive: Self::KEEPALIVE,
            way: None,
            proxy: None,
        }
    }
}

/// A proxy to dial through.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proxy {
    /// What is spoken with it, and who resolves names.
    pub kind: ProxyKind,
    /// A name or an address; IPv6 without its brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Who we are there. Default nobody.
    pub login: Option<ProxyLogin>,
}

/// What is spoken with a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyKind {
    /// SOCKS 5 (RFC 1928); this machine resolves names.
    Socks5,
    /// SOCKS 5; the proxy resolves names.
    Socks5h,
    /// CONNECT of HTTP (RFC 9110, section 9.3.6); the proxy resolves names.
    Http,
}

impl ProxyKind {
    pub(super) const ALL: [Self; 3] = [Self::Socks5, Self::Socks5h, Self::Http];

    /// The word before `://`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Socks5 => "socks5",
            Self::Socks5h => "socks5h",
            Self::Http => "http",
        }
    }
}

/// A user of a proxy.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ProxyLogin {
    /// The name, 1 to 255 bytes (RFC 1929, section 2); no `:` for HTTP (RFC 7617, section 2). Without a password it is as secret as one.
    pub user: String,
    /// The password, up to 255 bytes; may be empty.
    pub password: Secret,
}

impl std::fmt::Debug for ProxyLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let user = match self.password.reveal() {
            "" => Secret::HIDDEN,
            _ => &self.user,
        };
        f.debug_struct("ProxyLogin")
            .field("user", &user)
            .field("password", &self.password)
            .finish()
    }
}

/// How a WebSocket is dialled or listened for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WsSettings {
    /// Those of the connection below.
    pub tcp: TcpSettings,
    /// For diallers: the `Host` that is asked for. Default what is dialled.
    pub host: Option<String>,
    /// For diallers: more headers of the request, in their order.
    pub headers: Vec<(String, Secret)>,
    /// Seconds of silence after which a ping goes out (RFC 6455, section 5.5.2), 1 to 32,767, so that no front end takes the
    /// connection for a dead one. Default 30: half of what nginx waits (`proxy_read_timeout`). `None`: never.
    pub ping: Option<u16>,
    /// `wss:`; the TLS of the way.
    pub tls: Option<WsTls>,
}

impl WsSettings {
    /// Seconds of [`WsSettings::ping`] where nothing else is said.
    pub const PING: u16 = 30;
}

impl Default for WsSettings {
    fn default() -> Self {
        Self {
            tcp: TcpSettings::default(),
            host: None,
            headers: Vec::new(),
            ping: Some(Self::PING),
            tls: None,
        }
    }
}

/// The TLS of `wss:`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct WsTls {
    /// For diallers: the SHA-256 of the public key (SubjectPublicKeyInfo) that the front end must have. Default: its certificate must be
    /// vouched for by the platform's authorities.
    pub pin: Option<[u8; 32]>,
    /// For listeners: the certificate chain, in PEM.
    pub cert: Option<PathBuf>,
    /// For listeners: its private key, in PEM.
    pub key: Option<PathBuf>,
}

impl WsSettings {
    /// The proxy it is dialled through.
    pub fn proxy(&self) -> Option<&Proxy> {
        self.tcp.proxy.as_deref()
    }
}

/// What `cepa serve` is told at the far end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SshSettings {
    /// Its services, each as `--service` takes it. Default none: ssh's own configuration there may say them (`command=` of
    /// `authorized_keys`).
    pub services: Vec<String>,
    /// Where it may listen for us, each as `--allow-remote` takes it. Default nowhere.
    pub allow_remote: Vec<String>,
}
