//! Trust policies with a memory, and keys that are replaced: whatever fails is a refusal.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls_pki_types::{CertificateDer, UnixTime};

use super::*;
use crate::Side;

const DAY: u64 = 24 * 60 * 60;

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn identity() -> Identity {
    Identity::generate(KeyKind::Ed25519).unwrap()
}

fn times(issued: u64, overlap: u64, expires: u64) -> RotationTimes {
    RotationTimes {
        issued: at(issued),
        expires: at(expires),
        overlap: at(overlap),
    }
}

fn next(identity: &Identity, kind: KeyKind) -> Identity {
    identity
        .rotate(kind, times(DAY, 10 * DAY, 100 * DAY))
        .unwrap()
}

/// The question as a handshake puts it: decide, then, with the proof, the last word.
fn ask_at(policy: &dyn TrustPolicy, identity: &Identity, now: u64) -> Result<(), Refusal> {
    show(policy, identity.peer_id(), identity.certificate(), now)
}

fn show(
    policy: &dyn TrustPolicy,
    id: PeerId,
    certificate: &CertificateDer<'_>,
    now: u64,
) -> Result<(), Refusal> {
    let dates = (at(0), at(u64::MAX));
    let peer = Presented::new(id, Some(certificate), &[], dates, at(now), Side::Server);
    policy.decide(&peer)?;
    policy.proven(&peer)
}

/// Why a statement was not followed.
fn note(refusal: &Refusal) -> Option<&RotationError> {
    match refusal {
        Refusal::Changed { note, .. } => note.as_deref(),
        _ => panic!("{refusal}"),
    }
}

fn file() -> (tempfile::TempDir, KnownPeersFile) {
    let folder = tempfile::tempdir().unwrap();
    let file = KnownPeersFile::new(folder.path().join("known_peers"));
    (folder, file)
}

fn know(file: &KnownPeersFile, name: &str, identity: &Identity, place: &str) {
    file.edit(|known| {
        let mut peer = KnownPeer::new(name, identity.peer_id())?;
        peer.add_place(place);
        known.add(peer)
    })
    .unwrap();
}

// ---- known peers -------------------------------------------------------------------------------

#[test]
fn a_place_has_the_key_that_was_met_there_first() {
    let (_folder, file) = file();
    let (a, b) = (identity(), identity());
    let careful = TrustKnown::at(file.clone(), "tcp:host:1");
    assert_eq!(
        ask_at(&careful, &a, 5),
        Err(Refusal::Unknown {
            presented: a.peer_id()
        })
    );
    assert!(!file.path().exists(), "nothing was learned");
    let reported = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&reported);
    let trusting = TrustKnown::at(file.clone(), "tcp:host:1")
        .trusting_new()
        .observed_by(move |learned| log.lock().unwrap().push(learned.clone()));
    assert_eq!(ask_at(&trusting, &a, 5), Ok(()));
    assert_eq!(ask_at(&trusting, &a, 6), Ok(()));
    assert_eq!(ask_at(&careful, &a, 7), Ok(()));
    assert_eq!(
        *reported.lock().unwrap(),
        [Learned::Met {
            name: "host-1".into(),
            id: a.peer_id(),
            place: "tcp:host:1".into()
        }]
    );
    let known = file.read().unwrap();
    let peer = known.named("host-1").unwrap();
    assert_eq!(
        (peer.first_seen, peer.how),
        (Some(at(5)), Some(Origin::FirstUse))
    );
    // Another key is a changed one, however trusting we are with new peers.
    for policy in [&careful, &trusting] {
        let refusal = ask_at(policy, &b, 8).unwrap_err();
        let Refusal::Changed {
            name,
            expected,
            presented,
            note,
        } = &refusal
        else {
            panic!("{refusal}");
        };
        assert_eq!(
            (name.as_str(), expected.as_slice()),
            ("host-1", &[a.peer_id()][..])
        );
        assert_eq!((*presented, note), (b.peer_id(), &None));
        let text = refusal.to_string();
        assert!(text.contains(&a.peer_id().to_string()) && text.contains(&b.peer_id().to_string()));
    }
    // The same peer elsewhere is a first contact too, and stays one peer.
    let elsewhere = TrustKnown::at(file.clone(), "tcp:other:1");
    assert!(matches!(
        ask_at(&elsewhere, &a, 9),
        Err(Refusal::Unknown { .. })
    ));
    assert_eq!(ask_at(&elsewhere.trusting_new(), &a, 9), Ok(()));
    let known = file.read().unwrap();
    assert_eq!(known.peers().count(), 1);
    assert_eq!(
        known.named("host-1").unwrap().places,
        ["tcp:host:1", "tcp:other:1"]
    );
}

