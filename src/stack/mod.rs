//! Builds the layers that an address names, and explains them.
//!
//! `mux+tls+tls+tcp:host:7000` is read from its right: the stream of the transport, a TLS layer on
//! it, another on that, and the mux on top. This floor dials, meters the wire, and puts on the link
//! and the TLS layers; the mux, which makes a session of them, is put on by the floor above.
//!
//! Rules that keep a stack honest:
//!
//! - The mux is the topmost layer and has at least one TLS layer below it: no stranger gets to speak
//!   to the mux, the part with the most state. An address that names no layers means `mux+tls`; a serial
//!   line or a pty, `mux+tls+link`.
//! - A link is the lowest layer. It is no secret and proves nothing, so TLS is always above it.
//! - Each TLS layer says by ALPN what is inside it, another layer ([`ALPN_LAYER`]) or the mux ([`ALPN_SMALL`], [`ALPN_MUX`] with an
//!   older peer, the names of sessions that are kept), and demands one of the same of the peer. So a handshake meant for one place in the stack can't be led to another, nor
//!   to another protocol's server that shares the key.
//! - A handshake has 10 s a layer and all of them together 30 s: whoever holds a connection without
//!   proving who it is must not hold it for long.

use std::future::pending;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use cepa_transports::endpoint::{Duplex, Escapes, FlowControl, LinkSettings, Rs485};
use cepa_transports::meter::{Meter, Metered};
use cepa_transports::{Endpoint, Layer, Proxies, Rate, Remote, Stream};
use tokio::time::{Instant, timeout_at};

use crate::Side;
use crate::identity::{Identity, PeerId, TrustPolicy};
use crate::link::{self, LinkInfo};
use crate::network::NetworkChanges;
use crate::onion::Onion;
use crate::tls::{KeyForm, Made, TlsConfig, TlsConfigBuilder, TlsConfigError};
use crate::{mux, resume, transports};

mod admission;
mod binding;
mod bound;
mod ends;
mod error;
mod explain;
mod lasting;
mod layers;
mod parting;
mod registry;

pub use admission::{Admission, Admitted, NotAdmitted};
pub use binding::{Binding, BindingError};
pub use error::{ConnectError, HelloFault, Resumed};
pub use explain::{Explanation, explain};
pub use lasting::{PathChange, PathInfo, PathStats};
pub use layers::{DEFAULT_LAYERS, SERIAL_LAYERS};

pub(crate) use binding::tls_exporter;
pub(crate) use bound::Bound;
pub(crate) use ends::Ends;
pub(crate) use lasting::{FIRST_PATH, Lasting, Moved, NotReached, Parked, Redial, Wire};
pub(crate) use parting::close_lingering;
pub(crate) use registry::{Found, NoPlace, Registered, Registry};

use layers::{Below, below_mux, default_layers};
use parting::give_up;

/// Said by the TLS layer that has the mux inside (ALPN), where the first window of each stream is as yamux has it. Older peers know no
/// other.
pub const ALPN_MUX: &[u8] = b"cepa/1";

/// The same with a first window of 64 KiB, each way. It is offered before [`ALPN_MUX`].
pub const ALPN_SMALL: &[u8] = b"cepa/2";

/// Said by the TLS layer that has a session inside which outlives its connections (ALPN). Who wants that offers both, and a
/// peer that does not know it takes [`ALPN_MUX`].
pub const ALPN_RESUME: &[u8] = b"cepa-resume/1";

/// As [`ALPN_RESUME`], and a first window of 64 KiB, as with [`ALPN_SMALL`].
pub const ALPN_RESUME_SMALL: &[u8] = b"cepa-resume/2";

/// Said by a TLS layer that has another TLS layer inside (ALPN).
pub const ALPN_LAYER: &[u8] = b"cepa-layer/1";

