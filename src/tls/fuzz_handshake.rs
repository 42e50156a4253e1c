//! Entry point for the fuzz target of what a stranger's handshake makes us read before anything is
//! proven: hellos in either role, certificates, raw keys, and names. Not part of the API.
//!
//! Bytes at random hardly get past the first length field, so half of the cases are real hellos and
//! certificates with edits.
//!
//! What has to hold, whatever comes: no panic; no handshake comes about; the error is one line; what
//! failed stays failed; what is sent are whole TLS records; and a name gets the identity that it
//! names, or none.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

use std::sync::{Arc, OnceLock};

use super::config::TlsConfig;
use super::connection::Connection;
use super::record::{Front, front};
use super::shown::{KeyForm, SERVED_WITH, asked_for};
use crate::Side;
use crate::identity::{AcceptAny, CertificateDer, Facts, Identity, KeyKind, PeerId};

/// What the cases share: keys are made once.
struct World {
    several: TlsConfig,
    raw: TlsConfig,
    ids: Vec<PeerId>,
    certificates: Vec<Vec<u8>>,
    keys: Vec<Vec<u8>>,
    hellos: Vec<Vec<u8>>,
    answer: Vec<u8>,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let first = Identity::generate(KeyKind::Ed25519).unwrap();
        let second = Identity::generate(KeyKind::P256).unwrap();
        let config = TlsConfig::new(&first, Arc::new(AcceptAny)).unwrap();
        let config = config.to_builder().groups(&[0x001d]).build().unwrap();
        let several = config
            .to_builder()
            .more_identities(std::slice::from_ref(&second))
            .build();
        let several = several.unwrap();
        let raw = config
            .to_builder()
            .key_form(KeyForm::RawPublicKey)
            .build()
            .unwrap();
        let asks = config
            .to_builder()
            .server_peer(second.peer_id())
            .build()
            .unwrap();
        let hellos: Vec<_> = [&several, &raw, &asks]
            .map(|config| sent(&mut Connection::new(Side::Client, config).unwrap()))
            .into();
        let mut server = Connection::new(Side::Server, &raw).unwrap();
        server.feed(&hellos[1]).unwrap();
        World {
            ids: vec![first.peer_id(), second.peer_id()],
            certificates: [&first, &second].map(|i| i.certificate().to_vec()).into(),
            keys: [&first, &second].map(|i| i.public_key().to_vec()).into(),
            answer: sent(&mut server),
            several,
            raw,
            hellos,
        }
    })
}

/// One case: the first byte says which.
pub fn fuzz_handshake(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else {
        return;
    };
    let world = world();
    let which = usize::from(kind / 8);
    match kind % 8 {
        0 => handshake(Side::Server, &world.several, data),
        1 => handshake(Side::Client, &world.raw, data),
        2 => {
            let hello = edited(&world.hellos[which % 3], data);
            let config = [&world.several, &world.raw][which / 3 % 2];
            handshake(Side::Server, config, &hello);
        }
        3 => handshake(Side::Client, &world.raw, &edited(&world.answer, data)),
        4 => certificate(data),
        5 => certificate(&edited(&world.certificates[which % 2], data)),
        6 => key(&edited(&world.keys[which % 2], data)),
        _ => name(&String::from_utf8_lossy(data)),
    }
}

/// `bytes` with changes: three bytes of `edits` each are a place, and what to do there.
fn edited(bytes: &[u8], edits: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for edit in edits.chunks_exact(3) {
        let place = u16::from_be_bytes([edit[0], edit[1]]);
        let at = usize::from(place & 0x3fff) % (bytes.len() + 1);
        match place >> 14 {
            0 if at < bytes.len() => bytes[at] = edit[2],
            1 => bytes.insert(at, edit[2]),
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 => bytes.truncate(at.max(5)),
            _ => {}
        }
    }
    bytes
}

fn handshake(side: Side, config: &TlsConfig, mut input: &[u8]) {
    let mut session = Connection::new(side, config).unwrap();
    loop {
        match session.feed(input) {
            Ok(Some(fed)) => {
                assert_eq!(fed.plaintext, 0, "data before a handshake");
                input = &input[fed.record..];
            }
            Ok(None) => break,
            Err(error) => {
                let text = error.to_string();
                assert!(!text.chars().any(char::is_control), "not one line: {text}");
                // Nothing that comes behind can mend it.
                assert!(session.feed(&[22, 3, 3, 0, 1, 0]).is_err(), "mended");
                break;
            }
        }
    }
    assert!(session.is_handshaking() && session.peer().is_err());
    let mut said = &sent(&mut session)[..];
    while let Front::Whole(length) = front(said) {
        said = &said[length..];
    }
    assert!(said.is_empty(), "half a record was sent");
}

fn sent(session: &mut Connection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while session.wants_write() {
        session.emit(&mut bytes).unwrap();
    }
    bytes
}

fn certificate(bytes: &[u8]) {
    let der = CertificateDer::from(bytes);
    let id = PeerId::from_certificate(&der);
    if let Ok(facts) = Facts::read(&der) {
        assert_eq!(Ok(facts.id), id, "two readings of one key");
    }
}

fn key(bytes: &[u8]) {
    if let Ok(facts) = Facts::of_key(bytes) {
        assert_eq!(facts.id, PeerId::from_spki(bytes));
    }
}

fn name(text: &str) {
    let world = world();
    let shown = world.several.shown();
    let texts = [text.to_owned(), format!("{}.{text}", world.ids[1])];
    for text in texts {
        let found = asked_for(shown, Some(&text)).map(|(_, one)| one.id());
        match found {
            Some(id) if id == world.ids[0] && text == SERVED_WITH => {}
            Some(id) => assert_eq!(text.to_ascii_lowercase(), format!("{id}.{SERVED_WITH}")),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn the_promises_hold(data in prop::collection::vec(any::<u8>(), 0..60)) {
            fuzz_handshake(&data);
        }
    }

    /// rustls takes some headers for the beginning of a record that we know for nonsense.
    #[test]
    fn what_is_not_tls_stays_refused() {
        let world = world();
        handshake(Side::Server, &world.several, &[24, 254, 255, 45, 45, 45]);
        handshake(Side::Client, &world.raw, &[24, 254, 255, 45, 45, 45]);
    }

    #[test]
    fn a_hello_without_edits_is_answered() {
        let world = world();
        for hello in &world.hellos {
            let mut server = Connection::new(Side::Server, &world.several).unwrap();
            server.feed(hello).unwrap();
            assert!(sent(&mut server).len() > 350);
        }
        name(SERVED_WITH);
        fuzz_handshake(&[2]);
        fuzz_handshake(&[3]);
    }
}