#[test]
fn nothing_is_learned_before_the_key_is_proven() {
    let (_folder, file) = file();
    let a = identity();
    let policy = TrustKnown::at(file.clone(), "p").trusting_new();
    let dates = (at(0), at(9));
    let peer = Presented::new(
        a.peer_id(),
        Some(a.certificate()),
        &[],
        dates,
        at(1),
        Side::Server,
    );
    assert_eq!(policy.decide(&peer), Ok(()));
    assert_eq!(file.read().unwrap().peers().count(), 0);
    assert_eq!(policy.proven(&peer), Ok(()));
    assert_eq!(file.read().unwrap().peers().count(), 1);
}

#[test]
fn of_two_at_first_contact_the_second_is_refused() {
    let (_folder, file) = file();
    let (a, b) = (identity(), identity());
    let policy = TrustKnown::at(file.clone(), "p").trusting_new();
    let dates = (at(0), at(9));
    let of = |i: &Identity| {
        let certificate = i.certificate().clone();
        (i.peer_id(), certificate)
    };
    let ((id_a, cert_a), (id_b, cert_b)) = (of(&a), of(&b));
    let first = Presented::new(id_a, Some(&cert_a), &[], dates, at(1), Side::Server);
    let second = Presented::new(id_b, Some(&cert_b), &[], dates, at(1), Side::Server);
    // Both are new when they are looked at.
    assert_eq!(policy.decide(&first), Ok(()));
    assert_eq!(policy.decide(&second), Ok(()));
    assert_eq!(policy.proven(&first), Ok(()));
    assert!(matches!(
        policy.proven(&second),
        Err(Refusal::Changed { .. })
    ));
    assert!(matches!(
        file.meet("p", id_b, Origin::Asked, at(1)),
        Err(Refusal::Changed { .. })
    ));
    assert_eq!(file.meet("p", id_a, Origin::Asked, at(1)), Ok(None));
    assert_eq!(file.read().unwrap().peers().count(), 1);
}

#[test]
fn on_the_list_or_by_name() {
    let (_folder, file) = file();
    let (a, b, c) = (identity(), identity(), identity());
    know(&file, "a", &a, "x");
    know(&file, "b", &b, "y");
    let anyone = TrustKnown::anyone(file.clone());
    assert_eq!(ask_at(&anyone, &a, 1), Ok(()));
    assert_eq!(ask_at(&anyone, &b, 1), Ok(()));
    assert!(matches!(
        ask_at(&anyone.clone().trusting_new(), &c, 1),
        Err(Refusal::Unknown { .. })
    ));
    let named = TrustKnown::named(file.clone(), ["b".to_owned()]);
    assert_eq!(ask_at(&named, &b, 1), Ok(()));
    assert!(matches!(
        ask_at(&named, &a, 1),
        Err(Refusal::Changed { .. })
    ));
    let nobody = TrustKnown::named(file, ["z".to_owned()]);
    assert!(matches!(
        ask_at(&nobody, &a, 1),
        Err(Refusal::Unknown { .. })
    ));
}

