//! Where rustls asks whether the peer's certificate will do.
//!
//! The same questions are put to both roles, in this order, and each of them can only refuse:
//!
//! 1. Can the certificate be read, and is an RSA key of 2,048 to 4,096 bits?
//! 2. Do its dates hold? They are checked before the policy is asked: no policy may forget it.
//! 3. Does the trust policy accept the key?
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
        }
    }

    fn judge(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        decide(&*self.trust, certificate, chain, now, self.role).map_err(|refusal| {
            let error = to_rustls(&refusal);
            // Only the first counts; rustls asks once.
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
    // Both ends belong to the period (RFC 5280 section 4.1.2.5).
    if now > facts.not_after {
        return Err(Refusal::Expired {
            presented: facts.id,
            not_after: facts.not_after,
        });
    }
    if now < facts.not_before {
        return Err(Refusal::NotYetValid {
            presented: facts.id,
            not_before: facts.not_before,
            now,
        });
    }
    let presented = Presented::new(
        facts.id,
        certificate,
        chain,
        (facts.not_before, facts.not_after),
        now,
        role,
    );
    // A panic must not pass for consent, nor tear down a task that serves other peers too. What the
    // policy leaves behind half-done is its own; we only take note that it did not consent.
    catch_unwind(AssertUnwindSafe(|| trust.decide(&presented))).unwrap_or_else(|_| {
        Err(Refusal::PolicyFailed {
            presented: facts.id,
            reason: "the trust policy panicked".into(),
        })
    })
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
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
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
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
