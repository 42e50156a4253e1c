//! What peers and addresses bring into messages of the library does nothing to a terminal: names of services, addresses,
//! labels, reasons.

use cepa::node::{Hint, PeerAddr};
use cepa::session::OpenError;
use cepa::transports::text::{clean, is_printable, quoted};
use cepa::transports::{Stream, memory};
use cepa_transports::text::HOSTILE;

const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

#[track_caller]
fn harmless(name: &str, shown: &dyn std::fmt::Display) {
    let shown = shown.to_string();
    assert!(shown.chars().all(is_printable), "{name}: {shown:?}");
}

#[test]
fn a_label_is_clean_whoever_made_it() {
    for (name, c) in HOSTILE {
        let (io, _) = tokio::io::duplex(1);
        let stream = Stream::from_io(io, format!("a{c}b"));
        harmless(name, &stream.label());
    }
    let (stream, _) = memory::pair();
    assert_eq!(stream.label(), "memory");
    let long = Stream::from_io(tokio::io::duplex(1).0, "x".repeat(10_000));
    assert!(long.label().len() <= 256, "it stands in every line");
}

#[test]
fn errors_about_a_service_show_its_name() {
    for (name, c) in HOSTILE {
        let service = format!("a{c}b");
        for error in [
            OpenError::Name {
                service: service.clone(),
            },
            OpenError::Dropped {
                service: service.clone(),
            },
            OpenError::TimedOut {
                service: service.clone(),
            },
            OpenError::InnerTlsRequired {
                service: service.clone(),
            },
            OpenError::NoInnerTls { service },
        ] {
            harmless(name, &error);
            assert!(error.to_string().contains("\"a"), "{error}");
        }
    }
}

#[test]
fn a_peers_address_prints_clean_and_parses_to_the_same() {
    for (name, c) in HOSTILE.iter().filter(|(_, c)| *c != '\0') {
        for target in [
            format!("unix:/a{c}b"),
            format!("exec:a '{c}b'"),
            format!("memory:a{c}b"),
        ] {
            let hint: Hint = target.parse().unwrap();
            harmless(name, &hint);
            assert_eq!(hint.to_string().parse::<Hint>().unwrap(), hint, "{name}");
            let through: Hint = format!("relay:{ID}@{target}").parse().unwrap();
            harmless(name, &through);
            let address = PeerAddr::new(ID.parse().unwrap());
            let address = address.with_hint(hint).unwrap().with_hint(through).unwrap();
            harmless(name, &address);
            assert_eq!(
                address.to_string().parse::<PeerAddr>().unwrap(),
                address,
                "{name}"
            );
        }
        for wrong in [
            format!("cepa://{ID}@tcp:{c}"),
            format!("cepa://{ID}@relay:{c}"),
            format!("cepa://{ID}@relay:{c}@tcp:h:1"),
            format!("cepa://{ID}/%{c}"),
            format!("cepa://{c}"),
        ] {
            harmless(name, &wrong.parse::<PeerAddr>().unwrap_err());
        }
        if c.is_control() {
            let error = PeerAddr::new(ID.parse().unwrap()).with_service(&format!("a{c}"));
            harmless(name, &error.unwrap_err());
        }
    }
}

#[test]
fn what_is_clean_stays_so_on_its_way() {
    let all: String = HOSTILE.iter().map(|(_, c)| c).collect();
    let once = clean(&all, 255).into_owned();
    assert_eq!(clean(&once, 255), once);
    harmless("all", &quoted(&all));
}
