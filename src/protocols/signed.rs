//! A statement and who has signed it, as messages carry them.
//!
//! Signed are a name of its own for each kind of statement (ended by a zero byte) and the statement's bytes as they
//! are carried: nothing is written anew to be checked, and no signature passes for one of another kind.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use sha2::{Digest as _, Sha256};

use crate::identity::{Identity, Signature};

/// A statement's bytes and the signature.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Signed {
    #[n(0)]
    statement: ByteVec,
    /// SignatureScheme (RFC 8446, section 4.2.3).
    #[n(1)]
    scheme: u16,
    #[n(2)]
    signature: ByteVec,
}

impl Signed {
    /// Signs; the error is one line.
    pub(super) fn sign(by: &Identity, domain: &[u8], statement: Vec<u8>) -> Result<Self, String> {
        let signature = by.sign(&[domain, &statement].concat());
        let signature = signature.map_err(|error| error.to_string())?;
        Ok(Self {
            statement: statement.into(),
            scheme: signature.scheme,
            signature: signature.bytes.into(),
        })
    }

    pub(super) fn statement(&self) -> &[u8] {
        &self.statement
    }

    /// Whether the key of this SubjectPublicKeyInfo has signed it.
    pub(super) fn is_by(&self, key: &[u8], domain: &[u8]) -> bool {
        let signature = Signature {
            scheme: self.scheme,
            bytes: self.signature.to_vec(),
        };
        signature.verifies(key, &[domain, &self.statement].concat())
    }

    /// What the statement is known by: the SHA-256 of what is signed.
    pub(super) fn name(&self, domain: &[u8]) -> [u8; 32] {
        let hash = Sha256::new().chain_update(domain);
        hash.chain_update(&*self.statement).finalize().into()
    }
}