/// How a stack is built, for either side.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StackConfig {
    /// Who we are, in every TLS layer of the stack.
    pub identity: Identity,
    /// Who we can be as well, for a client that asks for it by name; default none. See
    /// [`TlsConfigBuilder::more_identities`].
    pub more_identities: Vec<Identity>,
    /// Whom a client asks for by name in every TLS layer, where there may be several behind one
    /// address; default nobody. Who may answer is up to `trust`. See [`TlsConfigBuilder::ask_for`].
    pub ask_for: Option<PeerId>,
    /// Whom we accept, in every TLS layer of the stack.
    pub trust: Arc<dyn TrustPolicy>,
    /// Whether there is room for one more session; default none, which always has.
    pub admission: Option<Arc<dyn Admission>>,
    /// The mux's limits.
    pub mux: mux::Config,
    /// Whether sessions outlive their connections, where the peer has that as well: what is sent is kept until the peer has it,
    /// and goes on over the next connection; see [`Session::path`](crate::session::Session::path). Default none: a session ends
    /// with its connection. Sessions are found again among those that were made with this configuration or a clone of it.
    pub resume: Option<resume::Config>,
    /// When the network of this machine changes, whoever waits to dial a session again does so at once, and one whose connection leads
    /// nowhere any more finds that out; default [`NetworkChanges::system`].
    pub network: NetworkChanges,
    /// Through which proxy an address is dialled that names none itself; default none.
    pub proxies: Option<Arc<Proxies>>,
    /// TCP connections are dialled from ports that other sockets of this user may share (`SO_REUSEPORT`), as looking for direct paths
    /// through NATs needs (`protocols::direct`). Default no; without the feature `nat` nothing comes of it.
    pub shared_port: bool,
    /// The sessions that can be taken up again.
    pub(crate) registry: Arc<Registry>,
    /// The configurations of TLS layers that connections have now.
    made: Arc<Made>,
    /// A connection that came takes up what is there; what it begins is not kept.
    pub(crate) begins_nothing: bool,
    /// What this was before it was tuned to an address.
    untuned: Option<Arc<StackConfig>>,
    /// The link, in stacks that have one. The rate of a serial line is filled in from its address.
    pub link: link::Config,
    /// What is built where no layers are named; default [`DEFAULT_LAYERS`].
    pub default_layers: &'static [Layer],
    /// Key exchange groups of every TLS layer, by IANA code, best first; default none, which means
    /// those of the backend (X25519MLKEM768 first).
    pub groups: Option<Vec<u16>>,
    /// Cipher suites of every TLS layer, by IANA code, best first; default none, which means those of
    /// the backend (AES-256 first).
    pub suites: Option<Vec<u16>>,
    /// How keys are shown in every TLS layer that the address does not say it of; default none, which
    /// means certificates, and raw public keys on a link or a serial line. See
    /// [`TlsConfigBuilder::key_form`].
    pub key_form: Option<KeyForm>,
    /// Time for the handshake of one layer; default 10 s.
    pub layer_timeout: Duration,
    /// Time for all layers and the first ping together; default 30 s.
    pub stack_timeout: Duration,
    /// Time for the peer to accept or refuse a service that we open, and for the inner handshake
    /// behind it; default 30 s. The peer may have to dial something first.
    pub open_timeout: Duration,
    /// Time for the peer to say what a substream is for, once it has opened it; default 10 s. A
    /// stream that stays silent is reset, and delays no other one meanwhile.
    pub header_timeout: Duration,
}

setters!(StackConfig {
    with_identity => identity: Identity,
    with_more_identities => more_identities: Vec<Identity>,
    with_ask_for => ask_for: Option<PeerId>,
    with_trust => trust: Arc<dyn TrustPolicy>,
    with_admission => admission: Option<Arc<dyn Admission>>,
    with_mux => mux: mux::Config,
    with_resume => resume: Option<resume::Config>,
    with_network => network: NetworkChanges,
    with_proxies => proxies: Option<Arc<Proxies>>,
    with_shared_port => shared_port: bool,
    with_link => link: link::Config,
    with_default_layers => default_layers: &'static [Layer],
    with_groups => groups: Option<Vec<u16>>,
    with_suites => suites: Option<Vec<u16>>,
    with_key_form => key_form: Option<KeyForm>,
    with_layer_timeout => layer_timeout: Duration,
    with_stack_timeout => stack_timeout: Duration,
    with_open_timeout => open_timeout: Duration,
    with_header_timeout => header_timeout: Duration,
});