#[cfg(unix)]
#[test]
fn what_can_not_be_read_or_written_is_a_refusal() {
    use std::os::unix::fs::PermissionsExt as _;
    let chmod = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let (folder, file) = file();
    let a = identity();
    let all = || {
        [
            TrustKnown::at(file.clone(), "p"),
            TrustKnown::at(file.clone(), "p").trusting_new(),
            TrustKnown::anyone(file.clone()),
            TrustKnown::named(file.clone(), ["a".to_owned()]),
        ]
    };
    know(&file, "a", &a, "p");
    for policy in all() {
        assert_eq!(ask_at(&policy, &a, 1), Ok(()));
    }
    let good = fs::read(file.path()).unwrap();
    // Loose permissions.
    chmod(file.path(), 0o644);
    for policy in all() {
        assert!(matches!(
            ask_at(&policy, &a, 1),
            Err(Refusal::PolicyFailed { .. })
        ));
    }
    // No file, but something in its place.
    fs::remove_file(file.path()).unwrap();
    fs::create_dir(file.path()).unwrap();
    for policy in all() {
        assert!(matches!(
            ask_at(&policy, &a, 1),
            Err(Refusal::PolicyFailed { .. })
        ));
    }
    fs::remove_dir(file.path()).unwrap();
    // A line that may be about the peer: what is known still counts, nothing new is learned.
    fs::write(file.path(), [good.as_slice(), b"damaged\n"].concat()).unwrap();
    chmod(file.path(), 0o600);
    for policy in all() {
        assert_eq!(ask_at(&policy, &a, 1), Ok(()));
    }
    let b = identity();
    for policy in [
        TrustKnown::at(file.clone(), "q").trusting_new(),
        TrustKnown::anyone(file.clone()),
    ] {
        let refusal = ask_at(&policy, &b, 1).unwrap_err();
        assert!(
            matches!(&refusal, Refusal::PolicyFailed { reason, .. } if reason.contains("line 4")),
            "{refusal}"
        );
    }
    assert!(matches!(
        file.meet("q", b.peer_id(), Origin::Asked, at(1)),
        Err(Refusal::PolicyFailed { .. })
    ));
    // What can't be written down is not trusted: the lock is no file.
    fs::remove_file(file.path()).unwrap();
    fs::remove_file(folder.path().join("known_peers.lock")).unwrap();
    fs::create_dir(folder.path().join("known_peers.lock")).unwrap();
    let trusting = TrustKnown::at(file.clone(), "q").trusting_new();
    assert!(matches!(
        ask_at(&trusting, &b, 1),
        Err(Refusal::PolicyFailed { .. })
    ));
    assert!(!file.path().exists());
}

// ---- combinations and authorities --------------------------------------------------------------

#[derive(Debug)]
struct Says(Result<(), Refusal>);

impl TrustPolicy for Says {
    fn decide(&self, _: &Presented<'_>) -> Result<(), Refusal> {
        self.0.clone()
    }
}

#[test]
fn of_several_policies_one_must_trust_and_none_may_fail_before() {
    let a = identity();
    let presented = a.peer_id();
    let says = |answer| Arc::new(Says(answer)) as Arc<dyn TrustPolicy>;
    let unknown = || says(Err(Refusal::Unknown { presented }));
    let failed = Refusal::PolicyFailed {
        presented,
        reason: "disk".into(),
    };
    let by_ca = Refusal::NotByCa {
        presented,
        reason: "x".into(),
    };
    let any = |policies: Vec<Arc<dyn TrustPolicy>>| ask_at(&AnyOf::new(policies), &a, 1);
    assert_eq!(any(vec![unknown(), says(Ok(()))]), Ok(()));
    assert_eq!(
        any(vec![unknown(), says(Err(by_ca.clone())), unknown()]),
        Err(by_ca.clone())
    );
    assert_eq!(any(vec![]), Err(Refusal::Unknown { presented }));
    assert_eq!(
        any(vec![says(Err(failed.clone())), says(Ok(()))]),
        Err(failed)
    );
    let changed = Refusal::Changed {
        name: "a".into(),
        expected: vec![],
        presented,
        note: None,
    };
    assert_eq!(
        any(vec![says(Err(changed.clone())), says(Ok(()))]),
        Err(changed)
    );
    // What one of them has to remember, it is told; and only the one that said yes.
    let (_folder, file) = file();
    let known = Arc::new(TrustKnown::at(file.clone(), "p").trusting_new());
    assert_eq!(any(vec![says(Ok(())), known.clone()]), Ok(()));
    assert_eq!(file.read().unwrap().peers().count(), 0);
    assert_eq!(any(vec![unknown(), known]), Ok(()));
    assert_eq!(file.read().unwrap().peers().count(), 1);
}

