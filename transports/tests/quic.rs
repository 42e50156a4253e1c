//! How a stream of QUIC ends, at both ends; what says why none is there; and what a stranger can make a listener do.
#![cfg(feature = "quic")]
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cepa_transports::{Endpoint, Remote, Stream, TransportErrorKind as Kind, dial, listen};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::timeout;

/// A guard against hanging.
const LONG: Duration = Duration::from_secs(60);

fn endpoint(text: &str) -> Endpoint {
    text.parse().unwrap_or_else(|e| panic!("{e}"))
}

/// A dialled stream and the one that was accepted for it.
async fn pair_with(options: &str) -> (Stream, Stream) {
    let mut listener = listen(&endpoint(&format!("quic:127.0.0.1:0{options}")))
        .await
        .unwrap();
    let at = endpoint(&format!(
        "{}{options}",
        plain(&listener.endpoint().to_string())
    ));
    let (dialled, accepted) = tokio::join!(dial(&at), listener.accept());
    (dialled.unwrap(), accepted.unwrap().unwrap())
}

fn plain(address: &str) -> &str {
    address.split(',').next().unwrap()
}

async fn pair() -> (Stream, Stream) {
    pair_with("").await
}

async fn rest(stream: &mut Stream) -> (usize, io::Result<()>) {
    let (mut buf, mut all) = (vec![0; 40_000], 0);
    loop {
        match timeout(LONG, stream.read(&mut buf)).await.unwrap() {
            Ok(0) => return (all, Ok(())),
            Ok(n) => all += n,
            Err(error) => return (all, Err(error)),
        }
    }
}

#[tokio::test]
async fn both_ends_know_where_the_other_is() {
    let (dialled, accepted) = pair().await;
    let Remote::Quic(there) = dialled.remote() else {
        panic!("{dialled:?}");
    };
    assert_eq!(dialled.label(), format!("quic {there}"));
    assert_eq!(accepted.local(), Some(*there));
    assert_eq!(accepted.remote(), &Remote::Quic(dialled.local().unwrap()));
}

/// A peer that dials and only listens sends nothing of its own.
#[tokio::test]
async fn who_listens_may_be_the_first_to_speak() {
    let (mut dialled, mut accepted) = pair().await;
    accepted.write_all(b"welcome").await.unwrap();
    let mut said = [0; 7];
    timeout(LONG, dialled.read_exact(&mut said))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&said, b"welcome");
}

#[tokio::test]
async fn a_shutdown_is_an_end_and_the_other_direction_goes_on() {
    for swapped in [false, true] {
        let (mut a, mut b) = pair().await;
        if swapped {
            (a, b) = (b, a);
        }
        a.write_all(&vec![7; 60_000]).await.unwrap();
        a.shutdown().await.unwrap();
        let (n, end) = rest(&mut b).await;
        assert_eq!((n, end.is_ok()), (60_000, true));
        b.write_all(&vec![8; 60_000]).await.unwrap();
        b.shutdown().await.unwrap();
        drop(b);
        let (n, end) = rest(&mut a).await;
        assert_eq!((n, end.is_ok()), (60_000, true));
        // It has left in order.
        let left = poll_fn(|cx| a.poll_left(cx, false));
        assert_eq!(
            timeout(LONG, left).await.unwrap().kind(),
            ErrorKind::BrokenPipe
        );
    }
}

/// What was written before arrives, and the end is none.
#[tokio::test]
async fn a_stream_that_is_dropped_without_a_shutdown_is_cut_behind_what_was_written() {
    let (mut a, mut b) = pair().await;
    a.write_all(&vec![7; 60_000]).await.unwrap();
    drop(a);
    let (n, end) = rest(&mut b).await;
    assert_eq!(n, 60_000);
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    // And nobody takes anything there.
    let error = loop {
        match b.write(&[1; 1000]).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(
            error.kind(),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
        ),
        "{error}"
    );
    let left = poll_fn(|cx| b.poll_left(cx, false));
    assert_eq!(
        timeout(LONG, left).await.unwrap().kind(),
        ErrorKind::ConnectionReset
    );
}

