//! The keys that a peer held before its present one, as the statements in its certificate prove it.
//!
//! Where a policy follows a peer from *one* known key to the present one and refuses a path that is broken
//! (`rotation::path`), this answers the other question: which ids, of whatever list, does this peer have a right
//! to? So statements are taken one by one: one that is forged, has expired or can't be read gives nothing, and
//! takes nothing from the others. What counts are statements that end at the present key, or at a key that is
//! proven by a later one. They stand oldest first, so one pass from the last to the first finds all of them, and
//! each signature is checked once at most.
//!
//! A fork can't be seen from one certificate: of two keys that both say to succeed a third, each proves it. Who
//! has met the first is the one to notice the second, as the known-peers file does.

use std::sync::{Arc, OnceLock};

use rustls_pki_types::{CertificateDer, UnixTime};

use super::key::Identity;
use super::peer_id::PeerId;
use super::rotation::{self, Rotation};

/// A peer's keys, the present one and those before it; nothing is read or checked before it is asked for.
#[derive(Debug)]
pub(crate) struct Lineage {
    id: PeerId,
    /// What the peer has shown, its own certificate first; empty where it showed the key alone.
    chain: Arc<[CertificateDer<'static>]>,
    /// When it was shown.
    at: UnixTime,
    /// What the certificate holds, with the older id of each; not checked.
    claims: OnceLock<Vec<(PeerId, Rotation)>>,
    former: OnceLock<Vec<PeerId>>,
}

impl Lineage {
    pub(crate) fn new(id: PeerId, chain: Arc<[CertificateDer<'static>]>, at: UnixTime) -> Self {
        Self {
            id,
            chain,
            at,
            claims: OnceLock::new(),
            former: OnceLock::new(),
        }
    }

    /// By statements that came otherwise than in a certificate, from a peer that has proven its present key.
    #[cfg(any(test, feature = "mesh", feature = "sealed"))]
    pub(crate) fn of_statements(id: PeerId, statements: &[u8], at: UnixTime) -> Self {
        let lineage = Self::new(id, Arc::default(), at);
        let claims = with_ids(rotation::readable(statements));
        Self {
            claims: OnceLock::from(claims),
            ..lineage
        }
    }

    #[cfg(any(test, feature = "mesh", feature = "sealed"))]
    pub(crate) fn id(&self) -> PeerId {
        self.id
    }

    /// Whether this is its id, or one that it held before. Checks signatures only where the certificate names
    /// that id.
    pub(crate) fn is(&self, id: &PeerId) -> bool {
        let claimed = || self.claims().iter().any(|(old, _)| old == id);
        *id == self.id || (claimed() && self.former().contains(id))
    }

    /// The ids that it held before, oldest first.
    pub(crate) fn former(&self) -> &[PeerId] {
        self.former.get_or_init(|| {
            let mut proven = Vec::new();
            for (old, statement) in self.claims().iter().rev() {
                let new = statement.new_id();
                let leads_here = new == self.id || proven.contains(&new);
                let is_news = *old != self.id && !proven.contains(old);
                if leads_here && is_news && statement.check(self.at).is_ok() {
                    proven.push(*old);
                }
            }
            proven.reverse();
            proven
        })
    }

    fn claims(&self) -> &[(PeerId, Rotation)] {
        self.claims.get_or_init(|| {
            let read = self.chain.first().map(rotation::readable_in);
            with_ids(read.unwrap_or_default())
        })
    }
}

/// Each with its older id.
fn with_ids(statements: Vec<Rotation>) -> Vec<(PeerId, Rotation)> {
    let with_id = |statement: Rotation| (statement.old(), statement);
    statements.into_iter().map(with_id).collect()
}

impl Identity {
    /// Whether an id is this one's, or was before its key was replaced, as its certificate proves now.
    #[must_use]
    pub fn is(&self, id: &PeerId) -> bool {
        self.peer_id() == *id
            || Lineage::new(self.peer_id(), self.chain().into(), UnixTime::now()).is(id)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::KeyKind;
    use super::super::rotation::{MAX_STATEMENTS, RotationTimes};
    use super::*;

    const DAY: u64 = 24 * 60 * 60;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    fn identity() -> Identity {
        Identity::generate(KeyKind::Ed25519).unwrap()
    }

    /// A successor, by a statement that counts from the first to the last day given.
    fn successor(of: &Identity, from: u64, until: u64) -> Identity {
        let times = RotationTimes {
            issued: at(from * DAY),
            expires: at(until * DAY),
            overlap: at(until * DAY),
        };
        of.rotate(KeyKind::Ed25519, times).unwrap()
    }

    fn next(of: &Identity) -> Identity {
        successor(of, 1, 100)
    }

    fn lineage(of: &Identity, day: u64) -> Lineage {
        Lineage::new(of.peer_id(), of.chain().into(), at(day * DAY))
    }

    /// A certificate of this key, which it has signed itself, with these statements in it.
    fn carrying(statements: &[Vec<u8>]) -> (Identity, Lineage) {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let mut bytes = Vec::new();
        for statement in statements {
            bytes.extend(u16::try_from(statement.len()).unwrap().to_be_bytes());
            bytes.extend(statement);
        }
        let mut params = rcgen::CertificateParams::new(["x.cepa.alt".to_owned()]).unwrap();
        params.custom_extensions = vec![rcgen::CustomExtension::from_oid_content(
            &rotation::EXTENSION,
            bytes,
        )];
        let certificate = params.self_signed(&pair).unwrap();
        let identity = Identity::from_pem_pair(&certificate.pem(), &pair.serialize_pem()).unwrap();
        let lineage = lineage(&identity, 2);
        (identity, lineage)
    }

    /// The statement by which an identity came to be.
    fn statement_of(identity: &Identity) -> Vec<u8> {
        identity.rotations().last().unwrap().to_bytes()
    }

    /// A statement with another new key than was signed.
    fn to_key(mut statement: Vec<u8>, of: &Identity) -> Vec<u8> {
        // Both keys have the same length; the first stands behind the version and two bytes of length.
        let (key, old) = (of.public_key(), 1 + 2 + of.public_key().len());
        statement[old + 2..old + 2 + key.len()].copy_from_slice(key);
        statement
    }

    #[test]
    fn a_key_that_was_replaced_once_or_more_often_is_still_the_same_peer() {
        let a = identity();
        let b = next(&a);
        let c = next(&b);
        let (ida, idb, idc) = (a.peer_id(), b.peer_id(), c.peer_id());
        for (shown, former) in [(&a, &[][..]), (&b, &[ida]), (&c, &[ida, idb])] {
            let lineage = lineage(shown, 2);
            assert_eq!(lineage.former(), former);
            assert!(lineage.is(&shown.peer_id()));
            for id in [ida, idb, idc, identity().peer_id()] {
                let expected = id == shown.peer_id() || former.contains(&id);
                assert_eq!(lineage.is(&id), expected);
            }
        }
    }

    #[test]
    fn no_signature_is_checked_for_the_present_id_or_one_that_is_not_mentioned() {
        let a = identity();
        let lineage = lineage(&next(&a), 2);
        assert!(lineage.is(&lineage.id));
        assert!(lineage.claims.get().is_none(), "not even read");
        assert!(!lineage.is(&identity().peer_id()));
        assert!(lineage.former.get().is_none(), "read, not checked");
        assert!(lineage.is(&a.peer_id()));
        assert!(lineage.former.get().is_some());
    }

    #[test]
    fn a_statement_that_has_run_out_gives_nothing_and_takes_nothing_from_later_ones() {
        let a = identity();
        let b = successor(&a, 1, 3);
        let c = next(&b);
        let (ida, idb) = (a.peer_id(), b.peer_id());
        assert_eq!(lineage(&c, 0).former(), [], "made in the future");
        assert_eq!(lineage(&c, 3).former(), [ida, idb]);
        assert_eq!(lineage(&c, 4).former(), [idb]);
        assert_eq!(lineage(&c, 101).former(), []);
        // Nor can what lies behind it be reached.
        let d = successor(&successor(&next(&a), 1, 3), 1, 100);
        assert_eq!(lineage(&d, 4).former().len(), 1);
    }

    #[test]
    fn forged_and_foreign_and_unreadable_statements_give_nothing_and_take_nothing() {
        let a = identity();
        let b = next(&a);
        // Anybody can put anything into a certificate of its own, but not have it signed by others.
        let (thief, lineage) = carrying(&[statement_of(&b)]);
        assert_eq!(lineage.former(), []);
        let forged = to_key(statement_of(&b), &thief);
        let (_, carried) = carrying(std::slice::from_ref(&forged));
        let lineage = Lineage::new(thief.peer_id(), carried.chain, at(2 * DAY));
        assert_eq!(lineage.claims().len(), 1);
        assert_eq!(lineage.former(), []);
        assert!(!lineage.is(&a.peer_id()) && !lineage.is(&b.peer_id()));
        assert!(lineage.is(&thief.peer_id()));
        // Around a good one: what is damaged, of another version, of other keys, or not to be read.
        let good = b.rotations().remove(0);
        let mut other_version = good.to_bytes();
        other_version[0] = 2;
        let mut unsigned = statement_of(&b);
        let last = unsigned.len() - 1;
        unsigned[last] ^= 1;
        let junk = [
            unsigned,
            to_key(statement_of(&next(&identity())), &b),
            forged,
            other_version,
            vec![],
            vec![1, 2, 3],
            statement_of(&next(&identity())),
        ];
        for junk in junk {
            let [one, two] = [[junk.clone(), good.to_bytes()], [good.to_bytes(), junk]];
            for statements in [one, two] {
                let (_, carried) = carrying(&statements);
                let lineage = Lineage::new(b.peer_id(), Arc::clone(&carried.chain), at(2 * DAY));
                assert_eq!(lineage.former(), [a.peer_id()]);
            }
        }
    }

    #[test]
    fn statements_in_a_message_prove_what_those_in_a_certificate_do() {
        let a = identity();
        let b = next(&a);
        let c = next(&b);
        let of =
            |most, day| Lineage::of_statements(c.peer_id(), &c.statements(most), at(day * DAY));
        let all = of(4096, 2);
        assert_eq!(all.former(), [a.peer_id(), b.peer_id()]);
        assert!(all.is(&a.peer_id()) && all.id() == c.peer_id());
        assert_eq!(of(4096, 101).former(), [], "expired");
        // Where there is not room for all, those of the latest keys.
        let one = c.statements(4096).len() - 1;
        assert_eq!(of(one, 2).former(), [b.peer_id()]);
        assert_eq!((of(9, 2).former(), a.statements(4096)), (&[][..], vec![]));
        // Whoever copies them proves nothing.
        let thief = identity().peer_id();
        let copied = Lineage::of_statements(thief, &c.statements(4096), at(2 * DAY));
        assert_eq!(copied.former(), []);
    }

    #[test]
    fn each_side_of_a_fork_proves_it_and_neither_is_the_other() {
        let a = identity();
        let (b, thief) = (next(&a), next(&a));
        for (shown, other) in [(&b, &thief), (&thief, &b)] {
            let lineage = lineage(shown, 2);
            assert_eq!(lineage.former(), [a.peer_id()]);
            assert!(!lineage.is(&other.peer_id()));
        }
        // With both statements in one certificate the other side's leads nowhere.
        let (_, carried) = carrying(&[statement_of(&b), statement_of(&thief)]);
        let both = Lineage::new(b.peer_id(), carried.chain, at(2 * DAY));
        assert_eq!(both.former(), [a.peer_id()]);
        assert!(!both.is(&thief.peer_id()));
    }

    #[test]
    fn there_is_a_bound_and_a_raw_key_has_no_past() {
        let mut last = identity();
        let mut all = Vec::new();
        for _ in 0..10 {
            all.push(last.peer_id());
            last = next(&last);
        }
        let carried = lineage(&last, 2);
        assert_eq!(carried.former(), &all[all.len() - MAX_STATEMENTS..]);
        // More than any certificate of ours has: it is not read at all.
        let (_, lineage) = carrying(&vec![vec![0; 3]; 10_000]);
        assert_eq!(lineage.former(), []);
        assert!(lineage.claims().is_empty());
        let raw = Lineage::new(last.peer_id(), Arc::new([]), at(2 * DAY));
        assert!(raw.is(&last.peer_id()) && raw.former().is_empty());
    }
}