/// A root, and a certificate below it for a name; or for itself, in the wrong hands.
fn authority(name: &str) -> (String, CertificateDer<'static>, PeerId) {
    let root_key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut root = rcgen::CertificateParams::default();
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root_certificate = root.self_signed(&root_key).unwrap();
    let issuer = rcgen::Issuer::new(root, root_key);
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let mut leaf = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let leaf = leaf.signed_by(&key, &issuer).unwrap().der().clone();
    let id = PeerId::from_certificate(&leaf).unwrap();
    let pem = data_encoding::BASE64.encode(root_certificate.der());
    let pem = format!("-----BEGIN CERTIFICATE-----\n{pem}\n-----END CERTIFICATE-----\n");
    (pem, leaf, id)
}

#[test]
fn an_authority_vouches_for_a_name() {
    let now = UnixTime::now().as_secs();
    let (pem, leaf, id) = authority("good.example");
    let trust = |names: &[&str]| CaRoots::from_pem(pem.as_bytes(), names).unwrap();
    assert_eq!(show(&trust(&["good.example"]), id, &leaf, now), Ok(()));
    assert_eq!(
        show(&trust(&["a.example", "good.example"]), id, &leaf, now),
        Ok(())
    );
    for names in [&["bad.example"][..], &[], &["127.0.0.1"]] {
        assert!(matches!(
            show(&trust(names), id, &leaf, now),
            Err(Refusal::NotByCa { .. })
        ));
    }
    // A client certificate it is not, its time is not for ever, and others have other roots.
    let client = Presented::new(id, Some(&leaf), &[], (at(0), at(9)), at(now), Side::Client);
    assert!(matches!(
        trust(&["good.example"]).decide(&client),
        Err(Refusal::NotByCa { .. })
    ));
    assert!(matches!(
        show(&trust(&["good.example"]), id, &leaf, 1 << 40),
        Err(Refusal::NotByCa { .. })
    ));
    let (other, ..) = authority("good.example");
    let other = CaRoots::from_pem(other.as_bytes(), &["good.example"]).unwrap();
    assert!(matches!(
        show(&other, id, &leaf, now),
        Err(Refusal::NotByCa { .. })
    ));
    let own = identity();
    assert!(matches!(
        ask_at(&other, &own, now),
        Err(Refusal::NotByCa { .. })
    ));
    // Pinned, or by an authority.
    let both = AnyOf::new([
        Arc::new(Pinned::one(own.peer_id())) as Arc<dyn TrustPolicy>,
        Arc::new(trust(&["good.example"])),
    ]);
    assert_eq!(ask_at(&both, &own, now), Ok(()));
    assert_eq!(show(&both, id, &leaf, now), Ok(()));
    assert!(ask_at(&both, &identity(), now).is_err());
}

#[test]
fn roots_that_will_not_do_are_errors() {
    let (pem, ..) = authority("x");
    let from = |pem: &str, name: &str| CaRoots::from_pem(pem.as_bytes(), &[name]);
    assert!(matches!(from("", "x"), Err(CaError::NoCertificate)));
    assert!(matches!(from(&pem, "a b"), Err(CaError::Name { .. })));
    let bad = format!("{pem}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert!(matches!(
        from(&bad, "x"),
        Err(CaError::Certificate { number: 2, .. })
    ));
    let bad = format!("{pem}-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n");
    assert!(matches!(
        from(&bad, "x"),
        Err(CaError::Certificate { number: 2, .. })
    ));
    assert!(matches!(
        CaRoots::load("/nowhere/at/all", &["x"]),
        Err(CaError::Read(_))
    ));
}

#[cfg(feature = "ca")]
#[test]
fn the_platform_does_not_vouch_for_a_key_of_ones_own() {
    match PlatformRoots::new("example.org") {
        Ok(roots) => {
            let refusal = ask_at(&roots, &identity(), UnixTime::now().as_secs()).unwrap_err();
            assert!(matches!(refusal, Refusal::NotByCa { .. }), "{refusal}");
        }
        Err(error) => assert!(matches!(error, CaError::Platform { .. }), "{error}"),
    }
    assert!(matches!(
        PlatformRoots::new("a b"),
        Err(CaError::Name { .. })
    ));
}