impl StackConfig {
    /// The defaults, for this identity and this trust.
    pub fn new(identity: Identity, trust: Arc<dyn TrustPolicy>) -> Self {
        Self {
            identity,
            more_identities: Vec::new(),
            ask_for: None,
            trust,
            admission: None,
            mux: mux::Config::default(),
            resume: None,
            network: NetworkChanges::system(),
            proxies: None,
            shared_port: false,
            registry: Arc::default(),
            made: Arc::default(),
            begins_nothing: false,
            untuned: None,
            link: link::Config::default(),
            default_layers: DEFAULT_LAYERS,
            groups: None,
            suites: None,
            key_form: None,
            layer_timeout: Duration::from_secs(10),
            stack_timeout: Duration::from_secs(30),
            open_timeout: Duration::from_secs(30),
            header_timeout: Duration::from_secs(10),
        }
    }
}

/// The X25519 group alone, by its IANA code.
const X25519: u16 = 0x001d;

/// The suites whose hash is SHA-256, by their IANA codes: `TLS_AES_128_GCM_SHA256` and
/// `TLS_CHACHA20_POLY1305_SHA256`.
const SHORT_SUITES: [u16; 2] = [0x1301, 0x1303];

/// More bytes than one handshake puts on a line, both ways together: 0.8 kB with X25519 and raw keys,
/// and room for a peer's certificates.
const HANDSHAKE_BYTES: u64 = 8_000;

/// Bits on a line for one byte: a start bit, eight data bits, a stop bit.
const BITS_A_BYTE: u64 = 10;

/// A link's configuration, with what an address tells: the rate of a serial line, unless one is set,
/// what its flow control takes for itself, its largest frame and whether it carries both ways at once; and
/// what is written of a link as the lowest layer.
pub fn link_config(endpoint: &Endpoint, config: &link::Config) -> link::Config {
    let mut tuned = config.clone();
    if let Some(settings) = endpoint.line_settings() {
        tuned.line_rate.get_or_insert_with(|| settings.line_rate());
        tuned = tuned.with_line_settings(LinkSettings {
            escape: match settings.flow {
                FlowControl::Software => Escapes::XonXoff,
                _ => Escapes::Least,
            },
            mtu: settings.mtu,
            // Whose receiver is off while it sends has two wires for both.
            duplex: match settings.rs485 {
                Rs485::On(mode) if !mode.rx_during_tx => Duplex::Half,
                _ => settings.duplex,
            },
        });
    }
    match endpoint.layers().last() {
        Some(Layer::Link(settings)) => tuned.with_line_settings(*settings),
        _ => tuned,
    }
}

impl StackConfig {
    /// The same for what an address stands for: its own default layers; and a serial line gets the time
    /// that its speed needs on top of the limits, a link that knows its rate and its flow control, and what
    /// makes handshakes small, where nothing else is set: X25519 alone saves 2.3 kB a layer, raw public
    /// keys (RFC 7250) 0.8 kB, suites with SHA-256 40 bytes. Raw public keys are for every stack on a
    /// link, whatever is below it.
    /// [`dial`](crate::session::Session::dial) and [`accept_on`](crate::session::Session::accept_on) do this by themselves.
    #[must_use]
    pub fn for_endpoint(&self, endpoint: &Endpoint) -> Self {
        let mut tuned = self.clone();
        tuned.tune_to(endpoint);
        tuned
    }

    /// What this was before it was tuned to an address, for a connection to another one.
    pub(crate) fn untuned(&self) -> Arc<Self> {
        let as_it_is = || Arc::new(self.clone());
        self.untuned.clone().unwrap_or_else(as_it_is)
    }

    fn tune_to(&mut self, endpoint: &Endpoint) {
        if self.resume.is_some() && self.untuned.is_none() {
            self.untuned = Some(Arc::new(self.clone()));
        }
        self.default_layers = default_layers(endpoint.target());
        self.link = link_config(endpoint, &self.link);
        if let Some(settings) = endpoint.line_settings() {
            let bits = HANDSHAKE_BYTES * BITS_A_BYTE;
            let slow = Duration::from_secs(bits.div_ceil(u64::from(settings.baud.max(1))));
            let layers = u32::try_from(endpoint.layers().len().max(1)).unwrap_or(u32::MAX);
            self.layer_timeout = self.layer_timeout.saturating_add(slow);
            self.stack_timeout = self
                .stack_timeout
                .saturating_add(slow.saturating_mul(layers));
            self.groups.get_or_insert_with(|| vec![X25519]);
            self.suites.get_or_insert_with(|| SHORT_SUITES.to_vec());
            self.raw_keys_by_default();
        }
        let layers = self.layers(endpoint.layers());
        if layers.iter().any(|layer| layer.is_link()) {
            self.raw_keys_by_default();
        }
    }