#[tokio::test]
async fn one_that_is_told_to_is_cut_at_once_and_one_that_is_drained_before_has_arrived_whole() {
    for drained in [false, true] {
        let (mut a, mut b) = pair().await;
        a.cut_when_dropped(true);
        a.write_all(&vec![7; 50_000]).await.unwrap();
        if drained {
            timeout(LONG, poll_fn(|cx| a.poll_drained(cx)))
                .await
                .unwrap();
        }
        drop(a);
        let (n, end) = rest(&mut b).await;
        assert!(if drained { n == 50_000 } else { n <= 50_000 }, "{n}");
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

/// To look whether it is drained takes nothing from a stream that goes on.
#[tokio::test]
async fn a_stream_that_was_drained_can_be_written_on() {
    let (mut a, mut b) = pair().await;
    for _ in 0..3 {
        a.write_all(&vec![7; 40_000]).await.unwrap();
        let reading = async {
            let mut all = vec![0; 40_000];
            b.read_exact(&mut all).await.unwrap();
        };
        let ((), ()) = tokio::join!(poll_fn(|cx| a.poll_drained(cx)), reading);
    }
    a.shutdown().await.unwrap();
    poll_fn(|cx| a.poll_drained(cx)).await;
    assert_eq!(rest(&mut b).await.0, 0);
}

/// Whoever has said all and reads no more.
#[tokio::test]
async fn an_end_that_is_not_read_is_known_to_who_writes() {
    let (mut a, mut b) = pair().await;
    a.write_all(b"bye").await.unwrap();
    a.shutdown().await.unwrap();
    drop(a);
    let error = loop {
        match b.write(&[1; 1000]).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    let (n, end) = rest(&mut b).await;
    assert_eq!(
        (n, end.is_ok()),
        (3, true),
        "and what was said before is there"
    );
}

/// A shutdown waits for the other end and for no reader, and one that is still to come gets it all.
#[tokio::test]
async fn who_does_not_read_holds_up_no_shutdown() {
    let (mut a, mut b) = pair().await;
    let n = 60_000;
    timeout(LONG, a.write_all(&vec![7; n]))
        .await
        .unwrap()
        .unwrap();
    timeout(LONG, a.shutdown()).await.unwrap().unwrap();
    drop(a);
    let (all, end) = rest(&mut b).await;
    assert_eq!((all, end.is_ok()), (n, true));
}

async fn refused(at: &str) -> (Kind, String) {
    let error = timeout(LONG, dial(&endpoint(at)))
        .await
        .unwrap()
        .unwrap_err();
    let line = error.to_string();
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(
        line.starts_with(&format!("cannot dial \"{at}\": ")),
        "{line}"
    );
    (error.kind(), line)
}

#[tokio::test]
async fn where_nobody_answers_over_udp_it_says_what_else_there_is() {
    // A socket that takes packets and says nothing, and a port at which only TCP is.
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let both = [silent.local_addr().unwrap(), tcp.local_addr().unwrap()].map(|at| {
        let at = format!("quic:{at}");
        async move { refused(&at).await }
    });
    let [one, other] = both;
    let (one, other) = tokio::join!(one, other);
    for (kind, line) in [one, other] {
        assert_eq!(kind, Kind::TimedOut, "{line}");
        assert!(line.contains("use tcp: or wss:"), "{line}");
    }
}

#[tokio::test]
async fn a_quic_server_that_is_none_of_cepa_is_said_to_be_none() {
    let other = server(&[b"h3"]);
    let at = other.local_addr().unwrap();
    let answering = tokio::spawn(async move {
        while let Some(incoming) = other.accept().await {
            let _ = incoming.await;
        }
    });
    let (kind, line) = refused(&format!("quic:{at}")).await;
    assert_eq!(kind, Kind::Invalid, "{line}");
    assert!(
        line.contains("knows nothing of the protocol \"cepa\""),
        "{line}"
    );
    answering.abort();
}

#[tokio::test]
async fn a_server_of_other_versions_is_said_to_be_one() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut packet = [0; 2048];
        loop {
            let (_, from) = socket.recv_from(&mut packet).await.unwrap();
            // Version negotiation (RFC 9000, section 17.2.1): the ids in turn, and one version that nobody speaks.
            let to = usize::from(packet[5]);
            let from_at = 6 + to;
            let len = usize::from(packet[from_at]);
            let mut answer = vec![0xc0, 0, 0, 0, 0, packet[from_at]];
            answer.extend_from_slice(&packet[from_at + 1..from_at + 1 + len]);
            answer.push(packet[5]);
            answer.extend_from_slice(&packet[6..6 + to]);
            answer.extend_from_slice(&0x5a5a_5a5a_u32.to_be_bytes());
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    let (kind, line) = refused(&format!("quic:{at}")).await;
    assert_eq!(kind, Kind::Invalid, "{line}");
    assert!(line.contains("other versions of QUIC"), "{line}");
}

#[tokio::test]
async fn no_proxy_and_no_other_way_is_taken_unasked() {
    let (kind, line) = refused("quic:127.0.0.1:1,proxy=socks5h://127.0.0.1:2").await;
    assert_eq!(kind, Kind::Invalid, "{line}");
    assert!(line.contains("QUIC goes by no proxy"), "{line}");
    let at = endpoint("quic:127.0.0.1:0,proxy=http://127.0.0.1:2");
    let line = listen(&at).await.unwrap_err().to_string();
    assert!(line.contains("QUIC goes by no proxy"), "{line}");
    let (_, line) = refused("quic:127.0.0.1:1,bind=192.0.2.1").await;
    assert!(
        line.contains("bind=192.0.2.1 is no address of this machine"),
        "{line}"
    );
    let (kind, line) = refused("quic:127.0.0.1:1,bind=::1").await;
    assert_eq!(kind, Kind::NotFound, "{line}");
    let line = listen(&endpoint("quic:127.0.0.1:0,bind=127.0.0.1")).await;
    let line = line.unwrap_err().to_string();
    assert!(
        line.contains("bind= is for dialling; leave it out"),
        "{line}"
    );
}

#[tokio::test]
async fn a_connection_comes_from_the_address_that_is_bound() {
    let mut listener = listen(&endpoint("quic:127.0.0.1:0")).await.unwrap();
    let at = endpoint(&format!("{},bind=127.0.0.2", listener.endpoint()));
    let (dialled, accepted) = tokio::join!(dial(&at), listener.accept());
    let from = dialled.unwrap().local().unwrap();
    assert_eq!(from.ip(), Ipv4Addr::new(127, 0, 0, 2));
    assert_eq!(accepted.unwrap().unwrap().remote(), &Remote::Quic(from));
}

#[tokio::test]
async fn a_listener_is_at_every_address_of_its_name_with_one_port_that_others_can_not_take() {
    let mut listener = listen(&endpoint("quic:localhost:0")).await.unwrap();
    let at = listener.endpoint().to_string();
    let port = at.rsplit_once(':').unwrap().1;
    for host in ["127.0.0.1", "[::1]"] {
        let at = endpoint(&format!("quic:{host}:{port}"));
        // The name of a machine may have one of them.
        if UdpSocket::bind(at.to_string()[5..].to_owned())
            .await
            .is_ok()
        {
            assert!(host.starts_with('['), "nobody is at {at}");
            continue;
        }
        let (dialled, accepted) = tokio::join!(dial(&at), listener.accept());
        dialled.unwrap();
        accepted.unwrap();
    }
    let error = listen(&endpoint(&format!("quic:127.0.0.1:{port}"))).await;
    assert_eq!(error.unwrap_err().kind(), Kind::AddressInUse);
    drop(listener);
}

/// The streams keep it as long as they are there, and nobody is let in meanwhile.
#[tokio::test]
async fn what_was_accepted_outlives_the_listener_and_then_the_port_is_free() {
    let mut listener = listen(&endpoint("quic:127.0.0.1:0")).await.unwrap();
    let at = listener.endpoint().clone();
    let (dialled, accepted) = tokio::join!(dial(&at), listener.accept());
    let (mut a, mut b) = (dialled.unwrap(), accepted.unwrap().unwrap());
    drop(listener);
    a.write_all(b"x").await.unwrap();
    assert_eq!(b.read_u8().await.unwrap(), b'x');
    drop((a, b));
    let free = async {
        while listen(&at).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, free).await.unwrap();
}

/// A server and a client that know as much of QUIC as anybody.
fn server(alpn: &[&[u8]]) -> quinn::Endpoint {
    let made = rcgen::generate_simple_self_signed(["h".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    tls.alpn_protocols = alpn.iter().map(|it| it.to_vec()).collect();
    let tls = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap()
}

fn client(alpn: &[u8]) -> quinn::Endpoint {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    tls.alpn_protocols = vec![alpn.to_vec()];
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(tls)));
    endpoint
}

#[derive(Debug)]
struct Anybody(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// What else is asked of a listener than one stream each way.
#[tokio::test]
async fn a_stranger_has_one_stream_and_a_bounded_window() {
    let mut listener = listen(&endpoint("quic:127.0.0.1:0")).await.unwrap();
    let at: SocketAddr = listener.endpoint().to_string()[5..].parse().unwrap();
    let connecting = client(b"cepa").connect(at, "h").unwrap();
    let (connection, accepted) = tokio::join!(connecting, listener.accept());
    let (connection, mut accepted) = (connection.unwrap(), accepted.unwrap().unwrap());
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(&[0]).await.unwrap();
    assert!(connection.max_datagram_size().is_none());
    let more = async {
        tokio::select! {
            _ = connection.open_bi() => "a second stream",
            _ = connection.open_uni() => "one of one direction",
            // As long as it takes to fill the window, and the first thing that comes back shows that it was not let out further.
            n = async {
                let mut n = 0;
                while let Ok(Ok(some)) = timeout(Duration::from_secs(1), send.write(&[1; 10_000])).await {
                    n += some;
                }
                n
            } => {
                assert!(n < 64 << 10, "{n} bytes were taken that nobody has read");
                ""
            }
        }
    };
    assert_eq!(more.await, "");
    // What it is read, it may send.
    let mut some = vec![0; 60_000];
    accepted.read_exact(&mut some).await.unwrap();
    timeout(LONG, send.write_all(&vec![1; 60_000]))
        .await
        .unwrap()
        .unwrap();
}

/// It begins with another byte than the dialler of cepa does, or not at all.
#[tokio::test]
async fn a_stream_that_begins_otherwise_is_refused() {
    let mut listener = listen(&endpoint("quic:127.0.0.1:0")).await.unwrap();
    let at: SocketAddr = listener.endpoint().to_string()[5..].parse().unwrap();
    let connecting = client(b"cepa").connect(at, "h").unwrap();
    let (connection, accepted) = tokio::join!(connecting, listener.accept());
    let (connection, mut accepted) = (connection.unwrap(), accepted.unwrap().unwrap());
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(b"GET").await.unwrap();
    let error = accepted.read(&mut [0; 9]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
    // One that goes again before it has said anything is nobody.
    let connecting = client(b"cepa").connect(at, "h").unwrap();
    let (connection, accepted) = tokio::join!(connecting, listener.accept());
    let mut accepted = accepted.unwrap().unwrap();
    connection.unwrap().close(0_u32.into(), b"");
    let error = accepted.read(&mut [0; 9]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{error}");
}

/// As many as may be are in their handshake, from addresses that are not proven and never will be: the next one is asked to prove his.
#[tokio::test]
async fn who_forges_addresses_takes_no_place_from_others() {
    let mut listener = listen(&endpoint("quic:127.0.0.1:0")).await.unwrap();
    let at: SocketAddr = listener.endpoint().to_string()[5..].parse().unwrap();
    // First packets that are whole, each from a port of its own, whose answers nobody reads.
    let mut forged = Vec::new();
    for _ in 0..40 {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let packet = first_packet().await;
        socket.send_to(&packet, at).await.unwrap();
        forged.push(socket);
    }
    // None of them is given away. Whoever comes with an address of his own is, by way of a Retry.
    let to = endpoint(&listener.endpoint().to_string());
    let dialled = tokio::spawn(async move { dial(&to).await });
    let mut accepted = timeout(LONG, listener.accept())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    // Its handshake runs once it is read.
    let mut byte = [0; 1];
    let reading =
        tokio::spawn(async move { accepted.read_exact(&mut byte).await.map(|_| accepted) });
    let mut dialled = timeout(LONG, dialled).await.unwrap().unwrap().unwrap();
    dialled.write_all(b"x").await.unwrap();
    let accepted = timeout(LONG, reading).await.unwrap().unwrap().unwrap();
    assert_eq!(accepted.remote(), &Remote::Quic(dialled.local().unwrap()));
    // Some have had an answer, all others a Retry: a packet that is shorter than what was asked, and nothing is kept of it.
    let mut retries = 0;
    for socket in &forged {
        let mut packet = [0; 2048];
        let got = timeout(LONG, socket.recv(&mut packet))
            .await
            .unwrap()
            .unwrap();
        // RFC 9000, section 17.2.5.
        if packet[0] & 0xf0 == 0xf0 {
            retries += 1;
            assert!(got < 1200, "{got}");
        }
    }
    assert_eq!(retries, 40 - 16);
}

/// What a client sends first.
async fn first_packet() -> Vec<u8> {
    let sink = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let endpoint = client(b"cepa");
    let _connecting = endpoint.connect(sink.local_addr().unwrap(), "h").unwrap();
    let mut packet = vec![0; 2048];
    let n = sink.recv(&mut packet).await.unwrap();
    packet.truncate(n);
    packet
}