// ---- replaced keys -----------------------------------------------------------------------------

#[test]
fn a_statement_is_signed_by_both_and_read_back() {
    for (from, to) in [
        (KeyKind::Ed25519, KeyKind::Ed25519),
        (KeyKind::P256, KeyKind::Ed25519),
        (KeyKind::Ed25519, KeyKind::P256),
    ] {
        let old = Identity::generate(from).unwrap();
        let new = next(&old, to);
        let [statement] = new.rotations().try_into().unwrap();
        assert_eq!(
            (statement.old(), statement.new_id()),
            (old.peer_id(), new.peer_id())
        );
        assert_eq!(statement.times(), times(DAY, 10 * DAY, 100 * DAY));
        let bytes = statement.to_bytes();
        assert_eq!(Rotation::from_bytes(&bytes).as_ref(), Ok(&statement));
        assert_eq!(statement.check(at(DAY)), Ok(()));
        assert_eq!(statement.check(at(100 * DAY)), Ok(()));
        assert!(matches!(
            statement.check(at(DAY - 1)),
            Err(RotationError::NotYet { .. })
        ));
        assert!(matches!(
            statement.check(at(100 * DAY + 1)),
            Err(RotationError::Expired { .. })
        ));
        // Kept with the key.
        let again = Identity::from_pem(&new.to_pem()).unwrap();
        assert_eq!(again.rotations(), [statement]);
    }
}

#[test]
fn no_byte_of_a_statement_can_be_changed_and_no_cut_is_read() {
    let old = identity();
    let [statement] = next(&old, KeyKind::Ed25519).rotations().try_into().unwrap();
    let bytes = statement.to_bytes();
    for index in 0..bytes.len() {
        assert!(
            Rotation::from_bytes(&bytes[..index]).is_err(),
            "cut at {index}"
        );
        let mut changed = bytes.clone();
        changed[index] ^= 1;
        let good =
            Rotation::from_bytes(&changed).and_then(|statement| statement.check(at(2 * DAY)));
        assert!(good.is_err(), "byte {index}");
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(matches!(
        Rotation::from_bytes(&longer),
        Err(RotationError::Malformed { .. })
    ));
    assert!(matches!(
        Rotation::from_bytes(&[2]),
        Err(RotationError::Version { version: 2 })
    ));
}

#[test]
fn the_two_signatures_do_not_stand_for_each_other() {
    let (a, b) = (identity(), identity());
    let key = |i: &Identity| Arc::clone(&i.certified().key);
    let good = rotation::Rotation::sign(&*key(&a), &*key(&b), times(0, 1, 9)).unwrap();
    assert_eq!(good.check(at(1)), Ok(()));
    // The new key did not agree: the old one signed both.
    let bytes = good.to_bytes();
    let signature = 2 + 2 + 64;
    let by_old = &bytes[bytes.len() - 2 * signature..bytes.len() - signature];
    let forged = [&bytes[..bytes.len() - signature], by_old].concat();
    let forged = Rotation::from_bytes(&forged).unwrap();
    assert_eq!(
        forged.check(at(1)),
        Err(RotationError::Signature { which: "new" })
    );
}

#[test]
fn a_known_peer_is_followed_to_its_new_key_and_the_list_says_so() {
    let (_folder, file) = file();
    let a = identity();
    know(&file, "a", &a, "p");
    let b = next(&a, KeyKind::P256);
    let reported = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&reported);
    let policy = TrustKnown::at(file.clone(), "p")
        .observed_by(move |learned| log.lock().unwrap().push(learned.to_string()));
    assert_eq!(ask_at(&policy, &b, 2 * DAY), Ok(()));
    assert_eq!(reported.lock().unwrap().len(), 1);
    let line = reported.lock().unwrap()[0].clone();
    assert!(
        line.contains(&a.peer_id().to_string()) && line.contains(&b.peer_id().to_string()),
        "{line}"
    );
    let known = file.read().unwrap();
    let peer = known.named("a").unwrap();
    assert_eq!(peer.id, b.peer_id());
    assert_eq!(
        peer.previous,
        [Previous {
            id: a.peer_id(),
            until: at(10 * DAY)
        }]
    );
    // Both are good for the overlap, then the new one alone; the statement is not needed any more.
    assert_eq!(ask_at(&policy, &a, 10 * DAY), Ok(()));
    let refusal = ask_at(&policy, &a, 10 * DAY + 1).unwrap_err();
    assert!(
        matches!(&refusal, Refusal::Changed { note: None, .. }),
        "{refusal}"
    );
    assert_eq!(ask_at(&policy, &b, 1000 * DAY), Ok(()));
    assert_eq!(reported.lock().unwrap().len(), 1, "told once");
}

