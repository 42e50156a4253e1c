//! Where rustls asks whether the peer's certificate will do.
//!
//! The same questions are put to both roles, in this order, and each of them can only refuse:
//!
//! 1. Can the certificate be read, and is an RSA key of 2,048 to 4,096 bits?
//! 2. Do its dates hold? They are checked before the policy is asked: no policy may forget it. It can
//!    overlook them, for a peer whose very key it trusts.
//! 3. Is it the one peer that was asked for, where one was, or its successor?
//! 4. Does the trust policy accept the key?
//! 5. Once the peer has proven that it holds the key: does the policy still, having taken note of it?
//!
//! Beside that, and after a yes to the fourth, the policy is asked whether it lists this peer, or takes anybody.
//! No answer to that refuses.
//!
//! A raw public key (RFC 7250) comes the same way; it has no dates, and all else is the same.
//!
//! Names, issuers and signatures *on* the certificate mean nothing here: it is self-signed. What
//! counts is the signature over the handshake, which rustls has us check right afterwards and which
//! the provider's algorithms verify with the certificate's key.
//!
//! rustls turns our answer into an alert, and has few words, and a verifier belongs to a configuration, which all connections of a
//! layer share. So the reason itself travels beside the answer: a connection's [`Verdict`] is lent to the thread for as long as rustls
//! works for that connection ([`Verdict::during`]), and the verifier writes there. Where none is lent, nobody is accepted.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};

use super::shown::KeyForm;
use crate::Side;
use crate::identity::{Facts, PeerId, Presented, Refusal, TrustPolicy};

thread_local! {
    /// Of the connection for which rustls works on this thread.
    static NOTES: RefCell<Option<Notes>> = const { RefCell::new(None) };
}

/// What a connection is about, beside what rustls keeps. Those of one configuration share it.
#[derive(Debug)]
pub(crate) struct Asks {
    /// The protocols that we would speak inside this layer.
    pub(super) alpn: Arc<[Vec<u8>]>,
    /// The peer that we asked for by name.
    pub(super) asked: Option<PeerId>,
    /// The one peer that will do.
    pub(super) peer: Option<PeerId>,
    /// Who we are in this connection.
    pub(super) local_id: PeerId,
    /// How the peer shows its key.
    pub(super) peer_form: KeyForm,
    /// A client need not show a key at all.
    pub(super) anonymous: bool,
}

/// What was found out about one connection's peer.
#[derive(Debug)]
pub(crate) struct Verdict {
    notes: Notes,
    asks: Arc<Asks>,
}

/// See the head of this file. Of what is set more than once, the first counts.
#[derive(Debug, Default)]
struct Notes {
    refusal: Option<Box<Refusal>>,
    accepted: Option<Accepted>,
    /// Between the question about the certificate and that about the signature: what came beside it, and when it was judged.
    judged: Option<Box<(Vec<CertificateDer<'static>>, UnixTime)>>,
}

/// What is known of a peer that the policy takes; it may yet fail to prove that it holds the key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Accepted {
    /// When it was judged.
    pub(super) at: UnixTime,
    /// The policy lists it, or a key that it succeeds.
    pub(super) named: bool,
}

impl Default for Verdict {
    fn default() -> Self {
        Self::new(Arc::new(Asks {
            alpn: Arc::default(),
            asked: None,
            peer: None,
            local_id: PeerId::from_bytes([0; 32]),
            peer_form: KeyForm::Certificate,
            anonymous: false,
        }))
    }
}

impl Verdict {
    pub(super) fn new(asks: Arc<Asks>) -> Self {
        Self {
            notes: Notes::default(),
            asks,
        }
    }

    /// One of a connection that is about the same, of which nothing is known.
    pub(crate) fn blank(&self) -> Self {
        Self::new(Arc::clone(&self.asks))
    }

    /// Lets rustls work for this connection: what is asked meanwhile on this thread is about its peer. A policy that makes a
    /// handshake of its own meanwhile does not come between.
    pub(crate) fn during<T>(&mut self, work: impl FnOnce() -> T) -> T {
        /// Puts back what was lent before, whatever happens.
        struct Lent(Option<Notes>);
        impl Drop for Lent {
            fn drop(&mut self) {
                NOTES.set(self.0.take());
            }
        }
        let _before = Lent(NOTES.replace(Some(std::mem::take(&mut self.notes))));
        let done = work();
        self.notes = NOTES.take().unwrap_or_default();
        done
    }

    /// Why we refused the peer; none as long as we did not.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.notes.refusal.as_deref().cloned()
    }

    /// How the peer was accepted; none where it showed no key.
    pub(super) fn accepted(&self) -> Option<Accepted> {
        self.notes.accepted
    }

    /// What the connection is about.
    pub(crate) fn asks(&self) -> &Asks {
        &self.asks
    }
}

