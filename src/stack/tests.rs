//! Tests of which stacks are allowed, and of how they are explained.

use cepa_transports::text::{HOSTILE, is_printable};

use super::*;
use crate::link::Escapes;

fn refusal(layers: &[Layer]) -> String {
    match below_mux(layers) {
        Err(error @ ConnectError::Layers { .. }) => {
            let text = error.to_string();
            assert!(!text.contains('\n'));
            text
        }
        other => panic!("{layers:?}: {other:?}"),
    }
}

#[test]
fn a_session_needs_the_mux_on_top_of_tls() {
    use Layer::{Mux, Tls, TlsRaw, TlsX509};
    const LINK: Layer = Layer::LINK;
    let below = |layers: &[Layer]| {
        let below = below_mux(layers).unwrap();
        (below.tls.to_vec(), below.link.is_some())
    };
    assert_eq!(below(DEFAULT_LAYERS), (vec![Tls], false));
    assert_eq!(below(SERIAL_LAYERS), (vec![Tls], true));
    let mixed = [Mux, TlsRaw, Tls, TlsX509, LINK];
    assert_eq!(below(&mixed), (vec![TlsRaw, Tls, TlsX509], true));
    let eight = [[Mux].as_slice(), &[Tls; 8]].concat();
    assert_eq!(below(&eight), (vec![Tls; 8], false));

    assert!(refusal(&[]).contains("needs the mux as its topmost"));
    assert!(refusal(&[Mux, LINK]).contains("strangers could speak to it"));
    assert!(refusal(&[Mux, LINK, Tls]).contains("a link is the lowest layer"));
    assert!(refusal(&[Mux, Tls, LINK, LINK]).contains("a link is the lowest layer"));

    assert!(refusal(&[Tls]).contains("needs the mux as its topmost"));
    assert!(refusal(&[Tls, Mux]).contains("the layers tls+mux can't"));
    assert!(refusal(&[Mux]).contains("strangers could speak to it"));
    assert!(refusal(&[Mux, Mux, Tls]).contains("only TLS layers"));
    assert!(refusal(&[Mux, Tls, Mux]).contains("only TLS layers"));
    assert!(refusal(&[[Mux].as_slice(), &[Tls; 9]].concat()).contains("more than 8"));
}

fn explained(address: &str) -> String {
    explain(&address.parse().unwrap()).to_string()
}

#[test]
fn an_address_is_explained_from_the_top() {
    assert_eq!(
        explained("mux+tls+tls+tcp:localhost:7000"),
        "mux  many streams in one, each opened by the name of a service; yamux on the wire\n\
         tls  TLS 1.3, both sides show their identity and check the other's; ALPN cepa/2 or cepa/1\n\
         tls  TLS 1.3 around the layer above, both sides show their identity; ALPN cepa-layer/1\n\
         tcp  TCP to localhost, port 7000"
    );
    assert_eq!(
        explained("mux+tls?key=raw+tls?key=x509+stdio:"),
        "mux           many streams in one, each opened by the name of a service; yamux on the wire\n\
         tls?key=raw   TLS 1.3, both sides show their identity as a raw public key and check the other's; ALPN cepa/2 or cepa/1\n\
         tls?key=x509  TLS 1.3 around the layer above, both sides show their identity in a certificate; ALPN cepa-layer/1\n\
         stdio         standard input and output of this process"
    );
    let default = explained("unix:/run/x");
    assert_eq!(default.lines().count(), 3);
    assert_eq!(default.matches("is the default").count(), 1);
    assert!(default.ends_with("unix  Unix socket /run/x"), "{default}");
    let serial = explained("serial:/dev/ttyS9");
    assert_eq!(serial.matches("is the default").count(), 1, "{serial}");
    assert!(serial.contains("link    a reliable stream"), "{serial}");
    assert!(explained("tls+link+pty:/tmp/x").contains("check the other's\nlink"));
    let reported = explained("tls+link,escape=xonxoff,mtu=64+serial:/dev/ttyS9,duplex=half");
    let lines: Vec<_> = reported.lines().collect();
    assert!(
        lines[1].ends_with("no bare XON and XOFF; frames of at most 64 bytes"),
        "{reported}"
    );
    assert!(lines[2].ends_with("the ends take turns"), "{reported}");
}