#[test]
fn a_chain_is_followed_and_a_replay_leads_nowhere() {
    let (_folder, file) = file();
    let a = identity();
    know(&file, "a", &a, "p");
    let b = next(&a, KeyKind::Ed25519);
    let c = next(&b, KeyKind::Ed25519);
    let d = next(&c, KeyKind::Ed25519);
    let policy = TrustKnown::at(file.clone(), "p");
    assert_eq!(ask_at(&policy, &c, 2 * DAY), Ok(()), "b was never met");
    let previous = file.read().unwrap().named("a").unwrap().previous.clone();
    assert_eq!(
        previous.iter().map(|old| old.id).collect::<Vec<_>>(),
        [a.peer_id(), b.peer_id()]
    );
    // The old statements once more: they lead to a key that was replaced, and change nothing.
    let before = fs::read(file.path()).unwrap();
    assert_eq!(ask_at(&policy, &b, 3 * DAY), Ok(()), "in the overlap");
    assert!(ask_at(&policy, &b, 11 * DAY).is_err());
    assert_eq!(fs::read(file.path()).unwrap(), before);
    assert_eq!(ask_at(&policy, &d, 3 * DAY), Ok(()));
    assert_eq!(file.read().unwrap().named("a").unwrap().id, d.peer_id());
    // A chain is as long as its weakest statement.
    let (_folder, file) = self::file();
    know(&file, "a", &a, "p");
    let short = a
        .rotate(KeyKind::Ed25519, times(DAY, 2 * DAY, 3 * DAY))
        .unwrap();
    let long = next(&short, KeyKind::Ed25519);
    let refusal = ask_at(&TrustKnown::at(file.clone(), "p"), &long, 4 * DAY).unwrap_err();
    assert!(
        matches!(note(&refusal), Some(RotationError::Expired { .. })),
        "{refusal}"
    );
    know(&file, "short", &short, "q");
    assert_eq!(ask_at(&TrustKnown::at(file, "q"), &long, 4 * DAY), Ok(()));
}

#[test]
fn a_second_successor_of_one_key_is_refused_as_a_fork() {
    let (_folder, file) = file();
    let a = identity();
    know(&file, "a", &a, "p");
    let (b, thief) = (next(&a, KeyKind::Ed25519), next(&a, KeyKind::Ed25519));
    for policy in [
        TrustKnown::at(file.clone(), "p"),
        TrustKnown::anyone(file.clone()),
    ] {
        assert_eq!(ask_at(&policy, &b, 2 * DAY), Ok(()));
        let refusal = ask_at(&policy, &thief, 2 * DAY).unwrap_err();
        let fork = |second| RotationError::Fork {
            first: b.peer_id(),
            second,
        };
        assert_eq!(note(&refusal), Some(&fork(thief.peer_id())));
        let child = next(&thief, KeyKind::Ed25519);
        let refusal = ask_at(&policy, &child, 2 * DAY).unwrap_err();
        assert_eq!(note(&refusal), Some(&fork(child.peer_id())));
    }
    assert_eq!(file.read().unwrap().named("a").unwrap().id, b.peer_id());
}

