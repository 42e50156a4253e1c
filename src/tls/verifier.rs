//! Where rustls asks whether the peer's certificate will do.
//!
//! The same questions are put to both roles, in this order, and each of them can only refuse:
//!
//! 1. Can the certificate be read, and is an RSA key of 2,048 to 4,096 bits?
//! 2. Do its dates hold? They are checked before the policy is asked: no policy may forget it. It can
//!    overlook them, for a peer whose very key it trusts.
//! 3. Does the trust policy accept the key?
//! 4. Once the peer has proven that it holds the key: does the policy still, having taken note of it?
//!
//! Names, issuers and signatures *on* the certificate mean nothing here: it is self-signed. What
//! counts is the signature over the handshake, which rustls has us check right afterwards and which
//! the provider's algorithms verify with the certificate's key.
//!
//! rustls turns our answer into an alert, and has few words: the reason itself travels beside it in
//! a [`Verdict`], one for each connection, which is why each connection has a verifier of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};

use crate::Side;
use crate::identity::{Facts, Presented, Refusal, TrustPolicy};

/// What one connection's verifier found out: the refusal, if it was one.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    refusal: Arc<OnceLock<Refusal>>,
    alpn: Arc<[Vec<u8>]>,
}

impl Verdict {
    pub(super) fn new(alpn: Arc<[Vec<u8>]>) -> Self {
        Self {
            refusal: Arc::default(),
            alpn,
        }
    }

    /// Why we refused the peer; none as long as we did not.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.refusal.get().cloned()
    }

    /// The protocols that we would have spoken inside this layer.
    pub(crate) fn alpn(&self) -> &[Vec<u8>] {
        &self.alpn
    }
}

/// The verifier of one connection, in either role.
#[derive(Debug)]
pub(super) struct Verifier {
    trust: Arc<dyn TrustPolicy>,
    algorithms: WebPkiSupportedAlgorithms,
    /// The peer's role.
    role: Side,
    verdict: Verdict,
    /// What came beside the certificate, and when it was judged.
    judged: OnceLock<(Vec<CertificateDer<'static>>, UnixTime)>,
}

impl Verifier {
    pub(super) fn new(
        trust: Arc<dyn TrustPolicy>,
        algorithms: WebPkiSupportedAlgorithms,
        role: Side,
        verdict: Verdict,
    ) -> Self {
        Self {
            trust,
            algorithms,
            role,
            verdict,
            judged: OnceLock::new(),
        }
    }

    fn judge(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let answer = decide(&*self.trust, certificate, chain, now, self.role);
        // Only the first counts; rustls asks once.
        let _ = self
            .judged
            .set((chain.iter().map(|c| c.clone().into_owned()).collect(), now));
        self.answer(answer)
    }

    /// The signature over the handshake is right: the peer holds the key.
    fn proven(
        &self,
        certificate: &CertificateDer<'_>,
        valid: HandshakeSignatureValid,
    ) -> Result<HandshakeSignatureValid, Error> {
        // rustls asks about the certificate first; a signature without that is of no use.
        let Some((chain, now)) = self.judged.get() else {
            return Err(Error::InvalidCertificate(
                CertificateError::ApplicationVerificationFailure,
            ));
        };
        let answer = proven(&*self.trust, certificate, chain, *now, self.role);
        self.answer(answer).map(|()| valid)
    }

    fn answer(&self, answer: Result<(), Refusal>) -> Result<(), Error> {
        answer.map_err(|refusal| {
            let error = to_rustls(&refusal);
            let _ = self.verdict.refusal.set(refusal);
            error
        })
    }
}

/// All questions about a presented certificate, in their order.
pub(super) fn decide(
    trust: &dyn TrustPolicy,
    certificate: &CertificateDer<'_>,
    chain: &[CertificateDer<'_>],
    now: UnixTime,
    role: Side,
) -> Result<(), Refusal> {
    let facts = Facts::read(certificate).map_err(|problem| Refusal::Unusable { problem })?;
    let presented = presented(&facts, certificate, chain, now, role);
    // Both ends belong to the period (RFC 5280 section 4.1.2.5).
    let dates = if now > facts.not_after {
        Err(Refusal::Expired {
            presented: facts.id,
            not_after: facts.not_after,
        })
    } else if now < facts.not_before {
        Err(Refusal::NotYetValid {
            presented: facts.id,
            not_before: facts.not_before,
            now,
        })
    } else {
        Ok(())
    };
    if dates.is_err() && !guarded(|| trust.overlooks_dates(&presented)).unwrap_or(false) {
        return dates;
    }
    ask(&presented, || trust.decide(&presented))
}

/// The last question, when the peer has proven that it holds the key.
pub(super) fn proven(
    trust: &dyn TrustPolicy,
    certificate: &CertificateDer<'_>,
    chain: &[CertificateDer<'_>],
    now: UnixTime,
    role: Side,
) -> Result<(), Refusal> {
    let facts = Facts::read(certificate).map_err(|problem| Refusal::Unusable { problem })?;
    let presented = presented(&facts, certificate, chain, now, role);
    ask(&presented, || trust.proven(&presented))
}

fn presented<'a>(
    facts: &Facts,
    certificate: &'a CertificateDer<'a>,
    chain: &'a [CertificateDer<'a>],
    now: UnixTime,
    role: Side,
) -> Presented<'a> {
    let dates = (facts.not_before, facts.not_after);
    Presented::new(facts.id, certificate, chain, dates, now, role)
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
fn guarded<T>(question: impl FnOnce() -> T) -> Option<T> {
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
        verify_tls13_signature(message, cert, dss, &self.algorithms)
            .and_then(|valid| self.proven(cert, valid))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        true
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
        verify_tls13_signature(message, cert, dss, &self.algorithms)
            .and_then(|valid| self.proven(cert, valid))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
