//! Headers by their bytes, as a balancer sends them.
use proptest::prelude::*;
use tokio::io::{AsyncWriteExt, duplex};

use super::*;

const AT: &str = "127.0.0.1:5";

/// What a header leads to, and what is left unread behind it.
async fn read_from(
    bytes: &[u8],
    at: &str,
    trusted: &[Network],
) -> (Result<Option<SocketAddr>, String>, Vec<u8>) {
    let (mut ours, mut theirs) = duplex(1 << 17);
    theirs.write_all(bytes).await.unwrap();
    theirs.shutdown().await.unwrap();
    let source = source(&mut ours, at.parse().unwrap(), trusted).await;
    let mut rest = Vec::new();
    ours.read_to_end(&mut rest).await.unwrap();
    (source.map_err(|e| e.to_string()), rest)
}

async fn of(bytes: &[u8]) -> (Result<Option<SocketAddr>, String>, Vec<u8>) {
    read_from(bytes, AT, &Network::loopback()).await
}

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, body].concat()
}

/// 192.0.2.7:40000 to 198.51.100.1:443.
const BODY4: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0x9c, 0x40, 0x01, 0xbb];

fn body6() -> Vec<u8> {
    let ip = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
    [
        &ip("2001:db8::7")[..],
        &ip("2001:db8::1"),
        &[0x9c, 0x40, 0x01, 0xbb],
    ]
    .concat()
}

#[tokio::test]
async fn both_versions_name_the_client_and_leave_what_is_behind_them() {
    let with_extension = [&BODY4[..], &[0x04, 0x00, 0x03, 1, 2, 3]].concat();
    for (header, client) in [
        (v2(0x21, 0x11, &BODY4), "192.0.2.7:40000"),
        (v2(0x21, 0x11, &with_extension), "192.0.2.7:40000"),
        (v2(0x21, 0x21, &body6()), "[2001:db8::7]:40000"),
        (
            b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n".to_vec(),
            "192.0.2.7:40000",
        ),
        (
            b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 443\r\n".to_vec(),
            "[2001:db8::7]:40000",
        ),
    ] {
        let (source, rest) = of(&[&header[..], b"hello"].concat()).await;
        assert_eq!(source, Ok(Some(client.parse().unwrap())), "{header:?}");
        assert_eq!(rest, b"hello");
    }
}

#[tokio::test]
async fn a_health_check_and_who_has_no_address_stand_for_the_proxy() {
    for header in [
        v2(0x20, 0x00, &[]),
        v2(0x20, 0x11, &BODY4),
        v2(0x21, 0x00, &[1, 2, 3]),
        v2(0x21, 0x31, &[0; 216]),
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN ffff:f...f:ffff 65535\r\n".to_vec(),
        // Closed before its first byte: a probe.
        Vec::new(),
    ] {
        assert_eq!(of(&header).await.0, Ok(None), "{header:?}");
    }
}

#[tokio::test]
async fn whatever_is_no_header_is_refused() {
    let long = format!("PROXY TCP4 {}\r\n", "1".repeat(200));
    for (bytes, why) in [
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
            "no header",
        ),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "no header"),
        (b"\r\n\r\n\0\r\nQUIX\n\x21\x11\0\0".to_vec(), "no header"),
        (v2(0x11, 0x11, &BODY4), "version"),
        (v2(0x22, 0x11, &BODY4), "command"),
        (v2(0x21, 0x12, &BODY4), "not for a TCP connection"),
        (v2(0x21, 0x11, &BODY4[..11]), "cut short"),
        (v2(0x21, 0x21, &body6()[..35]), "cut short"),
        (v2(0x21, 0x11, &[0; 4097]), "longer"),
        (v2(0x21, 0x11, &BODY4)[..20].to_vec(), "cut short"),
        (v2(0x21, 0x11, &BODY4)[..9].to_vec(), "cut short"),
        (b"PRO".to_vec(), "cut short"),
        (
            b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443".to_vec(),
            "cut short",
        ),
        (
            b"PROXY TCP4 192.0.2.7 198.51.100.1 40000\r\n".to_vec(),
            "not for a TCP connection",
        ),
        (
            b"PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n".to_vec(),
            "not for a TCP connection",
        ),
        (
            b"PROXY TCP4 192.0.2.7 198.51.100.1 70000 443\r\n".to_vec(),
            "ports",
        ),
        (long.into_bytes(), "too long"),
    ] {
        let error = of(&bytes).await.0.unwrap_err();
        assert!(error.contains(why), "{bytes:?}: {error}");
    }
}

#[tokio::test]
async fn nobody_is_believed_but_those_who_are_named() {
    let header = v2(0x21, 0x11, &BODY4);
    let trusted = [Network::parse("10.0.0.0/8").unwrap()];
    let (source, rest) = read_from(&header, "192.0.2.99:5", &trusted).await;
    assert!(
        source
            .unwrap_err()
            .contains("192.0.2.99 is not a trusted proxy")
    );
    assert_eq!(rest, header, "not a byte of it is read");
    assert!(
        read_from(&header, AT, &trusted).await.0.is_err(),
        "this machine is not named there"
    );
    assert!(
        read_from(&header, "[::ffff:10.1.2.3]:5", &trusted)
            .await
            .0
            .is_ok()
    );
}

#[tokio::test(start_paused = true)]
async fn a_header_that_does_not_come_is_not_waited_for() {
    let (mut ours, mut theirs) = duplex(100);
    theirs
        .write_all(&v2(0x21, 0x11, &BODY4)[..20])
        .await
        .unwrap();
    let error = source(&mut ours, AT.parse().unwrap(), &Network::loopback()).await;
    assert!(error.unwrap_err().to_string().contains("within 5 s"));
}

proptest! {
    #[test]
    fn no_bytes_are_read_past_a_header_or_make_it_panic(
        kind in 0..3, command: u8, family: u8, body in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let bytes = match kind {
            0 => v2(command, family, &body),
            1 => [&b"PROXY "[..], &body].concat(),
            _ => body,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (source, rest) = runtime.block_on(of(&[&bytes[..], b"behind"].concat()));
        if kind == 0 && source.is_ok() {
            prop_assert_eq!(rest, b"behind");
        }
    }

    #[test]
    fn every_address_comes_back(ip: [u8; 4], port: u16, other in any::<[u8; 6]>()) {
        let [a, b, c, d] = ip;
        let [e, f, g, h, i, j] = other;
        let [high, low] = port.to_be_bytes();
        let body = [a, b, c, d, e, f, g, h, high, low, i, j];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let source = runtime.block_on(of(&v2(0x21, 0x11, &body))).0;
        prop_assert_eq!(source, Ok(Some(SocketAddr::from((ip, port)))));
    }
}