/// The verifier of all connections of one configuration, in either role.
#[derive(Debug)]
pub(super) struct Verifier {
    trust: Arc<dyn TrustPolicy>,
    algorithms: WebPkiSupportedAlgorithms,
    /// Whether the layer speaks TLS 1.2 as well.
    tls12: bool,
    /// The peer's role.
    role: Side,
    asks: Arc<Asks>,
}

impl Verifier {
    pub(super) fn new(
        trust: Arc<dyn TrustPolicy>,
        algorithms: WebPkiSupportedAlgorithms,
        tls12: bool,
        role: Side,
        asks: Arc<Asks>,
    ) -> Self {
        Self {
            trust,
            algorithms,
            tls12,
            role,
            asks,
        }
    }

    fn judge(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let mut accepted = None;
        let answer = self.shown(certificate, chain).and_then(|shown| {
            let presented = shown.presented(now, self.role);
            decide(&*self.trust, &presented, self.asks.peer)?;
            let named = names(&*self.trust, &presented);
            accepted = Some(Accepted { at: now, named });
            Ok(())
        });
        // rustls asks once.
        noted(|notes| {
            notes.accepted = notes.accepted.or(accepted);
            notes.judged.get_or_insert_with(|| {
                let chain = chain.iter().map(|c| c.clone().into_owned());
                Box::new((chain.collect(), now))
            });
        })?;
        answered(answer)
    }

    /// The signature over the handshake is right: the peer holds the key.
    fn proven(
        &self,
        certificate: &CertificateDer<'_>,
        valid: HandshakeSignatureValid,
    ) -> Result<HandshakeSignatureValid, Error> {
        // rustls asks about the certificate first; a signature without that is of no use.
        let Some(judged) = noted(|notes| notes.judged.take())? else {
            return Err(NOBODY);
        };
        let (chain, now) = *judged;
        let answer = self
            .shown(certificate, &chain)
            .and_then(|shown| proven(&*self.trust, &shown, now, self.role));
        answered(answer).map(|()| valid)
    }

    /// rustls hands a raw key over where a certificate would be.
    fn shown<'a>(
        &self,
        certificate: &'a CertificateDer<'a>,
        chain: &'a [CertificateDer<'a>],
    ) -> Result<Shown<'a>, Refusal> {
        match self.asks.peer_form {
            KeyForm::Certificate => Shown::certificate(certificate, chain),
            KeyForm::RawPublicKey => Shown::key(certificate),
        }
    }
}

/// The answer of a verifier that was asked outside of [`Verdict::during`], or out of order.
const NOBODY: Error = Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);

/// Does something with the notes of the connection that is being worked for.
fn noted<T>(note: impl FnOnce(&mut Notes) -> T) -> Result<T, Error> {
    NOTES.with_borrow_mut(|notes| notes.as_mut().map(note).ok_or(NOBODY))
}

/// The answer for rustls; why it is a no is noted.
fn answered(answer: Result<(), Refusal>) -> Result<(), Error> {
    let Err(refusal) = answer else {
        return Ok(());
    };
    let error = to_rustls(&refusal);
    noted(|notes| {
        notes.refusal.get_or_insert_with(|| Box::new(refusal));
    })?;
    Err(error)
}

/// What a peer has shown.
pub(super) struct Shown<'a> {
    facts: Facts,
    certificate: Option<&'a CertificateDer<'a>>,
    chain: &'a [CertificateDer<'a>],
}

impl<'a> Shown<'a> {
    pub(super) fn certificate(
        certificate: &'a CertificateDer<'a>,
        chain: &'a [CertificateDer<'a>],
    ) -> Result<Self, Refusal> {
        Ok(Self {
            facts: Facts::read(certificate).map_err(|problem| Refusal::Unusable { problem })?,
            certificate: Some(certificate),
            chain,
        })
    }

    fn key(key: &[u8]) -> Result<Self, Refusal> {
        Ok(Self {
            facts: Facts::of_key(key).map_err(|problem| Refusal::Unusable { problem })?,
            certificate: None,
            chain: &[],
        })
    }

    pub(super) fn presented(&self, now: UnixTime, role: Side) -> Presented<'a> {
        let dates = (self.facts.not_before, self.facts.not_after);
        Presented::new(
            self.facts.id,
            self.certificate,
            self.chain,
            dates,
            now,
            role,
        )
    }
}