#[test]
fn nobody_can_name_a_key_of_somebody_else() {
    let (_folder, file) = file();
    let (a, victim) = (identity(), identity());
    know(&file, "a", &a, "p");
    // A statement from the known key, in the certificate of a peer that it is not about.
    let b = next(&a, KeyKind::Ed25519);
    let policy = TrustKnown::at(file.clone(), "p");
    let refusal = show(&policy, victim.peer_id(), b.certificate(), 2 * DAY).unwrap_err();
    assert!(matches!(refusal, Refusal::Changed { .. }));
    // A key that nobody knows may name whom it likes.
    let stranger = next(&identity(), KeyKind::Ed25519);
    assert!(matches!(
        ask_at(&policy, &stranger, 2 * DAY),
        Err(Refusal::Changed { note: None, .. })
    ));
    assert!(matches!(
        ask_at(&TrustKnown::anyone(file.clone()), &stranger, 2 * DAY),
        Err(Refusal::Unknown { .. })
    ));
    // The list itself follows only a key that somebody has.
    let [statement] = stranger.rotations().try_into().unwrap();
    let mut known = file.read().unwrap();
    assert_eq!(known.rotate(&statement, at(2 * DAY)).unwrap(), None);
    assert_eq!(known, file.read().unwrap());
}

#[test]
fn statements_are_followed_from_text_as_from_a_certificate() {
    let (_folder, file) = file();
    let a = identity();
    know(&file, "a", &a, "p");
    let (b, thief) = (next(&a, KeyKind::Ed25519), next(&a, KeyKind::P256));
    let c = next(&b, KeyKind::Ed25519);
    let text = rotations_to_text(&c.rotations());
    let read = rotations_from_text(&format!(" {text}\n")).unwrap();
    assert_eq!(read, c.rotations());
    let follow = |statement: &Rotation, now| file.update(|known| known.rotate(statement, at(now)));
    let error = follow(&read[0], 101 * DAY).unwrap_err();
    assert!(matches!(
        error,
        FollowError::Rotation(RotationError::Expired { .. })
    ));
    for statement in &read {
        let learned = follow(statement, 2 * DAY).unwrap();
        assert!(matches!(learned, Some(Learned::Rotated { .. })));
        assert_eq!(
            follow(statement, 2 * DAY).unwrap(),
            None,
            "a replay changes nothing"
        );
    }
    let peer = file.read().unwrap().named("a").unwrap().clone();
    assert_eq!((peer.id, peer.previous.len()), (c.peer_id(), 2));
    let error = follow(&thief.rotations()[0], 2 * DAY).unwrap_err();
    assert!(
        matches!(error, FollowError::Rotation(RotationError::Fork { .. })),
        "{error}"
    );
    let padded = format!("{}{}", rotations_to_text(&[]), "AA==AA==");
    for text in ["", &padded, "cepa-rotation:!", "cepa-rotation:AAAA", "x"] {
        let error = rotations_from_text(text).map(|statements| statements.len());
        assert!(error.is_err(), "{text}: {error:?}");
    }
}

#[test]
fn a_new_identity_takes_the_old_ones_file_and_the_old_one_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (path, keep) = (folder.path().join("id"), folder.path().join("old"));
    let a = identity();
    let b = next(&a, KeyKind::Ed25519);
    assert!(
        b.save_over(&a, &path, &keep, None).is_err(),
        "there is nothing to replace"
    );
    assert!(!path.exists() && !keep.exists());
    a.save(&path).unwrap();
    b.save_over(&a, &path, &keep, None).unwrap();
    assert_eq!(Identity::load(&path).unwrap().peer_id(), b.peer_id());
    assert_eq!(Identity::load(&keep).unwrap().peer_id(), a.peer_id());
    // Somebody else was first.
    let other = next(&a, KeyKind::Ed25519);
    let error = other.save_over(&a, &path, &keep, None).unwrap_err();
    assert!(matches!(error.problem(), IdentityError::Exists), "{error}");
    assert_eq!(Identity::load(&path).unwrap().peer_id(), b.peer_id());
    #[cfg(unix)]
    {
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let c = next(&b, KeyKind::Ed25519);
        c.save_over(&b, &link, folder.path().join("old-2"), None)
            .unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(Identity::load(&path).unwrap().peer_id(), c.peer_id());
        for name in ["id", "old", "old-2"] {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(folder.path().join(name)).unwrap();
            assert_eq!(mode.permissions().mode() & 0o7777, 0o600, "{name}");
        }
    }
}