    /// Where bytes are few, a key is shown without a certificate around it, if nothing else is set.
    fn raw_keys_by_default(&mut self) {
        self.key_form.get_or_insert(KeyForm::RawPublicKey);
    }

    /// The configuration of one TLS layer of a stack, as an address names it; without ALPN.
    pub fn tls(&self, layer: Layer) -> Result<TlsConfig, TlsConfigError> {
        self.tls_or(layer, KeyForm::default()).build()
    }

    /// The same; how the key is shown where neither the layer nor this says it.
    fn tls_or(&self, layer: Layer, form: KeyForm) -> TlsConfigBuilder {
        let form = match layer {
            Layer::TlsRaw => KeyForm::RawPublicKey,
            Layer::TlsX509 => KeyForm::Certificate,
            _ => self.key_form.unwrap_or(form),
        };
        let mut tls = TlsConfig::builder(&self.identity, Arc::clone(&self.trust))
            .key_form(form)
            .more_identities(&self.more_identities);
        if let Some(groups) = &self.groups {
            tls = tls.groups(groups);
        }
        if let Some(suites) = &self.suites {
            tls = tls.suites(suites);
        }
        if let Some(peer) = self.ask_for {
            tls = tls.ask_for(peer);
        }
        tls
    }
}

impl StackConfig {
    /// The configurations of the TLS layers of a stack, topmost first.
    fn each_layer(&self, below: Below<'_>) -> Result<Vec<TlsConfig>, TlsConfigError> {
        let form = match below.link {
            Some(_) => KeyForm::RawPublicKey,
            None => KeyForm::default(),
        };
        let alpn = |above| match above {
            // Best first, for either side: the server chooses.
            0 if self.resume.is_some() => {
                &[ALPN_RESUME_SMALL, ALPN_RESUME, ALPN_SMALL, ALPN_MUX][..]
            }
            0 => &[ALPN_SMALL, ALPN_MUX],
            _ => &[ALPN_LAYER],
        };
        let layers = below.tls.iter().enumerate();
        layers
            .map(|(above, layer)| self.made.build(self.tls_or(*layer, form).alpn(alpn(above))))
            .collect()
    }

    /// The layers as written, or what none means.
    fn layers<'a>(&self, written: &'a [Layer]) -> &'a [Layer] {
        if written.is_empty() {
            self.default_layers
        } else {
            written
        }
    }
}

/// A stream with its TLS layers on, ready for the mux.
pub(crate) struct Built {
    pub(crate) onion: Onion<Metered<Stream>>,
    pub(crate) meter: Meter,
    pub(crate) label: String,
    pub(crate) remote: Remote,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) started: Instant,
    /// When the whole stack must stand.
    pub(crate) deadline: Instant,
    /// Of the link below, where it is known.
    pub(crate) line_rate: Option<Rate>,
    pub(crate) link: Option<LinkInfo>,
}

impl Built {
    /// Whether the two ends have agreed on a session that outlives its connections.
    pub(crate) fn is_lasting(&self) -> bool {
        self.says(&[ALPN_RESUME, ALPN_RESUME_SMALL])
    }

    /// The first window of each stream that they have agreed on.
    pub(crate) fn first_window(&self) -> u32 {
        if self.says(&[ALPN_SMALL, ALPN_RESUME_SMALL]) {
            mux::SMALL_WINDOW
        } else {
            mux::INITIAL_WINDOW
        }
    }

    fn says(&self, names: &[&[u8]]) -> bool {
        let innermost = self.onion.layers().last();
        let name = innermost.and_then(|layer| layer.peer().alpn());
        name.is_some_and(|name| names.contains(&name))
    }

    /// Over what a session runs here, as its first path.
    pub(crate) fn path(&self, side: Side) -> PathInfo {
        PathInfo {
            label: self.label.clone(),
            remote: self.remote.clone(),
            local: self.local,
            layers: self.onion.layers().into(),
            link: self.link.clone(),
            side,
            generation: 0,
            number: lasting::FIRST_PATH,
            since: Instant::now().into_std(),
        }
    }
}