/// All questions about what was shown, in their order.
pub(super) fn decide(
    trust: &dyn TrustPolicy,
    presented: &Presented<'_>,
    asked_for: Option<PeerId>,
) -> Result<(), Refusal> {
    let &Presented { id, now, .. } = presented;
    // Both ends belong to the period (RFC 5280 section 4.1.2.5).
    let dates = if now > presented.not_after {
        Err(Refusal::Expired {
            presented: id,
            not_after: presented.not_after,
        })
    } else if now < presented.not_before {
        Err(Refusal::NotYetValid {
            presented: id,
            not_before: presented.not_before,
            now,
        })
    } else {
        Ok(())
    };
    if dates.is_err() && !guarded(|| trust.overlooks_dates(presented)).unwrap_or(false) {
        return dates;
    }
    // Or the one whom that one has named as its successor.
    let is = |asked: PeerId| {
        let path = || presented.path_from(|id| id == asked);
        asked == id || path().is_ok_and(|path| !path.is_empty())
    };
    if let Some(expected) = asked_for.filter(|asked| !is(*asked)) {
        return Err(Refusal::WrongPeer {
            expected: vec![expected],
            presented: id,
        });
    }
    ask(presented, || trust.decide(presented))
}

/// Whether the policy, which has accepted the peer, lists it. A panic is a no.
pub(super) fn names(trust: &dyn TrustPolicy, presented: &Presented<'_>) -> bool {
    guarded(|| trust.names(presented)).unwrap_or(false)
}

/// The last question, when the peer has proven that it holds the key.
pub(super) fn proven(
    trust: &dyn TrustPolicy,
    shown: &Shown<'_>,
    now: UnixTime,
    role: Side,
) -> Result<(), Refusal> {
    let presented = shown.presented(now, role);
    ask(&presented, || trust.proven(&presented))
}

fn ask(
    presented: &Presented<'_>,
    question: impl FnOnce() -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    guarded(question).unwrap_or_else(|| {
        Err(Refusal::PolicyFailed {
            presented: presented.id,
            reason: "the trust policy panicked".into(),
        })
    })
}

/// The policy's answer, if it did not panic. A panic must not pass for consent, nor tear down a task
/// that serves other peers too. What the policy leaves behind half-done is its own; we only take note
/// that it did not consent.
pub(super) fn guarded<T>(question: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(question)).ok()
}

/// The error that makes rustls send the alert that fits best.
fn to_rustls(refusal: &Refusal) -> Error {
    Error::InvalidCertificate(match refusal {
        // certificate_expired (45) is for both ends of the period, RFC 8446 section 6.2.
        Refusal::Expired { .. } => CertificateError::Expired,
        Refusal::NotYetValid { .. } => CertificateError::NotValidYet,
        // access_denied (49): the certificate is fine, its holder may not.
        Refusal::NotAuthorised { .. } => CertificateError::ApplicationVerificationFailure,
        // bad_certificate (42)
        Refusal::Unusable { .. } => CertificateError::BadEncoding,
        // certificate_unknown (46): "some other (unspecified) issue". It tells a stranger the least.
        _ => CertificateError::Other(OtherError(Arc::new(refusal.clone()))),
    })
}

/// What rustls asks of a client's verifier and of a server's alike.
macro_rules! both_sides {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, cert, dss, &self.algorithms)
                .and_then(|valid| self.proven(cert, valid))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let valid = match self.asks.peer_form {
                KeyForm::Certificate => {
                    verify_tls13_signature(message, cert, dss, &self.algorithms)
                }
                KeyForm::RawPublicKey => {
                    let key = SubjectPublicKeyInfoDer::from(cert.as_ref());
                    verify_tls13_signature_with_raw_key(message, &key, dss, &self.algorithms)
                }
            };
            valid.and_then(|valid| self.proven(cert, valid))
        }

        /// The signatures that we can check. PKCS #1 v1.5 ones are for TLS 1.2 (RFC 8446 section 4.2.3);
        /// naming them where that is not spoken would only be bytes.
        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            let mut schemes = self.algorithms.supported_schemes();
            if !self.tls12 {
                schemes.retain(|scheme| {
                    !matches!(
                        scheme,
                        SignatureScheme::RSA_PKCS1_SHA256
                            | SignatureScheme::RSA_PKCS1_SHA384
                            | SignatureScheme::RSA_PKCS1_SHA512
                    )
                });
            }
            schemes
        }

        fn requires_raw_public_keys(&self) -> bool {
            self.asks.peer_form == KeyForm::RawPublicKey
        }
    };
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(end_entity, intermediates, now)
            .map(|()| ServerCertVerified::assertion())
    }

    both_sides!();
}

impl ClientCertVerifier for Verifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        !self.asks.anonymous
    }

    /// No names of authorities: any self-signed certificate may be shown.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(end_entity, intermediates, now)
            .map(|()| ClientCertVerified::assertion())
    }

    both_sides!();
}