#[test]
fn a_pinned_key_is_followed_too() {
    let a = identity();
    let b = next(&next(&a, KeyKind::Ed25519), KeyKind::P256);
    let pinned = Pinned::one(a.peer_id());
    assert_eq!(ask_at(&pinned, &b, 2 * DAY), Ok(()));
    assert_eq!(ask_at(&pinned, &a, 2 * DAY), Ok(()));
    assert!(matches!(
        ask_at(&pinned, &b, 101 * DAY),
        Err(Refusal::WrongPeer { .. })
    ));
    assert!(matches!(
        ask_at(&pinned, &b, 0),
        Err(Refusal::WrongPeer { .. })
    ));
    assert!(ask_at(&pinned, &next(&identity(), KeyKind::Ed25519), 2 * DAY).is_err());
    // But not back, from the new one to the old.
    assert!(ask_at(&Pinned::one(b.peer_id()), &a, 2 * DAY).is_err());
}

#[test]
fn a_certificate_carries_eight_changes() {
    let first = identity();
    let mut all = vec![first.clone()];
    for _ in 0..10 {
        let last = all.last().unwrap();
        all.push(next(last, KeyKind::Ed25519));
    }
    let last = all.last().unwrap();
    assert_eq!(last.rotations().len(), 8);
    assert_eq!(
        ask_at(&Pinned::one(all[2].peer_id()), last, 2 * DAY),
        Ok(())
    );
    assert!(ask_at(&Pinned::one(all[1].peer_id()), last, 2 * DAY).is_err());
    assert!(
        last.certificate().len() < 4096,
        "{}",
        last.certificate().len()
    );
}

#[test]
fn a_policy_names_those_it_lists_and_their_successors() {
    let (a, other) = (identity(), identity());
    let b = next(&a, KeyKind::Ed25519);
    let names = |policy: &dyn TrustPolicy, identity: &Identity, day: u64| {
        let dates = (at(0), at(u64::MAX));
        let (id, shown) = (identity.peer_id(), Some(identity.certificate()));
        policy.names(&Presented::new(
            id,
            shown,
            &[],
            dates,
            at(day * DAY),
            Side::Server,
        ))
    };
    let (_folder, file) = file();
    know(&file, "a", &a, "p");
    let known = || TrustKnown::at(file.clone(), "p");
    let lists: [&dyn TrustPolicy; 4] = [
        &Pinned::one(a.peer_id()),
        &known(),
        &known().trusting_new(),
        &TrustKnown::anyone(file.clone()),
    ];
    for policy in lists {
        assert!(names(policy, &a, 2), "{policy:?}");
        assert!(names(policy, &b, 2), "its successor: {policy:?}");
        assert!(!names(policy, &b, 101), "too late: {policy:?}");
        assert!(!names(policy, &other, 2), "{policy:?}");
    }
    let new_place = TrustKnown::at(file.clone(), "q").trusting_new();
    assert!(!names(&new_place, &other, 2), "taken, and not yet listed");
    assert!(!names(&AcceptAny, &a, 2));
    // By a name, but that of an authority's choice.
    let now = UnixTime::now().as_secs();
    let (pem, leaf, id) = authority("good.example");
    let by_ca = CaRoots::from_pem(pem.as_bytes(), &["good.example"]).unwrap();
    let shown = Presented::new(
        id,
        Some(&leaf),
        &[],
        (at(0), at(u64::MAX)),
        at(now),
        Side::Server,
    );
    assert_eq!(by_ca.decide(&shown), Ok(()));
    assert!(!by_ca.names(&shown));
    let any = |policies: [Arc<dyn TrustPolicy>; 2]| AnyOf::new(policies);
    assert!(names(&any([Arc::new(AcceptAny), Arc::new(known())]), &a, 2));
    assert!(!names(
        &any([Arc::new(AcceptAny), Arc::new(known())]),
        &other,
        2
    ));
    // What can't be read lists nobody.
    fs::write(file.path(), vec![b'x'; (4 << 20) + 1]).unwrap();
    assert!(!names(&known(), &a, 2));
    assert!(!names(
        &any([Arc::new(AcceptAny), Arc::new(known())]),
        &a,
        2
    ));
}