/// Dials an address and puts its TLS layers on, as client, with a configuration that is [tuned](StackConfig::for_endpoint) to it
/// on the way.
pub(crate) async fn dial(
    endpoint: &Endpoint,
    config: &mut StackConfig,
) -> Result<Built, ConnectError> {
    config.tune_to(endpoint);
    // Checked first: no connection is made for an address that can't work.
    let below = below_mux(config.layers(endpoint.layers()))?;
    let stream = match &config.proxies {
        Some(proxies) => open(&proxies.on(endpoint), config.shared_port).await?,
        None => open(endpoint, config.shared_port).await?,
    };
    put_on(stream, below, Side::Client, config, pin!(pending())).await
}

async fn open(
    endpoint: &Endpoint,
    shared_port: bool,
) -> Result<Stream, transports::TransportError> {
    #[cfg(feature = "nat")]
    if shared_port {
        return transports::dial_from_shared_port(endpoint).await;
    }
    // Nobody would share it.
    let _ = shared_port;
    transports::dial(endpoint).await
}

/// Puts the link and the TLS layers on a stream.
///
/// On an error the peer is told (by alert), and given a moment to read it; also where `unwanted` completes meanwhile.
pub(crate) async fn build(
    stream: Stream,
    layers: &[Layer],
    side: Side,
    config: &StackConfig,
    unwanted: Pin<&mut impl Future<Output = NotAdmitted>>,
) -> Result<Built, ConnectError> {
    let below = below_mux(config.layers(layers))?;
    put_on(stream, below, side, config, unwanted).await
}

async fn put_on(
    stream: Stream,
    below: Below<'_>,
    side: Side,
    config: &StackConfig,
    mut unwanted: Pin<&mut impl Future<Output = NotAdmitted>>,
) -> Result<Built, ConnectError> {
    let configs = config.each_layer(below)?;
    let count = configs.len();
    let started = Instant::now();
    let deadline = started + config.stack_timeout;
    let label = stream.label().to_owned();
    let remote = stream.remote().clone();
    let local = stream.local();
    let meter = Meter::default();
    let wire = Metered::new(stream, meter.clone());
    let mut link_info = None;
    let wire = if let Some(link_settings) = below.link {
        let (link, driver) = link::link(
            wire,
            side,
            &config.link.clone().with_line_settings(link_settings),
        );
        tokio::spawn(driver);
        // What the session counts is metered below.
        let above = Meter::default();
        link_info = Some(LinkInfo::new(link.handle(), above.clone(), meter.clone()));
        let stream = Stream::from_io(link, label.clone()).with_remote(remote.clone());
        Metered::new(stream, above)
    } else {
        wire
    };
    let mut onion = Onion::new(wire);
    // Written topmost first, put on from below.
    for (layer, tls) in (1..=count).zip(configs.iter().rev()) {
        let until = deadline.min(Instant::now() + config.layer_timeout);
        let pushed = tokio::select! {
            pushed = timeout_at(until, onion.push(side, tls)) => pushed,
            refused = unwanted.as_mut() => {
                let silent = side == Side::Server && meter.bytes_out() == 0 && below.link.is_none();
                give_up(onion, silent).await;
                return Err(refused.into());
            }
        };
        let error = match pushed {
            Ok(Ok(_)) => continue,
            Ok(Err(error)) if meter.bytes_in() == 0 && error.is_end() => {
                ConnectError::ClosedAtOnce(error.root().clone())
            }
            Ok(Err(error)) => ConnectError::Tls(error.root().clone()),
            Err(_) => ConnectError::TimedOut {
                during: format!("the handshake of TLS layer {layer} of {count}"),
            },
        };
        close_lingering(onion).await;
        return Err(error);
    }
    Ok(Built {
        onion,
        meter,
        label,
        remote,
        local,
        started,
        deadline,
        line_rate: config.link.line_rate.filter(|_| below.link.is_some()),
        link: link_info,
    })
}

/// Tells a client that there is no place for its handshake, which has not begun; it has so long to read that.
///
/// # Cancel safety
/// Dropping the future drops the stream.
pub(crate) async fn turn_away(
    stream: Stream,
    layers: &[Layer],
    config: &StackConfig,
    time: Duration,
) {
    // On a link somebody would have to speak its frames first; on a line there is one peer, and it has the place.
    if below_mux(config.layers(layers)).is_ok_and(|below| below.link.is_none()) {
        parting::turn_away(stream, time).await;
    }
}

#[cfg(test)]
mod tests;