#[test]
fn an_explanation_does_nothing_to_a_terminal() {
    for (name, c) in HOSTILE.iter().filter(|(_, c)| *c != '\0') {
        for address in [
            format!("unix:/a{c}b"),
            format!("memory:a{c}b"),
            format!("serial:/a{c}b"),
            format!("pty:/a{c}b"),
            format!("exec:a '{c}',dir=/a{c}b"),
        ] {
            let explanation = explain(&address.parse().unwrap());
            for (word, text) in explanation.lines() {
                assert!(
                    word.chars().chain(text.chars()).all(is_printable),
                    "{name}: {text:?}"
                );
            }
            let lines = explanation.to_string();
            assert_eq!(lines.lines().count(), explanation.lines().count(), "{name}");
        }
    }
}

#[test]
fn every_scheme_is_explained() {
    for (address, expected) in [
        ("tcp:127.0.0.1:0", "any free port"),
        ("stdio:", "standard input and output of this process"),
        ("fd:3", "open descriptor 3"),
        ("fd:3,4", "3 to read and 4 to write"),
        ("exec:cat -u", "the command \"cat\" \"-u\""),
        (
            "serial:/dev/ttyS9,baud=9600",
            "serial line /dev/ttyS9 at 9600 baud, 8 data bits, no parity, 1 stop bit, no flow control, locked",
        ),
        (
            "serial:/dev/ttyS9,baud=9600,exclusive=no,rs485=on",
            "no flow control, in RS-485 mode",
        ),
        (
            "serial:/dev/ttyS9,data=7,parity=even,stop=2,flow=hw,dtr=on,lock=/l",
            "7 data bits, even parity, 2 stop bits, flow control by RTS and CTS, DTR raised, locked for this process, with the lock file at /l",
        ),
        (
            "serial:/dev/ttyS9,lock=no",
            "locked for this process, without a lock file",
        ),
        ("pty:/tmp/link", "linked to /tmp/link"),
        ("memory:here", "named here"),
    ] {
        let text = explained(address);
        let last = text.lines().last().unwrap();
        assert!(last.contains(expected), "{last:?} lacks {expected:?}");
    }
}

/// Every key that an address of a line takes has a word in its explanation, where it says something else than what is usual.
#[test]
fn no_option_of_a_serial_line_goes_unsaid() {
    for (option, word) in [
        ("baud=300", "300 baud"),
        ("data=7", "7 data bits"),
        ("parity=even", "even parity"),
        ("stop=2", "2 stop bits"),
        ("flow=hw", "RTS and CTS"),
        ("flow=sw", "XON and XOFF"),
        ("exclusive=no", "open to other programs"),
        ("exclusive=yes", "locked"),
        ("dtr=on", "DTR raised"),
        ("rts=off", "RTS low"),
        ("rs485=off", "not in RS-485 mode"),
        ("rs485=on,rts-on-send=low", "RTS low while sending"),
        ("rs485=on,rts-before=3", "3 ms before the first bit"),
        ("rs485=on,rts-after=4", "4 ms behind the last"),
        ("rs485=on,rx-during-tx=yes", "hearing while sending"),
        ("mtu=64", "at most 64 bytes"),
        ("duplex=half", "take turns"),
    ] {
        let text = explained(&format!("serial:/dev/ttyS9,{option}"));
        let last = text.lines().last().unwrap();
        assert!(last.contains(word), "{option}: {last}");
    }
}

#[test]
fn a_serial_line_gets_the_time_that_its_speed_needs() {
    let identity = Identity::generate(crate::identity::KeyKind::Ed25519).unwrap();
    let config = StackConfig::new(identity, Arc::new(crate::identity::AcceptAny));
    let tuned = |address: &str| config.for_endpoint(&address.parse().unwrap());
    let seconds = |config: &StackConfig| {
        (
            config.layer_timeout.as_secs(),
            config.stack_timeout.as_secs(),
        )
    };

    assert_eq!(seconds(&tuned("tcp:localhost:1")), (10, 30));
    assert_eq!(tuned("tcp:localhost:1").groups, None);
    assert_eq!(seconds(&tuned("serial:/dev/ttyS9,baud=9600")), (19, 39));
    assert_eq!(
        seconds(&tuned("mux+tls+tls+serial:/dev/ttyS9,baud=300")),
        (277, 831)
    );
    assert_eq!(seconds(&tuned("serial:/dev/ttyS9,baud=921600")), (11, 31));
    let rate = |address: &str| {
        tuned(address)
            .link
            .line_rate
            .map(|rate| rate.as_bytes_per_second().round())
    };
    assert_eq!(rate("serial:/dev/ttyS9"), Some(11_520.0));
    assert_eq!(rate("serial:/dev/ttyS9,parity=odd,stop=2"), Some(9600.0));
    assert_eq!(rate("pty:/tmp/x"), None);
    let reported = |address: &str| {
        let link = tuned(address).link;
        (link.escapes, link.mtu, link.duplex)
    };
    assert_eq!(
        reported("serial:/dev/ttyS9,flow=sw,mtu=100,duplex=half"),
        (Escapes::XonXoff, Some(100), Duplex::Half)
    );
    assert_eq!(reported("serial:/dev/ttyS9,rs485=on").2, Duplex::Half);
    let four_wires = "serial:/dev/ttyS9,rs485=on,rx-during-tx=yes";
    assert_eq!(reported(four_wires).2, Duplex::Full);
    // Of the layer's word and the line's, the stricter counts.
    let both = "mux+tls+link,escape=control,mtu=99+serial:/dev/ttyS9,flow=sw,mtu=100";
    assert_eq!(reported(both), (Escapes::Control, Some(99), Duplex::Full));
    let elsewhere = "mux+tls+link,escape=xonxoff,duplex=half+tcp:localhost:1";
    assert_eq!(reported(elsewhere), (Escapes::XonXoff, None, Duplex::Half));
    assert_eq!(tuned("tcp:localhost:1").key_form, None);
    let serial = tuned("serial:/dev/ttyS9");
    assert_eq!(serial.groups, Some(vec![X25519]));
    assert_eq!(serial.key_form, Some(KeyForm::RawPublicKey));
    assert_eq!(serial.suites, Some(SHORT_SUITES.to_vec()));
    // A link is for lines where bytes are few, wherever it stands; the rest is up to the line.
    for address in [
        "pty:/tmp/x",
        "mux+tls+link+tcp:localhost:1",
        "tls+link+unix:/tmp/x",
    ] {
        let linked = tuned(address);
        assert_eq!(linked.key_form, Some(KeyForm::RawPublicKey), "{address}");
        assert_eq!(linked.groups, None, "{address}");
    }
    // What the caller has set stays.
    let mut own = config.clone();
    own.groups = Some(vec![0x11ec]);
    own.key_form = Some(KeyForm::Certificate);
    let linked = own.for_endpoint(&"mux+tls+link+tcp:localhost:1".parse().unwrap());
    assert_eq!(linked.key_form, Some(KeyForm::Certificate));
    let own = own.for_endpoint(&"serial:/dev/ttyS9".parse().unwrap());
    assert_eq!(own.groups, Some(vec![0x11ec]));
    assert_eq!(own.key_form, Some(KeyForm::Certificate));
}

#[test]
fn what_may_pass_is_tried_again_and_what_somebody_means_is_not() {
    use crate::identity::Refusal;
    use crate::tls::TlsError;
    let alert = |alert| TlsError::RefusedByPeer { alert };
    for (error, passes) in [
        (TlsError::Truncated { layer: 1 }, true),
        (TlsError::GivenUp, true),
        (TlsError::TimedOut, true),
        (TlsError::BadRecord, true),
        // A login prompt, and bytes of an old session.
        (TlsError::NotTls { first: vec![] }, true),
        (alert(10), true),
        // Bad certificate, unknown CA, access denied, no common protocol.
        (alert(42), false),
        (alert(48), false),
        (alert(49), false),
        (alert(120), false),
        (TlsError::Refused(Refusal::NoCertificate), false),
        (TlsError::Misuse { what: "" }, false),
    ] {
        let again = error.again(1);
        assert_eq!(error.is_transient(), passes, "{error}");
        assert_eq!(again.is_transient(), passes, "told again: {error}");
        assert_eq!(ConnectError::Tls(error).is_transient(), passes);
    }
    assert!(!ConnectError::Binding(BindingError::Mismatch).is_transient());
}
